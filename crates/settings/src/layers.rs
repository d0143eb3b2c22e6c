//! Files and environment → what was written, where. Nothing is interpreted here but the shape of YAML.
//!
//! 1. Every value is kept as the text it was written as: `1.3` is a version, not a number.
//! 2. Paths are dotted; their case is kept for messages and ignored for lookup.
//! 3. A sequence or an alias is kept as what it is, so that a key of ours that has one is refused, never skipped.
use std::io::Read as _;
use std::path::{Path, PathBuf};

use yaml_rust2::parser::{Event, MarkedEventReceiver, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use crate::error::{Place, SettingsError};

/// The files of a configuration folder, each over the one before.
const LAYERS: [&str; 3] = ["milvus.yaml", "default.yaml", "user.yaml"];

/// Larger than any configuration, small enough to read at start.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What was written at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    Text(String),
    Null,
    /// Not one value; says what instead.
    Other(&'static str),
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
}

/// Reads a file, or a folder's layers, lowest first.
pub(crate) fn read(path: &Path) -> Result<Vec<Layer>, SettingsError> {
    let files = files(path)?;
    files.iter().map(|file| parse(file, &read_text(file)?)).collect()
}

fn files(path: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let about = path.metadata().map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    if !about.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let found: Vec<_> = LAYERS.iter().map(|name| path.join(name)).filter(|file| present(file)).collect();
    if found.is_empty() { Err(SettingsError::EmptyFolder { path: path.to_owned() }) } else { Ok(found) }
}

/// A link to nowhere and a file we may not look at count as present: reading them then says what is wrong.
fn present(file: &Path) -> bool {
    match file.symlink_metadata() {
        Ok(_) => true,
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

fn read_text(path: &Path) -> Result<String, SettingsError> {
    let refused = |source| SettingsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(refused)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > MAX_BYTES {
        let too_large = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 4 MiB");
        return Err(refused(too_large));
    }
    Ok(text)
}

/// YAML → entries.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Layer, SettingsError> {
    let mut flatten = Flatten { file: path.to_owned(), ..Flatten::default() };
    let syntax =
        |line: usize, what: String| SettingsError::Syntax { place: Place::File { path: path.to_owned(), line }, what };
    Parser::new_from_str(text).load(&mut flatten, true).map_err(|e| syntax(e.marker().line(), e.info().to_owned()))?;
    match flatten.refused {
        Some((line, what)) => Err(syntax(line, what.to_owned())),
        None => Ok(Layer { folder: folder_of(path), entries: flatten.entries }),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// Listens to the parser and writes down scalars with their paths.
#[derive(Default)]
struct Flatten {
    file: PathBuf,
    entries: Vec<Entry>,
    /// The path of each mapping that is open, and the key that waits for its value.
    open: Vec<(String, Option<String>)>,
    /// How many collections deep we are inside something that is not looked into.
    skipping: usize,
    documents: usize,
    refused: Option<(usize, &'static str)>,
}

impl Flatten {
    fn refuse(&mut self, line: usize, what: &'static str) {
        self.refused.get_or_insert((line, what));
    }

    /// The path of the value that comes now; `None` where a key is expected.
    fn value_path(&mut self) -> Option<String> {
        let (prefix, waiting) = self.open.last_mut()?;
        let key = waiting.take()?;
        Some(if prefix.is_empty() { key } else { format!("{prefix}.{key}") })
    }

    fn value(&mut self, line: usize, written: Written) {
        match self.value_path() {
            Some(path) => self.record(path, line, written),
            None if self.open.is_empty() && written != Written::Null => {
                self.refuse(line, "the file must be a mapping of keys to values");
            }
            None => self.odd_key(line),
        }
    }

    fn record(&mut self, path: String, line: usize, written: Written) {
        let place = Place::File { path: self.file.clone(), line };
        self.entries.push(Entry { path, written, place });
    }

    fn odd_key(&mut self, line: usize) {
        if !self.open.is_empty() {
            self.refuse(line, "a key must be plain text");
        }
    }

    fn scalar(&mut self, line: usize, text: String, style: TScalarStyle) {
        let waiting = self.open.last().is_some_and(|(_, key)| key.is_some());
        if !waiting && let Some((_, key)) = self.open.last_mut() {
            *key = Some(text);
            return;
        }
        let plain = style == TScalarStyle::Plain;
        let null = plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
        self.value(line, if null { Written::Null } else { Written::Text(text) });
    }

    fn mapping(&mut self, line: usize) {
        let root = self.open.is_empty();
        match self.value_path() {
            Some(path) => self.open.push((path, None)),
            None if root => self.open.push((String::new(), None)),
            None => {
                self.odd_key(line);
                self.skipping = 1;
            }
        }
    }

    fn skip(&mut self, event: &Event) {
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => self.skipping += 1,
            Event::MappingEnd | Event::SequenceEnd => self.skipping -= 1,
            _ => {}
        }
    }
}

impl MarkedEventReceiver for Flatten {
    fn on_event(&mut self, event: Event, mark: Marker) {
        let line = mark.line();
        if self.skipping > 0 {
            return self.skip(&event);
        }
        match event {
            Event::DocumentStart => {
                self.documents += 1;
                if self.documents > 1 {
                    self.refuse(line, "the file holds a second document after `---`");
                }
            }
            Event::Scalar(text, style, ..) => self.scalar(line, text, style),
            Event::Alias(_) => self.value(line, Written::Other("an alias")),
            Event::SequenceStart(..) => {
                self.value(line, Written::Other("a list"));
                self.skipping = 1;
            }
            Event::MappingStart(..) => self.mapping(line),
            Event::MappingEnd => drop(self.open.pop()),
            _ => {}
        }
    }
}
