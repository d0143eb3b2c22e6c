//! Files that a process trusts: read only if they are regular files that nobody else can replace.
//!
//! For settings, policies, and whatever else decides who may do what. Certificates, keys and lists are read by the same code.
//!
//! 1. The way to the file is judged with the file: every folder, and every symlink, by its open descriptor. The table of what
//!    is refused and what is warned of is in the [manual](crate::manual::files).
//! 2. A FIFO, a device, a socket or a folder is an error that says so. None of them is opened.
//! 3. A file system that does not answer is an error after three seconds, and at once from then on, until it answers. One that
//!    is slow, and brings some bytes every three seconds, has a minute for a file.
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FileType, Stat};
use zeroize::Zeroizing;

use super::hops::{Folder, Way, walk};
use super::permissions::{Object, Owned, Who, judge};
use super::reader::{self, Unanswered};
use crate::clock::rfc3339;
use crate::error::Access;

pub use super::permissions::Offence;

/// What one read takes at most. The buffer is wiped when the file has been read: it may have held a key.
const CHUNK: usize = 16 * 1024;

/// What a trusted file holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Contents {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What is no reason to refuse it, and should be mended.
    pub warnings: Vec<Warning>,
}

/// What should be mended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Warning {
    /// The file, or a folder or symlink on the way to it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub offence: Offence,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{path} {}: ", self.offence)?;
        match self.offence {
            Offence::ForeignOwner { .. } => {
                write!(f, "who owns it can replace what is trusted; `chown` it to root or to this process' user")
            }
            Offence::Readable { .. } => write!(f, "run `chmod 0600 {path}`"),
            _ => write!(f, "run `chmod g-w {path}`"),
        }
    }
}

/// Why a trusted file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The path leads nowhere.
    #[error("{} does not exist: put it there or correct the path", .0.display())]
    Missing(PathBuf),
    /// The path leads to something else.
    #[error("{} is a {kind}, not a regular file: put the file itself there", .path.display())]
    NotRegular {
        /// Which.
        path: PathBuf,
        /// `folder`, `FIFO`, `socket` or `device`.
        kind: &'static str,
    },
    /// The file is larger than it may be.
    #[error("{} is larger than {limit} bytes: is it the right file?", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// The file cannot be read.
    #[error("{} cannot be read{}", .path.display(), access_words(*.access))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Who may do what, where that can be told.
        access: Option<Access>,
        /// What the system said.
        source: io::Error,
    },
    /// Others could replace the file.
    #[error("{}: {} {offence}, who could replace the file: {}", .path.display(), .object.display(), remedy(.object, *.offence))]
    Replaceable {
        /// Which.
        path: PathBuf,
        /// It, or a folder on the way to it.
        object: PathBuf,
        /// In which way.
        offence: Offence,
    },
    /// The file system does not answer.
    #[error("{} has not answered since {}: a hung mount? mount it anew, or have the path lead elsewhere", .path.display(), rfc3339(*.since))]
    Hangs {
        /// Which.
        path: PathBuf,
        /// Since when.
        since: SystemTime,
    },
}

fn remedy(object: &Path, offence: Offence) -> String {
    match offence {
        Offence::ForeignOwner { .. } => format!("`chown` {} to root or to this process' user", object.display()),
        _ => format!("run `chmod go-w {}`", object.display()),
    }
}

fn access_words(access: Option<Access>) -> String {
    access.map(|access| format!(" ({access})")).unwrap_or_default()
}

/// Reads a trusted file that is no key. Blocks, for three seconds at most without a byte, and for a minute at most in all.
///
/// # Errors
/// [`FileError`], which names the file and the remedy.
pub fn read(path: &Path, limit: u64) -> Result<Contents, FileError> {
    read_as(path, Object::File, limit)
}

/// Reads a file that is an order, or keeps what was decided: by the rules of a key, and of an owner who is root or the process'
/// user. `None` where there is none. Blocks, as [`read`] does.
pub(crate) fn read_order(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read_as(path, Object::Order, limit) {
        Err(FileError::Missing(_)) => Ok(None),
        read => read.map(|contents| Some(contents.bytes)),
    }
}

/// The same by the rules of an object.
pub(super) fn read_as(path: &Path, object: Object, limit: u64) -> Result<Contents, FileError> {
    let of = path.to_owned();
    let work = move || {
        let mut opened = open(&of, object)?;
        let mut bytes = opened.read(limit)?;
        Ok(Contents { bytes: std::mem::take(&mut bytes), warnings: opened.warnings })
    };
    reader::call(path, work).map_err(|unanswered| unanswered_at(path, unanswered))?
}

pub(super) fn unanswered_at(path: &Path, unanswered: Unanswered) -> FileError {
    let path = path.to_owned();
    match unanswered {
        Unanswered::Hangs(since) => FileError::Hangs { path, since },
        Unanswered::NoThread(source) => FileError::Unreadable { path, access: None, source },
    }
}

/// A trusted file that was judged and opened.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    file: File,
    /// What it was when it was opened.
    size: u64,
    owned: Owned,
    pub(super) warnings: Vec<Warning>,
}

/// Judges a file and the way to it, and opens it. Hangs where the file system does: to be called by [`reader`].
pub(super) fn open(path: &Path, object: Object) -> Result<Opened, FileError> {
    let walked = walk(path).map_err(|source| unreadable(path, source, None, &Who::now()))?;
    open_at(path, walked, object)
}

/// The same for a file that was walked to.
fn open_at(path: &Path, way: Way, object: Object) -> Result<Opened, FileError> {
    let who = Who::now();
    let unreadable = |source, stat| unreadable(path, source, stat, &who);
    let mut warnings = judge_way(path, &way, object, &who)?;
    let end = way.end.map_err(|source| unreadable(source, None))?;
    if let Some(kind) = irregular(end.kind()) {
        return Err(FileError::NotRegular { path: path.to_owned(), kind });
    }
    let (file, stat) = end.open().map_err(|source| unreadable(source, Some(&end.stat)))?;
    if let Some(kind) = irregular(FileType::from_raw_mode(stat.st_mode)) {
        return Err(FileError::NotRegular { path: path.to_owned(), kind });
    }
    let owned = owned(&stat);
    warnings.extend(judged(path, &end.path, object, owned, &who)?);
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    Ok(Opened { path: path.to_owned(), file, size, owned, warnings })
}

fn unreadable(path: &Path, source: io::Error, stat: Option<&Stat>, who: &Who) -> FileError {
    match source.kind() {
        io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
        _ => FileError::Unreadable { path: path.to_owned(), access: stat.map(|stat| access(stat, who)), source },
    }
}

/// Judges the folders and symlinks on the way.
fn judge_way(path: &Path, way: &Way, object: Object, who: &Who) -> Result<Vec<Warning>, FileError> {
    let mut warnings = Vec::new();
    // Where the file lies, or would if it were there. A folder that is not there yet will be made by us.
    let reached = |folder: &Folder| way.end.is_ok() || folder.names.last().map(OsString::as_os_str) == path.file_name();
    let last = way.folders.last().filter(|folder| folder.holds && reached(folder));
    for folder in &way.folders {
        let kind = match object {
            Object::Order if last.is_some_and(|last| std::ptr::eq(last, folder)) => Object::OrderFolder,
            Object::Key | Object::Order if folder.holds => Object::KeyFolder,
            _ => Object::Folder,
        };
        warnings.extend(judged(path, &folder.path, kind, owned(&folder.stat), who)?);
    }
    for link in &way.links {
        warnings.extend(judged(path, &link.path, Object::Symlink, owned(&link.stat), who)?);
    }
    // A folder that several hops lead through.
    warnings.sort();
    warnings.dedup();
    Ok(warnings)
}

fn judged(path: &Path, at: &Path, object: Object, owned: Owned, who: &Who) -> Result<Vec<Warning>, FileError> {
    let offences = judge(object, owned, who).map_err(|offence| FileError::Replaceable {
        path: path.to_owned(),
        object: at.to_owned(),
        offence,
    })?;
    Ok(offences.into_iter().map(|offence| Warning { path: at.to_owned(), offence }).collect())
}

fn owned(stat: &Stat) -> Owned {
    Owned { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode }
}

fn access(stat: &Stat, who: &Who) -> Access {
    Access { owner: stat.st_uid, mode: stat.st_mode, our_uid: who.uid }
}

/// What it is if not a regular file.
pub(super) fn irregular(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("folder"),
        FileType::Fifo => Some("FIFO"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("device"),
        _ => Some("file of an unknown kind"),
    }
}

impl Opened {
    /// All of it, in a buffer that is wiped when it is dropped.
    pub(super) fn read(&mut self, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
        // With room to spare: a vector that grows leaves what it held behind in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.size.min(limit) as usize + 1));
        self.each_chunk(limit, |chunk| append(&mut bytes, chunk))?;
        Ok(bytes)
    }

    /// Its length and SHA-256, through one small buffer that is wiped.
    pub(super) fn sha256(&mut self, limit: u64) -> Result<(u64, [u8; 32]), FileError> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let length = self.each_chunk(limit, |chunk| context.update(chunk))?;
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Ok((length, hash))
    }

    fn each_chunk(&mut self, limit: u64, mut take: impl FnMut(&[u8])) -> Result<u64, FileError> {
        let mut buffer = Zeroizing::new([0; CHUNK]);
        let mut length = 0;
        loop {
            let read = match self.file.read(&mut buffer[..]) {
                Ok(0) => return Ok(length),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let access = Access {
                        owner: self.owned.uid,
                        mode: self.owned.mode,
                        our_uid: rustix::process::geteuid().as_raw(),
                    };
                    return Err(FileError::Unreadable { path: self.path.clone(), access: Some(access), source });
                }
            };
            length += read as u64;
            if length > limit {
                return Err(FileError::TooLarge { path: self.path.clone(), limit });
            }
            take(&buffer[..read]);
            reader::progress();
        }
    }
}

fn append(bytes: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = bytes.len() + chunk.len();
    if needed > bytes.capacity() {
        // The file has grown since it was opened.
        let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
        larger.extend_from_slice(bytes);
        // What it held is wiped.
        *bytes = larger;
    }
    bytes.extend_from_slice(chunk);
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn judges_the_file_that_is_read() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().canonicalize().unwrap().join("file");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let walked = walk(&file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let opened = open_at(&file, walked, Object::File);
        assert!(matches!(opened, Err(FileError::Replaceable { .. })), "its mode was another when it was walked to");
    }
}
