//! Environment variables that override a key.
//!
//! 1. Only names that belong to a key are looked up: the rest of the environment is not ours.
//! 2. Kubernetes puts `PROXY_PORT=tcp://10.0.0.1:19530` into every container beside a service called `proxy`. Such a value
//!    of a port is passed over with a notice.
//! 3. A variable that is almost a security key is an error: it would leave encryption off unseen.
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::check::close;
use crate::error::{Place, SettingsError};
use crate::keys::{KEYS, KeyInfo};
use crate::layers::{Entry, Layer, Written};

/// Prefixes under which an unknown variable is held against our names.
const GUARDED: [&str; 2] = ["COMMON_SECURITY_", "INTERNALTLS_"];

/// The environment as one more layer, and what there is to say about it.
pub(crate) fn layer(variables: impl Iterator<Item = (String, String)>) -> Result<(Layer, Vec<String>), SettingsError> {
    let set: BTreeMap<_, _> = variables.filter(|(_, value)| !value.trim().is_empty()).collect();
    guard(&set)?;
    let mut notices = Vec::new();
    let mut entries = Vec::new();
    for key in KEYS {
        let Some((name, value)) = find(key, &set)? else { continue };
        if service_link(key, value) {
            notices
                .push(format!("environment variable {name}={value} is Kubernetes' own and does not set {}", key.path));
        } else {
            entries.push(entry(key, name, value));
        }
    }
    if set.contains_key("ETCD_ENDPOINTS") {
        notices.push("ETCD_ENDPOINTS is set and has no effect: this cluster needs no etcd".to_owned());
    }
    Ok((Layer { folder: PathBuf::new(), entries }, notices))
}

fn find<'s>(key: &KeyInfo, set: &'s BTreeMap<String, String>) -> Result<Option<(String, &'s String)>, SettingsError> {
    let mut found = key.env_names().into_iter().filter_map(|name| set.get(&name).map(|value| (name, value)));
    let first = found.next();
    match (first, found.next()) {
        (Some((first, one)), Some((second, other))) if one != other => Err(SettingsError::Twice {
            place: Place::Environment(second),
            first: Place::Environment(first),
            key: key.path,
        }),
        (first, _) => Ok(first),
    }
}

fn entry(key: &KeyInfo, name: String, value: &str) -> Entry {
    Entry {
        path: key.path.to_owned(),
        written: Written::Text(value.trim().to_owned()),
        place: Place::Environment(name),
    }
}

fn service_link(key: &KeyInfo, value: &str) -> bool {
    key.leaf().to_ascii_lowercase().ends_with("port") && (value.starts_with("tcp://") || value.starts_with("udp://"))
}

fn guard(set: &BTreeMap<String, String>) -> Result<(), SettingsError> {
    let ours: Vec<String> = KEYS.iter().flat_map(KeyInfo::env_names).collect();
    let guarded = |name: &&String| GUARDED.iter().any(|prefix| name.starts_with(prefix)) && !ours.contains(name);
    for name in set.keys().filter(guarded) {
        if let Some(right) = ours.iter().find(|right| close(name, right)) {
            let place = Place::Environment(name.clone());
            return Err(SettingsError::NearMiss { place, key: name.clone(), right: right.clone() });
        }
    }
    Ok(())
}
