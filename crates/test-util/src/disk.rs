//! How certificates come to lie on disk, and how they are replaced there: as Kubernetes does, through chained symlinks, as
//! plain copies.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::authority::{Pair, write_public, write_secret};

/// What one node reads.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds a private key")]
pub struct Set {
    /// The leaf and its key.
    pub pair: Pair,
    /// The trust anchors, PEM.
    pub ca: String,
}

impl Set {
    fn write(&self, folder: &Path) {
        self.pair.write(folder, "server");
        write_public(&folder.join("ca.pem"), &self.ca);
    }
}

const NAMES: [&str; 3] = ["ca.pem", "server.pem", "server.key"];

/// A volume as the kubelet lays it out: `..data` points at a versioned folder, each file through `..data`.
#[derive(Debug)]
pub struct Volume {
    folder: PathBuf,
    version: usize,
}

impl Volume {
    /// Lays out `folder` with a first version.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn create(folder: &Path, set: &Set) -> Self {
        fs::create_dir_all(folder).expect("the volume's folder can be made");
        let mut volume = Self { folder: folder.into(), version: 0 };
        volume.swap(set);
        for name in NAMES {
            symlink(format!("..data/{name}"), folder.join(name)).expect("a symlink in a new folder");
        }
        volume
    }

    /// Replaces the whole set by one rename of one symlink, then removes the version before, as the kubelet does.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn swap(&mut self, set: &Set) {
        let before = self.version;
        self.version += 1;
        let name = format!("..2026_01_01_00_00_00.{}", self.version);
        set.write(&self.folder.join(&name));
        point(&self.folder.join("..data"), Path::new(&name));
        let _ = fs::remove_dir_all(self.folder.join(format!("..2026_01_01_00_00_00.{before}")));
    }
}

/// Files reached through two symlinks, the second in a folder of its own: `folder/server.pem → middle/server.pem → versions/N/server.pem`.
#[derive(Debug)]
pub struct Chain {
    middle: PathBuf,
    versions: PathBuf,
    version: usize,
}

impl Chain {
    /// Lays out `folder`, and beside it what its files point at.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn create(folder: &Path, set: &Set) -> Self {
        let beside = |suffix: &str| folder.with_extension(suffix);
        let mut chain = Self { middle: beside("middle"), versions: beside("versions"), version: 0 };
        fs::create_dir_all(folder).expect("a folder can be made");
        fs::create_dir_all(&chain.middle).expect("a folder can be made");
        chain.swap(set);
        for name in NAMES {
            symlink(chain.middle.join(name), folder.join(name)).expect("a symlink in a new folder");
        }
        chain
    }

    /// Replaces each second symlink; nothing in the first folder changes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn swap(&mut self, set: &Set) {
        self.version += 1;
        let version = self.versions.join(self.version.to_string());
        set.write(&version);
        for name in NAMES {
            point(&self.middle.join(name), &version.join(name));
        }
    }
}

/// Plain files that are copied over, one after the other, each truncated in place and written.
pub mod plain {
    use super::{Path, Set, write_public, write_secret};

    /// All three, in a new folder.
    pub fn create(folder: &Path, set: &Set) {
        set.write(folder);
    }

    /// The certificate alone: until the key follows, the pair does not fit.
    pub fn certificate(folder: &Path, set: &Set) {
        write_public(&folder.join("server.pem"), &set.pair.cert);
    }

    /// The key alone.
    pub fn key(folder: &Path, set: &Set) {
        write_secret(&folder.join("server.key"), &set.pair.key);
    }

    /// The certificate file, emptied: what a reader sees between openssl's opening and its writing.
    pub fn truncate(folder: &Path) {
        write_public(&folder.join("server.pem"), "");
    }
}

/// Makes `link` point at `target`, by one rename.
fn point(link: &Path, target: &Path) {
    let name = link.file_name().expect("a link has a name").to_string_lossy();
    let aside = link.with_file_name(format!("{name}.tmp"));
    let _ = fs::remove_file(&aside);
    symlink(target, &aside).expect("a symlink can be made");
    fs::rename(&aside, link).expect("a symlink can be renamed");
}
