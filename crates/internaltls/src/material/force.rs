//! Force: a file on this host by which an operator says that one candidate is to be published, whatever its peers say.
//!
//! 1. It names the candidate by the hash of its content, so that nothing else is published by it.
//! 2. It is good once: it is removed before what it names is published. One that cannot be removed is not heeded.
//! 3. Whoever can write it speaks for the operator: it is judged as a key is, with the way to it. It is refused as well where its
//!    owner is neither us nor root, and where it is a link.
//! 4. It silences peers. No check of key, chain, name or validity is skipped, and nothing on the network can do this.
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::permissions::{Object, Offence};
use super::reader;
use super::trusted::{self, FileError, unanswered_at};

/// A hash and some comments come nowhere near this.
const LIMIT: u64 = 4096;

/// The hash of a candidate's leaf, key and CAs.
pub(super) type ContentHash = [u8; 32];

/// Why a force file that is there was not heeded.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForceError {
    #[error("{} cannot be read: let this process read it", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not a plain file: write one in its place", .0.display())]
    NotPlain(PathBuf),
    #[error("{} is of uid {owner}: it must be root's, or of the uid that this process runs as", .path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("{} can be written by others than its owner (mode {:04o}): run `chmod go-w {}`", .path.display(), .mode & 0o7777, .path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("{} must hold one SHA-256 in hex (64 digits) and nothing else but comments", .0.display())]
    NoHash(PathBuf),
    #[error("{} names {}, which is not what is held back", .path.display(), hex(.named))]
    Other { path: PathBuf, named: ContentHash },
    #[error("it cannot be told whether an operator has a word")]
    File(#[from] FileError),
    #[error("{} cannot be removed, and it is good only once: let internaltls.reload.forcePath lie in a folder that this process can write", .path.display())]
    Stays { path: PathBuf, source: io::Error },
}

/// Where an operator's word would be.
#[derive(Debug, Clone)]
pub(crate) struct Force {
    path: PathBuf,
}

impl Force {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Uses up the word for this candidate. Whether there was one. Blocks, for a bounded time where the file system is silent.
    pub(super) fn take(&self, candidate: &ContentHash) -> Result<bool, ForceError> {
        let (force, candidate) = (self.clone(), *candidate);
        let taken = reader::call(&self.path, move || force.take_here(&candidate));
        taken.map_err(|none| unanswered_at(&self.path, none))?
    }

    fn take_here(&self, candidate: &ContentHash) -> Result<bool, ForceError> {
        let Some(named) = self.named()? else { return Ok(false) };
        if named != *candidate {
            return Err(ForceError::Other { path: self.path.clone(), named });
        }
        fs::remove_file(&self.path).map_err(|source| ForceError::Stays { path: self.path.clone(), source })?;
        Ok(true)
    }

    /// What an operator types to give the word for this candidate.
    pub(super) fn command(&self, candidate: &ContentHash) -> String {
        format!("(umask 022; echo {} > {})", hex(candidate), quoted(&self.path))
    }

    fn named(&self) -> Result<Option<ContentHash>, ForceError> {
        let path = || self.path.clone();
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ForceError::Unreadable { path: path(), source }),
            Ok(meta) if !meta.is_file() => return Err(ForceError::NotPlain(path())),
            Ok(_) => {}
        }
        // A link that takes its place now leads to a file of ours or root's, or is refused all the same.
        let mut opened = trusted::open(&self.path, Object::Order).map_err(|error| self.refused(error))?;
        let bytes = opened.read(LIMIT).map_err(|error| self.refused(error))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| ForceError::NoHash(path()))?;
        parse(text).map_err(|()| ForceError::NoHash(path()))
    }

    fn refused(&self, error: FileError) -> ForceError {
        match error {
            FileError::Replaceable { object: path, offence: Offence::ForeignOwner { uid: owner }, .. } => {
                ForceError::Foreign { path, owner }
            }
            FileError::Replaceable { object: path, offence, .. } => ForceError::Writable { path, mode: offence.mode() },
            FileError::NotRegular { path, .. } => ForceError::NotPlain(path),
            FileError::Unreadable { path, source, .. } => ForceError::Unreadable { path, source },
            FileError::TooLarge { path, .. } => ForceError::NoHash(path),
            error => ForceError::File(error),
        }
    }
}

/// `None`: nothing but comments, as while it is being written.
fn parse(text: &str) -> Result<Option<ContentHash>, ()> {
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let Some(line) = lines.find(|line| !line.is_empty()) else { return Ok(None) };
    if lines.any(|line| !line.is_empty()) {
        return Err(());
    }
    unhex(line).map(Some).ok_or(())
}

fn unhex(text: &str) -> Option<ContentHash> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

pub(super) fn hex(hash: &ContentHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use proptest::prelude::*;

    const HASH: ContentHash = [0xa7; 32];

    struct Given {
        folder: tempfile::TempDir,
        force: Force,
    }

    impl Given {
        fn nothing() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let force = Force::at(folder.path().join("reload-force"));
            Self { folder, force }
        }

        fn word(text: &str) -> Self {
            let given = Self::nothing();
            given.write(text);
            given
        }

        fn write(&self, text: &str) {
            fs::write(self.force.path(), text).unwrap();
            self.mode(self.force.path(), 0o644);
        }

        fn mode(&self, path: &Path, mode: u32) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn refused(&self) -> ForceError {
            let error = self.force.take(&HASH).unwrap_err();
            assert!(self.force.path().symlink_metadata().is_ok(), "what is refused stays: {error}");
            error
        }
    }

    #[test]
    fn a_word_is_good_once() {
        let given = Given::word(&format!("# ticket 7\n{} # by me\n", hex(&HASH)));
        assert!(given.force.take(&HASH).unwrap());
        assert!(!given.force.path().exists());
        assert!(!given.force.take(&HASH).unwrap());
    }

    #[test]
    fn silence_is_no_word() {
        assert!(!Given::nothing().force.take(&HASH).unwrap());
        assert!(!Given::word("").force.take(&HASH).unwrap());
    }

    #[test]
    fn a_word_for_another_candidate_is_not_for_this_one() {
        let error = Given::word(&hex(&[0xa8; 32])).refused();
        assert!(matches!(error, ForceError::Other { .. }), "{error}");
        for text in ["yes", &hex(&HASH)[1..], &format!("{0}{0}", hex(&HASH)), &format!("{0}\n{0}", hex(&HASH))] {
            let error = Given::word(text).refused();
            assert!(matches!(error, ForceError::NoHash(_)), "{text}: {error}");
        }
    }

    #[test]
    fn who_else_can_write_it_has_no_word() {
        for mode in [0o664, 0o646] {
            let given = Given::word(&hex(&HASH));
            given.mode(given.force.path(), mode);
            let error = given.refused();
            assert!(error.to_string().contains("chmod go-w"), "{mode:o}: {error}");
        }
        let given = Given::word(&hex(&HASH));
        given.mode(given.folder.path(), 0o777);
        assert!(matches!(given.refused(), ForceError::Writable { .. }));
    }

    #[test]
    fn a_link_or_a_folder_is_no_word() {
        let given = Given::nothing();
        let elsewhere = given.folder.path().join("elsewhere");
        fs::write(&elsewhere, hex(&HASH)).unwrap();
        symlink(&elsewhere, given.force.path()).unwrap();
        assert!(matches!(given.refused(), ForceError::NotPlain(_)));
        fs::remove_file(given.force.path()).unwrap();
        fs::create_dir(given.force.path()).unwrap();
        assert!(matches!(given.refused(), ForceError::NotPlain(_)));
    }

    #[test]
    fn invariant_9_fifo_is_no_word() {
        let given = Given::nothing();
        let (path, mode) = (given.force.path(), rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(given.refused(), ForceError::NotPlain(_)));
        fs::remove_file(path).unwrap();
        given.write(&"#".repeat(LIMIT as usize + 1));
        assert!(matches!(given.refused(), ForceError::NoHash(_)));
    }

    #[test]
    fn folders_on_the_way_count() {
        let given = Given::nothing();
        let deep = given.folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let force = Force::at(deep.join("reload-force"));
        fs::write(force.path(), hex(&HASH)).unwrap();
        given.mode(&given.folder.path().join("a"), 0o777);
        assert!(matches!(force.take(&HASH), Err(ForceError::Writable { path, .. }) if path.ends_with("a")));
        given.mode(&given.folder.path().join("a"), 0o1777);
        assert!(force.take(&HASH).unwrap());
    }

    #[test]
    fn what_is_told_to_type_is_a_word() {
        let given = Given::nothing();
        let command = given.force.command(&HASH);
        assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
        assert!(given.force.take(&HASH).unwrap());
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_hash_comes_back(hash in any::<[u8; 32]>(), before in "(# [a-z ]{0,9}\n){0,3}") {
            prop_assert_eq!(parse(&format!("{before}\t{} \n\n", hex(&hash).to_uppercase())), Ok(Some(hash)));
        }

        #[test]
        fn whatever_is_read_does_not_panic(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
