//! Every configured path, and everything that can be in a file's place.
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::follow::until;
use super::issue::*;
use crate::clock::SystemClock;
use crate::config::{EdgeMode, Files, Reload};
use crate::error::LoadError;
use crate::material::source::{Content, Source};
use crate::material::trusted::{self, FileError, Offence};
use crate::material::{Purpose, Store};
use crate::telemetry::Telemetry;

const SOON: Duration = Duration::from_secs(60);

/// Every part, with the file that holds it, each in a folder of its own; and the setting that names it in an error.
const PARTS: [(&str, &str); 9] = [
    ("cert/server.pem", "serverPemPath"),
    ("key/server.key", "serverKeyPath"),
    ("ca/ca.pem", "caPemPath"),
    ("client-cert/client.pem", "clientPemPath"),
    ("client-key/client.key", "clientKeyPath"),
    ("crl/crl.pem", "crlPath"),
    ("crls/1.pem", "crlPath"),
    ("distrust/distrust.txt", "distrustPath"),
    ("policy/policy.yaml", "policyPath"),
];

/// A set of which each file lies in a folder of its own.
struct Apart {
    at: tempfile::TempDir,
    ca: Authority,
    /// Whether CRLs are configured by their folder.
    crl_folder: bool,
}

impl Apart {
    fn new(crl_folder: bool) -> Self {
        let (at, ca) = (tempfile::tempdir().unwrap(), authority("ca"));
        let (server, client) = (ca.node("proxy", "proxy-1"), ca.node("proxy", "proxy-1"));
        let crl = ca.crl(&[], SystemTime::now() + Duration::from_secs(86_400));
        let texts =
            [&server.pem, &server.key, &ca.pem, &client.pem, &client.key, &crl, &crl, "# nobody yet\n", "allow: {}\n"];
        for ((path, _), text) in PARTS.into_iter().zip(texts) {
            let path = at.path().join(path);
            fs::create_dir(path.parent().unwrap()).unwrap();
            write(&path, text);
        }
        Self { at, ca, crl_folder }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.at.path().join(part)
    }

    fn files(&self) -> Files {
        Files {
            cert: self.path("cert/server.pem"),
            key: self.path("key/server.key"),
            ca: Some(self.path("ca/ca.pem")),
            client_cert: Some(self.path("client-cert/client.pem")),
            client_key: Some(self.path("client-key/client.key")),
            crl: Some(self.path(if self.crl_folder { "crls" } else { "crl/crl.pem" })),
            distrust: Some(self.path("distrust/distrust.txt")),
        }
    }

    /// By hand alone: no event, no poll.
    async fn open(&self, purpose: Purpose) -> Result<Arc<Store>, LoadError> {
        let reload = Reload { watch: false, retry: Duration::from_secs(3600), ..quick() };
        let policy = Some(self.path("policy/policy.yaml"));
        let files = match purpose {
            Purpose::Mesh { .. } => self.files(),
            Purpose::Edge { .. } => Files { client_cert: None, client_key: None, ..self.files() },
        };
        let open = Store::open(purpose, files, policy, reload, Arc::new(SystemClock), Arc::new(Telemetry::new()));
        tokio::time::timeout(SOON, open).await.expect("a start ends, whatever the files are")
    }
}

fn purposes() -> [Purpose; 2] {
    [mesh("proxy", "proxy-1"), edge(EdgeMode::TwoWay, false)]
}

/// What stands in a file's place.
const KINDS: [&str; 4] = ["folder", "FIFO", "socket", "device"];

fn put(kind: &str, path: &Path) {
    match kind {
        "folder" => fs::create_dir(path).unwrap(),
        "FIFO" => mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
        // What is bound stays when the listener is dropped.
        "socket" => drop(UnixListener::bind(path).unwrap()),
        // One that never ends. Only root makes devices; anybody can point at one.
        "device" => symlink("/dev/zero", path).unwrap(),
        _ => unreachable!(),
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
}

async fn reload(store: &Arc<Store>) -> Result<(), LoadError> {
    tokio::time::timeout(SOON, store.reload()).await.expect("a look ends, whatever the files are").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_reads_only_regular_files() {
    for (purpose, crl_folder) in purposes().into_iter().flat_map(|p| [(p.clone(), false), (p, true)]) {
        let set = Apart::new(crl_folder);
        let store = set.open(purpose.clone()).await.unwrap();
        for (part, field) in PARTS {
            let is_edge = matches!(purpose, Purpose::Edge { .. });
            if part.starts_with(if crl_folder { "crl/" } else { "crls/" }) || (is_edge && part.starts_with("client")) {
                continue;
            }
            for kind in KINDS {
                // A folder in a folder of CRLs is none of them.
                if (part, kind) == ("crls/1.pem", "folder") {
                    continue;
                }
                let (path, aside) = (set.path(part), set.at.path().join("aside"));
                fs::rename(&path, &aside).unwrap();
                put(kind, &path);
                let served = store.status();
                let at_run = reload(&store).await.unwrap_err();
                let at_start = set.open(purpose.clone()).await.map(|store| store.status()).unwrap_err();
                for error in [at_run, at_start] {
                    let text = error.to_string();
                    let said = if (part, kind) == ("crl/crl.pem", "folder") {
                        "holds no CRL".to_owned() // of a folder of CRLs
                    } else {
                        format!("is a {kind}")
                    };
                    assert!(text.contains(&said), "{part}, {kind}: {text}");
                    assert!(text.contains(field) && text.contains(part), "{part}, {kind}: {text}");
                }
                let status = store.status();
                assert_eq!((status.leaf, status.last_reload.result), (served.leaf, "failed"), "{part}, {kind}");
                remove(&path);
                fs::rename(&aside, &path).unwrap();
                reload(&store).await.unwrap();
            }
        }
    }
}

/// A file system that has been mounted and never answers.
struct Silent {
    at: PathBuf,
    _fuse: OwnedFd,
}

impl Silent {
    /// `None`, and a word about it, where this may not be mounted. What then is left is the test of the reader, with calls
    /// that hang in its stead.
    fn over(at: &Path) -> Option<Self> {
        let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
        let mounted = fuse.and_then(|fuse| {
            let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
            mount("silent", at, "fuse", MountFlags::empty(), CString::new(data).unwrap().as_c_str())?;
            Ok(fuse)
        });
        match mounted {
            Ok(fuse) => Some(Self { at: at.to_owned(), _fuse: fuse.into() }),
            Err(error) => {
                not_run("a mount that hangs", &error);
                None
            }
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // The descriptor is closed after this, which fails all calls that wait.
        unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hung_mount_ends_no_reload() {
    let rounds = PARTS.map(|(part, field)| async move {
        let set = Apart::new(part.starts_with("crls/"));
        let store = set.open(mesh("proxy", "proxy-1")).await.unwrap();
        let folder = set.path(part).parent().unwrap().to_owned();
        let Some(silent) = Silent::over(&folder) else { return };
        // Something new on disk, beside what hangs.
        if part.starts_with("cert") || part.starts_with("key") {
            write(&set.path("ca/ca.pem"), format!("# again\n{}", set.ca.pem));
        } else {
            let leaf = set.ca.node("proxy", "proxy-1");
            write(&set.path("cert/server.pem"), &leaf.pem);
            write(&set.path("key/server.key"), &leaf.key);
        }
        let mut reasons = Vec::new();
        for _ in 0..3 {
            reasons.push(reload(&store).await.unwrap_err().to_string());
        }
        let at_start = set.open(mesh("proxy", "proxy-1")).await.map(|store| store.status()).unwrap_err();
        for reason in reasons.iter().chain([&at_start.to_string()]) {
            assert!(reason.contains("has not answered since") && reason.contains(field), "{part}: {reason}");
        }
        assert_eq!(reasons[1], reasons[2], "a reason that does not change is logged once");
        assert!(store.status().last_reload.reason.is_some_and(|reason| reason.contains("hung mount")), "{part}");
        drop(silent);
        let mut last = reload(&store).await;
        let deadline = tokio::time::Instant::now() + SOON;
        while let Err(error) = last {
            assert!(tokio::time::Instant::now() < deadline, "{part} answers again, and: {error}");
            last = reload(&store).await;
        }
        assert_eq!(store.status().generation, 2, "{part}: {:#?}", store.status());
    });
    futures_util::future::join_all(rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_3_hung_key_holds_up_no_list() {
    let set = Apart::new(false);
    let store = set.open(mesh("proxy", "proxy-1")).await.unwrap();
    let Some(_silent) = Silent::over(&set.path("key")) else { return };
    write(&set.path("distrust/distrust.txt"), format!("{}\n", "ab".repeat(32)));
    let error = reload(&store).await.unwrap_err();
    assert!(error.to_string().contains("serverKeyPath"), "{error}");
    assert_eq!(store.current().trust.lists.distrust.keys.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_ends_beside_hung_mount() {
    let set = Apart::new(false);
    let Some(_silent) = Silent::over(&set.path("cert")) else { return };
    let (began, begun) = std::sync::mpsc::channel();
    let (ended, end) = std::sync::mpsc::channel();
    let files = set.files();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async move {
            began.send(()).unwrap();
            open(mesh("proxy", "proxy-1"), files).await.map(|store| store.status())
        });
        begun.recv().unwrap();
        drop(runtime);
        ended.send(()).unwrap();
    });
    let ended = tokio::task::spawn_blocking(move || end.recv_timeout(SOON)).await.unwrap();
    assert!(ended.is_ok(), "the runtime waits for a file system that does not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_watch_is_told_and_mended() {
    let set = Apart::new(false);
    let reload = Reload { retry: Duration::from_millis(100), ..quick() };
    let store = open_with(mesh("proxy", "proxy-1"), set.files(), reload, Arc::new(SystemClock)).await.unwrap();
    let Some(silent) = Silent::over(&set.path("ca")) else { return };
    // The table of mounts changed, which is an event.
    let hung =
        until(&store, "a hung mount", |s| s.last_reload.reason.as_ref().is_some_and(|r| r.contains("hung"))).await;
    until(&store, "the watch to be told of", |s| s.watch.reason.as_ref().is_some_and(|r| r.contains("ca.pem"))).await;
    assert!(hung.differs_since.is_some());
    drop(silent);
    until(&store, "agreement", |s| s.differs_since.is_none() && s.watch.reason.is_none()).await;
}

/// Says what a run did not prove, past the harness, which shows nothing of a test that passes.
pub(super) fn not_run(what: &str, why: &std::io::Error) {
    let line = format!("\ninternaltls: NOT RUN, and nothing said of {what}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// As root, a folder or file is given away; else the test says that it did not.
fn give_away(path: &Path) -> bool {
    let given = chown(path, Some(4_242), None);
    if let Err(error) = &given {
        not_run("files of foreign owners", error);
    }
    given.is_ok()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn invariant_7_judges_every_file_and_folder() {
    for (part, _) in PARTS {
        // Reached by a symlink in another folder: way/link → set/deep/PART.
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        let (name, is_key) = (part.rsplit('/').next().unwrap(), part.ends_with(".key"));
        for folder in ["way", "set", "set/deep"] {
            fs::create_dir(at.join(folder)).unwrap();
            mode(&at.join(folder), 0o755);
        }
        write(&at.join("set/deep").join(name), "x");
        symlink(at.join("set/deep").join(name), at.join("way/link")).unwrap();
        let path = at.join("way/link");
        let read = || {
            let object = if is_key {
                crate::material::permissions::Object::Key
            } else {
                crate::material::permissions::Object::File
            };
            trusted::read_as(&path, object, 10)
        };
        assert_eq!(read().unwrap().warnings, [], "{part}");
        for object in ["way", "set", "set/deep", &format!("set/deep/{name}")] {
            let object = at.join(object);
            let before = fs::metadata(&object).unwrap().permissions();
            mode(&object, before.mode() | 0o002);
            match read() {
                Err(FileError::Replaceable { object: told, offence: Offence::WritableByOthers { .. }, .. }) => {
                    assert_eq!(told, object, "{part}");
                }
                other => panic!("{part}: {} is writable by everybody: {other:?}", object.display()),
            }
            if object.is_dir() {
                mode(&object, before.mode() | 0o1022);
                assert_eq!(read().unwrap().warnings, [], "{part}: sticky {}", object.display());
            }
            // A group of ours, or root's.
            mode(&object, before.mode() | 0o020);
            let refused = matches!(read(), Err(FileError::Replaceable { .. }));
            assert_eq!(refused, is_key && object != at.join("set"), "{part}: group writes {}", object.display());
            fs::set_permissions(&object, before).unwrap();
            if give_away(&object) {
                let warnings = read().unwrap().warnings;
                assert_eq!(warnings.len(), 1, "{part}: {warnings:?}");
                assert_eq!((&warnings[0].path, warnings[0].offence), (&object, Offence::ForeignOwner { uid: 4_242 }));
                chown(&object, Some(rustix::process::geteuid().as_raw()), None).unwrap();
            }
        }
        assert_eq!(read().unwrap().warnings, [], "{part}");
    }
}

#[tokio::test]
async fn invariant_7_refuses_each_replaceable_part() {
    for crl_folder in [false, true] {
        let set = Apart::new(crl_folder);
        for (part, field) in PARTS {
            if part.starts_with(if crl_folder { "crl/" } else { "crls/" }) {
                continue;
            }
            for (path, bits) in [(set.path(part), 0o606), (set.path(part).parent().unwrap().to_owned(), 0o777)] {
                let before = fs::metadata(&path).unwrap().permissions();
                mode(&path, bits);
                let error =
                    set.open(mesh("proxy", "proxy-1")).await.map(|store| store.status()).unwrap_err().to_string();
                let words = [field, "who could replace", "chmod go-w"];
                assert!(words.iter().all(|word| error.contains(word)), "{part}: {error}");
                fs::set_permissions(&path, before).unwrap();
            }
        }
        set.open(mesh("proxy", "proxy-1")).await.unwrap();
    }
}

/// What hashes alone tell.
fn content(source: &Source) -> Result<Content, LoadError> {
    let mut found = None;
    let read = source.read_unless(|content| {
        found = Some(content);
        true
    })?;
    assert!(read.is_none());
    Ok(found.unwrap())
}

#[test]
fn warns_once_until_mended() {
    let set = Apart::new(false);
    let source = Source::of(&set.files(), &mesh("proxy", "proxy-1")).unwrap();
    source.read().unwrap();
    assert_eq!(source.warnings(), []);
    mode(&set.path("key/server.key"), 0o644);
    for _ in 0..2 {
        content(&source).unwrap();
        let warnings = source.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].to_string().contains("chmod 0600"), "{}", warnings[0]);
    }
    mode(&set.path("key/server.key"), 0o600);
    content(&source).unwrap();
    assert_eq!(source.warnings(), []);
}

#[test]
fn hashes_tell_what_bytes_tell() {
    let set = Apart::new(true);
    let source = Source::of(&set.files(), &mesh("proxy", "proxy-1")).unwrap();
    assert_eq!(content(&source).unwrap(), source.read().unwrap().content());
    let before = content(&source).unwrap();
    // As long as before, within one tick of the file system's clock perhaps.
    let mut bytes = fs::read(set.path("key/server.key")).unwrap();
    bytes[40] ^= 1;
    write(&set.path("key/server.key"), &bytes);
    let after = content(&source).unwrap();
    assert!(after.pair != before.pair && after.lists == before.lists);
}

#[test]
fn lists_may_be_larger() {
    let set = Apart::new(false);
    let source = Source::of(&set.files(), &mesh("proxy", "proxy-1")).unwrap();
    write(&set.path("crl/crl.pem"), vec![b'#'; 3 * 1024 * 1024]);
    source.read().unwrap();
    fs::File::options().write(true).open(set.path("crl/crl.pem")).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    assert!(matches!(content(&source), Err(LoadError::TooLarge { limit: 67_108_864, .. })));
}
