//! Folders of certificates on disk, and how they change.
//!
//! 1. Versioned, as Kubernetes projects secrets: the files lie in a version folder, `..data` is a symlink to it, and
//!    `server.pem` and the others are symlinks through `..data`. A renewal writes a new version folder, syncs it and
//!    replaces the one symlink by rename, so whoever resolves `..data` once reads files that belong together. The version
//!    before is kept, for readers who resolved it a moment ago; older ones are removed.
//! 2. Flat, as people keep them: each file is replaced by a rename. The key goes first, the leaf last: programs that look
//!    at one file for changes look at the leaf, and by then its key is there. Whoever reads between the two sees a key that
//!    does not fit, which internaltls takes for what it is and reads again.
//! 3. What is replaced keeps its owner, group and mode, and what is new is its folder's owner's: `dir` sees to it.
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use time::OffsetDateTime;

use super::dir::{Dir, cannot_write, most};

const LINK: &str = "..data";

/// A file to be written.
#[expect(missing_debug_implementations, reason = "may hold a private key; nothing may print it by accident")]
pub struct NewFile {
    name: String,
    bytes: Vec<u8>,
    mode: u32,
}

impl NewFile {
    /// A certificate: readable by all.
    #[must_use]
    pub fn public(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), bytes: text.into(), mode: 0o644 }
    }

    /// A key: readable by its owner.
    #[must_use]
    pub fn secret(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), bytes: text.into(), mode: 0o600 }
    }

    /// Its name within the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn os_name(&self) -> &OsStr {
        OsStr::new(&self.name)
    }
}

/// Makes `path`, and what is missing above it, for the owner of the folder that is there, alone.
///
/// # Errors
/// When it cannot be made.
pub fn create_private(path: &Path) -> anyhow::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for folder in missing.iter().rev() {
        let above = Dir::open(parent(folder))?;
        if above.make(name(folder)?, None)?.is_none() {
            bail!("{} is a link that leads nowhere; remove it, or make the folder it leads to", folder.display());
        }
        above.sync()?;
    }
    Ok(())
}

/// Writes files that must not exist yet into a folder that does.
///
/// # Errors
/// When one exists, or cannot be written.
pub fn write_flat(folder: &Path, files: &[NewFile]) -> anyhow::Result<()> {
    let dir = Dir::open(folder)?;
    for file in files {
        dir.write(file.os_name(), &file.bytes, file.mode, None)?;
    }
    dir.sync()
}

/// Makes a versioned folder of files; it must not exist yet. It is made aside and appears whole.
///
/// # Errors
/// When it exists, or cannot be written.
pub fn create_versioned(folder: &Path, files: &[NewFile], now: OffsetDateTime) -> anyhow::Result<()> {
    create_private(parent(folder))?;
    let aside = aside(folder);
    let above = Dir::open(parent(folder))?;
    above.remove_all(name(&aside)?)?;
    let dir = above.make(name(&aside)?, None)?.with_context(|| cannot_write(&aside))?;
    let (version, new) = fresh_version(&dir, folder, None, now)?;
    for file in files {
        new.write(file.os_name(), &file.bytes, file.mode, None)?;
        dir.link(&Path::new(LINK).join(&file.name), file.os_name(), None)?;
    }
    new.sync()?;
    dir.link(&version, OsStr::new(LINK), None)?;
    dir.sync()?;
    above.rename(name(&aside)?, name(folder)?)?;
    above.sync()
}

fn aside(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    parent(folder).join(format!(".{name}.new"))
}

/// Makes `link` lead to `folder`, which need not be there yet. Done twice it is done once.
///
/// # Errors
/// When something else is in its place, or it cannot be written.
pub fn link(link: &Path, folder: &Path) -> anyhow::Result<()> {
    if fs::read_link(link).is_ok_and(|leads_to| leads_to == folder) {
        return Ok(());
    }
    let dir = Dir::open(parent(link))?;
    dir.link(folder, name(link)?, None)?;
    dir.sync()
}

/// The file at `path`, open to write; made empty for its folder's owner alone where there is none.
///
/// # Errors
/// When it cannot be opened or made.
pub fn open_or_make(path: &Path) -> anyhow::Result<File> {
    Dir::open(parent(path))?.open_or_make(name(path)?)
}

/// Where `folder` is: there, or where a link of its name leads to.
#[must_use]
pub fn place_of(folder: &Path) -> PathBuf {
    fs::read_link(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Replaces files of `folder`, all at once where it is versioned, else one by one in the order given.
///
/// # Errors
/// When something cannot be written; a versioned folder is then as it was.
pub fn replace(folder: &Path, files: Vec<NewFile>, now: OffsetDateTime) -> anyhow::Result<()> {
    replace_in(&Dir::open(folder)?, &files, now)
}

/// As [`replace`], in a folder that is open: what was read there is what is replaced.
pub(crate) fn replace_in(dir: &Dir, files: &[NewFile], now: OffsetDateTime) -> anyhow::Result<()> {
    match dir.target(OsStr::new(LINK)) {
        Some(before) => replace_version(dir, &before, files, now),
        None => replace_flat(dir, files),
    }
}

fn replace_version(dir: &Dir, before: &Path, files: &[NewFile], now: OffsetDateTime) -> anyhow::Result<()> {
    let folder = dir.path();
    let [Component::Normal(within)] = before.components().collect::<Vec<_>>()[..] else {
        bail!(
            "{} leads to {}, which is not in its folder; replace the files where they are",
            folder.join(LINK).display(),
            before.display()
        );
    };
    let old = dir.sub(within)?;
    let (version, new) = fresh_version(dir, folder, Some(&old), now)?;
    for file in files {
        let like = old.access_of(file.os_name()).filter(|_| old.target(file.os_name()).is_none());
        new.write(file.os_name(), &file.bytes, file.mode, like.map(|like| like.at_most(most(&file.bytes))))?;
    }
    // What is not replaced (the CA bundle, whatever an operator added) goes along.
    for name in old.names()?.iter().filter(|name| files.iter().all(|file| file.os_name() != *name)) {
        old.carry(name, &new)?;
    }
    new.sync()?;
    dir.sync()?;
    swap(dir, &version)?;
    remove_versions_but(dir, &[&version, before])
}

/// The one moment of change.
fn swap(dir: &Dir, version: &Path) -> anyhow::Result<()> {
    let (fresh, link) = (OsStr::new("..data_tmp"), OsStr::new(LINK));
    dir.remove(fresh)?;
    dir.link(version, fresh, dir.access_of(link))?;
    dir.rename(fresh, link)?;
    dir.sync()
}

/// A folder for the next version, like the one before it.
fn fresh_version(dir: &Dir, path: &Path, before: Option<&Dir>, now: OffsetDateTime) -> anyhow::Result<(PathBuf, Dir)> {
    let format =
        time::macros::format_description!("..[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:6]Z");
    let stem = now.to_offset(time::UtcOffset::UTC).format(format)?;
    let like = before.map(Dir::access).transpose()?.map(|access| access.at_most(0o2755));
    for attempt in 0..1_000 {
        let name = PathBuf::from(if attempt == 0 { stem.clone() } else { format!("{stem}.{attempt}") });
        if let Some(made) = dir.make(name.as_os_str(), like)? {
            return Ok((name, made));
        }
    }
    bail!("{} holds a thousand versions of this moment; remove what is left over there", path.display())
}

fn remove_versions_but(dir: &Dir, kept: &[&Path]) -> anyhow::Result<()> {
    for name in dir.names()? {
        let is_version = name.to_str().is_some_and(|n| n.starts_with("..2")) && dir.sub(&name).is_ok();
        if is_version && kept.iter().all(|kept| *kept != Path::new(&name)) {
            dir.remove_all(&name)?;
        }
    }
    Ok(())
}

fn replace_flat(dir: &Dir, files: &[NewFile]) -> anyhow::Result<()> {
    for file in files {
        let fresh = format!(".{}.new", file.name);
        let like = dir.access_through(file.os_name()).map(|like| like.at_most(most(&file.bytes)));
        dir.remove(OsStr::new(&fresh))?;
        dir.write(OsStr::new(&fresh), &file.bytes, file.mode, like)?;
        dir.rename(OsStr::new(&fresh), file.os_name())?;
        dir.sync()?;
    }
    Ok(())
}

pub(crate) fn sync(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("could not sync the folder {}", folder.display()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> anyhow::Result<&OsStr> {
    path.file_name().with_context(|| format!("{} names no file or folder of its own", path.display()))
}
