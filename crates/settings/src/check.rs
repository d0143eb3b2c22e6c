//! Keys that are not ours: which of them must be an error, so that no typing error turns encryption off unseen.
//!
//! 1. Inside a strict section every key must be ours.
//! 2. Anywhere: one of our TLS keys below a wrong section, or a key that is one or two letters away from ours.
//! 3. What remains belongs to parts that this system does not have. It is counted, not judged.
//! 4. A word in the place of a key may be a password that was mistyped as a mapping (`defaultRootPassword: {hunter2: }`):
//!    an error shows our sections, the first word that is none of ours, and nothing below it.
use std::collections::BTreeMap;

use crate::error::{Place, SettingsError};
use crate::keys::{KEYS, KeyInfo};
use crate::layers::{EMPTY_MAPPING, Entry, Layer, Written};

/// Sections in which an unknown key is an error.
const STRICT: [&str; 5] = ["tls", "internaltls", "cluster", "management", "coordinator"];

/// Looks at every entry of a file.
///
/// Returns the places of those that are none of ours.
pub(crate) fn unknown(layer: &Layer) -> Result<Vec<Place>, SettingsError> {
    let mut others = Vec::new();
    let mut seen: BTreeMap<String, &Place> = BTreeMap::new();
    for entry in &layer.entries {
        match known(&entry.path) {
            Some(key) => match seen.insert(entry.path.to_ascii_lowercase(), &entry.place) {
                None => {}
                Some(first) => return Err(twice(key, entry, first)),
            },
            None if section(&entry.path) => empty_section(entry)?,
            None => {
                judge(entry)?;
                others.push(entry.place.clone());
            }
        }
    }
    Ok(others)
}

/// The key that a path as written belongs to.
pub(crate) fn known(path: &str) -> Option<&'static KeyInfo> {
    KEYS.iter().find(|key| path.eq_ignore_ascii_case(key.path) || map_name(key, path).is_some())
}

/// The name below a mapping of names: `data-node-1` of `cluster.dataNodes.data-node-1`.
pub(crate) fn map_name<'p>(key: &KeyInfo, path: &'p str) -> Option<&'p str> {
    let (head, rest) = path.split_at_checked(key.path.len())?;
    rest.strip_prefix('.').filter(|name| key.map && !name.contains('.') && head.eq_ignore_ascii_case(key.path))
}

fn twice(key: &KeyInfo, entry: &Entry, first: &Place) -> SettingsError {
    SettingsError::Twice { place: entry.place.clone(), first: first.clone(), key: key.path }
}

fn section(path: &str) -> bool {
    let below = |key: &KeyInfo| {
        key.path
            .split_at_checked(path.len())
            .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(path) && rest.starts_with('.'))
    };
    KEYS.iter().any(below)
}

fn empty_section(entry: &Entry) -> Result<(), SettingsError> {
    match &entry.written {
        Written::Null | Written::Other(EMPTY_MAPPING) => Ok(()),
        Written::Text(_) => Err(not_a_section(entry, "one value")),
        Written::Other(what) => Err(not_a_section(entry, what)),
    }
}

fn not_a_section(entry: &Entry, found: &str) -> SettingsError {
    let what = format!("`{}` must be a section with keys of its own, but is {found}", shown(&entry.path));
    SettingsError::Syntax { place: entry.place.clone(), what }
}

fn judge(entry: &Entry) -> Result<(), SettingsError> {
    let path = entry.path.to_ascii_lowercase();
    if let Some(key) = above(&path) {
        return Err(not_one_value(entry, key));
    }
    if let Some(right) = nested(&path) {
        let above = &entry.path[..path.len() - right.len() - 1];
        let key = format!("{}.{right}", shown(above));
        return Err(SettingsError::Nested { place: entry.place.clone(), key, right });
    }
    if let Some((right, shown)) = near_miss(&entry.path) {
        return Err(SettingsError::NearMiss { place: entry.place.clone(), key: shown, right });
    }
    match strict_section(&path) {
        Some(section) => Err(unknown_key(entry, section)),
        None => Ok(()),
    }
}

/// The key of ours that a path goes on below, as if it were a section.
fn above(path: &str) -> Option<&'static KeyInfo> {
    let below = |key: &&KeyInfo| {
        path.split_at_checked(key.path.len())
            .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(key.path) && rest.starts_with('.'))
    };
    KEYS.iter().find(below)
}

fn not_one_value(entry: &Entry, key: &KeyInfo) -> SettingsError {
    SettingsError::Value {
        place: entry.place.clone(),
        key: key.path,
        found: "a mapping".to_owned(),
        expected: expected(key).to_owned(),
    }
}

/// The shape that a key's value must have.
pub(crate) fn expected(key: &KeyInfo) -> &'static str {
    if key.map { "a mapping of names to host:port" } else { "one value" }
}

/// A path as an error may show it: sections of ours, then the first word that is none as far as it looks like a key.
pub(crate) fn shown(path: &str) -> String {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let ours = ends.take_while(|end| section(&path[..*end])).last().unwrap_or_default();
    let mut parts = path[ours..].trim_start_matches('.').split('.');
    let mut text = path[..ours].to_owned();
    for part in
        parts.next().filter(|part| !part.is_empty()).map(word).into_iter().chain(parts.next().map(|_| "…".to_owned()))
    {
        text.push_str(if text.is_empty() { "" } else { "." });
        text.push_str(&part);
    }
    text
}

/// `defaultRootPassword=hunter2` is a key and a value; where a word stops being one, it is cut.
fn word(part: &str) -> String {
    let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))).unwrap_or(part.len()).min(64);
    if end == part.len() { part.to_owned() } else { format!("{}…", &part[..end]) }
}

fn unknown_key(entry: &Entry, section: &str) -> SettingsError {
    SettingsError::UnknownKey {
        place: entry.place.clone(),
        key: shown(&entry.path),
        nearest: nearest(&entry.path, section),
    }
}

fn strict_section(path: &str) -> Option<&'static str> {
    let first = path.split('.').next()?;
    STRICT.into_iter().find(|section| *section == first)
}

/// `common.tls.caPemPath`, `common.security.internaltls.sni`: the whole path of one of our TLS keys, below another section.
fn nested(path: &str) -> Option<&'static str> {
    let tail = |key: &&KeyInfo| {
        let ours = key.path.to_ascii_lowercase();
        (ours.starts_with("tls.") || ours.starts_with("internaltls."))
            && path.strip_suffix(&ours).is_some_and(|head| head.ends_with('.'))
    };
    KEYS.iter().find(tail).map(|key| key.path)
}

/// The key that a path must have meant, and the path as an error may show it: what is all but a key of ours holds no secret.
fn near_miss(written: &str) -> Option<(String, String)> {
    let path = written.to_ascii_lowercase();
    let ours = |key: &&KeyInfo, fits: fn(&str, &str) -> bool| fits(&path, &key.path.to_ascii_lowercase());
    let shorter = KEYS.iter().find(|key| ours(key, abbreviates));
    if let Some(key) = shorter.or_else(|| KEYS.iter().find(|key| ours(key, close))) {
        return Some((key.path.to_owned(), written.escape_debug().to_string()));
    }
    let (above, leaf) = path.rsplit_once('.').unwrap_or(("", &path));
    let same = |key: &&KeyInfo| distinctive(key) && close(leaf, &key.leaf().to_ascii_lowercase());
    let right: Vec<_> = KEYS.iter().filter(same).map(|key| key.path).collect();
    if right.is_empty() {
        return None;
    }
    let leaf = written[written.len() - leaf.len()..].escape_debug().to_string();
    let shown = if above.is_empty() { leaf } else { format!("{}.{leaf}", shown(&written[..above.len()])) };
    Some((right.join("` or `"), shown))
}

/// Keys whose last part says what they are wherever it stands: those directly in a section about TLS and users.
fn distinctive(key: &KeyInfo) -> bool {
    let section = key.path.rsplit_once('.').map_or("", |(section, _)| section);
    ["tls", "internaltls", "common.security"].contains(&section) && key.leaf().len() >= 7
}

/// A TLS key with a word left out: `tls.caPath` is `tls.caPemPath`, though `tls.crlPath` is fewer letters away.
fn abbreviates(path: &str, ours: &str) -> bool {
    let sections = path.rsplit_once('.').map(|(section, _)| section);
    let mut left = ours.chars();
    ["tls", "internaltls"].iter().any(|section| sections == Some(section))
        && path.len() + 3 == ours.len()
        && path.chars().all(|letter| left.any(|other| other == letter))
}

/// A letter away, or two in a long name.
pub(crate) fn close(a: &str, b: &str) -> bool {
    let letters = if b.len() >= 10 { 2 } else { 1 };
    a.len().abs_diff(b.len()) <= letters && strsim::levenshtein(a, b) <= letters
}

/// The key of a section that a wrong one looks like; or all of them.
fn nearest(path: &str, section: &str) -> Vec<&'static str> {
    let of_section = || KEYS.iter().filter(|key| strict_section(&key.path.to_ascii_lowercase()) == Some(section));
    let like = |key: &KeyInfo| strsim::jaro_winkler(&path.to_ascii_lowercase(), &key.path.to_ascii_lowercase());
    let best = of_section().max_by(|a, b| like(a).total_cmp(&like(b)));
    match best {
        Some(key) if like(key) > 0.93 => vec![key.path],
        _ => of_section().map(|key| key.path).collect(),
    }
}
