//! The files, read whole and alike twice.
//!
//! 1. A set is taken only when two reads of all of it agree: a writer at work is waited out, not guessed at.
//! 2. A key that others could replace is refused; one that others can read is warned of.
//! 3. Every failure is its own error, with file, setting and remedy; none carries a byte of a file.
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{EdgeMode, Files};
use crate::error::{Access, LoadError, MaterialFile, Part};
use crate::verify::sha256;

use super::generation::Purpose;

/// No certificate, key or list of a mesh comes near this.
const FILE_LIMIT: u64 = 1024 * 1024;
const READS: usize = 6;
/// Between two reads of the set.
const PAUSE: Duration = Duration::from_millis(5);
const WRITABLE_BY_OTHERS: u32 = 0o022;
const READABLE_BY_OTHERS: u32 = 0o044;
/// In a folder with this bit only a file's owner can replace it. Secret volumes of Kubernetes have it.
const STICKY: u32 = 0o1000;

/// The bytes of a file. They may be a key's: never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What was on disk at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let hash = |lists| {
            let files = self.files.iter().filter(|(file, _)| is_list(file.part) == lists);
            let parts = files.flat_map(|(file, bytes)| [vec![file.part as u8], sha256(&bytes.0).to_vec()]);
            sha256(&parts.flatten().collect::<Vec<_>>())
        };
        Content { pair: hash(false), lists: hash(true) }
    }
}

/// What tells one set from another, in two halves: leaf, key and CAs; and what revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) pair: [u8; 32],
    pub(super) lists: [u8; 32],
}

fn is_list(part: Part) -> bool {
    matches!(part, Part::Crl | Part::Distrust)
}

/// The files of a set, as configured. The entries of a folder of CRLs are found at each read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    files: Vec<MaterialFile>,
}

impl Source {
    pub(super) fn of(files: &Files, purpose: &Purpose) -> Result<Self, LoadError> {
        let edge = matches!(purpose, Purpose::Edge { .. });
        let ca_counts = !matches!(purpose, Purpose::Edge { mode: EdgeMode::Off | EdgeMode::OneWay, .. });
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
        Ok(Self { files: files.collect() })
    }

    pub(super) fn of_policy(path: &Path) -> Self {
        Self { files: vec![MaterialFile { part: Part::Policy, path: path.to_owned(), edge: false }] }
    }

    /// Leaf, key and CAs, without what revokes.
    pub(super) fn pair(&self) -> Self {
        Self { files: self.files.iter().filter(|file| !is_list(file.part)).cloned().collect() }
    }

    /// The CRLs and the distrust list alone; `None` where there are none.
    pub(super) fn lists(&self) -> Option<Self> {
        let files: Vec<_> = self.files.iter().filter(|file| is_list(file.part)).cloned().collect();
        (!files.is_empty()).then_some(Self { files })
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

    /// Every path whose change matters, folders of CRLs with their entries.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let within = |file: &MaterialFile| match entries(&file.path) {
            Ok(entries) if file.part == Part::Crl => entries,
            _ => Vec::new(),
        };
        self.files.iter().flat_map(|file| std::iter::once(file.path.clone()).chain(within(file))).collect()
    }

    /// Reads until two reads agree. Blocks.
    pub(super) fn read(&self) -> Result<Snapshot, LoadError> {
        let read = || self.read_once();
        #[expect(clippy::disallowed_methods, reason = "two reads must lie apart in time; this thread may block")]
        let pause = || std::thread::sleep(PAUSE);
        stable(READS, read, pause)?.ok_or_else(|| LoadError::Changing(self.first()))
    }

    fn read_once(&self) -> Result<Snapshot, LoadError> {
        let mut files = Vec::new();
        for file in &self.files {
            for file in expand(file)? {
                let bytes = read_file(&file)?;
                files.push((file, Bytes(bytes)));
            }
        }
        Ok(Snapshot { files })
    }

    /// What may not be but works: said once a generation.
    pub(super) fn readable_keys(&self) -> Vec<(MaterialFile, u32)> {
        let keys = self.files.iter().filter(|file| is_key(file.part));
        let mode = |file: &MaterialFile| fs::metadata(&file.path).ok().map(|meta| meta.mode());
        keys.filter_map(|file| mode(file).map(|mode| (file.clone(), mode)))
            .filter(|(_, mode)| mode & READABLE_BY_OTHERS != 0)
            .collect()
    }
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
            (Some(Err(_)), Err(error)) => return Err(error),
            (_, now) => before = Some(now),
        }
        pause();
    }
    Ok(None)
}

fn is_key(part: Part) -> bool {
    matches!(part, Part::Key | Part::ClientKey)
}

fn expand(file: &MaterialFile) -> Result<Vec<MaterialFile>, LoadError> {
    if file.part != Part::Crl || !file.path.is_dir() {
        return Ok(vec![file.clone()]);
    }
    let found = entries(&file.path).map_err(|error| unreadable(file, error))?;
    if found.is_empty() {
        return Err(LoadError::NoCrl(file.clone()));
    }
    Ok(found.into_iter().map(|path| MaterialFile { path, ..file.clone() }).collect())
}

/// The files of a folder, by name; hidden ones (`..data`) left out.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !hidden(&path) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn read_file(file: &MaterialFile) -> Result<Vec<u8>, LoadError> {
    let meta = fs::metadata(&file.path).map_err(|error| unreadable(file, error))?;
    if meta.is_dir() {
        return Err(LoadError::Folder(file.clone()));
    }
    if is_key(file.part) {
        refuse_replaceable(file, &meta)?;
    }
    let bytes = limited(&file.path).map_err(|error| unreadable(file, error))?;
    match bytes.len() as u64 {
        // An empty list of the distrusted is a list.
        0 if file.part != Part::Distrust => Err(LoadError::Empty(file.clone())),
        len if len > FILE_LIMIT => Err(LoadError::TooLarge { file: file.clone(), limit: FILE_LIMIT }),
        _ => Ok(bytes),
    }
}

fn limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refuse_replaceable(file: &MaterialFile, meta: &Metadata) -> Result<(), LoadError> {
    match replaceable(&file.path, meta).map_err(|error| unreadable(file, error))? {
        Some((path, mode)) => Err(LoadError::KeyWritable { file: file.clone(), path, mode }),
        None => Ok(()),
    }
}

/// What lets others than the owner replace a file, with its mode: the file, the folder it truly lies in, or the folder it is
/// named in.
pub(super) fn replaceable(path: &Path, meta: &Metadata) -> io::Result<Option<(PathBuf, u32)>> {
    if meta.mode() & WRITABLE_BY_OTHERS != 0 {
        return Ok(Some((path.to_owned(), meta.mode())));
    }
    let real = fs::canonicalize(path)?;
    for folder in [real.parent(), path.parent()].into_iter().flatten() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mode = fs::metadata(folder)?.mode();
        if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
            return Ok(Some((folder.to_owned(), mode)));
        }
    }
    Ok(None)
}

fn unreadable(file: &MaterialFile, source: io::Error) -> LoadError {
    match source.kind() {
        io::ErrorKind::NotFound => LoadError::Missing(file.clone()),
        _ => LoadError::Unreadable { file: file.clone(), access: access(&file.path), source },
    }
}

fn access(path: &Path) -> Option<Access> {
    let meta = fs::metadata(path).ok()?;
    Some(Access { owner: meta.uid(), mode: meta.mode(), our_uid: rustix::process::geteuid().as_raw() })
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
    fn bytes_of_a_file_are_not_shown() {
        assert_eq!(format!("{:?}", Bytes(b"secret".to_vec())), "(6 bytes)");
    }
}
