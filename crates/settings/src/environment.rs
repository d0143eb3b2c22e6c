//! Environment variables that override a key.
//!
//! 1. Only names that belong to a key are looked up: the rest of the environment is not ours.
//! 2. Kubernetes puts `PROXY_PORT=tcp://10.0.0.1:19530` into every container beside a service called `proxy`. Such a value
//!    of a port is passed over with a notice.
//! 3. A variable that is almost one of ours that guards traffic is an error: it would leave encryption or revocation off
//!    unseen. `INTERNALTLS_` is a prefix of ours alone, so every unknown name under it is one. Under `COMMON_SECURITY_`
//!    Milvus has variables that are not read here, and `TLS_` belongs to many programs: there, and elsewhere, a name is
//!    refused when it is ours but for its case, its underscores, or a letter or two.
//! 4. An empty variable is as good as none.
//! 5. No message holds a value.
use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::error::{Place, SettingsError};
use crate::keys::{KEYS, KeyInfo};
use crate::layers::{Entry, Layer, Written};

/// The sections whose variables guard traffic.
const GUARDED: [&str; 3] = ["common.security.", "internaltls.", "tls."];
/// A prefix that nobody else has.
const OURS: &str = "INTERNALTLS_";

/// The variables of this process, as text.
///
/// # Errors
/// [`SettingsError::Value`] when one that overrides a key is not Unicode: passing it over would leave the key unset unseen.
pub fn variables() -> Result<Vec<(String, String)>, SettingsError> {
    as_text(std::env::vars_os())
}

fn as_text(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, SettingsError> {
    let mut texts = Vec::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => texts.push((name, value)),
            Err(_) => match KEYS.iter().find(|key| key.env_names().contains(&name)) {
                None => {}
                Some(key) => {
                    return Err(SettingsError::Value {
                        place: Place::Environment(name),
                        key: key.path,
                        found: "not Unicode".to_owned(),
                        expected: "UTF-8".to_owned(),
                    });
                }
            },
        }
    }
    Ok(texts)
}

/// The environment as one more layer, and what there is to say about it.
pub(crate) fn layer(variables: impl Iterator<Item = (String, String)>) -> Result<(Layer, Vec<String>), SettingsError> {
    let set: BTreeMap<_, _> = variables.filter(|(_, value)| !value.trim().is_empty()).collect();
    guard(&set)?;
    let mut notices = Vec::new();
    let mut entries = Vec::new();
    for key in KEYS {
        let Some((name, value)) = find(key, &set)? else { continue };
        if service_link(key, value) {
            notices.push(format!("environment variable {name} is Kubernetes' own and does not set {}", key.path));
        } else {
            entries.push(entry(key, name, value));
        }
    }
    if set.contains_key("ETCD_ENDPOINTS") {
        notices.push("ETCD_ENDPOINTS is set and has no effect: this cluster needs no etcd".to_owned());
    }
    Ok((Layer { entries, ..Layer::default() }, notices))
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
    let guarded = KEYS.iter().filter(|key| GUARDED.iter().any(|section| key.path.starts_with(section)));
    // The first of a key's names: it is the one to tell.
    let guarded: Vec<String> = guarded.filter_map(|key| key.env_names().into_iter().next()).collect();
    for name in set.keys().filter(|name| !ours.contains(name)) {
        let upper = name.to_ascii_uppercase();
        let near = guarded.iter().find(|right| typing_error(&upper, right));
        let right = near.or_else(|| upper.starts_with(OURS).then(|| nearest(&upper, &guarded)).flatten());
        if let Some(right) = right {
            let place = Place::Environment(name.clone());
            return Err(SettingsError::NearMiss { place, key: name.clone(), right: right.clone() });
        }
    }
    Ok(())
}

/// Ours but for underscores, for two neighbours that changed places, for a letter, or two in a long name; or with a word
/// left out (`TLS_CA_PATH`).
fn typing_error(name: &str, right: &str) -> bool {
    let (name, right) = (name.replace('_', ""), right.replace('_', ""));
    let letters = if right.len() >= 12 { 2 } else { 1 };
    if name.len().abs_diff(right.len()) <= letters && strsim::osa_distance(&name, &right) <= letters {
        return true;
    }
    let mut left = right.chars();
    name.len() + "PEM".len() == right.len() && name.chars().all(|letter| left.any(|other| other == letter))
}

fn nearest<'r>(name: &str, names: &'r [String]) -> Option<&'r String> {
    let like = |right: &String| strsim::jaro_winkler(name, right);
    names.iter().max_by(|a, b| like(a).total_cmp(&like(b)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use proptest::prelude::*;

    use super::*;

    fn refused(name: &str) -> Option<String> {
        let set = [(name.to_owned(), "x".to_owned())].into();
        guard(&set).err().map(|error| error.to_string())
    }

    #[test]
    fn refuses_typing_errors_by_name() {
        for (wrong, right) in [
            ("TLS_CRLPAHT", "TLS_CRLPATH"),
            ("TLS_CRL_PATHS", "TLS_CRLPATH"),
            ("TLS_CA_PATH", "TLS_CAPEMPATH"),
            ("TLS_SERVERPATH", "TLS_SERVERPEMPATH"),
            ("Tls_CrlPath", "TLS_CRLPATH"),
            ("tls_distrustpath", "TLS_DISTRUSTPATH"),
            ("TSL_DISTRUSTPATH", "TLS_DISTRUSTPATH"),
            ("TLS_REQUIRE_CLIENTAUTH_EKU", "TLS_REQUIRECLIENTAUTHEKU"),
            ("INTERNAL_TLS_CRLPATH", "INTERNALTLS_CRLPATH"),
            ("INTERNALTLS_CRL", "INTERNALTLS_CRLPATH"),
            ("INTERNALTLS_POLICY", "INTERNALTLS_POLICYPATH"),
            ("COMMON_SECURITY_TLS_MOD", "COMMON_SECURITY_TLSMODE"),
            ("COMMON_SECURTY_TLSMODE", "COMMON_SECURITY_TLSMODE"),
            ("COMMON_SECURITY_INTERNALTLSENABLE", "COMMON_SECURITY_INTERNALTLSENABLED"),
        ] {
            let said = refused(wrong).unwrap_or_else(|| panic!("{wrong} passes"));
            assert_eq!(
                said,
                format!("environment variable {wrong}: `{wrong}` is not a variable that is read: write `{right}`")
            );
        }
    }

    #[test]
    fn variables_of_others_pass() {
        for name in [
            "TLS_CERT",
            "TLS_KEY",
            "TLS_CERT_FILE",
            "TLS_KEY_FILE",
            "TLS_CA_FILE",
            "TLS_ENABLED",
            "TLS_CERT_PATH",
            "TLS_SKIP_VERIFY",
            "TLS_SERVER_NAME",
            "TLS_INSECURE",
            "SSL_CERT_FILE",
            "DOCKER_TLS_VERIFY",
            "COMMON_SECURITY_SUPERUSERS",
            "COMMON_SECURITY_ROOTSHOULDBINDROLE",
            "COMMON_SECURITY_ENABLEPUBLICPRIVILEGE",
            "HOME",
            "PATH",
            "LS_COLORS",
            "HTTPS_PROXY",
        ] {
            assert_eq!(refused(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_keys_pass() {
        for name in KEYS.iter().flat_map(KeyInfo::env_names) {
            assert_eq!(refused(&name), None, "{name}");
        }
    }

    #[test]
    fn refuses_a_value_that_is_no_text() {
        let latin = || OsString::from_vec(b"/caf\xe9/crl.pem".to_vec());
        let said = as_text([(OsString::from("TLS_CRLPATH"), latin())].into_iter()).unwrap_err().to_string();
        assert_eq!(said, "environment variable TLS_CRLPATH: `tls.crlPath` is not Unicode, but must be UTF-8");
        assert_eq!(as_text([(OsString::from("THEIRS"), latin())].into_iter()).unwrap(), []);
    }

    fn guarded() -> Vec<String> {
        let keys = KEYS.iter().filter(|key| GUARDED.iter().any(|section| key.path.starts_with(section)));
        keys.flat_map(KeyInfo::env_names).collect()
    }

    proptest! {
        /// One letter more, less or other, two that changed places, in any guarded variable: never passed over.
        #[test]
        fn harness_typing_errors_are_refused(
            name in prop::sample::select(guarded()), at in any::<prop::sample::Index>(), letter in "[A-Z]", how in 0..4,
        ) {
            let at = at.index(name.len() - 1);
            let typed = match how {
                0 => format!("{}{}", &name[..at], &name[at + 1..]),
                1 => format!("{}{letter}{}", &name[..at], &name[at..]),
                2 => format!("{}{letter}{}", &name[..at], &name[at + 1..]),
                _ => format!("{}{}{}{}", &name[..at], &name[at + 1..at + 2], &name[at..=at], &name[at + 2..]),
            };
            let ours = KEYS.iter().any(|key| key.env_names().contains(&typed));
            prop_assert!(ours || refused(&typed).is_some(), "{} for {}", typed, name);
        }
    }
}
