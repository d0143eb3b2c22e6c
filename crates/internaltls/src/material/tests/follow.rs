//! Files change on disk in all the ways that they do, and what is served follows, whole.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;

use super::issue::*;
use crate::clock::SystemClock;
use crate::config::{Files, Reload};
use crate::error::LoadError;
use crate::identity::{Identity, Role};
use crate::material::trial::handshake;
use crate::material::{MaterialStatus, Reloaded, Store};
use crate::telemetry::Telemetry;
use crate::verify::CertificateFacts;

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a status, and tells the last one seen if it does not come.
pub(super) async fn until(store: &Store, what: &str, fits: impl Fn(&MaterialStatus) -> bool) -> MaterialStatus {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let status = store.status();
        if fits(&status) {
            return status;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}; last seen: {status:#?}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn serves(store: &Store, leaf: &Leaf) -> MaterialStatus {
    let serial = serial(leaf);
    let status = until(store, &serial, |status| status.leaf.serial == serial).await;
    // What is served works, whole.
    let generation = store.current();
    let name = generation.server_name(&Role::new("proxy").unwrap());
    handshake(generation.client.as_ref().unwrap(), &generation.server, name).unwrap();
    status
}

fn serial(leaf: &Leaf) -> String {
    CertificateFacts::read(&leaf.der).unwrap().serial
}

pub(super) async fn follow(files: Files, reload: Reload) -> Arc<Store> {
    open_with(mesh("proxy", "proxy-1"), files, reload, Arc::new(SystemClock)).await.unwrap()
}

/// Poll only, quickly.
fn polling() -> Reload {
    Reload { watch: false, poll: Duration::from_millis(50), ..quick() }
}

/// The shape of a mounted secret: `server.pem` → `..data/server.pem`, `..data` → `..1`.
struct Mounted {
    at: tempfile::TempDir,
    version: usize,
}

impl Mounted {
    fn new(ca: &str, leaf: &Leaf) -> Self {
        let mut mounted = Self { at: tempfile::tempdir().unwrap(), version: 0 };
        mounted.swap(ca, leaf);
        for name in ["ca.pem", "server.pem", "server.key"] {
            symlink(Path::new("..data").join(name), mounted.at.path().join(name)).unwrap();
        }
        mounted
    }

    fn swap(&mut self, ca: &str, leaf: &Leaf) {
        self.version += 1;
        let at = self.at.path();
        let folder = at.join(format!("..{}", self.version));
        fs::create_dir(&folder).unwrap();
        write(&folder.join("ca.pem"), ca);
        write(&folder.join("server.pem"), &leaf.pem);
        write(&folder.join("server.key"), &leaf.key);
        replace(&at.join("..data"), Path::new(&format!("..{}", self.version)));
        let _ = fs::remove_dir_all(at.join(format!("..{}", self.version - 1)));
    }

    fn files(&self) -> Files {
        let path = |name| self.at.path().join(name);
        Files {
            cert: path("server.pem"),
            key: path("server.key"),
            ca: Some(path("ca.pem")),
            client_cert: None,
            client_key: None,
            crl: None,
            distrust: None,
        }
    }
}

/// One symlink swapped by a rename.
pub(super) fn replace(link: &Path, target: &Path) {
    let new = link.parent().unwrap().join("swap");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_a_data_symlink_swapped_many_times() {
    let ca = authority("ca");
    let mut mounted = Mounted::new(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = follow(mounted.files(), quick()).await;
    for number in 2..=8 {
        let leaf = ca.node("proxy", "proxy-1");
        mounted.swap(&ca.pem, &leaf);
        assert_eq!(serves(&store, &leaf).await.generation, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_symlinks_chained_into_other_folders() {
    let ca = authority("ca");
    let root = tempfile::tempdir().unwrap();
    let version = |name: &str, leaf: &Leaf| {
        let folder = root.path().join("store").join(name);
        fs::create_dir_all(&folder).unwrap();
        write(&folder.join("server.pem"), &leaf.pem);
        write(&folder.join("server.key"), &leaf.key);
        write(&folder.join("ca.pem"), &ca.pem);
        folder
    };
    let first = version("1", &ca.node("proxy", "proxy-1"));
    // named/server.pem → hop/live/server.pem, hop/live → store/1
    for folder in ["named", "hop"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    replace(&root.path().join("hop/live"), &first);
    for name in ["server.pem", "server.key", "ca.pem"] {
        symlink(root.path().join("hop/live").join(name), root.path().join("named").join(name)).unwrap();
    }
    let path = |name| root.path().join("named").join(name);
    let files = Files {
        cert: path("server.pem"),
        key: path("server.key"),
        ca: Some(path("ca.pem")),
        client_cert: None,
        client_key: None,
        crl: None,
        distrust: None,
    };
    let store = follow(files, quick()).await;
    for name in ["2", "3", "4"] {
        let leaf = ca.node("proxy", "proxy-1");
        replace(&root.path().join("hop/live"), &version(name, &leaf));
        serves(&store, &leaf).await;
    }
    // And in the folder that it leads to now.
    let leaf = ca.node("proxy", "proxy-1");
    write(&root.path().join("store/4/server.pem"), &leaf.pem);
    write(&root.path().join("store/4/server.key"), &leaf.key);
    serves(&store, &leaf).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_two_steps_is_served_when_it_is_whole() {
    let ca = authority("ca");
    for reload in [quick(), polling()] {
        let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
        let store = follow(folder.files(), reload).await;
        for (number, cert_first) in [(2, true), (3, false), (4, true)] {
            let leaf = ca.node("proxy", "proxy-1");
            let halves = [("server.pem", &leaf.pem), ("server.key", &leaf.key)];
            let (first, second) = if cert_first { (halves[0], halves[1]) } else { (halves[1], halves[0]) };
            folder.put(first.0, "");
            folder.put(first.0, first.1);
            let torn = until(&store, "the torn pair to be seen", |s| s.last_reload.result == "failed").await;
            assert_eq!(torn.generation, number - 1);
            assert!(torn.differs_since.is_some());
            folder.put(second.0, second.1);
            let status = serves(&store, &leaf).await;
            assert_eq!(status.generation, number);
            until(&store, "agreement", |s| s.differs_since.is_none()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_bundle_is_never_served() {
    let ca = authority("ca");
    let bundle = format!("{}{}", ca.pem, authority("next").pem);
    let folder = Folder::of(&bundle, &ca.node("proxy", "proxy-1"));
    let store = follow(folder.files(), quick()).await;
    for cut in [0, 100, ca.pem.len() + 30, bundle.len() - 3] {
        folder.put("ca.pem", &bundle[..cut]);
        until(&store, "the cut", |s| s.last_reload.result == "failed").await;
        assert_eq!(store.status().cas.len(), 2);
        folder.put("ca.pem", &bundle);
        until(&store, "agreement", |s| s.differs_since.is_none()).await;
        assert_eq!(store.status().generation, 1, "the same content is no new generation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poll_alone_finds_every_change() {
    let (ca, next) = (authority("ca"), authority("next"));
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = follow(folder.files(), polling()).await;
    let leaf = next.node("proxy", "proxy-1");
    for (name, text) in
        [("ca.pem", &format!("{}{}", ca.pem, next.pem)), ("server.pem", &leaf.pem), ("server.key", &leaf.key)]
    {
        folder.put(name, text);
    }
    serves(&store, &leaf).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_replaced_as_a_whole_is_followed() {
    let ca = authority("ca");
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str, leaf: &Leaf| {
        let at = root.path().join(name);
        fs::create_dir(&at).unwrap();
        for (name, text) in [("server.pem", &leaf.pem), ("server.key", &leaf.key), ("ca.pem", &ca.pem)] {
            write(&at.join(name), text);
        }
        at
    };
    let at = folder("certs", &ca.node("proxy", "proxy-1"));
    let files = Files {
        cert: at.join("server.pem"),
        key: at.join("server.key"),
        ca: Some(at.join("ca.pem")),
        client_cert: None,
        client_key: None,
        crl: None,
        distrust: None,
    };
    let store = follow(files, quick()).await;
    for number in 0..3 {
        let leaf = ca.node("proxy", "proxy-1");
        let new = folder(&format!("new-{number}"), &leaf);
        fs::rename(&at, root.path().join(format!("old-{number}"))).unwrap();
        fs::rename(&new, &at).unwrap();
        serves(&store, &leaf).await;
    }
}

#[tokio::test]
async fn the_same_content_is_no_new_generation() {
    let ca = authority("ca");
    let leaf = ca.node("proxy", "proxy-1");
    let folder = Folder::of(&ca.pem, &leaf);
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    assert_eq!(store.reload().await.unwrap(), Reloaded::Unchanged);
    folder.put("server.pem", &leaf.pem);
    assert_eq!(store.reload().await.unwrap(), Reloaded::Unchanged);
    assert_eq!(store.status().last_reload.result, "unchanged");
    folder.put("server.pem", format!("# renewed\n{}", leaf.pem));
    assert_eq!(store.reload().await.unwrap(), Reloaded::Published(2));
    assert_eq!(*store.subscribe().borrow(), 2);
}

#[tokio::test]
async fn invariant_3_the_last_good_generation_stays() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    let served = store.status().leaf;
    let bad = [ca.leaf(shape_shared), ca.node("coordinator", "c"), authority("other").node("proxy", "proxy-1")];
    for leaf in bad {
        folder.put("server.pem", &leaf.pem);
        folder.put("server.key", &leaf.key);
        store.reload().await.unwrap_err();
        let status = store.status();
        assert_eq!((status.generation, &status.leaf, status.last_reload.result), (1, &served, "failed"));
        assert!(status.last_reload.reason.is_some_and(|reason| reason.contains("server.pem")));
    }
}

#[tokio::test]
async fn a_change_of_layout_is_refused_at_run_time() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    let shared = ca.leaf(shape_shared);
    folder.put("server.pem", &shared.pem);
    folder.put("server.key", &shared.key);
    let error = store.reload().await.unwrap_err();
    assert!(matches!(error, LoadError::LayoutChanged { .. }), "{error}");
}

#[tokio::test]
async fn invariant_9_status_and_gauge_tell_of_a_difference() {
    let ca = authority("ca");
    let leaf = ca.node("proxy", "proxy-1");
    let folder = Folder::of(&ca.pem, &leaf);
    let telemetry = Arc::new(Telemetry::new());
    let reload = Reload { watch: false, ..quick() };
    let store = Store::open(
        mesh("proxy", "proxy-1"),
        folder.files(),
        None,
        reload,
        Arc::new(SystemClock),
        Arc::clone(&telemetry),
    )
    .await
    .unwrap();
    let gauge =
        |value: u8| telemetry.encode().contains(&format!("internaltls_material_differs{{material=\"mesh\"}} {value}"));
    folder.put("server.key", "");
    store.reload().await.unwrap_err();
    assert!(gauge(1), "{}", telemetry.encode());
    let since = store.status().differs_since.unwrap();
    store.reload().await.unwrap_err();
    assert_eq!(store.status().differs_since, Some(since), "since the first");
    folder.put("server.key", &leaf.key);
    store.reload().await.unwrap();
    assert!(gauge(0) && store.status().differs_since.is_none(), "{}", telemetry.encode());
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_3_what_failed_is_tried_again_on_a_timer() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let reload = Reload { watch: false, retry: Duration::from_millis(30), ..quick() };
    let store = follow(folder.files(), reload).await;
    let leaf = ca.node("proxy", "proxy-1");
    folder.put("server.pem", &leaf.pem);
    store.reload().await.unwrap_err();
    // No event, and the poll is an hour away.
    folder.put("server.key", &leaf.key);
    serves(&store, &leaf).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_followed_and_a_broken_one_is_not() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    folder.put("policy.yaml", "allow: {proxy: [\"/m.A/*\"]}");
    let policy = Some(folder.path("policy.yaml"));
    let store = Store::open(
        mesh("proxy", "proxy-1"),
        folder.files(),
        policy,
        quick(),
        Arc::new(SystemClock),
        Arc::new(Telemetry::new()),
    )
    .await
    .unwrap();
    let allows = |path: &str| store.policy().unwrap().allows(&Identity::Shared, path);
    assert!(!allows("/m.A/B"));
    folder.put("policy.yaml", "allow: {shared: [\"/m.A/*\"]}");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !allows("/m.A/B") {
        assert!(tokio::time::Instant::now() < deadline, "{:?} {:?}", store.policy(), store.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    folder.put("policy.yaml", "allow: 7");
    store.reload().await.unwrap_err();
    assert!(allows("/m.A/B"));
    assert!(store.status().last_reload.reason.is_some_and(|reason| reason.contains("policy.yaml")));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_store_ends_its_task() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let telemetry = Arc::new(Telemetry::new());
    let store = Store::open(
        mesh("proxy", "proxy-1"),
        folder.files(),
        None,
        quick(),
        Arc::new(SystemClock),
        Arc::clone(&telemetry),
    )
    .await
    .unwrap();
    assert!(Arc::strong_count(&telemetry) > 1);
    drop(store);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while Arc::strong_count(&telemetry) > 1 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} hold the telemetry still",
            Arc::strong_count(&telemetry) - 1
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn keys_that_others_can_read_are_taken() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    let levels = Levels::default();
    for (mode, expected) in [(0o644, 1), (0o644, 1), (0o600, 1), (0o644, 2)] {
        fs::set_permissions(folder.path("server.key"), fs::Permissions::from_mode(mode)).unwrap();
        tracing::subscriber::with_default(levels.clone(), || store.take_turn()).unwrap();
        assert_eq!(levels.warnings.load(Ordering::Relaxed), expected, "warned of when it comes, not at each look");
    }
}

/// Counts what is logged on this thread.
#[derive(Default, Clone)]
struct Levels {
    errors: Arc<AtomicUsize>,
    warnings: Arc<AtomicUsize>,
}

impl tracing::Subscriber for Levels {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        match *event.metadata().level() {
            tracing::Level::ERROR => self.errors.fetch_add(1, Ordering::Relaxed),
            tracing::Level::WARN => self.warnings.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn invariant_9_what_is_not_fit_is_warned_of_and_an_error_when_it_outlives_a_retry() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    for (retry, expected) in [(Duration::from_secs(3600), (1, 0)), (Duration::ZERO, (0, 1))] {
        let reload = Reload { watch: false, retry, poll: Duration::from_secs(3600), ..quick() };
        let store = follow(folder.files(), reload).await;
        let levels = Levels::default();
        let before = fs::read(folder.path("server.pem")).unwrap();
        folder.put("server.pem", ca.node("proxy", "proxy-1").pem);
        tracing::subscriber::with_default(levels.clone(), || {
            for _ in 0..3 {
                store.take_turn().unwrap_err();
            }
        });
        let (warnings, errors) = (levels.warnings.load(Ordering::Relaxed), levels.errors.load(Ordering::Relaxed));
        assert_eq!((warnings, errors), expected, "of three turns, retry after {retry:?}");
        folder.put("server.pem", before);
    }
}

/// Three pairs, one CA: made once for all cases.
static PAIRS: LazyLock<(Authority, [Leaf; 3])> = LazyLock::new(|| {
    let ca = authority("ca");
    let leaves = [(); 3].map(|()| ca.node("proxy", "proxy-1"));
    (ca, leaves)
});

/// What a writer leaves in a file: all of one of the texts, its first half, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Whole(usize),
    Half(usize),
    Nothing,
}

impl Left {
    fn of(self, texts: [&str; 3]) -> &str {
        match self {
            Self::Whole(n) => texts[n],
            Self::Half(n) => &texts[n][..texts[n].len() / 2],
            Self::Nothing => "",
        }
    }
}

fn left() -> impl Strategy<Value = Left> {
    prop_oneof![4 => (0..3usize).prop_map(Left::Whole), 1 => (0..3usize).prop_map(Left::Half), 1 => Just(Left::Nothing)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written in whatever order: what is served is a whole pair, it is the one on disk whenever there is a whole
    /// one, and the status tells of every difference.
    #[test]
    fn invariant_2_only_whole_pairs_are_published(steps in proptest::collection::vec((any::<bool>(), left()), 1..8)) {
        let (ca, leaves) = &*PAIRS;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = Folder::of(&ca.pem, &leaves[0]);
        let reload = Reload { watch: false, retry: Duration::from_secs(3600), poll: Duration::from_secs(3600), ..quick() };
        let store = runtime.block_on(follow(folder.files(), reload));
        let (mut cert, mut key, mut served) = (Left::Whole(0), Left::Whole(0), 0);
        for (is_cert, what) in steps {
            if is_cert {
                cert = what;
                folder.put("server.pem", what.of(leaves.each_ref().map(|l| l.pem.as_str())));
            } else {
                key = what;
                folder.put("server.key", what.of(leaves.each_ref().map(|l| l.key.as_str())));
            }
            let number = store.status().generation;
            let turn = store.take_turn();
            let status = store.status();
            match (cert, key) {
                (Left::Whole(c), Left::Whole(k)) if c == k => {
                    prop_assert_eq!(turn.unwrap(), if c == served { Reloaded::Unchanged } else { Reloaded::Published(number + 1) });
                    prop_assert!(status.differs_since.is_none());
                    served = c;
                }
                _ => {
                    prop_assert!(turn.is_err());
                    prop_assert!(status.differs_since.is_some());
                    prop_assert_eq!(status.generation, number);
                }
            }
            prop_assert_eq!(status.leaf.serial, serial(&leaves[served]));
        }
        let generation = store.current();
        let name = generation.server_name(&Role::new("proxy").unwrap());
        handshake(generation.client.as_ref().unwrap(), &generation.server, name).unwrap();
    }
}
