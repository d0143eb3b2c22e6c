//! Files and environment → what was written, where. Nothing is interpreted here but the shape of YAML.
//!
//! 1. Every value is kept as the text it was written as: `1.3` is a version, not a number.
//! 2. Paths are dotted; their case is kept for messages and ignored for lookup.
//! 3. A sequence or an empty mapping is kept as what it is, so that a key of ours that has one is refused, never skipped.
//! 4. [`internaltls::yaml`] bounds what a file can cost; the length of a path is bounded here, for each key carries those
//!    above it.
use std::fmt;
use std::path::{Path, PathBuf};

use internaltls::trusted::{self, Contents, FileError};
use internaltls::yaml::{self, MAX_BYTES, Node, Value};

use crate::error::{Place, SettingsError};

/// The files of a configuration folder, each over the one before.
const LAYERS: [&str; 3] = ["milvus.yaml", "default.yaml", "user.yaml"];

/// Bytes of a dotted path: several times the longest of Milvus.
const MAX_PATH: usize = 512;

/// `{}`: as a section it is as good as nothing, as a value it is none.
pub(crate) const EMPTY_MAPPING: &str = "an empty mapping";

/// What was written at a path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Written {
    Text(String),
    Null,
    /// Not one value; says what instead.
    Other(&'static str),
}

/// Without the text: it may be a secret.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Null => "Null",
            Self::Other(what) => what,
        })
    }
}

/// One path of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Dotted, as written.
    pub(crate) path: String,
    pub(crate) written: Written,
    pub(crate) place: Place,
}

/// One file's entries, or the environment's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    pub(crate) folder: PathBuf,
    pub(crate) entries: Vec<Entry>,
    /// Who else may have a hand in the file, a line each.
    pub(crate) warnings: Vec<String>,
}

/// Reads a file, or a folder's layers, lowest first. Blocks, for some seconds at most.
pub(crate) fn read(path: &Path) -> Result<Vec<Layer>, SettingsError> {
    match read_file(path) {
        Err(FileError::NotRegular { kind: "folder", .. }) => read_folder(path),
        contents => Ok(vec![layer(path, contents)?]),
    }
}

fn read_folder(folder: &Path) -> Result<Vec<Layer>, SettingsError> {
    let mut layers = Vec::new();
    for path in LAYERS.map(|name| folder.join(name)) {
        match read_file(&path) {
            Err(FileError::Missing(_)) if !present(&path) => {}
            contents => layers.push(layer(&path, contents)?),
        }
    }
    if layers.is_empty() { Err(SettingsError::EmptyFolder { path: folder.to_owned() }) } else { Ok(layers) }
}

/// A link to nowhere counts as present: that it leads nowhere is an error.
fn present(file: &Path) -> bool {
    file.symlink_metadata().is_ok()
}

/// Settings say which files are trusted, so that whoever can replace them can replace those.
fn read_file(path: &Path) -> Result<Contents, FileError> {
    trusted::read(path, MAX_BYTES as u64)
}

fn layer(path: &Path, contents: Result<Contents, FileError>) -> Result<Layer, SettingsError> {
    let refused = |source| SettingsError::Read { path: path.to_owned(), source };
    let contents = contents.map_err(|error| refused(std::io::Error::other(error)))?;
    let text = String::from_utf8(contents.bytes)
        .map_err(|_| refused(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    let warnings = contents.warnings.iter().map(ToString::to_string).collect();
    Ok(Layer { warnings, ..parse(path, &text)? })
}

/// YAML → entries.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Layer, SettingsError> {
    let mut flat = Flat { file: path, entries: Vec::new() };
    match yaml::parse(text).map_err(|error| flat.syntax(error.line, error.what))? {
        None | Some(Node { value: Value::Null, .. }) => {}
        Some(Node { value: Value::Map(pairs), .. }) => flat.mapping("", pairs)?,
        Some(other) => return Err(flat.syntax(other.line, "the file must be a mapping of keys to values")),
    }
    Ok(Layer { folder: folder_of(path), entries: flat.entries, warnings: Vec::new() })
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// A tree's values with their paths. Recurses as deep as the tree, which is bounded.
struct Flat<'a> {
    file: &'a Path,
    entries: Vec<Entry>,
}

impl Flat<'_> {
    fn syntax(&self, line: usize, what: impl Into<String>) -> SettingsError {
        SettingsError::Syntax { place: self.place(line), what: what.into() }
    }

    fn place(&self, line: usize) -> Place {
        Place::File { path: self.file.to_owned(), line }
    }

    fn mapping(&mut self, above: &str, pairs: Vec<(Node, Node)>) -> Result<(), SettingsError> {
        for (key, value) in pairs {
            let path = self.path(above, &key)?;
            let written = match value.value {
                Value::Map(pairs) if !pairs.is_empty() => {
                    self.mapping(&path, pairs)?;
                    continue;
                }
                Value::Map(_) => Written::Other(EMPTY_MAPPING),
                Value::List(_) => Written::Other("a list"),
                Value::Text(text) => Written::Text(text),
                Value::Null => Written::Null,
            };
            // The key's line: a value may begin further down.
            self.entries.push(Entry { path, written, place: self.place(key.line) });
        }
        Ok(())
    }

    fn path(&self, above: &str, key: &Node) -> Result<String, SettingsError> {
        let name = match &key.value {
            Value::Text(text) => text.as_str(),
            Value::Null => "",
            Value::List(_) | Value::Map(_) => return Err(self.syntax(key.line, "a key must be plain text")),
        };
        if above.len() + name.len() > MAX_PATH {
            return Err(self.syntax(key.line, format!("the path of a key is longer than {MAX_PATH} bytes")));
        }
        Ok(if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") })
    }
}
