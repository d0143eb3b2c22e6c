//! What is in force, kept over a restart.
//!
//! 1. The folder is one process's: two must not share it. It is made, 0700, when there is something to keep; nothing is
//!    written where no list is configured.
//! 2. A file `in-force` names what is in force: distrust entries, and CRLs by the SHA-256 of their encoding; each CRL is
//!    a file of its own, with the key of the CA that was seen to have signed it. The last line is the SHA-256 of all before it.
//! 3. A file is written beside, synchronised and renamed over, the folder is synchronised, and what nothing names any more is
//!    removed last: at every moment the folder holds what was in force before or what is now, whole.
//! 4. `in-force.new` is written before the CRLs that it names, and renamed after them. So CRLs without either file are damage:
//!    somebody took `in-force` away.
//! 5. What is kept is compared at each look ([`Kept`]): a state that is lost while the process runs would be missed at the next
//!    start.
//! 6. It is believed at start alone. Others could let the distrusted in by it, so that it passes the checks of an order: ours or
//!    root's, and not writable by others. One that is damaged is an error that says how to go on; none is a first start.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::force::hex;
use super::in_force::{CrlInForce, InForce};
use super::lists::from_hex;
use super::reader::{self, Unanswered};
use super::source::limit;
use super::trusted::{read_order, unanswered_at};
use crate::error::{LoadError, Part};
use crate::verify::{Crl, Distrust, sha256};

const NAME: &str = "in-force";
const FIRST_LINE: &str = "internaltls state, version 1; written by the process, not to be edited";
/// A million entries.
const LIMIT: u64 = 80 * 1024 * 1024;

/// The folder of one process's state.
#[derive(Debug, Clone)]
pub(super) struct StateFolder(PathBuf);

/// Why a state cannot be used, in words of ours.
type Damage = &'static str;

impl StateFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What was in force when it was last written; `None` where nothing was ever. Blocks.
    pub(super) fn load(&self) -> Result<Option<InForce>, LoadError> {
        let path = self.0.join(NAME);
        let Some(bytes) = self.read(&path, LIMIT)? else { return self.without_orphans(&path).map(|()| None) };
        let lines = verified(&bytes).map_err(|what| self.damaged(&path, what))?;
        let mut state = InForce::default();
        let mut distrust = Distrust::default();
        for line in lines.lines().skip(1) {
            match Line::of(line).ok_or_else(|| self.damaged(&path, "a line cannot be read"))? {
                Line::Key(hash) => _ = distrust.keys.insert(hash),
                Line::Certificate(hash) => _ = distrust.certificates.insert(hash),
                Line::Crl { sha256, anchor, prover } => {
                    let crl = self.crl(&sha256)?;
                    if let Some(key) = prover {
                        crl.set_prover(key);
                    }
                    state.crls.push(CrlInForce::of(Arc::new(crl), anchor));
                }
            }
        }
        state.distrust = Arc::new(distrust);
        Ok(Some(state))
    }

    /// That a folder without `in-force` never had one.
    fn without_orphans(&self, path: &Path) -> Result<(), LoadError> {
        let folder = self.clone();
        match reader::call(&self.0, move || folder.has_orphans()).map_err(|none| self.unanswered(none))? {
            Ok(true) => Err(self.damaged(path, "it is missing, and CRLs that it named are there")),
            Ok(false) => Ok(()),
            Err(_) => Err(self.damaged(path, "its folder cannot be read")),
        }
    }

    fn has_orphans(&self) -> io::Result<bool> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?.collect::<Result<Vec<_>, _>>()?,
        };
        let is_crl = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "crl");
        // A first write that was cut off.
        let first = self.0.join(NAME).with_extension("new").is_file();
        Ok(!first && entries.iter().any(is_crl))
    }

    fn unanswered(&self, none: Unanswered) -> LoadError {
        LoadError::StateFile { folder: self.0.clone(), source: unanswered_at(&self.0, none) }
    }

    fn crl(&self, hash: &[u8; 32]) -> Result<Crl, LoadError> {
        let path = self.crl_path(hash);
        let der = self.read(&path, limit(Part::Crl))?.ok_or_else(|| self.damaged(&path, "it is missing"))?;
        if sha256(&der) != *hash {
            return Err(self.damaged(&path, "its checksum does not fit"));
        }
        Crl::read(der).map_err(|what| self.damaged(&path, what))
    }

    fn crl_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.0.join(format!("{}.crl", hex(hash)))
    }

    fn damaged(&self, path: &Path, what: Damage) -> LoadError {
        LoadError::StateDamaged { path: path.to_owned(), what, folder: self.0.clone() }
    }

    /// `None` where there is no such file.
    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        read_order(path, limit).map_err(|source| LoadError::StateFile { folder: self.0.clone(), source })
    }

    /// Writes what is in force. Blocks until it is on disk, or for as long as a file system has to answer: one that hangs must
    /// not keep the next list from being read.
    pub(super) fn save(&self, state: &InForce) -> Result<(), LoadError> {
        let (folder, state) = (self.clone(), state.clone());
        let written = match reader::call(&self.0, move || folder.write(&state)) {
            Ok(written) => written,
            Err(Unanswered::Hangs(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(Unanswered::NoThread(error)) => Err(error),
        };
        written.map_err(|source| LoadError::StateUnwritable { path: self.0.clone(), source })
    }

    fn write(&self, state: &InForce) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let name = self.0.join(NAME);
        let beside = write_beside(&name, text(state).as_bytes())?;
        File::open(&self.0)?.sync_all()?;
        for held in &state.crls {
            let path = self.crl_path(&held.crl.sha256);
            if !is_whole(&path, held.crl.der()) {
                replace(&path, held.crl.der())?;
            }
        }
        fs::rename(&beside, &name)?;
        File::open(&self.0)?.sync_all()?;
        self.sweep(state);
        Ok(())
    }

    /// Every file of a state; the one without a CRL is `in-force`.
    fn files(&self, state: &InForce) -> Vec<(PathBuf, Option<Arc<Crl>>)> {
        let crls = state.crls.iter().map(|held| (self.crl_path(&held.crl.sha256), Some(Arc::clone(&held.crl))));
        [(self.0.join(NAME), None)].into_iter().chain(crls).collect()
    }

    /// Removes what is named no more. What cannot be removed does no harm.
    fn sweep(&self, state: &InForce) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let named: Vec<PathBuf> = state.crls.iter().map(|held| self.crl_path(&held.crl.sha256)).collect();
        let ours = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "crl" || kind == "new");
        let left = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(ours);
        left.filter(|path| !named.contains(path)).for_each(|path| _ = fs::remove_file(path));
    }
}

/// All at once, and on disk when it returns but for the folder.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::rename(write_beside(path, bytes)?, path)
}

/// Gives the path that it wrote, which is on disk but for the folder.
fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

/// Whether a file is as it was written: what is not would be refused at the next start.
fn is_whole(path: &Path, bytes: &[u8]) -> bool {
    let is_plain = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o7777 == 0o600);
    is_plain && fs::read(path).is_ok_and(|read| read == bytes)
}

/// What tells that a file was touched, without reading it: device, inode, length and times of its content and of itself.
/// `None` where there is none.
type Stamp = Option<[i128; 7]>;

fn stamp(path: &Path) -> Stamp {
    let meta = fs::symlink_metadata(path).ok()?;
    let of = [meta.dev(), meta.ino(), meta.size()].map(i128::from);
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()].map(i128::from);
    [&of[..], &times].concat().try_into().ok()
}

/// What the folder holds, as this process wrote or read it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) state: InForce,
    /// Of its files when they were last compared byte by byte.
    stamps: Vec<Stamp>,
}

impl Kept {
    pub(super) fn new(state: InForce) -> Self {
        Self { state, stamps: Vec::new() }
    }

    /// Whether the folder still holds it. Files are read where their stamps have changed. Blocks, as [`StateFolder::load`] does.
    ///
    /// # Errors
    /// [`LoadError::StateLost`], or [`LoadError::StateFile`] where a file cannot be trusted any more.
    pub(super) fn compare(&mut self, folder: &StateFolder) -> Result<(), LoadError> {
        let files = folder.files(&self.state);
        let paths: Vec<_> = files.iter().map(|(path, _)| path.clone()).collect();
        let stamped = move || paths.iter().map(|path| stamp(path)).collect::<Vec<_>>();
        let stamps = reader::call(folder.path(), stamped).map_err(|none| folder.unanswered(none))?;
        if stamps == self.stamps && stamps.iter().all(Option::is_some) {
            return Ok(());
        }
        let text = text(&self.state);
        for (path, crl) in files {
            let expected = crl.as_ref().map_or(text.as_bytes(), |crl| crl.der());
            let limit = if crl.is_some() { limit(Part::Crl) } else { LIMIT };
            match folder.read(&path, limit)? {
                None => return Err(LoadError::StateLost { path, what: "was removed" }),
                Some(bytes) if bytes != expected => {
                    return Err(LoadError::StateLost { path, what: "was changed" });
                }
                Some(_) => {}
            }
        }
        // Within one tick of the file system's clock two writes have one time.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_settled = |stamp: &Stamp| stamp.is_some_and(|[.., changed, _]| changed + 2 < i128::from(now));
        self.stamps = if stamps.iter().all(is_settled) { stamps } else { Vec::new() };
        Ok(())
    }
}

fn text(state: &InForce) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    state.distrust.keys.iter().for_each(|hash| text.push_str(&format!("spki {}\n", hex(hash))));
    state.distrust.certificates.iter().for_each(|hash| text.push_str(&format!("cert {}\n", hex(hash))));
    for CrlInForce { crl, anchor, prover } in &state.crls {
        let anchor = anchor.as_ref().map_or_else(|| "-".to_owned(), hex);
        let prover = prover.as_ref().map(|key| format!(" {}", hex(key))).unwrap_or_default();
        text.push_str(&format!("crl {} {anchor}{prover}\n", hex(&crl.sha256)));
    }
    let sum = hex(&sha256(text.as_bytes()));
    text.push_str(&format!("sha256 {sum}\n"));
    text
}

/// The lines before the checksum, if it fits.
fn verified(bytes: &[u8]) -> Result<&str, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
    let torn = "it is cut off";
    let (before, last) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or(torn)?;
    let sum = last.strip_prefix("sha256 ").and_then(|sum| from_hex(sum.as_bytes())).ok_or(torn)?;
    let summed = text.get(..=before.len()).unwrap_or_default();
    if sha256(summed.as_bytes()) != sum {
        return Err("its checksum does not fit");
    }
    if before.lines().next() != Some(FIRST_LINE) {
        return Err("it is of another version");
    }
    Ok(before)
}

enum Line {
    Key([u8; 32]),
    Certificate([u8; 32]),
    Crl { sha256: [u8; 32], anchor: Option<[u8; 32]>, prover: Option<[u8; 32]> },
}

impl Line {
    fn of(line: &str) -> Option<Self> {
        let hash = |text: &str| from_hex(text.as_bytes());
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["spki", key] => hash(key).map(Self::Key),
            ["cert", certificate] => hash(certificate).map(Self::Certificate),
            ["crl", list, anchor] => Self::crl(list, anchor, None),
            ["crl", list, anchor, prover] => Self::crl(list, anchor, Some(hash(prover)?)),
            _ => None,
        }
    }

    fn crl(list: &str, anchor: &str, prover: Option<[u8; 32]>) -> Option<Self> {
        let hash = |text: &str| from_hex(text.as_bytes());
        let anchor = if anchor == "-" { None } else { Some(hash(anchor)?) };
        Some(Self::Crl { sha256: hash(list)?, anchor, prover })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::foreign::chain;
    use crate::verify::drafts::{ca, draft};

    fn state() -> InForce {
        let list = ca("a CA").list(&draft(3, &[7]));
        let proven = ca("one below").list(&draft(2, &[]));
        proven.set_prover([8; 32]);
        let distrust = Distrust { keys: [[1; 32], [2; 32]].into(), certificates: [[2; 32]].into() };
        let crls = vec![
            CrlInForce::of(list, Some([9; 32])),
            CrlInForce::of(ca("another").list(&draft(1, &[])), None),
            CrlInForce::of(proven, None),
        ];
        InForce { distrust: Arc::new(distrust), crls, crl_path: None }
    }

    fn folder() -> (tempfile::TempDir, StateFolder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(dir.path().join("below/state"));
        (dir, folder)
    }

    fn error(folder: &StateFolder) -> LoadError {
        folder.load().map(|_| "loaded").unwrap_err()
    }

    fn names(folder: &StateFolder) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn loads_what_it_saved() {
        let (_dir, folder) = folder();
        assert!(folder.load().unwrap().is_none() && !folder.path().exists(), "nothing is made to look");
        let state = state();
        folder.save(&state).unwrap();
        let loaded = folder.load().unwrap().unwrap();
        assert!(loaded == state && loaded.provers().eq([None, None, Some([8; 32])]));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!([mode(folder.path()), mode(&folder.path().join(NAME))], [0o700, 0o600]);
        assert_eq!(names(&folder), 4);
        let less = InForce { crls: state.crls[..1].to_vec(), ..InForce::default() };
        folder.save(&less).unwrap();
        assert!(folder.load().unwrap() == Some(less));
        assert_eq!(names(&folder), 2, "what is named no more is removed");
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_state_before() {
        let (_dir, folder) = folder();
        let state = state();
        folder.save(&state).unwrap();
        fs::write(folder.path().join("in-force.new"), "internaltls st").unwrap();
        fs::write(folder.path().join("0123.crl"), "half").unwrap();
        assert!(folder.load().unwrap() == Some(state.clone()));
        folder.save(&state).unwrap();
        assert_eq!(names(&folder), 4, "leftovers are removed");
    }

    #[test]
    fn invariant_1_no_byte_of_the_state_may_differ() {
        let (_dir, folder) = folder();
        folder.save(&state()).unwrap();
        let refused = |what: &str| {
            let told = error(&folder);
            assert!(matches!(told, LoadError::StateDamaged { .. }), "{what}: {told:?}");
            let told = chain(&told);
            assert!(told.contains("restore it, or") && told.contains(&folder.path().display().to_string()), "{told}");
        };
        for entry in fs::read_dir(folder.path()).unwrap().collect::<Vec<_>>() {
            let path = entry.unwrap().path();
            let whole = fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut other = whole.clone();
                other[at] ^= 1;
                fs::write(&path, &other).unwrap();
                refused(&format!("{} with byte {at} changed", path.display()));
            }
            for end in [0, 1, whole.len() / 2, whole.len() - 1] {
                fs::write(&path, &whole[..end]).unwrap();
                refused(&format!("{} cut off at {end}", path.display()));
            }
            fs::write(&path, [&whole[..], b"\n"].concat()).unwrap();
            refused("a byte more");
            if path.extension().is_some() {
                fs::remove_file(&path).unwrap();
                refused("a CRL is missing");
            }
            fs::write(&path, &whole).unwrap();
        }
        folder.load().unwrap();
    }

    #[test]
    fn invariant_1_crls_without_their_state_are_damage() {
        let (_dir, folder) = folder();
        folder.save(&state()).unwrap();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let told = chain(&error(&folder));
        assert!(told.contains("it is missing") && told.contains("restore it, or"), "{told}");
        // A first write that was cut off, before its last step.
        fs::write(path.with_extension("new"), whole).unwrap();
        assert!(folder.load().unwrap().is_none());
    }

    #[test]
    fn invariant_9_what_is_lost_is_seen() {
        let (_dir, folder) = folder();
        let state = state();
        folder.save(&state).unwrap();
        let mut kept = Kept::new(state.clone());
        let paths: Vec<_> = folder.files(&state).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), names(&folder));
        for path in &paths {
            let whole = fs::read(path).unwrap();
            let harms: [(&dyn Fn(), &str); 4] = [
                (&|| fs::remove_file(path).unwrap(), "was removed"),
                (&|| fs::write(path, &whole[1..]).unwrap(), "was changed"),
                (&|| fs::write(path, whole.iter().rev().copied().collect::<Vec<_>>()).unwrap(), "was changed"),
                (&|| chmod(path, 0o666), "chmod go-w"),
            ];
            for (harm, what) in harms {
                kept.compare(&folder).unwrap();
                kept.compare(&folder).unwrap();
                harm();
                let told = chain(&kept.compare(&folder).unwrap_err());
                assert!(told.contains(what), "{what}: {told}");
                folder.save(&state).unwrap();
                assert!(folder.load().unwrap() == Some(state.clone()), "{what}");
            }
        }
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(matches!(kept.compare(&folder), Err(LoadError::StateLost { .. })));
    }

    #[test]
    fn others_may_not_write_it() {
        let (_dir, folder) = folder();
        folder.save(&state()).unwrap();
        let crl = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let crl = crl.into_iter().find(|path| path.extension().is_some()).unwrap();
        for (path, good) in [(folder.path().to_owned(), 0o700), (folder.path().join(NAME), 0o600), (crl, 0o600)] {
            chmod(&path, good | 0o022);
            let told = error(&folder);
            assert!(
                matches!(told, LoadError::StateFile { .. }) && chain(&told).contains("chmod go-w"),
                "{}",
                chain(&told)
            );
            chmod(&path, good);
        }
        folder.load().unwrap();
    }

    /// Only root can give a folder to somebody else: elsewhere `permissions` alone is tested.
    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let (dir, folder) = folder();
        folder.save(&state()).unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let owner = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        owner(dir.path(), 4_711);
        folder.load().unwrap();
        for path in [folder.path().to_owned(), folder.path().join(NAME)] {
            owner(&path, 4_711);
            let told = error(&folder);
            assert!(matches!(told, LoadError::StateFile { .. }) && chain(&told).contains("chown"), "{}", chain(&told));
            owner(&path, 0);
        }
        fs::remove_file(folder.path().join(NAME)).unwrap();
        owner(folder.path(), 4_711);
        assert!(matches!(error(&folder), LoadError::StateFile { .. }), "before the first state is in it");
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(folder.load().unwrap().is_none(), "what is above is only warned of");
    }

    #[test]
    fn no_fifo_holds_up_the_start() {
        let (_dir, folder) = folder();
        fs::create_dir_all(folder.path()).unwrap();
        chmod(folder.path(), 0o700);
        let made = std::process::Command::new("mkfifo").arg(folder.path().join(NAME)).status().unwrap();
        assert!(made.success());
        assert!(chain(&error(&folder)).contains("FIFO"));
    }

    #[test]
    fn what_cannot_be_kept_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let told = StateFolder::new(dir.path().join("file/state")).save(&state()).unwrap_err().to_string();
        assert!(told.contains("internaltls.statePath"), "{told}");
    }
}
