//! `certs renew`: new leaves and keys under the same names.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use internaltls::inspect;
use time::OffsetDateTime;

use super::authority::{Authority, Issued, date};
use super::der;
use super::folder::{self, NewFile};
use super::init::{Validity, pair, serial_file};
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
/// signed changes nothing.
///
/// # Errors
/// When there are no leaves there, a CA that signed one is not at hand, or something cannot be written.
pub fn renew(dir: &Path, valid_for: Duration) -> anyhow::Result<Vec<Renewed>> {
    let now = OffsetDateTime::now_utc();
    let folders = leaf_folders(dir)?;
    let signed = folders.into_iter().map(|folder| sign(folder, valid_for, now)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut renewed = Vec::new();
    for set in signed {
        folder::replace(&set.folder, set.files, now)?;
        renewed.extend(set.leaves);
    }
    Ok(renewed)
}

/// New leaves and keys for the leaves in `folder`, signed by `authority`, as they are to be written.
///
/// # Errors
/// When a leaf cannot be read, or its successor not be signed.
pub(crate) fn successors(
    folder: &Path,
    authority: &Authority,
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<NewFile>> {
    let mut files = Vec::new();
    for stem in stems(folder) {
        let (issued, _) = succeed(&folder.join(format!("{stem}.pem")), stem, authority, valid_for, now)?;
        files.extend(pair(stem, &issued));
    }
    Ok(files)
}

struct Signed {
    folder: PathBuf,
    files: Vec<NewFile>,
    leaves: Vec<Renewed>,
}

fn sign(folder: PathBuf, valid_for: Duration, now: OffsetDateTime) -> anyhow::Result<Signed> {
    let authority = authority_of(&folder, now)?;
    let (mut files, mut leaves) = (Vec::new(), Vec::new());
    for stem in stems(&folder) {
        let (issued, remarks) = succeed(&folder.join(format!("{stem}.pem")), stem, &authority, valid_for, now)?;
        files.extend(pair(stem, &issued));
        leaves.push(Renewed {
            path: folder.join(format!("{stem}.pem")),
            serial: issued.serial,
            not_after: issued.not_after,
            remarks,
        });
    }
    if let (Some(last), true) = (leaves.last(), folder.join("ca.srl").exists()) {
        files.push(serial_file(&last.serial));
    }
    Ok(Signed { folder, files, leaves })
}

fn succeed(
    path: &Path,
    stem: &str,
    authority: &Authority,
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<(Issued, Vec<String>)> {
    let cannot = || format!("could not sign a successor of {}", path.display());
    let before = inspect::certificates(path)?;
    let (leaf, above) = before.split_first().with_context(cannot)?;
    let mut template = Template::of(leaf).with_context(cannot)?;
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
fn authority_of(folder: &Path, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let above = folder.parent().map(Path::to_path_buf).filter(|above| !above.as_os_str().is_empty());
    let at = [Some(folder.to_path_buf()), above].into_iter().flatten().find(|at| at.join("ca.key").exists());
    match at {
        Some(at) => Authority::load(&at, now),
        None => bail!(
            "the CA key that signs for {} is not at hand: put ca.key beside ca.pem there, or renew where the key is kept",
            folder.display()
        ),
    }
}

fn stems(folder: &Path) -> impl Iterator<Item = &'static str> {
    let folder = folder.to_path_buf();
    ["server", "client"].into_iter().filter(move |stem| folder.join(format!("{stem}.pem")).exists())
}

fn leaf_folders(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let within = dir.join("certs");
    let root = if within.is_dir() { within } else { dir.to_path_buf() };
    let mut found = Vec::new();
    collect(&root, 3, &mut found)?;
    if found.is_empty() {
        bail!(
            "no leaves to renew under {}: expected server.pem or client.pem there, or the folders edge and mesh; make them with `meshctl certs init`",
            dir.display()
        );
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: u8, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if stems(folder).next().is_some() {
        found.push(folder.to_path_buf());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = fs::read_dir(folder).with_context(|| {
        format!("could not read the folder {}; give --dir a folder that holds certificates", folder.display())
    })?;
    for entry in entries.flatten() {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_dir() {
            collect(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}
