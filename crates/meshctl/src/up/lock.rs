//! One cluster a folder.
//!
//! 1. The lock is the kernel's, on `up.pid`: it goes with the process, however that ends, so a file left behind means nothing.
//! 2. The folder may be another user's, who must not have this one write elsewhere: `up.pid` is never opened through a link,
//!    and is written only where it is a file with one name, of the caller or of the folder's owner. The folders within are
//!    [`links::refuse`]d where somebody else made a link of them.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::OFlags;

use super::links;
use crate::certs::folder;
use crate::cluster::Cluster;

#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> anyhow::Result<Self> {
        folder::create_private(dir)?;
        ["config", "logs", "certs", "data"].iter().try_for_each(|name| links::refuse(&dir.join(name)))?;
        let path = dir.join("up.pid");
        let mut file = open(&path)
            .with_context(|| format!("could not write {}; give --dir a folder that is yours", path.display()))?;
        let (owner, caller) = (fs::metadata(dir)?.uid(), links::caller());
        let found = file.metadata()?;
        ensure!(
            found.is_file() && found.nlink() == 1 && [owner, caller].contains(&found.uid()),
            "{} is not a file that `meshctl up` made for you; remove it, or give --dir a folder that is yours",
            path.display()
        );
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{}", taken(dir, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
        }
        claim(&mut file).with_context(|| format!("could not write {}", path.display()))?;
        // Left by a run that was killed; nothing it names is alive.
        Cluster::remove(dir);
        for name in ["config", "logs"] {
            let folder = dir.join(name);
            folder::create_private(&folder)?;
            fs::metadata(&folder).with_context(|| format!("could not look at {}", folder.display()))?;
        }
        Ok(Self { _file: file })
    }
}

/// The file that is there, or a new one. Never what a link leads to, and never waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    options.read(true).write(true).mode(0o644).custom_flags(flags);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => options.create_new(true).open(path),
        opened => opened,
    }
}

fn claim(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn taken(dir: &Path, file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    let pid = pid.trim();
    format!(
        "a cluster is up in {} already (process {pid}); stop it with Ctrl-C there or `kill {pid}`, or choose another folder with --dir",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_cluster_in_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("kill {}", std::process::id())) && error.contains("--dir"), "{error}");
        drop(first);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn pid_file_is_never_another_file() {
        use std::os::unix::fs::symlink;
        let make: [fn(&Path, &Path); 3] = [
            |victim, pid| symlink(victim, pid).unwrap(),
            |victim, pid| fs::hard_link(victim, pid).unwrap(),
            |_, pid| fs::create_dir(pid).unwrap(),
        ];
        for make in make {
            let dir = tempfile::tempdir().unwrap();
            let victim = dir.path().join("victim");
            fs::write(&victim, "precious").unwrap();
            make(&victim, &dir.path().join("up.pid"));
            let error = format!("{:#}", Lock::take(dir.path()).unwrap_err());
            assert!(error.contains("up.pid") && error.contains("--dir"), "{error}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        }
        // Nor is one made where a link leads.
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path().join("elsewhere"), dir.path().join("up.pid")).unwrap();
        Lock::take(dir.path()).unwrap_err();
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn what_a_killed_run_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("up.pid"), "1\n").unwrap();
        fs::write(dir.path().join("cluster.json"), "{}").unwrap();
        Lock::take(dir.path()).unwrap();
        assert!(!dir.path().join("cluster.json").exists());
    }
}
