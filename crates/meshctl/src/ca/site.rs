//! The mesh's certificates on disk, as `certs init` lays them out: one folder a node, and above them the pair that signs.
//!
//! 1. Every change of a folder is one of [`folder::replace`]: all at once. Done twice it is done once: what a folder
//!    has already is not written again, so that no process reloads for nothing.
//! 2. The signing `ca.pem` above the nodes is a bundle too, the signer first: a node that is added half-way gets what the
//!    others have.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use settings::Settings;
use time::OffsetDateTime;

use super::bundle::Bundle;
use crate::certs::authority::{Authority, Facts};
use crate::certs::check::signed_by;
use crate::certs::dir::Dir;
use crate::certs::folder::{self, NewFile};
use crate::certs::renew;
use crate::cluster::Cluster;

/// Where everything lies.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    members: Vec<PathBuf>,
    /// Where processes read revocation lists, if they do.
    pub crls: Vec<PathBuf>,
}

impl Site {
    /// Finds the files of the cluster in `dir`, and that its processes read these.
    ///
    /// # Errors
    /// When they read others, share one leaf, or speak plaintext: then this tool is not for them.
    pub fn find(dir: &Path, cluster: &Cluster) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let root = cluster.certs.clone().unwrap_or_else(|| dir.join("certs")).join("mesh");
        let members = members(&root)?;
        let mut crls = Vec::new();
        for process in &cluster.processes {
            crls.extend(read_by(&dir, &root, &process.node)?);
        }
        crls.sort();
        crls.dedup();
        Ok(Self { root, members, crls })
    }

    /// The bundle beside the signing key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bundle(&self) -> anyhow::Result<Bundle> {
        bundle_of(&self.root)
    }

    /// How many nodes have a folder.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no node has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Puts `old` and `new` into every bundle, after what is there.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn add(&self, old: &Bundle, new: &Bundle) -> anyhow::Result<()> {
        self.every_bundle(|bundle| bundle.and(old).and(new))
    }

    /// Takes this CA out of every bundle.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn remove(&self, old: &str) -> anyhow::Result<()> {
        self.every_bundle(|bundle| bundle.without(old))
    }

    fn every_bundle(&self, change: impl Fn(Bundle) -> Bundle) -> anyhow::Result<()> {
        for folder in self.members.iter().chain([&self.root]) {
            let before = bundle_of(folder)?;
            let after = change(before.clone());
            if after != before {
                put(&open(folder)?, &[NewFile::public("ca.pem", &after.pem())])?;
            }
        }
        Ok(())
    }

    /// From now on `authority` signs here. The key goes first; between the two `certs renew` refuses to sign.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn sign_by(&self, authority: &Authority) -> anyhow::Result<()> {
        let bundle = Bundle::parse(authority.cert_pem())?.and(&self.bundle()?);
        let key = NewFile::secret("ca.key", &authority.key_pem());
        put(&open(&self.root)?, &[key, NewFile::public("ca.pem", &bundle.pem())])
    }

    /// A new leaf and key for every node whose leaf is not signed by `authority` yet. How many there were.
    ///
    /// # Errors
    /// When something cannot be read, signed or written, or a leaf is of a CA that `authority` does not vouch for.
    pub fn renew(&self, authority: &Authority, valid_for: Duration, now: OffsetDateTime) -> anyhow::Result<usize> {
        let anchors = Bundle::parse(authority.cert_pem())?.pem();
        let is_old = |folder: &&PathBuf| !signed_by(&folder.join("server.pem"), anchors.as_bytes());
        let old: Vec<_> = self.members.iter().filter(is_old).collect();
        for folder in &old {
            let dir = open(folder)?;
            put(&dir, &renew::successors(&dir, folder, authority, valid_for, now)?)?;
        }
        Ok(old.len())
    }

    /// That every node's leaf is signed by the one CA in `anchors`, and its bundle holds it and not `old`.
    ///
    /// # Errors
    /// The first that does not, as a sentence.
    pub fn verify(&self, anchors: &Bundle, old: &str) -> anyhow::Result<()> {
        for folder in &self.members {
            let (leaf, bundle) = (folder.join("server.pem"), bundle_of(folder)?);
            let fits = signed_by(&leaf, anchors.pem().as_bytes());
            ensure!(fits, "{} is not signed by the new CA; sign it with `meshctl certs renew`", leaf.display());
            let right = anchors.fingerprints().iter().all(|ca| bundle.holds(ca)) && !bundle.holds(old);
            ensure!(right, "{} is not as it was written; somebody else changed it", folder.join("ca.pem").display());
        }
        Ok(())
    }

    /// The serial of each node's leaf.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn serials(&self) -> anyhow::Result<BTreeMap<String, String>> {
        self.members
            .iter()
            .map(|folder| Ok((name(folder), Facts::of_file(&folder.join("server.pem"))?.serial)))
            .collect()
    }
}

/// The revocation lists that a node reads; an error where it does not read the leaf that lies here for it. Nodes on other hosts have
/// their configuration there: that they serve what lies here is seen before the first step, by its serial.
fn read_by(dir: &Path, root: &Path, node: &str) -> anyhow::Result<Option<PathBuf>> {
    let config = dir.join("config").join(node);
    if !config.exists() {
        return Ok(None);
    }
    let settings = Settings::load_with_env(&config, std::iter::empty())
        .with_context(|| format!("the configuration of {node} in {} cannot be read", config.display()))?;
    let own = root.join(node).join("server.pem");
    let files = settings.internal.files.as_ref().filter(|_| settings.internal.enabled);
    let read = files.with_context(|| format!("{node} speaks plaintext in the mesh; there is no CA to replace"))?;
    ensure!(
        read.cert == own,
        "{node} reads its leaf from {}, not from {}: this tool replaces the CA of certificates that `meshctl certs init` made. Yours goes by the same steps by hand: both CAs into every bundle, new leaves, the old CA out",
        read.cert.display(),
        own.display()
    );
    Ok(read.crl.clone())
}

fn members(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("could not read {}; is this the folder of a cluster with certificates?", root.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if !name(&path).starts_with('.') && path.join("server.pem").exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn bundle_of(folder: &Path) -> anyhow::Result<Bundle> {
    let path = folder.join("ca.pem");
    let bytes = open(folder)?.read(OsStr::new("ca.pem"))?.bytes;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))?;
    Bundle::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// A folder that may be a service's, or a link of the operator's to one: whatever links it has been given since are not followed.
fn open(folder: &Path) -> anyhow::Result<Dir> {
    match (folder.parent(), folder.file_name()) {
        (Some(above), Some(name)) => Dir::open(above)?.enter(name),
        _ => Dir::open(folder),
    }
}

fn put(dir: &Dir, files: &[NewFile]) -> anyhow::Result<()> {
    folder::replace_in(dir, files, OffsetDateTime::now_utc())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
