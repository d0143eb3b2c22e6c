//! Layers over one another → the one text that counts for each key.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::check::{known, map_name};
use crate::error::{Place, SettingsError};
use crate::keys::{Key, KeyInfo};
use crate::layers::{Entry, Layer, Written};
use crate::parse::Text;

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) text: String,
    pub(crate) place: Place,
    folder: PathBuf,
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
    /// Puts a layer over what is there. An empty value takes a key back to its default.
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
            None if key.path.starts_with("common.security.") => self.refuse_to_forget(key, entry)?,
            None => drop(self.given.remove(key.path)),
        }
        Ok(())
    }

    /// A template that expanded to nothing must not switch off what an earlier layer switched on.
    fn refuse_to_forget(&self, key: &KeyInfo, entry: &Entry) -> Result<(), SettingsError> {
        match self.given.get(key.path) {
            None => Ok(()),
            Some(before) => Err(SettingsError::Value {
                place: entry.place.clone(),
                key: key.path,
                found: "nothing".to_owned(),
                expected: format!("a value, for {} gives `{}`", before.place, before.text),
            }),
        }
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
        found: if key.info.secret { "hidden".to_owned() } else { format!("`{text}`") },
        expected,
    })
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
            expected: "one value".to_owned(),
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
