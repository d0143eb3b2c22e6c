//! Layers over one another → the one text that counts for each key.
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::check::{expected, known, map_name};
use crate::error::{Place, SettingsError};
use crate::keys::{Key, KeyInfo};
use crate::layers::{Entry, Layer, Written};
use crate::parse::Text;

/// A value and where it comes from.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) text: String,
    pub(crate) place: Place,
    folder: PathBuf,
}

/// Without the text: it may be a secret.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "given at {}", self.place)
    }
}

impl Given {
    fn free_of_its_place(&self, path: &str) -> String {
        match known(path) {
            Some(key) if key.file => self.folder.join(&self.text).to_string_lossy().into_owned(),
            _ => self.text.clone(),
        }
    }
}

/// What was given, by key.
#[derive(Debug, Default)]
pub(crate) struct Values {
    given: BTreeMap<&'static str, Given>,
}

impl Values {
    /// Puts a layer over what is there. An empty value takes a key back to its default, or is an error where that would
    /// take protection away.
    pub(crate) fn put(&mut self, layer: &Layer) -> Result<(), SettingsError> {
        let mut maps: BTreeMap<&'static str, Given> = BTreeMap::new();
        for entry in &layer.entries {
            let Some(key) = known(&entry.path) else { continue };
            match map_name(key, &entry.path) {
                Some(name) => add(&mut maps, key, name, entry)?,
                None => self.set(key, entry, &layer.folder)?,
            }
        }
        self.given.extend(maps);
        Ok(())
    }

    fn set(&mut self, key: &'static KeyInfo, entry: &Entry, folder: &Path) -> Result<(), SettingsError> {
        match plain(key, entry)? {
            Some(text) => {
                let given = Given { text: text.to_owned(), place: entry.place.clone(), folder: folder.to_owned() };
                self.given.insert(key.path, given);
            }
            None if key.guards => {
                let before = self.given.get(key.path).map(|given| given.place.clone());
                return Err(SettingsError::Empty { place: entry.place.clone(), key: key.path, before });
            }
            None => drop(self.given.remove(key.path)),
        }
        Ok(())
    }

    /// Everything that was given, as text; paths joined with the folder they count from.
    pub(crate) fn texts(&self) -> BTreeMap<&'static str, String> {
        self.given.iter().map(|(path, given)| (*path, given.free_of_its_place(path))).collect()
    }

    /// What was given for a key, if anything was.
    pub(crate) fn given<T>(&self, key: &Key<T>) -> Option<&Given> {
        self.given.get(key.info.path)
    }

    /// The value of a key: what was given, else its default, else nothing.
    pub(crate) fn find<T>(&self, key: &Key<T>) -> Result<Option<T>, SettingsError> {
        match (self.given(key), key.info.default) {
            (Some(given), _) => parse(key, &given.text, &given.folder, &given.place).map(Some),
            (None, Some(default)) => parse(key, default, Path::new(""), &Place::Default).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The value of a key that has a default.
    pub(crate) fn get<T>(&self, key: &Key<T>) -> Result<T, SettingsError> {
        self.need(key, "it has no default")
    }

    /// The value of a key that another one makes necessary.
    pub(crate) fn need<T>(&self, key: &Key<T>, because: &str) -> Result<T, SettingsError> {
        let missing = || SettingsError::Missing { key: key.info.path, because: because.to_owned() };
        self.find(key)?.ok_or_else(missing)
    }
}

fn parse<T>(key: &Key<T>, text: &str, folder: &Path, place: &Place) -> Result<T, SettingsError> {
    (key.parse)(Text { text, folder }).map_err(|expected| SettingsError::Value {
        place: place.clone(),
        key: key.info.path,
        found: found(&key.info, text),
        expected,
    })
}

/// A value as a message may show it. A secret is not; nor is a list, in whose place a secret's key may stand with its
/// value; nor what looks like a URL, which may hold a name and a password.
fn found(key: &KeyInfo, text: &str) -> String {
    match key {
        KeyInfo { secret: true, .. } => "hidden".to_owned(),
        KeyInfo { map: true, .. } => "a list with something in it that does not fit".to_owned(),
        _ => shown(text),
    }
}

/// The value of a key that is no secret's: short, on one line, without credentials.
pub(crate) fn shown(text: &str) -> String {
    if text.contains("://") || text.contains('@') {
        return "a URL (not shown, for it may hold a password)".to_owned();
    }
    let cut: String = text.chars().take(80).collect();
    format!("`{}`", cut.escape_debug())
}

/// The text of an entry; `None` where it is empty.
fn plain<'e>(key: &KeyInfo, entry: &'e Entry) -> Result<Option<&'e str>, SettingsError> {
    match &entry.written {
        Written::Text(text) if text.trim().is_empty() => Ok(None),
        Written::Text(text) => Ok(Some(text)),
        Written::Null => Ok(None),
        Written::Other(what) => Err(SettingsError::Value {
            place: entry.place.clone(),
            key: key.path,
            found: (*what).to_owned(),
            expected: expected(key).to_owned(),
        }),
    }
}

/// Joins a mapping's entries as a flag would write them: `id=host:port,id=host:port`.
fn add(
    maps: &mut BTreeMap<&'static str, Given>,
    key: &'static KeyInfo,
    name: &str,
    entry: &Entry,
) -> Result<(), SettingsError> {
    let value = plain(key, entry)?.unwrap_or_default();
    let joined = format!("{name}={value}");
    match maps.get_mut(key.path) {
        Some(given) => given.text = format!("{},{joined}", given.text),
        None => {
            let given = Given { text: joined, place: entry.place.clone(), folder: PathBuf::new() };
            maps.insert(key.path, given);
        }
    }
    Ok(())
}
