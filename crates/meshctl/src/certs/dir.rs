//! A folder that is open, and what is made in it: whose it is, and that links lead nowhere.
//!
//! 1. What replaces something keeps its owner, group and mode. What is new is given to the owner and group of the folder it is made
//!    in. Only root can give away, so that for others what is new stays theirs, and what cannot be kept is an error.
//! 2. A file is made 0600, given away while it is empty, filled, and gets its mode last: a key is nobody else's at any moment.
//! 3. Root works in the folders of users that it need not trust. So everything is named relative to the open folder, and a
//!    link in it is carried over as a link, never written through.
//! 4. A link is read through, or entered, where it and the folder that it lies in belong to root or the caller. In a folder of
//!    another user only links that lead down into that folder are read through (`server.pem` by `..data`).
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat};
use rustix::fs::{open, readlinkat, renameat, statat, symlinkat, unlinkat};

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Whether it is that of something replaced, which must be kept.
    kept: bool,
}

impl Access {
    fn of(stat: &Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, kept: true }
    }

    fn new(folder: Self, mode: u32) -> Self {
        Self { mode, kept: false, ..folder }
    }

    /// Without these bits.
    pub(crate) fn at_most(self, mode: u32) -> Self {
        Self { mode: self.mode & mode, ..self }
    }

    /// Gives `it` away as far as may be; an error where the owner of what it replaces cannot be kept, or its group where that counts.
    fn give(self, it: &OwnedFd) -> io::Result<()> {
        let found = fstat(it)?;
        if (found.st_uid, found.st_gid) == (self.uid, self.gid) || !(self.kept || is_root()) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        if fchown(it, uid, gid).is_ok() || fchown(it, None, gid).is_ok() && found.st_uid == self.uid || !self.kept {
            return Ok(());
        }
        let found = fstat(it)?;
        let is_kept = found.st_uid == self.uid && (found.st_gid == self.gid || self.mode & 0o070 == 0);
        let (uid, gid) = (self.uid, self.gid);
        let lost = || {
            io::Error::other(format!("it is of uid {uid} and gid {gid}, to whom we may not give it: run this as root"))
        };
        if is_kept { Ok(()) } else { Err(lost()) }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Root's or the caller's: whoever owns it can have this process do nothing that he could not do himself.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// How many links a path may lead through.
const HOPS: u8 = 16;
/// The most that is read of a file, in bytes; what certificates need is far less.
const MOST: u64 = 16 << 20;

/// A file that was read.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// Of the file, and of the link to it if any.
    owners: [u32; 2],
}

impl Content {
    /// Whether it belongs to root, the caller, or this user.
    pub(crate) fn is_of(&self, uid: u32) -> bool {
        self.owners.iter().all(|owner| is_trusted(*owner) || *owner == uid)
    }

    /// Whether it belongs to root or the caller.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_of(0)
    }
}

/// A folder that is open, with its path for messages.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Dir {
    /// The folder at `path`, through whatever links the caller named it by.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let at = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = open(at, FOLDER, Mode::empty()).with_context(|| cannot_read(path))?;
        Ok(Self { fd, path: at.to_owned() })
    }

    /// A folder in this one; a link is none.
    pub(crate) fn sub(&self, name: &OsStr) -> anyhow::Result<Self> {
        let path = self.path.join(name);
        let fd =
            openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).with_context(|| cannot_read(&path))?;
        Ok(Self { fd, path })
    }

    /// A folder in this one, or the one that a link leads to, where links are followed (fact 4).
    pub(crate) fn enter(&self, name: &OsStr) -> anyhow::Result<Self> {
        let (dir, name) = self.resolve(Path::new(name), HOPS)?;
        dir.sub(&name)
    }

    /// Whether there is a folder of this name to [`enter`](Self::enter): one, or a link of root or the caller.
    pub(crate) fn may_enter(&self, name: &OsStr) -> bool {
        let is_folder = |flags| {
            statat(&self.fd, name, flags).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        is_folder(AtFlags::SYMLINK_NOFOLLOW) || self.trusts(name) && is_folder(AtFlags::empty())
    }

    /// Reads a file, through the links that are followed (fact 4).
    pub(crate) fn read(&self, name: &OsStr) -> anyhow::Result<Content> {
        let cannot = || cannot_read(&self.path.join(name));
        let (dir, last) = self.resolve(Path::new(name), HOPS).with_context(cannot)?;
        // Nothing waits for whoever would write into a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(&dir.fd, &last, flags, Mode::empty()).with_context(cannot)?;
        let stat = fstat(&fd).with_context(cannot)?;
        ensure!(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile, "{}: it is no file", cannot());
        // A second name of a file is a link too: to another's key, where the kernel does not forbid it.
        ensure!(
            stat.st_nlink == 1 || dir.is_trusted(),
            "{} has more than one name (hard link), in a folder of another user; copy it instead",
            self.path.join(name).display()
        );
        let mut bytes = Vec::new();
        File::from(fd).take(MOST).read_to_end(&mut bytes).with_context(cannot)?;
        let named = self.access_of(name).with_context(cannot)?;
        Ok(Content { bytes, owners: [stat.st_uid, named.uid] })
    }

    /// Where `path` leads from here: the open folder and the name in it of what is no link.
    fn resolve(&self, path: &Path, hops: u8) -> anyhow::Result<(Self, OsString)> {
        let mut at = if path.is_absolute() { Self::open(Path::new("/"))? } else { self.again()? };
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    at = at.sub(OsStr::new(".."))?;
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            let (dir, name) = match at.target(name) {
                None => (at, name.to_owned()),
                Some(target) => {
                    ensure!(
                        hops > 0 && (at.trusts(name) || leads_down(&target)),
                        "{} is a link to {} in a folder of another user, and is not followed; put the file itself there",
                        at.path.join(name).display(),
                        target.display()
                    );
                    at.resolve(&target, hops - 1)?
                }
            };
            if parts.peek().is_none() {
                return Ok((dir, name));
            }
            at = dir.sub(&name)?;
        }
        Ok((at, OsString::from(".")))
    }

    fn again(&self) -> anyhow::Result<Self> {
        Ok(Self { fd: self.fd.try_clone().with_context(|| cannot_read(&self.path))?, path: self.path.clone() })
    }

    /// Whether a link of this name is root's or the caller's, and so is this folder: nobody else put it here.
    pub(crate) fn trusts(&self, name: &OsStr) -> bool {
        self.is_trusted() && self.owner_is_trusted(name)
    }

    fn is_trusted(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| is_trusted(stat.st_uid))
    }

    fn owner_is_trusted(&self, name: &OsStr) -> bool {
        self.access_of(name).is_some_and(|access| is_trusted(access.uid))
    }

    /// The user it belongs to.
    pub(crate) fn owner(&self) -> anyhow::Result<u32> {
        Ok(self.access()?.uid)
    }

    /// Its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in this one, like another or for its owner alone. `None`: there is something of this name.
    pub(crate) fn make(&self, name: &OsStr, like: Option<Access>) -> anyhow::Result<Option<Self>> {
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => return Ok(None),
            made => made.with_context(|| cannot_write(&self.path.join(name)))?,
        }
        let (made, access) = (self.sub(name)?, like.map_or_else(|| self.for_new(0o700), Ok)?);
        access.give(&made.fd).with_context(|| cannot_write(&made.path))?;
        fchmod(&made.fd, Mode::from_raw_mode(access.mode)).with_context(|| cannot_write(&made.path))?;
        Ok(Some(made))
    }

    /// Makes a file that is not there yet, with mode and owner of the one that it replaces, if any.
    pub(crate) fn write(&self, name: &OsStr, bytes: &[u8], mode: u32, like: Option<Access>) -> anyhow::Result<()> {
        let cannot = || cannot_write(&self.path.join(name));
        let access = like.map_or_else(|| self.for_new(mode), Ok)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).with_context(cannot)?;
        access.give(&fd).with_context(cannot)?;
        let mut file = File::from(fd);
        file.write_all(bytes).with_context(cannot)?;
        fchmod(&file, Mode::from_raw_mode(access.mode)).with_context(cannot)?;
        file.sync_all().with_context(cannot)
    }

    /// The file of this name, made empty for its owner alone where there is none.
    pub(crate) fn open_or_make(&self, name: &OsStr) -> anyhow::Result<File> {
        let (cannot, flags) =
            (|| cannot_write(&self.path.join(name)), OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC);
        let mode = Mode::RUSR | Mode::WUSR;
        match openat(&self.fd, name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(fd) => {
                self.for_new(0o600)?.give(&fd).with_context(cannot)?;
                Ok(File::from(fd))
            }
            Err(rustix::io::Errno::EXIST) => Ok(openat(&self.fd, name, flags, mode).with_context(cannot)?.into()),
            Err(error) => Err(error).with_context(cannot),
        }
    }

    /// Makes `name` lead to `target`.
    pub(crate) fn link(&self, target: &Path, name: &OsStr, like: Option<Access>) -> anyhow::Result<()> {
        let cannot = || cannot_write(&self.path.join(name));
        symlinkat(target, &self.fd, name).with_context(cannot)?;
        let Access { uid, gid, .. } = like.map_or_else(|| self.for_new(0o777), Ok)?;
        // A link has no rights of its own; its owner counts in folders with the sticky bit, and where only root can set it.
        let _ = chownat(&self.fd, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    }

    /// Where the link of this name leads; `None` where there is none.
    pub(crate) fn target(&self, name: &OsStr) -> Option<PathBuf> {
        let target = readlinkat(&self.fd, name, Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Puts `from` in the place of `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> anyhow::Result<()> {
        renameat(&self.fd, from, &self.fd, to).with_context(|| cannot_write(&self.path.join(to)))
    }

    /// Removes a file or a link, if there is one.
    pub(crate) fn remove(&self, name: &OsStr) -> anyhow::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => {
                Err(error).with_context(|| cannot_write(&self.path.join(name)))
            }
            _ => Ok(()),
        }
    }

    /// Removes whatever has this name, a folder with all that is in it, and follows no link.
    pub(crate) fn remove_all(&self, name: &OsStr) -> anyhow::Result<()> {
        // A link is none, and is removed as a file.
        let Ok(folder) = self.sub(name) else { return self.remove(name) };
        folder.names()?.iter().try_for_each(|name| folder.remove_all(name))?;
        unlinkat(&self.fd, name, AtFlags::REMOVEDIR).with_context(|| cannot_write(&self.path.join(name)))
    }

    /// Everything is on disk.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        rustix::fs::fsync(&self.fd).with_context(|| format!("could not sync the folder {}", self.path.display()))
    }

    /// Its own.
    pub(crate) fn access(&self) -> anyhow::Result<Access> {
        Ok(Access::of(&fstat(&self.fd).with_context(|| cannot_read(&self.path))?))
    }

    /// That of an entry, of the link itself where it is one; `None` where there is none.
    pub(crate) fn access_of(&self, name: &OsStr) -> Option<Access> {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| Access::of(&stat))
    }

    /// That of a file, or of the file that a link leads to, where links are followed (fact 4).
    pub(crate) fn access_through(&self, name: &OsStr) -> Option<Access> {
        let (dir, name) = self.resolve(Path::new(name), HOPS).ok()?;
        dir.access_of(&name)
    }

    /// Whether something has this name, and is more than a link that leads nowhere.
    pub(crate) fn has(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::empty()).is_ok()
    }

    fn for_new(&self, mode: u32) -> anyhow::Result<Access> {
        Ok(Access::new(self.access()?, mode))
    }

    /// What is in it, by name.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<OsString>> {
        let cannot = || cannot_read(&self.path);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).with_context(cannot)? {
            let name = OsStr::from_bytes(entry.with_context(cannot)?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Carries an entry over to `other` as it is: a file with its content, a link as a link. Others are left.
    pub(crate) fn carry(&self, name: &OsStr, other: &Self) -> anyhow::Result<()> {
        let cannot = || cannot_read(&self.path.join(name));
        if let Some(target) = self.target(name) {
            return other.link(&target, name, self.access_of(name));
        }
        // Nothing waits for whoever would write into a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = openat(&self.fd, name, flags, Mode::empty()) else {
            ensure!(!self.is_file(name), "{}", cannot());
            return Ok(());
        };
        let stat = fstat(&fd).with_context(cannot)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).with_context(cannot)?;
        other.write(name, &bytes, 0o600, Some(Access::of(&stat).at_most(most(&bytes))))
    }

    fn is_file(&self, name: &OsStr) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }
}

/// Whether this way ends in the folder that it begins in, or below.
fn leads_down(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The bits that a file with this content may have: writable by nobody else, and a key, whatever its name, not readable by all.
pub(crate) fn most(bytes: &[u8]) -> u32 {
    let mark = b"PRIVATE KEY";
    if bytes.windows(mark.len()).any(|text| text == mark) { 0o740 } else { 0o755 }
}

pub(crate) fn cannot_write(path: &Path) -> String {
    format!("could not write {}; check that its folder is yours and the disk has room", path.display())
}

pub(crate) fn cannot_read(path: &Path) -> String {
    format!("could not read {}; check that it exists and is yours", path.display())
}
