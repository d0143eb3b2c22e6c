//! `certs renew`: new leaves and keys under the same names.
//!
//! Root renews in folders of services. What a folder holds decides nothing there: a leaf is renewed for who holds its key, as the
//! CA signed it (`proof`), and links are followed where root or the caller made them (`dir`, fact 4).
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use internaltls::inspect;
use time::OffsetDateTime;

use super::authority::{Authority, Issued, date};
use super::der;
use super::dir::Dir;
use super::folder::{self, NewFile};
use super::init::{Validity, pair, serial_file};
use super::proof;
use super::successor::Template;

/// The arguments of `certs renew`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl certs renew --dir .mesh --days 30\n\nA new leaf says what the one before said: subject, all extensions, kind and size of the key. Files keep their owner and mode.\n\nProcesses that serve these certificates follow by themselves; `meshctl status` shows when they did."
)]
pub struct Args {
    /// The cluster's folder, a folder of certificates made by `certs init`, or a flat folder of the documented names
    #[arg(long, default_value = ".mesh", value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub validity: Validity,
}

/// A leaf that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Where it lies.
    pub path: PathBuf,
    /// The new serial number, lower-case hex.
    pub serial: String,
    /// The end of the new validity.
    pub not_after: OffsetDateTime,
    /// What the new leaf says differently, and why.
    pub remarks: Vec<String>,
}

impl Args {
    /// Renews and prints a line a leaf.
    ///
    /// # Errors
    /// As [`renew`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        for leaf in renew(&self.dir, self.validity.duration())? {
            println!("{}  serial {}  valid until {}", leaf.path.display(), leaf.serial, date(leaf.not_after));
            leaf.remarks.iter().for_each(|remark| println!("  note: {remark}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Replaces every leaf and key found under `dir`. All are signed before the first is written, so that what cannot be
/// signed changes nothing. A folder stays open from when it is found, so that nobody puts another in its place.
///
/// # Errors
/// When there are no leaves there, a CA that signed one is not at hand, a leaf is not of that CA or its key is not beside it, or
/// something cannot be written.
pub fn renew(dir: &Path, valid_for: Duration) -> anyhow::Result<Vec<Renewed>> {
    let now = OffsetDateTime::now_utc();
    let folders = leaf_folders(dir)?;
    let signed = folders.iter().map(|folder| sign(folder, valid_for, now)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut renewed = Vec::new();
    for (folder, set) in folders.iter().zip(signed) {
        folder::replace_in(&folder.dir, &set.files, now)?;
        renewed.extend(set.leaves);
    }
    Ok(renewed)
}

/// New leaves and keys for the leaves in `dir`, signed by `authority`, as they are to be written. `path` is for messages.
///
/// # Errors
/// When a leaf cannot be read, is of a CA that `authority` does not vouch for, or its successor cannot be signed.
pub(crate) fn successors(
    dir: &Dir,
    path: &Path,
    authority: &Authority,
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<NewFile>> {
    let mut files = Vec::new();
    for stem in stems(dir) {
        let (issued, _) = succeed(dir, path, stem, authority, valid_for, now)?;
        files.extend(pair(stem, &issued));
    }
    Ok(files)
}

/// A folder that holds leaves.
struct Folder {
    dir: Rc<Dir>,
    /// As it was reached, links and all.
    path: PathBuf,
    /// The folder that it was reached by, where the mesh's CA is.
    above: Option<Rc<Dir>>,
    /// The user whose folder the caller named, and who so chooses all that lies in it.
    owner: u32,
}

struct Signed {
    files: Vec<NewFile>,
    leaves: Vec<Renewed>,
}

fn sign(folder: &Folder, valid_for: Duration, now: OffsetDateTime) -> anyhow::Result<Signed> {
    let authority = authority_of(folder, now)?;
    let (mut files, mut leaves) = (Vec::new(), Vec::new());
    for stem in stems(&folder.dir) {
        let (issued, remarks) = succeed(&folder.dir, &folder.path, stem, &authority, valid_for, now)?;
        files.extend(pair(stem, &issued));
        leaves.push(Renewed {
            path: folder.path.join(format!("{stem}.pem")),
            serial: issued.serial,
            not_after: issued.not_after,
            remarks,
        });
    }
    if let (Some(last), true) = (leaves.last(), folder.dir.has("ca.srl")) {
        files.push(serial_file(&last.serial));
    }
    Ok(Signed { files, leaves })
}

fn succeed(
    dir: &Dir,
    folder: &Path,
    stem: &str,
    authority: &Authority,
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<(Issued, Vec<String>)> {
    let names = ["pem", "key"].map(|kind| format!("{stem}.{kind}"));
    let [path, key_path] = names.each_ref().map(|name| folder.join(name));
    let cannot = || format!("could not sign a successor of {}", path.display());
    let before = inspect::certificates_in(&path, &dir.read(OsStr::new(&names[0]))?.bytes)?;
    proof::is_signed(&before, authority.vouched(), &path)?;
    let (leaf, above) = before.split_first().with_context(cannot)?;
    let mut template = Template::of(leaf).with_context(cannot)?;
    // Of a kind of key that cannot be made here, none can be compared either.
    template.clone().key().with_context(cannot)?;
    let key = dir.read(OsStr::new(&names[1])).with_context(|| {
        format!("{} is renewed where its key lies beside it, for that proves whose it is", path.display())
    })?;
    proof::is_held(&before, &key.bytes, &path, &key_path)?;
    if stem == "client" {
        template.for_a_client();
    }
    let mut issued = authority.succeed(&mut template, valid_for, now).with_context(cannot)?;
    if authority.issued(&template) {
        // The path from this CA to the one that peers trust.
        issued.cert_pem.extend(above.iter().map(|intermediate| der::pem("CERTIFICATE", intermediate)));
    }
    Ok((issued, template.remarks))
}

/// The CA beside the leaves, or one folder up, where the mesh's is.
fn authority_of(folder: &Folder, now: OffsetDateTime) -> anyhow::Result<Authority> {
    if folder.dir.has("ca.key") {
        return Authority::load_in(&folder.dir, &folder.path, folder.owner, now);
    }
    match folder.above.as_ref().filter(|above| above.has("ca.key")) {
        Some(above) => Authority::load_in(above, folder.path.parent().unwrap_or(Path::new("..")), folder.owner, now),
        None => bail!(
            "the CA key that signs for {} is not at hand: put ca.key beside ca.pem there, or renew where the key is kept",
            folder.path.display()
        ),
    }
}

fn stems(dir: &Dir) -> impl Iterator<Item = &'static str> {
    ["server", "client"].into_iter().filter(|stem| dir.has(&format!("{stem}.pem")))
}

fn leaf_folders(path: &Path) -> anyhow::Result<Vec<Folder>> {
    let mut root = (Dir::open(path)?, path.to_path_buf());
    let owner = root.0.owner()?;
    let mut above =
        path.parent().filter(|above| !above.as_os_str().is_empty()).map(Dir::open).transpose()?.map(Rc::new);
    let within = OsStr::new("certs");
    if root.0.may_enter(within) {
        let certs = root.0.enter(within)?;
        above = Some(Rc::new(root.0));
        root = (certs, path.join(within));
    }
    let mut found = Vec::new();
    collect(root.0, root.1, above, 3, &mut found)?;
    found.iter_mut().for_each(|folder| folder.owner = owner);
    if found.is_empty() {
        bail!(
            "no leaves to renew under {}: expected server.pem or client.pem there, or the folders edge and mesh; make them with `meshctl certs init`",
            path.display()
        );
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn collect(dir: Dir, path: PathBuf, above: Option<Rc<Dir>>, depth: u8, found: &mut Vec<Folder>) -> anyhow::Result<()> {
    let dir = Rc::new(dir);
    if depth > 0 {
        let hidden = |name: &OsString| name.to_string_lossy().starts_with('.');
        for name in dir.names()?.into_iter().filter(|name| !hidden(name)) {
            let path = path.join(&name);
            if dir.may_enter(&name) {
                collect(dir.enter(&name)?, path, Some(dir.clone()), depth - 1, found)?;
            } else if path.is_dir() {
                crate::note(&format!("{} is a link of another user, and is not followed", path.display()));
            }
        }
    }
    if stems(&dir).next().is_some() {
        let owner = 0;
        found.push(Folder { dir, path, above, owner });
    }
    Ok(())
}
