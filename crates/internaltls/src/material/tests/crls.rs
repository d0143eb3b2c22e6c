//! Revocation lists: whose they are, how old they may be, which kinds are none.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::issue::*;
use crate::clock::{Clock as _, TestClock};
use crate::config::{Files, Reload};
use crate::error::{LoadError, Reason};
use crate::foreign::chain;
use crate::material::{Reloaded, Store};
use crate::verify::{CertificateFacts, PeerSide};

const HOUR: Duration = Duration::from_secs(3_600);

/// A proxy with a list of its CA that is due in an hour, good for half an hour more, and a clock.
struct Stage {
    ca: Authority,
    folder: Folder,
    clock: Arc<TestClock>,
    due: SystemTime,
}

impl Stage {
    fn new() -> Self {
        let ca = authority("mesh ca");
        let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
        let clock = Arc::new(TestClock::at(SystemTime::now()));
        let due = clock.now() + HOUR;
        let stage = Self { ca, folder, clock, due };
        stage.folder.put("crl.pem", stage.ca.crl(&[], stage.due));
        stage
    }

    fn files(&self) -> Files {
        Files { crl: Some(self.folder.path("crl.pem")), ..self.folder.files() }
    }

    async fn open(&self) -> Result<Arc<Store>, LoadError> {
        let reload = Reload { watch: false, crl_grace: HOUR / 2, ..quick() };
        open_with(mesh("proxy", "proxy-1"), self.files(), reload, self.clock.clone()).await
    }

    fn late_by(&self, by: Duration) {
        self.clock.set(self.due + by);
    }
}

fn vouch(store: &Store, chain: &[CertificateDer<'_>]) -> Result<(), Reason> {
    store.current().vouch(chain, PeerSide::Client, None).map(drop).map_err(|error| error.reason)
}

fn serial(leaf: &Leaf) -> Vec<u8> {
    let hex = CertificateFacts::read(&leaf.der).unwrap().serial;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_good_until_its_grace_is_over() {
    let stage = Stage::new();
    let (good, bad) = (stage.ca.node("proxy", "p"), stage.ca.node("proxy", "q"));
    stage.folder.put("crl.pem", stage.ca.crl(&[serial(&bad)], stage.due));
    let store = stage.open().await.unwrap();
    let seen = |leaf: &Leaf| vouch(&store, std::slice::from_ref(&leaf.der));
    let state = || store.status().crls[0].state;
    assert_eq!(state(), "fresh");
    for late in [Duration::ZERO, HOUR / 2 - Duration::from_secs(1)] {
        stage.late_by(late);
        assert_eq!(state(), "late");
        assert_eq!((seen(&good), seen(&bad)), (Ok(()), Err(Reason::Revoked)), "{late:?}");
    }
    stage.late_by(HOUR / 2);
    assert_eq!(state(), "too-old");
    let told = seen(&good).unwrap_err();
    assert!(matches!(&told, Reason::StaleCrl { issuer, .. } if issuer == "CN=mesh ca"), "{told:?}");
    assert_eq!(told.label(), "stale-crl");
    assert!(told.to_string().contains("internaltls.crl.graceSeconds"), "{told}");
    assert_eq!(seen(&bad), Err(Reason::Revoked), "whom it lists it still lists");
    let foreign = authority("another").node("proxy", "p");
    assert_eq!(seen(&foreign), Err(Reason::UnknownIssuer), "a reason of its own is not hidden");
}

#[tokio::test]
async fn invariant_1_no_start_with_a_list_that_is_too_old() {
    let stage = Stage::new();
    stage.late_by(HOUR / 2);
    let told = chain(&stage.open().await.unwrap_err());
    assert!(told.contains("CN=mesh ca") && told.contains("past its next update"), "{told}");
    stage.late_by(HOUR / 3);
    stage.open().await.unwrap();
}

#[tokio::test]
async fn a_fresh_list_is_taken_while_it_runs() {
    let stage = Stage::new();
    let store = stage.open().await.unwrap();
    let peer = stage.ca.node("proxy", "p");
    stage.late_by(HOUR);
    assert!(vouch(&store, std::slice::from_ref(&peer.der)).is_err());
    stage.folder.put("crl.pem", stage.ca.crl(&[], stage.due + 3 * HOUR));
    assert_eq!(store.reload().await.unwrap(), Reloaded::Published(2));
    vouch(&store, std::slice::from_ref(&peer.der)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_lists_is_followed() {
    let stage = Stage::new();
    let lists = stage.folder.path("lists");
    std::fs::create_dir(&lists).unwrap();
    write(&lists.join("1.pem"), stage.ca.crl_from(stage.clock.now() - 2 * HOUR, stage.due));
    let files = Files { crl: Some(lists.clone()), ..stage.folder.files() };
    let store = open_with(mesh("proxy", "proxy-1"), files, quick(), stage.clock.clone()).await.unwrap();
    let peer = stage.ca.node("proxy", "p");
    let seen = async || vouch(&store, std::slice::from_ref(&peer.der));
    let becomes = async |expected: Result<(), Reason>| {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while seen().await != expected {
            assert!(tokio::time::Instant::now() < end, "{expected:?}: still {:?}", seen().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    becomes(Ok(())).await;
    // One file more, one file less, and one more again; nobody asks for a reload.
    write(&lists.join("2.pem"), stage.ca.crl(&[serial(&peer)], stage.due));
    becomes(Err(Reason::Revoked)).await;
    std::fs::remove_file(lists.join("2.pem")).unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !store.status().lists.findings.iter().any(|finding| finding.contains("older than the one in force")) {
        assert!(tokio::time::Instant::now() < end, "{:#?}", store.status().lists);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen().await, Err(Reason::Revoked));
    write(&lists.join("3.pem"), stage.ca.crl_from(stage.clock.now(), stage.due));
    becomes(Ok(())).await;
}

/// One that is superseded may be due later than the newer: it must not come back when that is too old.
#[tokio::test]
async fn a_superseded_list_does_not_come_back() {
    let stage = Stage::new();
    let lax = list_of(&stage.ca, "", 30);
    stage.folder.put("crl.pem", format!("{lax}{}", stage.ca.crl_from(stage.clock.now() + HOUR / 2, stage.due)));
    let store = stage.open().await.unwrap();
    stage.late_by(HOUR);
    let peer = stage.ca.node("proxy", "p");
    let told = vouch(&store, std::slice::from_ref(&peer.der)).unwrap_err();
    assert!(matches!(told, Reason::StaleCrl { .. }), "{told:?}");
}

#[tokio::test]
async fn the_list_of_an_intermediate_is_asked_too() {
    let stage = Stage::new();
    let middle = stage.ca.intermediate("middle");
    let peer = middle.node("proxy", "p");
    let sent = [peer.der.clone(), middle.der.clone()];
    let later = stage.due + 9 * HOUR;
    let store = stage.open().await.unwrap();
    assert!(matches!(vouch(&store, &sent), Err(Reason::UnknownRevocation(_))), "it has no list yet");
    stage.folder.put("crl.pem", format!("{}{}", stage.ca.crl(&[], later), middle.crl(&[], stage.due)));
    assert_eq!(store.reload().await.unwrap(), Reloaded::Published(2));
    vouch(&store, &sent).unwrap();
    stage.late_by(HOUR);
    let told = vouch(&store, &sent).unwrap_err();
    assert!(matches!(&told, Reason::StaleCrl { issuer, .. } if issuer == "CN=middle"), "{told:?}");
}

/// Anybody can write a list in any name: it makes no revocation of what is refused anyway.
#[tokio::test]
async fn a_list_that_no_ca_of_ours_signed_says_nothing() {
    let stage = Stage::new();
    let stranger = authority("stranger");
    let leaf = stranger.node("proxy", "p");
    let lists = format!("{}{}", stranger.crl(&[serial(&leaf)], stage.due), stage.ca.crl(&[], stage.due));
    stage.folder.put("crl.pem", lists);
    let store = stage.open().await.unwrap();
    assert_eq!(vouch(&store, std::slice::from_ref(&leaf.der)), Err(Reason::UnknownIssuer));
}

/// Whichever of the two is seen first.
#[tokio::test]
async fn invariant_5_a_leaf_revoked_as_its_ca_leaves_is_revoked() {
    for lists_first in [true, false] {
        let stage = Stage::new();
        let leaving = authority("leaving");
        let leaf = leaving.node("proxy", "p");
        let lists = |listed: &[Vec<u8>]| {
            let of_leaving = leaving.numbered_crl(if listed.is_empty() { 1 } else { 2 }, listed, stage.due);
            format!("{of_leaving}{}", stage.ca.crl(&[], stage.due))
        };
        stage.folder.put("ca.pem", format!("{}{}", stage.ca.pem, leaving.pem));
        stage.folder.put("crl.pem", lists(&[]));
        let store = stage.open().await.unwrap();
        vouch(&store, std::slice::from_ref(&leaf.der)).unwrap();
        stage.folder.put("ca.pem", &stage.ca.pem);
        stage.folder.put("crl.pem", lists(&[serial(&leaf)]));
        if !lists_first {
            store.look_at_pair().await.unwrap();
        }
        let _ = store.look_at_lists().await;
        store.look_at_pair().await.unwrap();
        assert_eq!(store.status().cas.len(), 1);
        assert_eq!(vouch(&store, std::slice::from_ref(&leaf.der)), Err(Reason::Revoked), "{lists_first}");
    }
}

/// As after a roll-over by the same scripts: webpki alone would ask one list for both.
#[tokio::test]
async fn of_two_cas_of_one_name_each_is_asked_for_its_own() {
    let stage = Stage::new();
    let namesake = authority("mesh ca");
    let (old, new, listed) = (stage.ca.node("proxy", "o"), namesake.node("proxy", "n"), namesake.node("proxy", "l"));
    stage.folder.put("ca.pem", format!("{}{}", stage.ca.pem, namesake.pem));
    let later = stage.due + HOUR;
    let (first, second) = (stage.ca.crl(&[], later), namesake.crl(&[serial(&listed)], later));
    for lists in [format!("{first}{second}"), format!("{second}{first}")] {
        stage.folder.put("crl.pem", lists);
        let store = stage.open().await.unwrap();
        let seen = |leaf: &Leaf| vouch(&store, std::slice::from_ref(&leaf.der));
        assert_eq!([seen(&old), seen(&new), seen(&listed)], [Ok(()), Ok(()), Err(Reason::Revoked)]);
        let stranger = authority("mesh ca").node("proxy", "s");
        assert!(matches!(seen(&stranger), Err(Reason::UnknownIssuer | Reason::BadSignature)));
    }
}

/// What an old CA of the same name left behind, newer than our own.
#[tokio::test]
async fn a_list_of_a_namesake_that_has_gone_is_not_asked() {
    let stage = Stage::new();
    let gone = authority("mesh ca").crl_from(stage.clock.now() - HOUR / 4, stage.due);
    stage.folder.put("crl.pem", format!("{gone}{}", stage.ca.crl(&[], stage.due)));
    let store = stage.open().await.unwrap();
    let peer = stage.ca.node("proxy", "p");
    vouch(&store, std::slice::from_ref(&peer.der)).unwrap();
}

/// The list is of the key: a CA whose certificate was renewed needs no other, whichever of the two has expired.
#[tokio::test]
async fn two_certificates_of_one_ca_share_its_list() {
    let stage = Stage::new();
    let ended = stage.clock.now() - Duration::from_secs(60);
    let old = stage.ca.again("mesh ca", |params| params.not_after = ended.into());
    let (good, bad) = (stage.ca.node("proxy", "p"), stage.ca.node("proxy", "q"));
    stage.folder.put("crl.pem", stage.ca.crl(&[serial(&bad)], stage.due));
    for bundle in [format!("{old}{}", stage.ca.pem), format!("{}{old}", stage.ca.pem)] {
        stage.folder.put("ca.pem", bundle);
        let store = stage.open().await.unwrap();
        let seen = |leaf: &Leaf| vouch(&store, std::slice::from_ref(&leaf.der));
        assert_eq!((seen(&good), seen(&bad)), (Ok(()), Err(Reason::Revoked)));
    }
}

/// A list signed by openssl, with one more extension and good for so many days.
fn list_of(ca: &Authority, extension: &str, days: u32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let put = |name: &str, text: &str| write(&dir.path().join(name), text);
    put("ca.pem", &ca.pem);
    put("ca.key", &ca.issuer.key().serialize_pem());
    put("index.txt", "");
    put("number", "01\n");
    let config = format!(
        "[ca]\ndefault_ca = x\n[x]\ndatabase = {}\ncrlnumber = {}\ndefault_md = sha256\n\
         [ext]\nauthorityKeyIdentifier = keyid\n{extension}\n",
        path("index.txt"),
        path("number"),
    );
    put("config", &config);
    let (config, cert, key, days) = (path("config"), path("ca.pem"), path("ca.key"), days.to_string());
    let args = ["-config", &config, "-cert", &cert, "-keyfile", &key, "-crldays", &days, "-crlexts", "ext"];
    openssl(&[&["ca", "-gencrl"], &args[..]].concat(), "")
}

#[tokio::test]
async fn delta_and_indirect_lists_are_errors() {
    let stage = Stage::new();
    stage.folder.put("crl.pem", list_of(&stage.ca, "", 1));
    stage.open().await.unwrap();
    let cases = [
        ("2.5.29.27 = critical,DER:020101", "it is a delta CRL"),
        ("2.5.29.28 = critical,DER:30038401FF", "it is an indirect CRL"),
        ("1.2.3.4 = critical,DER:0500", "a critical extension that is not understood"),
    ];
    for (extension, expected) in cases {
        stage.folder.put("crl.pem", list_of(&stage.ca, extension, 1));
        let error = stage.open().await.map(|store| store.status()).unwrap_err();
        let told = chain(&error);
        assert!(matches!(error, LoadError::BadCrl { .. }) && told.contains(expected), "{told}");
        assert!(told.contains("internaltls.crlPath") && told.contains("publish a complete, direct"), "{told}");
    }
}
