//! What a refused handshake costs the listener, beside one that a stranger's plain chain costs.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CustomExtension, DnType};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::handshakes::{TLS13, careless};
use super::issue::*;
use crate::error::VerifyError;

/// Handshakes of each kind. The median does not see what else the machine does.
const ROUNDS: usize = 15;
/// How much more than the honest run a hostile one may cost.
const TIMES: u32 = 3;

/// Time that this thread has had on a processor.
fn on_cpu() -> Duration {
    // The kernel adds up what has passed when a thread is put aside.
    std::thread::yield_now();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split_whitespace().next().unwrap().parse().unwrap())
}

/// A handshake that the server refuses: its time and its reason.
fn refused(server: &Arc<ServerConfig>, shown: &Leaf) -> (Duration, &'static str) {
    let name = ServerName::try_from("proxy.mesh.internal").unwrap();
    let mut client = ClientConnection::new(Arc::new(careless(Some(shown), TLS13)), name).unwrap();
    let begun = on_cpu();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut spent = on_cpu() - begun;
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let begun = on_cpu();
        let (mut rest, mut answer, mut error) = (bytes.as_slice(), Vec::new(), None);
        while error.is_none() && !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            error = server.process_new_packets().err();
        }
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        spent += on_cpu() - begun;
        if let Some(error) = error {
            return (spent, VerifyError::of(&error).unwrap_or_else(|| panic!("{error}")).label());
        }
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    panic!("the handshake was not refused");
}

fn with(leaf: &Leaf, above: &[&str]) -> Leaf {
    Leaf { pem: format!("{}{}", leaf.pem, above.concat()), ..leaf.clone() }
}

fn fat(bytes: usize) -> impl Fn(&mut CertificateParams) {
    move |params| params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![7; bytes]))
}

/// Each of these CAs could have issued every other, by their names.
fn clique(name: &str, count: usize, bytes: usize) -> Leaf {
    let cas: Vec<_> = (0..count).map(|_| authority_with(name, fat(bytes))).collect();
    let leaf = cas[0].leaf(|params| {
        shape_node(params, "proxy", "p");
        fat(bytes)(params);
    });
    with(&leaf, &cas.iter().map(|ca| ca.pem.as_str()).collect::<Vec<_>>())
}

fn shaped(shape: impl Fn(&mut CertificateParams)) -> Leaf {
    authority("another").leaf(|params| {
        shape_node(params, "proxy", "p");
        shape(params);
    })
}

fn hostile() -> Vec<(&'static str, Leaf)> {
    let stranger = authority("another");
    let leaf = stranger.node("proxy", "p");
    let many: Vec<_> = (0..40).map(|n| authority(&format!("ca {n}")).pem).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let names = |count: usize| {
        move |params: &mut CertificateParams| {
            params.subject_alt_names.extend((0..count).map(|n| dns(&format!("{n}.example.org"))));
        }
    };
    vec![
        ("a clique of strangers", clique("another", 4, 0)),
        ("a fat clique of strangers", clique("another", 4, 7_000)),
        ("a clique of our CA's name", clique("mesh ca", 4, 0)),
        ("a fat clique of our CA's name", clique("mesh ca", 4, 7_000)),
        ("a clique of nine", clique("mesh ca", 9, 4_000)),
        ("a long chain", with(&leaf, &many[..14])),
        ("a longer chain", with(&leaf, &many)),
        ("duplicates", with(&leaf, &[stranger.pem.as_str(); 15])),
        ("many duplicates", with(&leaf, &[stranger.pem.as_str(); 60])),
        ("a fat leaf", shaped(fat(50_000))),
        ("a leaf of many names", shaped(names(240))),
        ("a leaf of too many names", shaped(names(2_000))),
        (
            "a leaf of many extensions",
            shaped(|params| {
                (0..300).for_each(|n| {
                    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, n], vec![5, 0]));
                })
            }),
        ),
        (
            "a leaf of a long subject",
            shaped(|params| {
                (0..60).for_each(|n| {
                    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, n]), "x".repeat(25))
                });
            }),
        ),
        ("a leaf of a long serial number", shaped(|params| params.serial_number = Some(vec![1; 30_000].into()))),
    ]
}

#[tokio::test]
async fn invariant_8_refusals_cost_like_a_strangers() {
    let ca = authority("mesh ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    let server = Arc::clone(&store.current().server);
    let stranger = authority("another");
    let middle = stranger.intermediate("middle");
    let honest = with(&middle.node("proxy", "p"), &[&middle.pem]);
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut over, began) = (Vec::new(), SystemTime::now());
    for (kind, shown) in hostile() {
        let (mut beside, mut times, mut label) = (Vec::new(), Vec::new(), "");
        for _ in 0..ROUNDS {
            beside.push(refused(&server, &honest).0);
            let (time, told) = refused(&server, &shown);
            (times, label) = ([times, vec![time]].concat(), told);
        }
        let (beside, time) = (median(&mut beside), median(&mut times));
        println!("{kind} ({label}): {time:?} beside {beside:?}");
        if time > beside * TIMES {
            over.push(format!("{kind} ({label}): {time:?} beside {beside:?}"));
        }
    }
    assert!(over.is_empty(), "{over:#?} after {:?}", began.elapsed());
}
