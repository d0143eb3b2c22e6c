//! A CRL as public CAs have them: 105,000 entries, made by openssl. What it costs is measured beside what goes without.
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::issue::*;
use crate::config::Files;
use crate::verify::{CertificateFacts, Crl, PeerSide};

const ENTRIES: usize = 105_000;
/// Names the folder of files to the process whose memory is measured.
const MEASURED: &str = "INTERNALTLS_TEST_LARGE_CRL";

/// A list of so many serial numbers of 20 octets, and of `listed`, signed by openssl.
fn list(ca: &Authority, listed: &Leaf) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let serial: String = facts(listed).raw_serial.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02X}");
        hex
    });
    let mut index = String::new();
    let entry = |index: &mut String, serial: &str| {
        writeln!(index, "R\t350101000000Z\t250101000000Z,superseded\t{serial}\tunknown\t/CN=x").unwrap();
    };
    (0..ENTRIES - 1).for_each(|n| entry(&mut index, &format!("10{n:032X}ABCDEF")));
    entry(&mut index, serial.trim_start_matches("00"));
    let config = format!(
        "[ca]\ndefault_ca = x\n[x]\ndatabase = {}\ncrlnumber = {}\ndefault_md = sha256\nunique_subject = no\n\
         [ext]\nauthorityKeyIdentifier = keyid\n",
        path("index.txt"),
        path("number"),
    );
    let key = ca.issuer.key().serialize_pem();
    for (name, text) in
        [("index.txt", &index), ("number", &"01\n".to_owned()), ("config", &config), ("ca.pem", &ca.pem)]
    {
        write(&dir.path().join(name), text);
    }
    write(&dir.path().join("ca.key"), &key);
    let (config, cert, key) = (path("config"), path("ca.pem"), path("ca.key"));
    let args = ["-config", &config, "-cert", &cert, "-keyfile", &key, "-crldays", "30", "-crlexts", "ext"];
    openssl(&[&["ca", "-gencrl"], &args[..]].concat(), "")
}

fn facts(leaf: &Leaf) -> CertificateFacts {
    CertificateFacts::read(&leaf.der).unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateRevocationListDer;
    use rustls::pki_types::pem::PemObject;
    CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

#[tokio::test]
async fn a_large_crl_costs_a_handshake_little() {
    let ca = authority("mesh ca");
    let listed = ca.node("proxy", "listed");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let pem = list(&ca, &listed);
    folder.put("crl.pem", &pem);
    // Understood within a few times of what webpki needs for it.
    let der = der(&pem);
    assert!(der.len() > 4_000_000, "{} bytes", der.len());
    let (crl, ours) = timed(|| Crl::read(der.clone()).unwrap());
    let (_, webpki) = timed(|| webpki::OwnedCertRevocationList::from_der(&der).unwrap());
    assert_eq!(crl.entries(), ENTRIES);
    assert!(ours < 3 * webpki, "{ours:?} beside {webpki:?}");
    // Handshakes with and without it, by turns. No leaf is judged twice: a path is remembered for a moment.
    let with = Files { crl: Some(folder.path("crl.pem")), ..folder.files() };
    let (with, without) = (
        open(mesh("proxy", "proxy-1"), with).await.unwrap(),
        open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap(),
    );
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for n in 0..60 {
        let peer = ca.node("proxy", &format!("p-{n}"));
        for (store, times) in [(&with, &mut long), (&without, &mut short)] {
            let (generation, chain) = (store.current(), [peer.der.clone()]);
            let (vouched, took) = timed(|| generation.vouch(&chain, PeerSide::Client, None));
            vouched.unwrap();
            times.push(took);
        }
    }
    let (long, short) = (median(long), median(short));
    assert!(2 * long < 3 * short, "{long:?} beside {short:?} without a list");
    let refused = with.current().vouch(&[listed.der], PeerSide::Client, None).unwrap_err();
    assert_eq!(refused.label(), "revoked");
}

/// The most that this process ever had in memory, in kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// As a process of its own: other tests must not count.
#[tokio::test]
async fn a_large_crl_takes_little_memory() {
    if let Some(folder) = std::env::var_os(MEASURED) {
        return measured(Path::new(&folder)).await;
    }
    let ca = authority("mesh ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let without = peak_of(&folder);
    folder.put("crl.pem", list(&ca, &ca.node("proxy", "listed")));
    let with = peak_of(&folder);
    assert!(with > without, "the list was not read: {with} kB beside {without} kB");
    assert!(with - without < 60_000, "{with} kB with the list, {without} kB without");
}

fn peak_of(folder: &Folder) -> u64 {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "material::tests::large::a_large_crl_takes_little_memory", "--nocapture"])
        .env(MEASURED, folder.at.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    told.lines().find_map(|line| line.strip_prefix("peak ")).expect("it says its peak").parse().unwrap()
}

async fn measured(folder: &Path) {
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let crl = Some(path("crl.pem")).filter(|path| path.exists());
    let files = Files { crl, ..Files::new(path("server.pem"), path("server.key"), path("ca.pem")) };
    let store = open(mesh("proxy", "proxy-1"), files).await.unwrap();
    store.reload().await.unwrap();
    assert!(store.status().lists.findings.is_empty());
    println!("\npeak {}", peak());
}
