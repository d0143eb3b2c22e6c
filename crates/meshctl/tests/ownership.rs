//! What root replaces for a service stays the service's: a process of that user reads it, and nobody else a key.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use meshctl::ca::bundle::Bundle;
use meshctl::ca::crl;
use meshctl::ca::journal::{Journal, Lock, Step};
use meshctl::certs::authority::{Authority, KeyKind};
use meshctl::certs::folder::{self, NewFile};
use meshctl::certs::init;
use meshctl::certs::renew::renew;
use time::OffsetDateTime;

/// `nobody`, as a service's user, and a group that is not its own.
const SERVICE: (u32, u32) = (65_534, 12_345);

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: init::Args,
}

fn init(out: &Path, more: &[&str]) {
    let given = ["init", "--out", out.to_str().unwrap()];
    Init::try_parse_from(given.iter().chain(more)).unwrap().args.make(OffsetDateTime::now_utc()).unwrap();
}

/// A folder of the service; `None` where we are not root and can give nothing away.
fn folder_of_service(test: &str) -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        // Past the harness, which shows nothing of a test that passes.
        let line = format!("\nownership: NOT RUN, and nothing said of {test}: only root can give files away\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    give(dir.path());
    Some(dir)
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn give(folder: &Path) {
    for path in below(folder) {
        lchown(&path, Some(SERVICE.0), Some(SERVICE.1)).unwrap();
    }
}

/// Everything below is the service's, links too, and keys are its alone.
fn all_is_the_services(folder: &Path) {
    for path in below(folder) {
        let meta = path.symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), SERVICE, "{}", path.display());
        let secret = meta.is_file() && fs::read_to_string(&path).unwrap().contains("PRIVATE KEY");
        assert!(!secret || meta.mode() & 0o077 == 0, "{} has mode {:o}", path.display(), meta.mode());
    }
}

/// A process with the user and group of the service, and with no right of root.
fn as_service(program: &[&str]) -> (bool, String) {
    let (uid, gid) = SERVICE;
    let output = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--inh-caps=-all", "--"])
        .args(program)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn service_reads(path: &Path) {
    let (read, said) = as_service(&["cat", path.to_str().unwrap()]);
    assert!(read && said.contains("-----BEGIN"), "{}: {said}", path.display());
}

#[test]
fn renewal_by_root_keeps_owners() {
    let Some(dir) = folder_of_service("renewal_by_root_keeps_owners") else { return };
    for layout in ["mesh", "milvus"] {
        let out = dir.path().join(layout);
        init(&out, &["--layout", layout]);
        give(&out);
        renew(&out, Duration::from_secs(60)).unwrap();
        renew(&out, Duration::from_secs(60)).unwrap();
        all_is_the_services(&out);
        for path in below(&out).iter().filter(|path| path.extension().is_some_and(|e| e == "pem" || e == "key")) {
            service_reads(path);
        }
    }
}

/// The group of a folder that a group may enter, and what an operator put beside the certificates.
#[test]
fn renewal_keeps_modes_and_strangers() {
    let Some(dir) = folder_of_service("renewal_keeps_modes_and_strangers") else { return };
    init(dir.path(), &[]);
    let node = dir.path().join("mesh/proxy-1");
    let version = node.join(fs::read_link(node.join("..data")).unwrap());
    fs::write(version.join("note.txt"), "of the operator").unwrap();
    symlink("note.txt", version.join("link.txt")).unwrap();
    give(dir.path());
    for (path, mode) in
        [(version.clone(), 0o2750), (version.join("server.key"), 0o640), (version.join("note.txt"), 0o604)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    renew(dir.path(), Duration::from_secs(60)).unwrap();
    let after = node.join(fs::read_link(node.join("..data")).unwrap());
    assert_ne!(after, version);
    let mode = |path: PathBuf| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(after.clone()), 0o2750);
    assert_eq!((mode(after.join("server.key")), mode(after.join("note.txt"))), (0o640, 0o604));
    assert_eq!(fs::read_link(after.join("link.txt")).unwrap(), Path::new("note.txt"));
    assert_eq!(after.join("link.txt").symlink_metadata().unwrap().uid(), SERVICE.0);
}

/// Whoever owns the folder of a service must not get what root can read, nor a file where root can write.
#[test]
fn root_follows_no_link_of_a_service() {
    let Some(dir) = folder_of_service("root_follows_no_link_of_a_service") else { return };
    let (secret, elsewhere) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    fs::write(secret.path(), "the secret of root").unwrap();
    init(dir.path(), &[]);
    let node = dir.path().join("mesh/proxy-1");
    let version = node.join(fs::read_link(node.join("..data")).unwrap());
    symlink(secret.path(), version.join("stolen")).unwrap();
    give(dir.path());
    renew(dir.path(), Duration::from_secs(60)).unwrap();
    let stolen = node.join(fs::read_link(node.join("..data")).unwrap()).join("stolen");
    assert!(!stolen.symlink_metadata().unwrap().is_file(), "the content was copied");
    assert!(!as_service(&["cat", stolen.to_str().unwrap()]).0);
    assert_eq!(secret.path().metadata().unwrap().uid(), 0);
    // A folder of versions that lies elsewhere.
    fs::remove_file(node.join("..data")).unwrap();
    symlink(elsewhere.path(), node.join("..data")).unwrap();
    let replaced = folder::replace(&node, vec![NewFile::public("server.pem", "x")], OffsetDateTime::now_utc());
    assert!(format!("{:#}", replaced.unwrap_err()).contains("..data"));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

fn refused(dir: &Path, words: &str) {
    let error = format!("{:#}", renew(dir, Duration::from_secs(60)).unwrap_err());
    assert!(error.contains(words), "{error}");
}

/// A service that brings a CA of its own gets root to sign by it, nowhere.
#[test]
fn root_signs_by_no_key_of_a_service() {
    let Some(dir) = folder_of_service("root_signs_by_no_key_of_a_service") else { return };
    lchown(dir.path(), Some(0), Some(0)).unwrap();
    init(dir.path(), &[]);
    let [node, victim] = ["mesh/proxy-1", "mesh/coordinator-1"].map(|node| dir.path().join(node));
    let before = fs::read(victim.join("server.pem")).unwrap();
    symlink(&victim, node.join("x")).unwrap();
    give(&node);
    let renewed = renew(dir.path(), Duration::from_secs(60)).unwrap();
    assert!(renewed.iter().all(|leaf| !leaf.path.starts_with(node.join("x"))), "{renewed:?}");
    let after = fs::read(victim.join("server.pem")).unwrap();
    assert_ne!(after, before, "the victim's own folder is renewed");
    let own = Authority::create("mesh.internal CA", KeyKind::EcP256, OffsetDateTime::now_utc()).unwrap();
    folder::write_flat(&node, &[NewFile::public("ca.new", own.cert_pem()), NewFile::secret("ca.key", &own.key_pem())])
        .unwrap();
    fs::rename(node.join("ca.new"), node.join("ca.pem")).unwrap();
    give(&node);
    refused(dir.path(), "neither root nor the caller");
    assert_eq!(fs::read(victim.join("server.pem")).unwrap(), after);
}

/// Root can read the key of another service; through a link of this one it does not, whether to the files or to the folder.
#[test]
fn root_proves_no_key_by_a_services_link() {
    let Some(dir) = folder_of_service("root_proves_no_key_by_a_services_link") else { return };
    lchown(dir.path(), Some(0), Some(0)).unwrap();
    init(dir.path(), &[]);
    let [node, victim] = ["mesh/proxy-1", "mesh/coordinator-1"].map(|node| dir.path().join(node));
    for name in ["server.pem", "server.key"] {
        fs::remove_file(node.join(name)).unwrap();
        symlink(victim.join(name), node.join(name)).unwrap();
    }
    give(&node);
    refused(dir.path(), "is not followed");
    for name in ["server.pem", "server.key"] {
        fs::remove_file(node.join(name)).unwrap();
        fs::hard_link(victim.join(fs::read_link(victim.join("..data")).unwrap()).join(name), node.join(name)).unwrap();
    }
    refused(dir.path(), "more than one name");
}

/// The operator's links to volumes are followed, and no link that a service puts on the way.
#[test]
fn links_of_the_operator_are_followed() {
    let Some(dir) = folder_of_service("links_of_the_operator_are_followed") else { return };
    lchown(dir.path(), Some(0), Some(0)).unwrap();
    let (out, nodes) = (dir.path().join("authority"), dir.path().join("nodes"));
    init(&out, &["--nodes", nodes.to_str().unwrap()]);
    let volume = nodes.join("proxy-1");
    give(&volume);
    let renewed = renew(&out, Duration::from_secs(60)).unwrap();
    for path in ["mesh/proxy-1/server.pem", "edge/server/server.pem"] {
        assert!(renewed.iter().any(|leaf| leaf.path == out.join(path)), "{renewed:?}");
    }
    all_is_the_services(&volume);
    fs::rename(volume.join("mesh"), volume.join("before")).unwrap();
    symlink(nodes.join("coordinator-1/mesh"), volume.join("mesh")).unwrap();
    give(&volume);
    refused(&out, "is not followed");
}

#[test]
fn what_root_adds_is_the_folders() {
    let Some(dir) = folder_of_service("what_root_adds_is_the_folders") else { return };
    let (out, nodes) = (dir.path().join("authority"), dir.path().join("nodes"));
    for node in ["proxy-1", "coordinator-1", "data-node-1"] {
        fs::create_dir_all(nodes.join(node)).unwrap();
    }
    give(dir.path());
    let nodes = nodes.to_str().unwrap().to_owned();
    for data_nodes in ["1", "1", "2"] {
        fs::create_dir_all(Path::new(&nodes).join(format!("data-node-{data_nodes}"))).unwrap();
        give(Path::new(&nodes));
        init(&out, &["--nodes", &nodes, "--if-missing", "--data-nodes", data_nodes]);
        all_is_the_services(dir.path());
    }
    service_reads(&out.join("mesh/data-node-2/server.key"));
    service_reads(&Path::new(&nodes).join("proxy-1/edge/server.key"));
}

#[test]
fn rotation_by_root_leaves_nothing_of_root() {
    let Some(dir) = folder_of_service("rotation_by_root_leaves_nothing_of_root") else { return };
    let (now, at) = (OffsetDateTime::now_utc(), dir.path());
    let [old, new] = ["old", "new"].map(|name| Authority::create(name, KeyKind::EcP256, now).unwrap());
    let lock = Lock::take(at).unwrap();
    let mut journal = Journal::begin(at, &Bundle::parse(old.cert_pem()).unwrap(), &new).unwrap();
    journal.advance(Step::Renew).unwrap();
    journal.advance(Step::Remove).unwrap();
    fs::create_dir(at.join("crls")).unwrap();
    fs::write(at.join("all.crl"), old.empty_crl(crl::GOOD_FOR, now).unwrap()).unwrap();
    give(&at.join("crls"));
    lchown(at.join("all.crl"), Some(SERVICE.0), Some(SERVICE.1)).unwrap();
    crl::bring(&at.join("crls"), &new, now).unwrap();
    crl::bring(&at.join("all.crl"), &new, now).unwrap();
    all_is_the_services(at);
    // The service's own user goes on where root stopped.
    drop(lock);
    let lock = at.join(".ca-rotation.lock");
    let (written, said) =
        as_service(&["sh", "-c", &format!("cat {0}/ca-rotation/ca.key && : >> {1}", at.display(), lock.display())]);
    assert!(written, "{said}");
    journal.finish(at).unwrap();
}

/// A watcher sees each state of a key file that is replaced: never one that others may read, never one of root with content.
#[test]
fn invariant_7_a_key_is_private_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--layout", "milvus"]);
    let root = rustix::process::geteuid().is_root();
    if root {
        give(dir.path());
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["server.key", ".server.key.new", "client.key", ".client.key.new"] {
                    let Ok(meta) = dir.path().join(name).symlink_metadata() else { continue };
                    seen += 1;
                    assert_eq!(meta.mode() & 0o077, 0, "{name} has mode {:o}", meta.mode());
                    assert!(!root || meta.len() == 0 || meta.uid() == SERVICE.0, "{name} is root's, and has content");
                }
            }
            seen
        });
        for _ in 0..20 {
            renew(dir.path(), Duration::from_secs(60)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen > 100, "{seen}");
}
