//! Folders of certificates on disk, and how they change.
//!
//! 1. Versioned, as Kubernetes projects secrets: the files lie in a version folder, `..data` is a symlink to it, and
//!    `server.pem` and the others are symlinks through `..data`. A renewal writes a new version folder, syncs it and
//!    replaces the one symlink by rename, so whoever resolves `..data` once reads files that belong together. The version
//!    before is kept, for readers who resolved it a moment ago; older ones are removed.
//! 2. Flat, as people keep them: each file is replaced by a rename. The key goes first, the leaf last: programs that look
//!    at one file for changes look at the leaf, and by then its key is there. Whoever reads between the two sees a key that
//!    does not fit, which internaltls takes for what it is and reads again.
//! 3. A file keeps the mode and, where we may, the owner of the one it replaces.
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use time::OffsetDateTime;

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
}

/// Makes `path`, and what is missing above it, for its owner alone.
///
/// # Errors
/// When it cannot be made.
pub fn create_private(path: &Path) -> anyhow::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for folder in missing.iter().rev() {
        fs::DirBuilder::new().mode(0o700).create(folder).with_context(|| cannot_write(folder))?;
        sync(parent(folder))?;
    }
    Ok(())
}

/// Writes files that must not exist yet into a folder that does.
///
/// # Errors
/// When one exists, or cannot be written.
pub fn write_flat(folder: &Path, files: &[NewFile]) -> anyhow::Result<()> {
    for file in files {
        write_new(&folder.join(&file.name), file, None)?;
    }
    sync(folder)
}

/// Makes a versioned folder of files; it must not exist yet. It is made aside and appears whole.
///
/// # Errors
/// When it exists, or cannot be written.
pub fn create_versioned(folder: &Path, files: &[NewFile], now: OffsetDateTime) -> anyhow::Result<()> {
    create_private(parent(folder))?;
    let aside = aside(folder);
    let _ = fs::remove_dir_all(&aside);
    fs::DirBuilder::new().mode(0o700).create(&aside).with_context(|| cannot_write(&aside))?;
    let version = write_version(&aside, files, now, None)?;
    symlink(&version, aside.join(LINK)).with_context(|| cannot_write(&aside))?;
    for file in files {
        symlink(Path::new(LINK).join(&file.name), aside.join(&file.name)).with_context(|| cannot_write(&aside))?;
    }
    sync(&aside)?;
    fs::rename(&aside, folder).with_context(|| cannot_write(folder))?;
    sync(parent(folder))
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
    symlink(folder, link).with_context(|| cannot_write(link))?;
    sync(parent(link))
}

/// Where `folder` is: there, or where a link of its name leads to.
#[must_use]
pub fn place_of(folder: &Path) -> PathBuf {
    fs::read_link(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Whether `folder` is a versioned one.
#[must_use]
pub fn is_versioned(folder: &Path) -> bool {
    fs::read_link(folder.join(LINK)).is_ok()
}

/// Replaces files of `folder`, all at once where it is versioned, else one by one in the order given.
///
/// # Errors
/// When something cannot be written; a versioned folder is then as it was.
pub fn replace(folder: &Path, files: Vec<NewFile>, now: OffsetDateTime) -> anyhow::Result<()> {
    if is_versioned(folder) { replace_version(folder, files, now) } else { replace_flat(folder, &files) }
}

fn replace_version(folder: &Path, mut files: Vec<NewFile>, now: OffsetDateTime) -> anyhow::Result<()> {
    let before = fs::read_link(folder.join(LINK)).with_context(|| cannot_read(folder))?;
    carry_over(&folder.join(&before), &mut files)?;
    let version = write_version(folder, &files, now, Some(&folder.join(&before)))?;
    swap(folder, &version)?;
    remove_versions_but(folder, &[&version, &before])
}

/// The one moment of change.
fn swap(folder: &Path, version: &Path) -> anyhow::Result<()> {
    let fresh = folder.join("..data_tmp");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(|| cannot_write(&fresh)),
        _ => {}
    }
    symlink(version, &fresh).with_context(|| cannot_write(&fresh))?;
    fs::rename(&fresh, folder.join(LINK)).with_context(|| cannot_write(folder))?;
    sync(folder)
}

/// What is not replaced (the CA bundle, whatever an operator added) goes along to the new version.
fn carry_over(version: &Path, files: &mut Vec<NewFile>) -> anyhow::Result<()> {
    for entry in fs::read_dir(version).with_context(|| cannot_read(version))? {
        let entry = entry.with_context(|| cannot_read(version))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if entry.path().is_file() && files.iter().all(|file| file.name != name) {
            let bytes = fs::read(entry.path()).with_context(|| cannot_read(&entry.path()))?;
            files.push(NewFile { name, bytes, mode: 0o600 });
        }
    }
    Ok(())
}

/// Writes a version folder, with modes and owners of the version before it, if any.
fn write_version(
    folder: &Path,
    files: &[NewFile],
    now: OffsetDateTime,
    before: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let version = fresh_version(folder, now)?;
    let new = folder.join(&version);
    for file in files {
        let like = before.map(|before| before.join(&file.name));
        write_new(&new.join(&file.name), file, like.as_deref())?;
    }
    sync(&new)?;
    sync(folder)?;
    Ok(version)
}

fn fresh_version(folder: &Path, now: OffsetDateTime) -> anyhow::Result<PathBuf> {
    let format =
        time::macros::format_description!("..[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:6]Z");
    let stem = now.to_offset(time::UtcOffset::UTC).format(format)?;
    for attempt in 0..1_000 {
        let name = PathBuf::from(if attempt == 0 { stem.clone() } else { format!("{stem}.{attempt}") });
        match fs::DirBuilder::new().mode(0o700).create(folder.join(&name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| name).with_context(|| cannot_write(folder)),
        }
    }
    bail!("{} holds a thousand versions of this moment; remove what is left over there", folder.display())
}

fn remove_versions_but(folder: &Path, kept: &[&Path]) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| cannot_read(folder))?.flatten() {
        let name = entry.file_name();
        let is_version =
            name.to_str().is_some_and(|n| n.starts_with("..2")) && entry.file_type().is_ok_and(|t| t.is_dir());
        if is_version && kept.iter().all(|kept| *kept != Path::new(&name)) {
            fs::remove_dir_all(entry.path()).with_context(|| cannot_write(&entry.path()))?;
        }
    }
    Ok(())
}

fn replace_flat(folder: &Path, files: &[NewFile]) -> anyhow::Result<()> {
    for file in files {
        let (fresh, path) = (folder.join(format!(".{}.new", file.name)), folder.join(&file.name));
        let _ = fs::remove_file(&fresh);
        write_new(&fresh, file, Some(&path))?;
        fs::rename(&fresh, &path).with_context(|| cannot_write(&path))?;
        sync(folder)?;
    }
    Ok(())
}

/// Mode and owner of the file replaced; never writable by others, a key never readable by all, and an owner only where we
/// may give it away. By the open file: whoever owns the folder could put a link to another file in the place of the name.
fn adopt(before: &Path, after: &File, secret: bool) -> std::io::Result<()> {
    let Ok(old) = fs::metadata(before) else { return Ok(()) };
    let _ = std::os::unix::fs::fchown(after, Some(old.uid()), Some(old.gid()));
    let most = if secret { 0o740 } else { 0o755 };
    after.set_permissions(Permissions::from_mode(old.mode() & most))
}

/// Writes a file that is not there yet, with mode and owner of the one that it will replace, if any.
fn write_new(path: &Path, file: &NewFile, like: Option<&Path>) -> anyhow::Result<()> {
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(path)
        .with_context(|| cannot_write(path))?;
    opened.write_all(&file.bytes).with_context(|| cannot_write(path))?;
    if let Some(before) = like {
        adopt(before, &opened, is_secret(&file.bytes)).with_context(|| cannot_write(path))?;
    }
    opened.sync_all().with_context(|| cannot_write(path))
}

/// By what is in it, whatever its name.
fn is_secret(bytes: &[u8]) -> bool {
    let mark = b"PRIVATE KEY";
    bytes.windows(mark.len()).any(|text| text == mark)
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

fn cannot_write(path: &Path) -> String {
    format!("could not write {}; check that its folder is yours and the disk has room", path.display())
}

fn cannot_read(path: &Path) -> String {
    format!("could not read {}; check that it exists and is yours", path.display())
}
