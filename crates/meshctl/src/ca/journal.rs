//! What outlives a crash of the tool: the new CA, and the step that is under way.
//!
//! The folder `ca-rotation` in the cluster's folder, for its owner alone: `state.json`, the `old.pem` that goes, the new `ca.pem` and, until the end,
//! its `ca.key`. It appears whole, by one rename, before the first file of the cluster is touched, and goes by one rename
//! after the last was verified. `state.json` is replaced by renames and synced, so a reader sees the step before or after.
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::bundle::Bundle;
use crate::certs::authority::Authority;
use crate::certs::folder::{self, NewFile};

const NAME: &str = "ca-rotation";
const STATE: &str = "state.json";
const OLD: &str = "old.pem";

/// What is done next; waiting for what the one before needs belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The new CA goes into every bundle.
    Add,
    /// Every leaf is signed anew, by the new CA.
    Renew,
    /// The old CA goes out of every bundle.
    Remove,
    /// All of it is looked at once more.
    Verify,
}

/// How far a roll-over is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What is done next.
    pub step: Step,
    /// The SHA-256 of the CA that goes.
    pub old: String,
    /// The SHA-256 of the CA that comes.
    pub new: String,
}

/// A roll-over under way.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    state: State,
}

impl Journal {
    /// The one that was begun in the cluster's folder `dir`, if any. What an earlier one left over is swept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(dir: &Path) -> anyhow::Result<Option<Self>> {
        for left in [aside(dir), away(dir)] {
            remove(&left)?;
        }
        let folder = dir.join(NAME);
        let path = folder.join(STATE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("could not read {}; run this as its owner", path.display()))?,
        };
        let state = serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a file of `meshctl ca rotate`; put it back as it was", path.display())
        })?;
        Ok(Some(Self { folder, state }))
    }

    /// Begins one, from the CA `old` to `new`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(dir: &Path, old: &Bundle, new: &Authority) -> anyhow::Result<Self> {
        let (fresh, folder) = (aside(dir), dir.join(NAME));
        let ca = Bundle::parse(new.cert_pem())?;
        let state = State { step: Step::Add, old: old.signer().to_owned(), new: ca.signer().to_owned() };
        remove(&fresh)?;
        folder::create_private(&fresh)?;
        let files = [
            NewFile::public("ca.pem", &ca.pem()),
            NewFile::public(OLD, &old.clone().first().pem()),
            NewFile::secret("ca.key", &new.key_pem()),
            NewFile::secret(STATE, &text(&state)?),
        ];
        folder::write_flat(&fresh, &files)?;
        fs::rename(&fresh, &folder).with_context(|| format!("could not write {}", folder.display()))?;
        folder::sync(dir)?;
        Ok(Self { folder, state })
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The new CA.
    ///
    /// # Errors
    /// When its files are gone.
    pub fn authority(&self, now: OffsetDateTime) -> anyhow::Result<Authority> {
        Authority::load(&self.folder, now).context("the new CA cannot be loaded")
    }

    /// The CA that goes.
    ///
    /// # Errors
    /// When its file is gone.
    pub fn old(&self) -> anyhow::Result<Bundle> {
        let path = self.folder.join(OLD);
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        Bundle::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// From now on `step` is under way.
    ///
    /// # Errors
    /// When it cannot be written; then the step before is done once more, which changes nothing.
    pub fn advance(&mut self, step: Step) -> anyhow::Result<()> {
        let state = State { step, ..self.state.clone() };
        folder::replace(&self.folder, vec![NewFile::secret(STATE, &text(&state)?)], OffsetDateTime::now_utc())?;
        self.state = state;
        Ok(())
    }

    /// It is over.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn finish(self, dir: &Path) -> anyhow::Result<()> {
        let gone = away(dir);
        fs::rename(&self.folder, &gone).with_context(|| format!("could not remove {}", self.folder.display()))?;
        folder::sync(dir)?;
        remove(&gone)
    }
}

fn text(state: &State) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(state)?))
}

fn aside(dir: &Path) -> PathBuf {
    dir.join(format!(".{NAME}.new"))
}

fn away(dir: &Path) -> PathBuf {
    dir.join(format!(".{NAME}.done"))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}; remove it by hand", folder.display()))
        }
        _ => Ok(()),
    }
}

/// One tool a cluster. The lock is the kernel's and goes with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it for the cluster's folder `dir`.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be written.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!(".{NAME}.lock"));
        let file = folder::open_or_make(&path).context("run this as the owner of the cluster's folder, or as root")?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another `meshctl ca rotate` is at work in {}; wait for its end", dir.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("could not lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certs::authority::KeyKind;

    fn begun(dir: &Path) -> Journal {
        let now = OffsetDateTime::now_utc();
        let ca = |name| Authority::create(name, KeyKind::EcP256, now).unwrap();
        Journal::begin(dir, &Bundle::parse(ca("old").cert_pem()).unwrap(), &ca("new")).unwrap()
    }

    #[test]
    fn a_step_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Journal::open(dir.path()).unwrap().is_none());
        let mut journal = begun(dir.path());
        journal.advance(Step::Renew).unwrap();
        let found = Journal::open(dir.path()).unwrap().unwrap();
        assert_eq!((found.state(), found.state().step), (journal.state(), Step::Renew));
        found.authority(OffsetDateTime::now_utc()).map(drop).unwrap();
        found.finish(dir.path()).unwrap();
        assert!(Journal::open(dir.path()).unwrap().is_none());
    }

    #[test]
    fn invariant_7_the_new_key_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let journal = begun(dir.path());
        assert_eq!((mode(journal.folder.clone()), mode(journal.folder.join("ca.key"))), (0o700, 0o600));
        journal.finish(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something is left over");
    }

    #[test]
    fn what_a_kill_left_half_made_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        for half in [aside(dir.path()), away(dir.path())] {
            fs::create_dir(&half).unwrap();
            fs::write(half.join(STATE), "{").unwrap();
        }
        assert!(Journal::open(dir.path()).unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        begun(dir.path());
    }

    #[test]
    fn one_tool_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(Lock::take(dir.path()).unwrap_err().to_string().contains("another"));
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
