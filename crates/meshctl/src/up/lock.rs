//! One cluster a folder.
//!
//! The lock is the kernel's, on `up.pid`: it goes with the process, however that ends, so a file left behind means nothing.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::certs::folder;
use crate::cluster::Cluster;

#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> anyhow::Result<Self> {
        folder::create_private(dir)?;
        let path = dir.join("up.pid");
        let mut file =
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(&path)
                .with_context(|| format!("could not write {}; give --dir a folder that is yours", path.display()))?;
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

fn claim(file: &mut File) -> std::io::Result<()> {
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
    fn what_a_killed_run_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("up.pid"), "1\n").unwrap();
        fs::write(dir.path().join("cluster.json"), "{}").unwrap();
        Lock::take(dir.path()).unwrap();
        assert!(!dir.path().join("cluster.json").exists());
    }
}
