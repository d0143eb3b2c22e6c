//! The files, read whole and alike twice.
//!
//! 1. A set is taken only when two reads of all of it agree: a writer at work is waited out, not guessed at. The first of the two
//!    keeps hashes alone, and a set that is the one in use is told by hashes alone: its key is read into no buffer but a small
//!    one that is wiped.
//! 2. Each file is read by [`trusted`](super::trusted): a regular file that nobody else can replace. Each is asked for by
//!    itself ([`reader`](super::reader)), all at once, but for the files of a folder of CRLs, of which there may be a thousand:
//!    one that hangs fails the set after a bounded time, and no other set.
//! 3. Every failure is its own error, with file, setting and remedy; none carries a byte of a file.
//! 4. What is no reason to refuse is warned of when it is first seen, and again when it has been mended and comes back.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::generation::Purpose;
use super::permissions::{Object, Offence};
use super::reader::{self, PATIENCE};
use super::trusted::{self, FileError, Warning};
use crate::config::Files;
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::sha256;

/// Bytes that a file may have: no certificate, key, bundle, list of hashes or policy comes near this.
const LIMIT: u64 = 1024 * 1024;
/// Public CAs publish CRLs of 10 MB and more; some 40 bytes an entry.
const CRL_LIMIT: u64 = 64 * LIMIT;
/// How many files of one folder are asked for at once, each on a thread.
const AT_ONCE: usize = 16;
const READS: usize = 6;
/// Between two reads of the set.
const PAUSE: Duration = Duration::from_millis(5);

/// The most files of a folder of CRLs.
const CRL_FILES: usize = 1_024;
/// The most bytes that the files of a folder of CRLs have together.
const CRL_FOLDER_LIMIT: u64 = 4 * CRL_LIMIT;

/// How many bytes a file may have.
pub(super) const fn limit(part: Part) -> u64 {
    match part {
        Part::Crl => CRL_LIMIT,
        Part::Certificate
        | Part::Key
        | Part::Ca
        | Part::ClientCertificate
        | Part::ClientKey
        | Part::Distrust
        | Part::Policy => LIMIT,
    }
}

/// The bytes of a file. They may be a key's: never shown, and wiped when they are dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What was on disk at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) files: Vec<(MaterialFile, Bytes)>,
}

impl Snapshot {
    pub(super) fn all(&self, part: Part) -> impl Iterator<Item = (&MaterialFile, &[u8])> {
        self.files.iter().filter(move |(file, _)| file.part == part).map(|(file, bytes)| (file, bytes.0.as_slice()))
    }

    pub(super) fn one(&self, part: Part) -> Option<(&MaterialFile, &[u8])> {
        self.all(part).next()
    }

    /// The same content has the same hash, wherever it lies.
    pub(super) fn content(&self) -> Content {
        let hashes: Vec<_> = self.files.iter().map(|(file, bytes)| (file.part, sha256(&bytes.0))).collect();
        Content::of(&hashes)
    }
}

/// What tells one set from another, in two halves: leaf, key and CAs; and what revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) pair: [u8; 32],
    pub(super) lists: [u8; 32],
}

impl Content {
    fn of_read(files: &[Taken]) -> Self {
        Self::of(&files.iter().map(|taken| (taken.file.part, taken.sha256)).collect::<Vec<_>>())
    }

    fn of(files: &[(Part, [u8; 32])]) -> Self {
        let hash = |lists| {
            let files = files.iter().filter(|(part, _)| is_list(*part) == lists);
            let parts = files.flat_map(|(part, hash)| std::iter::once(*part as u8).chain(*hash));
            sha256(&parts.collect::<Vec<_>>())
        };
        Self { pair: hash(false), lists: hash(true) }
    }
}

fn is_list(part: Part) -> bool {
    matches!(part, Part::Crl | Part::Distrust)
}

/// The files of a set, as configured. The entries of a folder of CRLs are found at each read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    files: Vec<MaterialFile>,
    warned: Warned,
}

/// What is wrong with each file and has been warned of. Sets that are parts of one another share it.
#[derive(Debug, Clone, Default)]
struct Warned(Arc<Mutex<BTreeMap<PathBuf, BTreeSet<Warning>>>>);

impl Source {
    pub(super) fn of(files: &Files, purpose: &Purpose) -> Result<Self, LoadError> {
        let edge = matches!(purpose, Purpose::Edge { .. });
        let ca_counts = purpose.ca_counts();
        if files.client_cert.is_some() != files.client_key.is_some() {
            return Err(LoadError::HalfAPair);
        }
        if ca_counts && files.ca.is_none() {
            return Err(LoadError::NoCa { edge });
        }
        let optional = [
            (Part::Ca, files.ca.as_ref().filter(|_| ca_counts)),
            (Part::ClientCertificate, files.client_cert.as_ref()),
            (Part::ClientKey, files.client_key.as_ref()),
            (Part::Crl, files.crl.as_ref().filter(|_| ca_counts)),
            (Part::Distrust, files.distrust.as_ref().filter(|_| ca_counts)),
        ];
        let named = [(Part::Certificate, Some(&files.cert)), (Part::Key, Some(&files.key))].into_iter().chain(optional);
        let files = named.filter_map(|(part, path)| path.map(|path| MaterialFile { part, path: path.clone(), edge }));
        Ok(Self { files: files.collect(), warned: Warned::default() })
    }

    pub(super) fn of_policy(path: &Path) -> Self {
        let file = MaterialFile { part: Part::Policy, path: path.to_owned(), edge: false };
        Self { files: vec![file], warned: Warned::default() }
    }

    /// Leaf, key and CAs, without what revokes.
    pub(super) fn pair(&self) -> Self {
        let files = self.files.iter().filter(|file| !is_list(file.part)).cloned().collect();
        Self { files, warned: self.warned.clone() }
    }

    /// The CRLs and the distrust list alone; `None` where there are none.
    pub(super) fn lists(&self) -> Option<Self> {
        let files: Vec<_> = self.files.iter().filter(|file| is_list(file.part)).cloned().collect();
        (!files.is_empty()).then_some(Self { files, warned: self.warned.clone() })
    }

    /// The file of a part, where one is configured.
    pub(super) fn get(&self, part: Part) -> Option<&MaterialFile> {
        self.files.iter().find(|file| file.part == part)
    }

    pub(super) fn first(&self) -> MaterialFile {
        self.files.first().cloned().unwrap_or(MaterialFile {
            part: Part::Certificate,
            path: PathBuf::new(),
            edge: false,
        })
    }

    /// Every path that is read, as configured.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    /// Reads until two reads agree. Blocks, for as long as [`PATIENCE`] at most where a file system does not answer, and for a
    /// minute a file where it is slow.
    pub(super) fn read(&self) -> Result<Snapshot, LoadError> {
        Ok(self.read_unless(|_| false)?.unwrap_or_default())
    }

    /// The same, but for content that is known already, which hashes alone can tell: `None`. One read is proof enough of it, for
    /// it was read twice when it was new.
    pub(super) fn read_unless(&self, known: impl FnOnce(Content) -> bool) -> Result<Option<Snapshot>, LoadError> {
        let first = self.take(Keep::Hashes);
        if let Some(taken) = first.as_ref().ok().filter(|taken| known(Content::of_read(taken))) {
            self.warned.see(&self.files, taken);
            return Ok(None);
        }
        let mut first = Some(first);
        let read = || first.take().unwrap_or_else(|| self.take(Keep::Bytes));
        let taken = stable(READS, read, pause)?.ok_or_else(|| LoadError::Changing(self.first()))?;
        self.warned.see(&self.files, &taken);
        let files = taken.into_iter().map(|taken| (taken.file, taken.bytes.unwrap_or_default()));
        Ok(Some(Snapshot { files: files.collect() }))
    }

    /// Reads what can be read, until two reads agree, and tells what cannot. A writer that never rests keeps nothing out: then
    /// what was read last counts. Blocks, as [`Source::read`] does.
    pub(super) fn read_each(&self) -> (Snapshot, Vec<LoadError>) {
        let mut keep = Keep::Hashes;
        let read = || Ok(self.each(std::mem::replace(&mut keep, Keep::Bytes)));
        let Each { taken, errors } = stable(READS, read, pause).ok().flatten().unwrap_or_else(|| {
            let mut last = self.each(Keep::Bytes);
            last.errors.push(LoadError::Changing(self.first()));
            last
        });
        self.warned.see(&self.files, &taken);
        let files = taken.into_iter().map(|taken| (taken.file, taken.bytes.unwrap_or_default()));
        (Snapshot { files: files.collect() }, errors)
    }

    fn each(&self, keep: Keep) -> Each {
        let mut each = Each { taken: Vec::new(), errors: Vec::new() };
        for one in self.take_each(keep) {
            match one {
                Ok(one) => each.taken.push(one),
                Err(error) => each.errors.push(error),
            }
        }
        each
    }

    fn take(&self, keep: Keep) -> Result<Vec<Taken>, LoadError> {
        self.take_each(keep).into_iter().collect()
    }

    /// Asks for all files at once, so that those that hang are waited for together.
    fn take_each(&self, keep: Keep) -> Vec<Result<Taken, LoadError>> {
        let found = ask_each(&self.files, move |file| look(&file, keep));
        let mut all = Vec::new();
        for (file, found) in self.files.iter().zip(found) {
            match found {
                Ok(Found::File(taken)) => all.push(taken),
                Ok(Found::Folder(files, left_out)) => {
                    all.extend(take_folder(&files, &file.path, keep));
                    all.extend(left_out.into_iter().map(Err));
                }
                Err(error) => all.push(Err(error)),
            }
        }
        all
    }

    /// What is wrong with the files and no reason to refuse them, as of the last read.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        self.warned.all()
    }

    /// The keys among them that others can read, with their modes.
    pub(super) fn readable_keys(&self) -> Vec<(MaterialFile, u32)> {
        let warnings = self.warned.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = |file: &MaterialFile| {
            warnings.get(&file.path)?.iter().find_map(|warning| match warning.offence {
                Offence::Readable { mode } => Some(mode),
                _ => None,
            })
        };
        let keys = self.files.iter().filter(|file| is_key(file.part));
        keys.filter_map(|file| mode(file).map(|mode| (file.clone(), mode))).collect()
    }
}

impl Warned {
    /// Logs what is new.
    fn see(&self, files: &[MaterialFile], taken: &[Taken]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files {
            let of_file = taken.iter().filter(|taken| taken.configured == file.path);
            let now: BTreeSet<Warning> = of_file.flat_map(|taken| taken.warnings.iter().cloned()).collect();
            // One folder of all files is one warning.
            for warning in now.iter().filter(|new| !seen.values().any(|known| known.contains(new))) {
                tracing::warn!(%file, %warning, "others than this process' user and root may have a hand in a trusted file");
            }
            seen.insert(file.path.clone(), now);
        }
    }

    fn all(&self) -> Vec<Warning> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: BTreeSet<_> = seen.values().flatten().cloned().collect();
        all.into_iter().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Hashes,
    Bytes,
}

/// One file, as it was read.
struct Taken {
    file: MaterialFile,
    /// The path by which it was found: its own, or its folder's.
    configured: PathBuf,
    sha256: [u8; 32],
    bytes: Option<Bytes>,
    warnings: Vec<Warning>,
}

impl PartialEq for Taken {
    /// Whether both are the same content; bytes need not have been kept of either.
    fn eq(&self, other: &Self) -> bool {
        (&self.file, self.sha256) == (&other.file, other.sha256)
    }
}

/// What can be read, and what cannot.
struct Each {
    taken: Vec<Taken>,
    errors: Vec<LoadError>,
}

impl PartialEq for Each {
    fn eq(&self, other: &Self) -> bool {
        let texts = |each: &Self| each.errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.taken == other.taken && texts(self) == texts(other)
    }
}

#[expect(clippy::disallowed_methods, reason = "two reads must lie apart in time; this thread may block")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Reads until one read equals the one before it, at most so many times. `None`: no two did.
fn stable<T: PartialEq>(
    reads: usize,
    mut read: impl FnMut() -> Result<T, LoadError>,
    mut pause: impl FnMut(),
) -> Result<Option<T>, LoadError> {
    let mut before: Option<Result<T, LoadError>> = None;
    for _ in 0..reads {
        let now = read();
        match (before, now) {
            (Some(Ok(before)), Ok(now)) if before == now => return Ok(Some(now)),
            // What hangs is not asked for again: the next look will see whether it answers.
            (_, Err(error @ LoadError::Hangs { .. })) | (Some(Err(_)), Err(error)) => return Err(error),
            (_, now) => before = Some(now),
        }
        pause();
    }
    Ok(None)
}

fn is_key(part: Part) -> bool {
    matches!(part, Part::Key | Part::ClientKey)
}

/// What a configured path led to.
enum Found {
    File(Result<Taken, LoadError>),
    /// The files of a folder of CRLs, and what is not read of it.
    Folder(Vec<MaterialFile>, Vec<LoadError>),
}

/// Reads one configured path, or lists it where it is a folder of CRLs. May hang.
fn look(file: &MaterialFile, keep: Keep) -> Result<Found, LoadError> {
    if file.part == Part::Crl && file.path.is_dir() {
        let (files, left_out) = bounded(file, list(file)?);
        return Ok(Found::Folder(files, left_out));
    }
    Ok(Found::File(take_one(file.clone(), &file.path, keep)))
}

/// Reads the files of a folder. What has hung is waited for once: then those that were not yet asked for hang, too, until the
/// next look, to which the reader tells at once who hangs.
fn take_folder(files: &[MaterialFile], folder: &Path, keep: Keep) -> Vec<Result<Taken, LoadError>> {
    let mut all = Vec::new();
    for some in files.chunks(AT_ONCE) {
        let begin = Instant::now();
        let configured = folder.to_owned();
        all.extend(ask_each(some, move |file| take_one(file, &configured, keep)));
        let hung = all.iter().find_map(|one| match one {
            Err(LoadError::Hangs { since, .. }) => Some(*since),
            _ => None,
        });
        if let Some(since) = hung.filter(|_| begin.elapsed() >= PATIENCE) {
            let rest = files[all.len()..].iter().map(|file| Err(LoadError::Hangs { file: file.clone(), since }));
            all.extend(rest.collect::<Vec<_>>());
            break;
        }
    }
    all
}

/// Asks for each of these files on the thread of its path, all at once, and waits for all.
fn ask_each<T: Send + 'static>(
    files: &[MaterialFile],
    work: impl Fn(MaterialFile) -> Result<T, LoadError> + Clone + Send + 'static,
) -> Vec<Result<T, LoadError>> {
    let deadline = Instant::now() + PATIENCE;
    let mut asked = Vec::new();
    for file in files {
        let (of, work) = (file.clone(), work.clone());
        asked.push(reader::ask(&file.path, move || work(of)));
    }
    let answer = |(file, asked): (&MaterialFile, reader::Asked<_>)| {
        asked.wait_on(deadline).map_err(|none| of(file, trusted::unanswered_at(&file.path, none)))?
    };
    files.iter().zip(asked).map(answer).collect()
}

/// What of a folder is read, in the order of names, and what is left out. The smallest files first: who fills the folder with
/// large ones keeps no other's list out. May hang.
fn bounded(folder: &MaterialFile, files: Vec<MaterialFile>) -> (Vec<MaterialFile>, Vec<LoadError>) {
    let size = |file: &MaterialFile| fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
    let mut files: Vec<_> = files.into_iter().map(|file| (size(&file), file)).collect();
    files.sort_by(|(a, one), (b, other)| (a, &one.path).cmp(&(b, &other.path)));
    let beyond = files.split_off(files.len().min(CRL_FILES));
    let (mut room, mut read, mut left_out) = (CRL_FOLDER_LIMIT, Vec::new(), Vec::new());
    for (size, file) in files {
        if let Some(left) = room.checked_sub(size) {
            room = left;
            read.push(file);
        } else {
            let what = "the files of its folder have more than 256 MiB together";
            left_out.push(LoadError::TooManyCrls { file, what });
        }
    }
    if !beyond.is_empty() {
        left_out.push(LoadError::TooManyCrls { file: folder.clone(), what: "the folder holds more than 1,024 files" });
    }
    read.sort_by(|one, other| one.path.cmp(&other.path));
    (read, left_out)
}

fn take_one(file: MaterialFile, configured: &Path, keep: Keep) -> Result<Taken, LoadError> {
    let mut opened = open(&file)?;
    let warnings = std::mem::take(&mut opened.warnings);
    let (sha256, bytes) = match keep {
        Keep::Hashes => (hash(&file, &mut opened)?, None),
        Keep::Bytes => {
            let bytes = bytes(&file, &mut opened)?;
            (sha256(&bytes), Some(bytes))
        }
    };
    Ok(Taken { file, configured: configured.to_owned(), sha256, bytes, warnings })
}

/// The files of a folder of CRLs.
fn list(file: &MaterialFile) -> Result<Vec<MaterialFile>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { file: file.clone(), access: None, source };
    let found = entries(&file.path).map_err(unreadable)?;
    if found.is_empty() {
        return Err(LoadError::NoCrl(file.clone()));
    }
    Ok(found.into_iter().map(|path| MaterialFile { path, ..file.clone() }).collect())
}

/// What is in a folder, by name, hidden ones (`..data`) and folders left out. A FIFO among CRLs is not passed over: it is an
/// error when it is read.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !hidden(&path) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads one file by itself, once. Blocks, as [`Source::read`] does.
pub(super) fn read_file(file: &MaterialFile) -> Result<Bytes, LoadError> {
    let of_thread = file.clone();
    let work = move || bytes(&of_thread, &mut open(&of_thread)?);
    reader::call(&file.path, work).map_err(|none| of(file, trusted::unanswered_at(&file.path, none)))?
}

fn open(file: &MaterialFile) -> Result<trusted::Opened, LoadError> {
    let object = if is_key(file.part) { Object::Key } else { Object::File };
    trusted::open(&file.path, object).map_err(|error| of(file, error))
}

fn hash(file: &MaterialFile, opened: &mut trusted::Opened) -> Result<[u8; 32], LoadError> {
    let (length, hash) = opened.sha256(limit(file.part)).map_err(|error| of(file, error))?;
    refuse_empty(file, length)?;
    Ok(hash)
}

fn bytes(file: &MaterialFile, opened: &mut trusted::Opened) -> Result<Bytes, LoadError> {
    let mut bytes = opened.read(limit(file.part)).map_err(|error| of(file, error))?;
    refuse_empty(file, bytes.len() as u64)?;
    Ok(Bytes(std::mem::take(&mut *bytes)))
}

/// An empty list of the distrusted is a list.
fn refuse_empty(file: &MaterialFile, length: u64) -> Result<(), LoadError> {
    if length == 0 && file.part != Part::Distrust { Err(LoadError::Empty(file.clone())) } else { Ok(()) }
}

/// What is wrong with a file, with the setting that points at it.
fn of(file: &MaterialFile, error: FileError) -> LoadError {
    let file = file.clone();
    match error {
        FileError::Missing(_) => LoadError::Missing(file),
        FileError::NotRegular { kind: "folder", .. } => LoadError::Folder(file),
        FileError::NotRegular { kind, .. } => LoadError::NotRegular { file, kind },
        FileError::TooLarge { limit, .. } => LoadError::TooLarge { file, limit },
        FileError::Unreadable { access, source, .. } => LoadError::Unreadable { file, access, source },
        FileError::Replaceable { object: path, offence, .. } if is_key(file.part) => {
            LoadError::KeyWritable { file, path, mode: offence.mode() }
        }
        FileError::Replaceable { object: path, offence, .. } => {
            LoadError::Writable { file, path, mode: offence.mode() }
        }
        FileError::Hangs { since, .. } => LoadError::Hangs { file, since },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn missing() -> LoadError {
        LoadError::HalfAPair
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Taken is what was read twice in a row, the first such, and nothing else.
        #[test]
        fn takes_only_what_was_read_twice_in_a_row(reads in proptest::collection::vec(proptest::option::of(0..3u8), READS)) {
            let mut next = reads.iter();
            let taken = stable(READS, || next.next().unwrap().ok_or_else(missing), || {});
            let first = reads.windows(2).find(|pair| pair[0] == pair[1]);
            match (taken, first) {
                (Ok(taken), Some([Some(value), _])) => prop_assert_eq!(taken, Some(*value)),
                (Ok(taken), None) => prop_assert_eq!(taken, None),
                (Err(_), Some([None, None])) => {}
                (taken, first) => prop_assert!(false, "{:?} of {:?}", taken.is_ok(), first),
            }
        }
    }

    #[test]
    fn a_folder_of_crls_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = MaterialFile { part: Part::Crl, path: dir.path().to_owned(), edge: false };
        let read = || Source { files: vec![folder.clone()], warned: Warned::default() }.each(Keep::Hashes);
        let names = |each: &Each| -> Vec<_> {
            each.taken.iter().map(|taken| taken.file.path.file_name().unwrap().to_owned()).collect()
        };
        // Sparse: nothing is on the disk but a length, and what is beyond the bound is not read.
        let large = |name: &str, size| fs::File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
        large("a", CRL_FOLDER_LIMIT);
        fs::write(dir.path().join("b"), "small").unwrap();
        let each = read();
        assert_eq!(names(&each), ["b"]);
        assert!(each.errors.len() == 1 && each.errors[0].to_string().contains("256 MiB"), "{:?}", each.errors);
        fs::remove_file(dir.path().join("a")).unwrap();
        (0..CRL_FILES).for_each(|at| fs::write(dir.path().join(format!("a{at}")), "larger").unwrap());
        let each = read();
        assert!(names(&each).contains(&"b".into()) && each.taken.len() == CRL_FILES);
        assert!(each.errors.len() == 1 && each.errors[0].to_string().contains("1,024 files"), "{:?}", each.errors);
    }

    #[test]
    fn bytes_of_a_file_are_not_shown() {
        assert_eq!(format!("{:?}", Bytes(b"secret".to_vec())), "(6 bytes)");
    }

    /// One of these parts at each of these paths.
    fn source(files: &[(Part, &Path)]) -> Source {
        let of = |(part, path): &(Part, &Path)| MaterialFile { part: *part, path: path.to_path_buf(), edge: false };
        Source { files: files.iter().map(of).collect(), warned: Warned::default() }
    }

    #[test]
    fn invariant_9_one_hung_crl_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let (crls, distrust) = (root.path().join("crls"), root.path().join("distrust.txt"));
        fs::create_dir(&crls).unwrap();
        for number in 0..3 * AT_ONCE {
            fs::write(crls.join(format!("{number:03}.pem")), number.to_string()).unwrap();
        }
        fs::write(&distrust, "# none").unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hung = crls.join("000.pem");
        let _asked = reader::ask(&hung, move || released.recv().is_ok());
        let source = source(&[(Part::Crl, &crls), (Part::Distrust, &distrust)]);
        let begin = Instant::now();
        let (snapshot, errors) = source.read_each();
        assert_eq!((snapshot.all(Part::Crl).count(), snapshot.all(Part::Distrust).count()), (3 * AT_ONCE - 1, 1));
        assert!(matches!(errors.as_slice(), [LoadError::Hangs { file, .. }] if file.path == hung), "{errors:?}");
        assert!(begin.elapsed() < 2 * PATIENCE, "what hangs is waited for once: {:?}", begin.elapsed());
        drop(release);
    }
}
