//! Lists of the distrusted grow at once and shrink by word, in a running process and over a restart.
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::issue::*;
use crate::clock::{Clock as _, SystemClock, TestClock};
use crate::config::{EdgeMode, Files, Reload};
use crate::error::{LoadError, Reason};
use crate::foreign::chain;
use crate::material::{Purpose, Reloaded, Store};
use crate::telemetry::Telemetry;
use crate::verify::{CertificateFacts, PeerSide};

const HOUR: Duration = Duration::from_secs(3_600);

/// A proxy with CRLs, a distrust list and a state, and three peers that they may name.
struct Stage {
    ca: Authority,
    folder: Folder,
    clock: Arc<TestClock>,
    peers: [Leaf; 3],
}

impl Stage {
    fn new() -> Self {
        let ca = authority("mesh ca");
        let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
        fs::create_dir(folder.path("crls")).unwrap();
        let peers = ["a", "b", "c"].map(|name| ca.node("proxy", name));
        let stage = Self { ca, folder, clock: Arc::new(TestClock::at(SystemTime::now())), peers };
        stage.crl("1", 1, &[]);
        stage.folder.put("distrust", "");
        stage
    }

    fn crl(&self, name: &str, number: u64, listed: &[usize]) {
        let serials: Vec<_> = listed.iter().map(|at| facts(&self.peers[*at]).raw_serial).collect();
        let list = self.ca.numbered_crl(number, &serials, self.clock.now() + HOUR);
        self.folder.put(&format!("crls/{name}.pem"), list);
    }

    fn distrust(&self, lines: &[String]) {
        self.folder.put("distrust", lines.join("\n") + "\n");
    }

    fn key(&self, peer: usize) -> String {
        hex(&facts(&self.peers[peer]).spki_sha256)
    }

    fn certificate(&self, peer: usize) -> String {
        hex(&facts(&self.peers[peer]).sha256)
    }

    fn files(&self) -> Files {
        let (crl, distrust) = (Some(self.folder.path("crls")), Some(self.folder.path("distrust")));
        Files { crl, distrust, ..self.folder.files() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path("data/state")
    }

    async fn start_as(&self, purpose: Purpose, files: Files) -> Result<Arc<Store>, LoadError> {
        let reload = Reload { watch: false, crl_grace: HOUR, ..quick() };
        let (state, telemetry) = (Some(self.state()), Arc::new(Telemetry::new()));
        Store::open_with_state(purpose, files, None, state, reload, self.clock.clone(), telemetry).await
    }

    async fn start_with(&self, files: Files) -> Result<Arc<Store>, LoadError> {
        self.start_as(mesh("proxy", "proxy-1"), files).await
    }

    async fn start_edge(&self, mode: EdgeMode) -> Arc<Store> {
        let files = Files { client_cert: None, client_key: None, ..self.files() };
        self.start_as(edge(mode, false), files).await.unwrap()
    }

    async fn start(&self) -> Result<Arc<Store>, LoadError> {
        self.start_with(self.files()).await
    }

    /// What each peer's handshake would find.
    fn seen(&self, store: &Store) -> [&'static str; 3] {
        let vouch = |peer: &Leaf| store.current().vouch(std::slice::from_ref(&peer.der), PeerSide::Client, None);
        self.peers.each_ref().map(|peer| vouch(peer).map_or_else(|error| error.label(), |_| "good"))
    }
}

fn facts(leaf: &Leaf) -> CertificateFacts {
    CertificateFacts::read(&leaf.der).unwrap()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the files. What is wrong with them is in the status.
async fn look(store: &Arc<Store>) {
    let _ = store.reload().await;
}

/// That this and nothing else is wrong with the lists.
#[track_caller]
fn finding(store: &Store, text: &str) {
    let status = store.status();
    let found = &status.lists.findings;
    assert!(found.len() == 1 && found[0].contains(text), "{text}: {found:#?}");
    assert_eq!(status.last_reload.result, "failed", "disk and served differ: {:?}", status.last_reload);
    assert!(status.differs_since.is_some());
}

#[track_caller]
fn nothing_found(store: &Store) {
    let status = store.status();
    assert!(status.lists.findings.is_empty() && status.differs_since.is_none(), "{status:#?}");
}

const ALL: [&str; 3] = ["distrusted", "distrusted", "good"];

#[tokio::test]
async fn invariant_5_entries_leave_by_word_alone() {
    let stage = Stage::new();
    let both = [format!("spki:{}", stage.key(0)), format!("{} # stolen", stage.certificate(1))];
    stage.distrust(&both);
    let store = stage.start().await.unwrap();
    nothing_found(&store);
    assert_eq!(stage.seen(&store), ALL);
    // Cut off, emptied, without an end, with one that does not fit, gone.
    let cut = both.join("\n");
    for end in [cut.len() - 80, 70, 10, 0] {
        stage.folder.put("distrust", &cut[..end]);
        look(&store).await;
        assert_eq!(stage.seen(&store), ALL, "cut off at {end}");
        assert!(store.status().lists.findings.iter().any(|f| f.contains("are in force, and they stay")), "{end}");
    }
    stage.distrust(&[both[0].clone(), "# end 2".to_owned()]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ALL);
    fs::remove_file(stage.folder.path("distrust")).unwrap();
    look(&store).await;
    assert_eq!(stage.seen(&store), ALL);
    finding(&store, "does not exist");
    // The word.
    stage.distrust(&[both[1].clone(), "# end 1".to_owned()]);
    assert!(matches!(store.reload().await.unwrap(), Reloaded::Published(_)));
    assert_eq!(stage.seen(&store), ["good", "distrusted", "good"]);
    nothing_found(&store);
    stage.distrust(&["# end 0".to_owned()]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ["good"; 3]);
}

#[tokio::test]
async fn invariant_5_adding_waits_for_no_other_line_or_file() {
    let stage = Stage::new();
    let store = stage.start().await.unwrap();
    // The distrust list with a line that is none, the CRL in a folder with what is no CRL.
    stage.folder.put("crls/0-readme.txt", "put CRLs here");
    stage.folder.put("crls/2.pem", "-----BEGIN X509 CRL-----\nMIIB");
    fs::create_dir(stage.folder.path("crls/empty")).unwrap();
    stage.crl("3", 2, &[1]);
    stage.distrust(&["sha256 of the old host".to_owned(), stage.key(0), stage.certificate(2)[..40].to_owned()]);
    // And a key that is torn.
    let key = fs::read(stage.folder.path("server.key")).unwrap();
    stage.folder.put("server.key", &key[..key.len() / 2]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ["distrusted", "revoked", "good"]);
    let found = store.status().lists.findings;
    let named = ["0-readme.txt", "crls/2.pem", "line 1 ", "line 3 "];
    let tells = |text: &&str| found.iter().filter(|finding| finding.contains(*text)).count() == 1;
    assert!(found.len() == 4 && named.iter().all(tells), "{found:#?}");
    stage.folder.put("server.key", key);
    look(&store).await;
    let reason = store.status().last_reload.reason.unwrap();
    assert!(reason.contains("and 3 more"), "{reason}");
}

#[tokio::test]
async fn a_hash_means_a_key_or_a_certificate() {
    let stage = Stage::new();
    let lines =
        |marks: [&str; 2]| [format!("{}{}", marks[0], stage.key(0)), format!("{}{}", marks[1], stage.certificate(1))];
    for (marks, expected) in [
        (["", ""], ["distrusted", "distrusted"]),
        (["spki:", "cert:"], ["distrusted", "distrusted"]),
        (["cert:", "spki:"], ["good", "good"]),
    ] {
        stage.distrust(&[&lines(marks)[..], &["# end 2".to_owned()]].concat());
        let store = stage.start().await.unwrap();
        assert_eq!(stage.seen(&store)[..2], expected, "{marks:?}");
    }
    // The status shows both, of leaves and of CAs.
    let status = stage.start().await.unwrap().status();
    let own = CertificateFacts::read(&stage.ca.der).unwrap();
    assert_eq!([&status.cas[0].spki_sha256, &status.cas[0].sha256], [&hex(&own.spki_sha256), &hex(&own.sha256)]);
    assert_ne!(status.leaf.spki_sha256, status.leaf.sha256);
}

#[tokio::test]
async fn invariant_5_a_lower_crl_is_ignored() {
    let stage = Stage::new();
    stage.crl("1", 7, &[0]);
    let store = stage.start().await.unwrap();
    let revoked = ["revoked", "good", "good"];
    assert_eq!(stage.seen(&store), revoked);
    // Whatever it is called, in place of the one in force or beside it.
    stage.crl("9", 6, &[]);
    stage.crl("0", 6, &[]);
    look(&store).await;
    assert_eq!(stage.seen(&store), revoked);
    nothing_found(&store);
    fs::remove_file(stage.folder.path("crls/0.pem")).unwrap();
    fs::remove_file(stage.folder.path("crls/1.pem")).unwrap();
    look(&store).await;
    assert_eq!(stage.seen(&store), revoked);
    finding(&store, "older than the one in force (number 7");
    // All gone: nobody is refused who was not.
    fs::remove_file(stage.folder.path("crls/9.pem")).unwrap();
    look(&store).await;
    assert_eq!(stage.seen(&store), revoked);
    assert_eq!(store.status().crls[0].number.as_deref(), Some("7"));
    // After its grace nobody is told apart any more, but for whom it lists.
    stage.clock.advance(2 * HOUR);
    assert_eq!(stage.seen(&store), ["revoked", "stale-crl", "stale-crl"]);
    stage.crl("1", 8, &[]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ["good"; 3]);
    nothing_found(&store);
}

#[tokio::test]
async fn of_two_crls_of_one_rank_both_count() {
    let stage = Stage::new();
    stage.crl("1", 7, &[0]);
    stage.crl("2", 7, &[1]);
    let store = stage.start().await.unwrap();
    assert_eq!(stage.seen(&store), ["revoked", "revoked", "good"]);
    finding(&store, "entries of both count");
}

#[tokio::test]
async fn invariant_5_a_restart_refuses_what_was_refused() {
    let stage = Stage::new();
    stage.distrust(&[stage.key(0)]);
    stage.crl("1", 7, &[1]);
    let refused = ["distrusted", "revoked", "good"];
    let store = stage.start().await.unwrap();
    assert_eq!(stage.seen(&store), refused);
    assert_eq!(store.status().lists.state, Some(stage.state()));
    drop(store);
    // An older CRL, a shorter list; then no file at all; then no setting.
    stage.crl("1", 6, &[]);
    stage.distrust(&[]);
    assert_eq!(stage.seen(&stage.start().await.unwrap()), refused);
    fs::remove_dir_all(stage.folder.path("crls")).unwrap();
    fs::remove_file(stage.folder.path("distrust")).unwrap();
    let store = stage.start().await.unwrap();
    assert_eq!(stage.seen(&store), refused);
    assert!(store.status().lists.findings.len() >= 3, "{:#?}", store.status().lists);
    drop(store);
    let store = stage.start_with(stage.folder.files()).await.unwrap();
    assert_eq!(stage.seen(&store), refused);
    let found = store.status().lists.findings;
    assert!(found.len() == 2 && found.iter().all(|text| text.contains("is not set")), "{found:#?}");
    drop(store);
    // A word that was given while it was down.
    fs::create_dir(stage.folder.path("crls")).unwrap();
    stage.crl("1", 8, &[]);
    stage.distrust(&["# end 0".to_owned()]);
    let store = stage.start().await.unwrap();
    assert_eq!(stage.seen(&store), ["good"; 3]);
    nothing_found(&store);
}

#[tokio::test]
async fn invariant_1_no_start_with_a_damaged_state() {
    let stage = Stage::new();
    stage.distrust(&[stage.key(0)]);
    drop(stage.start().await.unwrap());
    let path = stage.state().join("in-force");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace(&stage.key(0), &stage.key(2))).unwrap();
    let told = chain(&stage.start().await.map(|store| store.status()).unwrap_err());
    assert!(told.contains("checksum") && told.contains(&format!("remove {}", stage.state().display())), "{told}");
    // The way that it names.
    fs::remove_dir_all(stage.state()).unwrap();
    assert_eq!(stage.seen(&stage.start().await.unwrap()), ["distrusted", "good", "good"]);
}

#[tokio::test]
async fn invariant_1_the_first_start_takes_no_broken_list() {
    let stage = Stage::new();
    for (lines, part) in [("xyz\n".to_owned(), "line 1 "), (format!("{}\n# end 3\n", stage.key(0)), "# end 3")] {
        stage.folder.put("distrust", lines);
        let told = chain(&stage.start().await.map(|store| store.status()).unwrap_err());
        assert!(told.contains(part) && told.contains("internaltls.distrustPath"), "{told}");
    }
    fs::remove_file(stage.folder.path("distrust")).unwrap();
    assert!(matches!(stage.start().await, Err(LoadError::Missing(_))));
    assert!(!stage.state().exists());
    // Once there was a start, the process goes on without them.
    stage.distrust(&[stage.key(0)]);
    drop(stage.start().await.unwrap());
    stage.folder.put("distrust", "xyz\n");
    assert_eq!(stage.seen(&stage.start().await.unwrap()), ["distrusted", "good", "good"]);
}

#[tokio::test]
async fn writes_nothing_without_a_list() {
    let stage = Stage::new();
    let store = stage.start_with(stage.folder.files()).await.unwrap();
    look(&store).await;
    assert!(!stage.folder.path("data").exists());
    nothing_found(&store);
}

/// What is kept is removed while the process runs, then a publisher empties the list and the process starts anew.
#[tokio::test]
async fn invariant_9_a_state_that_is_lost_is_written_again() {
    let stage = Stage::new();
    stage.distrust(&[stage.key(0)]);
    stage.crl("1", 7, &[1]);
    let refused = ["distrusted", "revoked", "good"];
    let store = stage.start().await.unwrap();
    look(&store).await;
    nothing_found(&store);
    let (state, name) = (stage.state(), stage.state().join("in-force"));
    let whole = fs::read(&name).unwrap();
    let harms: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&name).unwrap(),
        &|| fs::write(&name, &whole[..10]).unwrap(),
        &|| fs::read_dir(&state).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap()),
        &|| fs::remove_dir_all(&state).unwrap(),
    ];
    for (at, harm) in harms.into_iter().enumerate() {
        harm();
        look(&store).await;
        finding(&store, if at == 1 { "in-force was changed" } else { "in-force was removed" });
        assert_eq!(fs::read(&name).unwrap(), whole, "{at}");
        look(&store).await;
        nothing_found(&store);
    }
    drop(store);
    stage.distrust(&[]);
    stage.crl("1", 6, &[]);
    assert_eq!(stage.seen(&stage.start().await.unwrap()), refused);
    // Lists whose settings are gone are kept no less.
    let store = stage.start_with(stage.folder.files()).await.unwrap();
    fs::remove_dir_all(&state).unwrap();
    look(&store).await;
    assert!(
        store.status().lists.findings.iter().any(|text| text.contains("was removed")),
        "{:#?}",
        store.status().lists
    );
    drop(store);
    assert_eq!(stage.seen(&stage.start_with(stage.folder.files()).await.unwrap()), refused);
}

#[tokio::test]
async fn invariant_1_no_start_with_crls_whose_state_is_gone() {
    let stage = Stage::new();
    drop(stage.start().await.unwrap());
    fs::remove_file(stage.state().join("in-force")).unwrap();
    let told = chain(&stage.start().await.map(|store| store.status()).unwrap_err());
    assert!(told.contains("it is missing") && told.contains(&format!("remove {}", stage.state().display())), "{told}");
}

/// Of another key, under the name and the key identifier of ours.
#[tokio::test]
async fn invariant_9_a_forged_crl_hides_none() {
    let stage = Stage::new();
    stage.crl("1", 7, &[0]);
    let store = stage.start().await.unwrap();
    let forged = stage.ca.numbered_crl(99, &[], stage.clock.now() + HOUR);
    // The last line lies within the signature.
    let mut lines: Vec<_> = forged.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let other = if lines[last].starts_with('A') { "B" } else { "A" };
    lines[last].replace_range(..1, other);
    stage.folder.put("crls/0.pem", lines.join("\n") + "\n");
    look(&store).await;
    assert_eq!(stage.seen(&store), ["revoked", "good", "good"]);
    let shown = store.status().crls;
    let shown: Vec<_> = shown.iter().map(|crl| (crl.number.as_deref(), crl.signer)).collect();
    assert_eq!(shown, [(Some("7"), "in-use"), (Some("99"), "unknown")]);
    finding(&store, "none of its keys signed");
    fs::remove_file(stage.folder.path("crls/0.pem")).unwrap();
    look(&store).await;
    nothing_found(&store);
}

#[tokio::test]
async fn invariant_9_a_younger_crl_of_a_lower_number_is_told() {
    let stage = Stage::new();
    stage.crl("1", 7, &[]);
    let store = stage.start().await.unwrap();
    stage.crl("0", 6, &[1]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ["good"; 3]);
    finding(&store, "crls/0.pem");
    finding(&store, "names certificates that are not named by the one in force (number 7");
    stage.clock.advance(HOUR / 2);
    stage.crl("0", 6, &[]);
    look(&store).await;
    finding(&store, "is younger than the one in force (number 7");
    // Of the same number.
    fs::remove_file(stage.folder.path("crls/0.pem")).unwrap();
    stage.crl("1", 8, &[1]);
    look(&store).await;
    nothing_found(&store);
    stage.clock.advance(HOUR / 2);
    stage.crl("1", 8, &[]);
    look(&store).await;
    assert_eq!(stage.seen(&store), ["good", "revoked", "good"]);
    finding(&store, "entries of both count");
}

/// As on a read-only root file system: it runs, and says that a restart would forget.
#[tokio::test]
async fn a_state_that_cannot_be_written_is_a_finding() {
    let stage = Stage::new();
    stage.distrust(&[stage.key(0)]);
    std::os::unix::fs::symlink("/proc/none/such", stage.folder.path("data")).unwrap();
    let store = stage.start().await.unwrap();
    assert_eq!(stage.seen(&store), ["distrusted", "good", "good"]);
    finding(&store, "internaltls.statePath");
    fs::remove_file(stage.folder.path("data")).unwrap();
    look(&store).await;
    nothing_found(&store);
    assert!(stage.state().join("in-force").exists());
}

/// The new CA's CRL may be there before its bundle, and the old one's goes with its CA.
#[tokio::test]
async fn a_crl_waits_for_its_ca_and_leaves_with_it() {
    let stage = Stage::new();
    let store = stage.start().await.unwrap();
    let next = authority("next ca");
    stage.folder.put("crls/next.pem", next.numbered_crl(1, &[], stage.clock.now() + HOUR));
    look(&store).await;
    nothing_found(&store);
    let signers = |store: &Store| {
        let mut signers: Vec<_> = store.status().crls.iter().map(|crl| (crl.issuer.clone(), crl.signer)).collect();
        signers.sort();
        signers
    };
    let of = |name: &str, signer: &'static str| (format!("CN={name}"), signer);
    assert_eq!(signers(&store), [of("mesh ca", "in-use"), of("next ca", "unknown")]);
    stage.folder.put("ca.pem", format!("{}{}", stage.ca.pem, next.pem));
    look(&store).await;
    assert_eq!(signers(&store), [of("mesh ca", "in-use"), of("next ca", "in-use")]);
    let leaf = next.node("proxy", "proxy-1");
    for (name, text) in [("server.pem", &leaf.pem), ("server.key", &leaf.key), ("ca.pem", &next.pem)] {
        stage.folder.put(name, text);
    }
    fs::remove_file(stage.folder.path("crls/1.pem")).unwrap();
    look(&store).await;
    look(&store).await;
    assert_eq!(signers(&store), [of("next ca", "in-use")]);
    nothing_found(&store);
}

/// Who can write the folder of CRLs, and has no key: also over a restart.
#[tokio::test]
async fn invariant_5_forged_lists_of_an_intermediate_push_nothing_out() {
    let stage = Stage::new();
    let middle = stage.ca.intermediate("middle");
    let peer = middle.node("proxy", "p");
    let list = |number, listed: &[Vec<u8>]| middle.numbered_crl(number, listed, stage.clock.now() + HOUR);
    let forged = |number| {
        // The last line but one is of the signature.
        let mut lines: Vec<_> = list(number, &[]).lines().map(str::to_owned).collect();
        let at = lines.len() - 2;
        let other = if lines[at].starts_with('A') { "B" } else { "A" };
        lines[at].replace_range(..1, other);
        lines.join("\n") + "\n"
    };
    let seen = |store: &Store| {
        let chain = [peer.der.clone(), middle.der.clone()];
        store.current().vouch(&chain, PeerSide::Client, None).map_or_else(|error| error.label(), |_| "good")
    };
    stage.folder.put("crls/2.pem", list(5, &[facts(&peer).raw_serial]));
    let store = stage.start().await.unwrap();
    assert_eq!(seen(&store), "revoked");
    look(&store).await;
    drop(store);
    stage.folder.put("crls/2.pem", [9, 10, 11].map(forged).concat());
    let store = stage.start().await.unwrap();
    let issuers: Vec<_> = store.status().crls.into_iter().map(|crl| crl.issuer).collect();
    assert_eq!(
        issuers,
        ["CN=mesh ca", "CN=middle", "CN=middle"],
        "those in use, then the proven one and the highest of the others"
    );
    fs::remove_file(stage.folder.path("crls/2.pem")).unwrap();
    look(&store).await;
    drop(store);
    stage.folder.put("crls/2.pem", list(3, &[]));
    for _ in 0..2 {
        let store = stage.start().await.unwrap();
        assert_eq!(seen(&store), "revoked", "an older list is played back");
        look(&store).await;
        assert_eq!(seen(&store), "revoked");
    }
}

/// Where clients show no certificate no list counts; what was in force is for the next start that asks for one.
#[tokio::test]
async fn invariant_5_a_start_without_client_certificates_forgets_nothing() {
    let stage = Stage::new();
    stage.crl("1", 2, &[0]);
    stage.distrust(&[format!("spki:{}", stage.key(1))]);
    let expected = ["revoked", "distrusted", "good"];
    let two_way = stage.start_edge(EdgeMode::TwoWay).await;
    assert_eq!(stage.seen(&two_way), expected);
    drop(two_way);
    let one_way = stage.start_edge(EdgeMode::OneWay).await;
    look(&one_way).await;
    drop(one_way);
    stage.crl("1", 1, &[]);
    stage.folder.put("distrust", "");
    let two_way = stage.start_edge(EdgeMode::TwoWay).await;
    assert_eq!(stage.seen(&two_way), expected, "an older list is played back");
}

#[tokio::test]
async fn of_many_findings_some_are_named() {
    let stage = Stage::new();
    let store = stage.start().await.unwrap();
    stage.folder.put("distrust", "no hash\n".repeat(5_000));
    look(&store).await;
    let lists = store.status().lists;
    assert_eq!(lists.findings.len() + lists.more_findings, 5_000);
    assert!(lists.findings.len() < 50);
}

/// The folder that is not watched for changes, for the clock of the machine.
#[tokio::test]
async fn a_poll_alone_sees_a_new_entry() {
    let stage = Stage::new();
    let reload = Reload { watch: false, poll: Duration::from_millis(50), ..quick() };
    let store = open_with(mesh("proxy", "proxy-1"), stage.files(), reload, Arc::new(SystemClock)).await.unwrap();
    stage.distrust(&[stage.key(0)]);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while stage.seen(&store)[0] != Reason::Distrusted.label() {
        assert!(tokio::time::Instant::now() < end, "{:#?}", store.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
