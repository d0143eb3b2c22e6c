//! Keys that are not ours: which of them must be an error, so that no typing error turns encryption off unseen.
//!
//! 1. Inside a strict section every key must be ours.
//! 2. Anywhere: one of our TLS keys below a wrong section, or a key that is one or two letters away from ours.
//! 3. What remains belongs to parts that this system does not have. It is counted, not judged.
use crate::error::SettingsError;
use crate::keys::{KEYS, KeyInfo};
use crate::layers::{Entry, Layer, Written};

/// Sections in which an unknown key is an error.
const STRICT: [&str; 5] = ["tls", "internaltls", "cluster", "management", "coordinator"];

/// Looks at every entry of a file.
///
/// Returns the paths that are none of ours.
pub(crate) fn unknown(layer: &Layer) -> Result<Vec<String>, SettingsError> {
    let mut others = Vec::new();
    for (at, entry) in layer.entries.iter().enumerate() {
        match known(&entry.path) {
            Some(key) => once(key, entry, &layer.entries[..at])?,
            None if section(&entry.path) => empty_section(entry)?,
            None => {
                judge(entry)?;
                others.push(entry.path.clone());
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
    rest.strip_prefix('.').filter(|_| key.map && head.eq_ignore_ascii_case(key.path))
}

fn once(key: &'static KeyInfo, entry: &Entry, before: &[Entry]) -> Result<(), SettingsError> {
    match before.iter().find(|other| other.path.eq_ignore_ascii_case(&entry.path)) {
        None => Ok(()),
        Some(first) => {
            Err(SettingsError::Twice { place: entry.place.clone(), first: first.place.clone(), key: key.path })
        }
    }
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
        Written::Null => Ok(()),
        Written::Text(_) => Err(not_a_section(entry, "one value")),
        Written::Other(what) => Err(not_a_section(entry, what)),
    }
}

fn not_a_section(entry: &Entry, found: &str) -> SettingsError {
    let what = format!("`{}` must be a section with keys of its own, but is {found}", entry.path);
    SettingsError::Syntax { place: entry.place.clone(), what }
}

fn judge(entry: &Entry) -> Result<(), SettingsError> {
    let path = entry.path.to_ascii_lowercase();
    if let Some(right) = nested(&path) {
        return Err(SettingsError::Nested { place: entry.place.clone(), key: entry.path.clone(), right });
    }
    if let Some(right) = near_miss(&path) {
        return Err(SettingsError::NearMiss { place: entry.place.clone(), key: entry.path.clone(), right });
    }
    match strict_section(&path) {
        Some(section) => Err(unknown_key(entry, section)),
        None => Ok(()),
    }
}

fn unknown_key(entry: &Entry, section: &str) -> SettingsError {
    SettingsError::UnknownKey {
        place: entry.place.clone(),
        key: entry.path.clone(),
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

fn near_miss(path: &str) -> Option<String> {
    let ours = |key: &&KeyInfo, fits: fn(&str, &str) -> bool| fits(path, &key.path.to_ascii_lowercase());
    let shorter = KEYS.iter().find(|key| ours(key, abbreviates));
    if let Some(key) = shorter.or_else(|| KEYS.iter().find(|key| ours(key, close))) {
        return Some(key.path.to_owned());
    }
    let leaf = path.rsplit('.').next()?;
    let same = |key: &&KeyInfo| distinctive(key) && close(leaf, &key.leaf().to_ascii_lowercase());
    let right: Vec<_> = KEYS.iter().filter(same).map(|key| key.path).collect();
    if right.is_empty() { None } else { Some(right.join("` or `")) }
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
