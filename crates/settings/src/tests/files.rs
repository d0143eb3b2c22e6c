//! What can be in the place of a settings file, and who else may write it.
use std::error::Error as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{Settings, SettingsError};

struct Given {
    root: tempfile::TempDir,
}

impl Given {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("configs")).unwrap();
        for (name, text) in [("milvus.yaml", "proxy: {port: 1}\n"), ("user.yaml", "proxy: {port: 2}\n")] {
            fs::write(root.path().join("configs").join(name), text).unwrap();
            mode(&root.path().join("configs").join(name), 0o644);
        }
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn load(&self, path: &str) -> Result<Settings, SettingsError> {
        Settings::load_with_env(&self.at(path), std::iter::empty())
    }

    /// The cause of the refusal.
    fn refusal(&self, path: &str) -> String {
        self.load(path).unwrap_err().source().unwrap().to_string()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// By itself, and as a layer of a folder.
const WAYS: [(&str, &str); 3] = [
    ("configs/milvus.yaml", "configs/milvus.yaml"),
    ("configs", "configs/milvus.yaml"),
    ("configs", "configs/user.yaml"),
];

#[test]
fn invariant_9_reads_only_regular_files() {
    for (configured, file) in WAYS {
        for kind in ["folder", "FIFO", "socket", "device"] {
            let given = Given::new();
            let path = given.at(file);
            fs::remove_file(&path).unwrap();
            match kind {
                "folder" if configured != "configs" => continue,
                "folder" => fs::create_dir(&path).unwrap(),
                "FIFO" => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
                "socket" => drop(UnixListener::bind(&path).unwrap()),
                _ => symlink("/dev/zero", &path).unwrap(),
            }
            let refusal = given.refusal(configured);
            let words = [file, &format!("is a {kind}, not a regular file")];
            assert!(words.iter().all(|word| refusal.contains(word)), "{configured}, {file}: {refusal}");
        }
    }
}

#[test]
fn link_to_nowhere_is_no_absent_layer() {
    let given = Given::new();
    symlink("nowhere", given.at("configs/default.yaml")).unwrap();
    assert!(given.refusal("configs").contains("default.yaml does not exist"));
}

#[test]
fn invariant_7_refuses_settings_others_can_write() {
    for (configured, file) in WAYS {
        for (object, bits) in [(file, 0o646), ("configs", 0o777), ("", 0o777)] {
            let given = Given::new();
            mode(&given.at(object), bits);
            let refusal = given.refusal(configured);
            assert!(refusal.contains("can be written by everybody") && refusal.contains("chmod go-w"), "{refusal}");
            if object != file {
                mode(&given.at(object), bits | 0o1000);
                given.load(configured).unwrap();
            }
        }
    }
}

#[test]
fn warns_of_settings_of_others() {
    let given = Given::new();
    let before = given.load("configs").unwrap().notices;
    if let Err(error) = chown(given.at("configs"), Some(4_242), None) {
        eprintln!("nothing can be given away here ({error}): foreign owners are tried in the table alone");
        return;
    }
    let mut notices = given.load("configs").unwrap().notices;
    notices.retain(|notice| !before.contains(notice));
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("configs is owned by uid 4242"), "{notices:?}");
}

#[test]
fn refuses_endless_file() {
    let given = Given::new();
    fs::File::options().write(true).open(given.at("configs/user.yaml")).unwrap().set_len(1 << 40).unwrap();
    assert!(given.refusal("configs").contains("is larger than"));
}
