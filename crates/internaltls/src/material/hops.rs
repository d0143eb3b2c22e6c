//! The way to a file: every folder and every symlink that its path leads through.
//!
//! 1. A file is often a symlink to a symlink: `server.pem` → `..data/server.pem`, and `..data` → `..2026-…/`. A change of any
//!    folder or link on the way changes what is read.
//! 2. The way is walked by descriptors, one name at a time: each folder is opened in the one before it, so that what was
//!    judged is what the file is read through, whatever is renamed meanwhile.
//! 3. `O_PATH` opens nothing for reading or writing: a device does not notice, a FIFO does not wait. Only a file system that
//!    does not answer can hold this up, and every call of it is made on a thread of the
//!    [`reader`](super::reader).
//! 4. What the way ends at is held open from the walk on, so that its inode number cannot be another's, and it is judged again
//!    by the descriptor that it is read by: who owns it and its mode may have changed meanwhile.
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

/// As many as the kernel follows.
const SYMLINKS: usize = 40;
const AT: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = AT.union(OFlags::DIRECTORY);

/// A folder on the way.
#[derive(Debug)]
pub(super) struct Folder {
    /// Its path, without symlinks in it.
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    /// The names that the path looks up in it.
    pub(super) names: Vec<OsString>,
    /// Whether the file itself or a symlink on the way lies in it; else the path only passes through it.
    pub(super) holds: bool,
}

/// A symlink on the way.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
}

/// What a path leads through.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) folders: Vec<Folder>,
    pub(super) links: Vec<Link>,
    /// Where it leads, or why it breaks off.
    pub(super) end: io::Result<End>,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) struct End {
    /// Without symlinks in it.
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    folder: OwnedFd,
    name: OsString,
    /// It, by `O_PATH`. While this is open, no other file gets its inode number.
    object: OwnedFd,
}

impl End {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens it for reading in the folder that was walked to, and tells what was opened: that is to be judged, and not what
    /// was walked to. Fails where something else has taken its place.
    pub(super) fn open(&self) -> io::Result<(std::fs::File, Stat)> {
        // NONBLOCK: a FIFO that takes the file's place just now must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.folder, &self.name, flags, Mode::empty())?;
        let (walked, opened) = (fstat(&self.object)?, fstat(&file)?);
        if (opened.st_dev, opened.st_ino) != (walked.st_dev, walked.st_ino) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "it was replaced while it was opened"));
        }
        Ok((file.into(), opened))
    }
}

/// Walks to a file. Blocks, for as long as a file system does not answer.
pub(super) fn walk(path: &Path) -> io::Result<Way> {
    let absolute = std::path::absolute(path)?;
    let mut walker = Walker::begin()?;
    let end = walker.follow(names(&absolute));
    Ok(Way { folders: walker.folders, links: walker.links, end })
}

struct Walker {
    /// The folder that has been reached.
    at: PathBuf,
    fd: OwnedFd,
    folders: Vec<Folder>,
    links: Vec<Link>,
}

impl Walker {
    fn begin() -> io::Result<Self> {
        let fd = openat(rustix::fs::CWD, "/", FOLDER, Mode::empty())?;
        let mut walker = Self { at: PathBuf::from("/"), fd, folders: Vec::new(), links: Vec::new() };
        walker.arrived()?;
        Ok(walker)
    }

    fn follow(&mut self, mut names: VecDeque<OsString>) -> io::Result<End> {
        while let Some(name) = names.pop_front() {
            if name == ".." {
                self.enter(OsStr::new(".."))?;
                continue;
            }
            self.looks_up(&name);
            match openat(&self.fd, &name, FOLDER, Mode::empty()) {
                // DIRECTORY makes the kernel mount what is mounted on demand; without it an empty folder would be walked into.
                Ok(_) if !names.is_empty() => self.enter(&name)?,
                Ok(folder) => return self.end(name, folder),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let object = openat(&self.fd, &name, AT, Mode::empty())?;
                    let stat = fstat(&object)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        self.go_by_link(&object, &name, stat, &mut names)?;
                    } else if names.is_empty() {
                        return self.end(name, object);
                    } else {
                        return Err(Errno::NOTDIR.into());
                    }
                }
                Err(error) => {
                    // What is not there yet will come into being here.
                    self.holds();
                    return Err(error.into());
                }
            }
        }
        // The path is `/`, or ends in `..`.
        let object = openat(&self.fd, ".", FOLDER, Mode::empty())?;
        self.ended(self.at.clone(), OsString::from("."), object)
    }

    fn go_by_link(
        &mut self,
        link: &OwnedFd,
        name: &OsStr,
        stat: Stat,
        names: &mut VecDeque<OsString>,
    ) -> io::Result<()> {
        if self.links.len() == SYMLINKS {
            return Err(Errno::LOOP.into());
        }
        self.holds();
        self.links.push(Link { path: self.at.join(name), stat });
        let target = PathBuf::from(OsString::from_vec(readlinkat(link, "", Vec::new())?.into_bytes()));
        if target.is_absolute() {
            self.fd = openat(rustix::fs::CWD, "/", FOLDER, Mode::empty())?;
            self.at = PathBuf::from("/");
            self.arrived()?;
        }
        let mut all = self::names(&target);
        all.append(names);
        *names = all;
        Ok(())
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        self.fd = openat(&self.fd, name, FOLDER, Mode::empty())?;
        if name == ".." {
            self.at.pop();
        } else {
            self.at.push(name);
        }
        self.arrived()
    }

    fn arrived(&mut self) -> io::Result<()> {
        let stat = fstat(&self.fd)?;
        self.folders.push(Folder { path: self.at.clone(), stat, names: Vec::new(), holds: false });
        Ok(())
    }

    fn end(&mut self, name: OsString, object: OwnedFd) -> io::Result<End> {
        self.holds();
        self.ended(self.at.join(&name), name, object)
    }

    fn ended(&self, path: PathBuf, name: OsString, object: OwnedFd) -> io::Result<End> {
        let (stat, folder) = (fstat(&object)?, openat(&self.fd, ".", FOLDER, Mode::empty())?);
        Ok(End { path, stat, folder, name, object })
    }

    fn looks_up(&mut self, name: &OsStr) {
        if let Some(folder) = self.folders.last_mut() {
            folder.names.push(name.to_owned());
        }
    }

    fn holds(&mut self) {
        if let Some(folder) = self.folders.last_mut() {
            folder.holds = true;
        }
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The folders that hold a link or the file.
    fn folders(path: &Path) -> BTreeSet<PathBuf> {
        walk(path).unwrap().folders.into_iter().filter(|folder| folder.holds).map(|folder| folder.path).collect()
    }

    #[test]
    fn names_the_folder_of_every_hop() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        for folder in ["named", "hop", "store/1"] {
            fs::create_dir_all(at.join(folder)).unwrap();
        }
        fs::write(at.join("store/1/a.pem"), "x").unwrap();
        symlink("../store/1", at.join("hop/live")).unwrap();
        symlink(at.join("hop/live/a.pem"), at.join("named/a.pem")).unwrap();
        let expected = ["hop", "named", "store/1"].map(|name| at.join(name));
        assert_eq!(folders(&at.join("named/a.pem")).into_iter().collect::<Vec<_>>(), expected);
        let way = walk(&at.join("named/a.pem")).unwrap();
        assert_eq!(
            way.links.iter().map(|link| link.path.clone()).collect::<Vec<_>>(),
            ["named/a.pem", "hop/live"].map(|p| at.join(p))
        );
        assert_eq!(way.end.unwrap().path, at.join("store/1/a.pem"));
        let passed: Vec<_> = way.folders.iter().map(|folder| folder.path.clone()).collect();
        for folder in ["store", ""] {
            let folder = if folder.is_empty() { at.clone() } else { at.join(folder) };
            assert!(passed.contains(&folder), "{} is on the way: {passed:?}", folder.display());
        }
    }

    #[test]
    fn a_path_that_breaks_off_counts_by_its_nearest_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        assert_eq!(folders(&at.join("not/yet/a.pem")), BTreeSet::from([at.clone()]));
        fs::write(at.join("file"), "x").unwrap();
        for (path, kind) in [("not/yet", io::ErrorKind::NotFound), ("file/a.pem", io::ErrorKind::NotADirectory)] {
            assert_eq!(walk(&at.join(path)).unwrap().end.unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_replaced_file_is_never_opened() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        // Where inode numbers are used again, the first new file has that of the one that was removed last.
        for _ in 0..20 {
            fs::write(at.join("file"), "x").unwrap();
            let end = walk(&at.join("file")).unwrap().end.unwrap();
            fs::remove_file(at.join("file")).unwrap();
            fs::write(at.join("file"), "another").unwrap();
            assert!(end.open().is_err(), "another file, whatever its inode number");
        }
    }

    #[test]
    fn a_loop_ends() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        symlink(at.join("b"), at.join("a")).unwrap();
        symlink(at.join("a"), at.join("b")).unwrap();
        assert_eq!(folders(&at.join("a")), BTreeSet::from([at.clone()]));
        assert_eq!(walk(&at.join("a")).unwrap().end.unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn leads_where_the_kernel_leads() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::write(at.join("a/file"), "x").unwrap();
        symlink("a/b", at.join("link")).unwrap();
        // `..` of a symlinked folder is that of where it leads.
        for path in ["link/../file", "a/./b/..//file", "a/b/../../a/file", "link", "link/..", "."] {
            let expected = at.join(path).canonicalize().unwrap();
            assert_eq!(walk(&at.join(path)).unwrap().end.unwrap().path, expected, "{path}");
        }
        assert_eq!(walk(Path::new("/")).unwrap().end.unwrap().path, Path::new("/"));
    }
}
