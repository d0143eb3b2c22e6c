//! What is served, told to people and tools. Serialises to the status document; times are RFC 3339, UTC.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::force::hex;
use super::list_turn::Findings;
use super::state::StateFolder;
use crate::clock::rfc3339;
use crate::verify::{Anchor, CertificateFacts, Crl, Distrust, Origin, SharedKey};

/// How certificates are laid out over the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// A leaf a node.
    PerNode,
    /// One leaf for all nodes; a peer is known by its key alone.
    Shared {
        /// The DNS SAN that all nodes bear and dialers ask for.
        name: String,
    },
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PerNode => f.write_str("a leaf a node"),
            Self::Shared { name } => write!(f, "one leaf shared under the name `{name}`"),
        }
    }
}

/// What is served now, and how it fared when it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaterialStatus {
    /// Counts from 1 with every set published since the process started.
    pub generation: u64,
    /// When it was published.
    #[serde(serialize_with = "text")]
    pub loaded_at: SystemTime,
    /// Its leaf.
    pub leaf: LeafStatus,
    /// The separate leaf that it dials with, where there is one.
    pub client_leaf: Option<LeafStatus>,
    /// Its trust anchors.
    pub cas: Vec<CaStatus>,
    /// The revocation lists in force; empty where there are none.
    pub crls: Vec<CrlStatus>,
    /// The distrust list in force, and what is not as it should be with either.
    pub lists: ListsStatus,
    /// How the last attempts to read the files ended. Leaf, key and CAs, the lists, and the policy are each read by
    /// themselves: `failed` if one of them failed, with every reason; else `ok` if one of them was published; `at` is the
    /// latest.
    pub last_reload: ReloadStatus,
    /// Since when disk and served differ, in whichever of them was the first; `None` while all agree.
    #[serde(serialize_with = "maybe_text")]
    pub differs_since: Option<SystemTime>,
    /// How many seconds that is by now; 0 while they agree.
    pub differs_seconds: u64,
    /// The set on disk that is held back for the sake of peers; `None` while there is none.
    pub held: Option<HeldStatus>,
    /// The connected peers that did not answer in time when they were last asked about a candidate: they had no say.
    pub silent_peers: Vec<String>,
    /// Whether the file system tells of changes, or the poll alone sees them.
    pub watch: WatchStatus,
    /// How long ago the files were last looked at, whatever the look found.
    pub look: LookStatus,
    /// The mesh's layout; `None` at an edge.
    pub layout: Option<Layout>,
    /// Where all nodes share one leaf: the keys that are accepted from peers. Empty in the other layout and at an edge.
    pub shared_keys: Vec<SharedKeyStatus>,
}

/// A key that is accepted from peers where all nodes share one leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SharedKeyStatus {
    /// SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
    pub spki_sha256: String,
    /// `current` (of the set in use), `before` (of the one before it) or `on-disk` (of a set on disk that passed every check of
    /// its own).
    pub origin: &'static str,
    /// Of one `before`: until when it is accepted; a peer that is connected and shows it puts that off, but not beyond the
    /// certificate's notAfter.
    #[serde(serialize_with = "maybe_text")]
    pub until: Option<SystemTime>,
    /// The connected peers that show it, by address: in this layout they have no other name.
    pub shown_by: Vec<SocketAddr>,
}

impl SharedKeyStatus {
    pub(super) fn of(key: SharedKey, origin: Origin, shown_by: Vec<SocketAddr>) -> Self {
        let (origin, until) = match origin {
            Origin::Current => ("current", None),
            Origin::Before { until } => ("before", Some(until.min(key.not_after))),
            Origin::OnDisk => ("on-disk", None),
        };
        Self { spki_sha256: hex(&key.spki_sha256), origin, until, shown_by }
    }
}

/// A set that passed every check of its own, and that a peer stands against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldStatus {
    /// SHA-256 of its content (leaf, key and CAs), lower-case hex.
    pub sha256: String,
    /// The shell command, on its host, that publishes it all the same, once.
    pub force: String,
    /// Why a force file that is there was not heeded.
    pub unheeded: Option<String>,
}

/// A leaf in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeafStatus {
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), lower-case hex: in a distrust list it names renewals with the same key
    /// too.
    pub spki_sha256: String,
    /// All of its SANs.
    pub sans: Vec<String>,
    /// Its beginning.
    #[serde(serialize_with = "text")]
    pub not_before: SystemTime,
    /// Its end.
    #[serde(serialize_with = "text")]
    pub not_after: SystemTime,
    /// Whole days until then; below 0 it has passed.
    pub days_left: i64,
}

impl LeafStatus {
    pub(super) fn of(facts: &CertificateFacts, now: SystemTime) -> Self {
        Self {
            serial: facts.serial.clone(),
            sha256: facts.fingerprint(),
            spki_sha256: hex(&facts.spki_sha256),
            sans: facts.sans.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            days_left: days_left(now, facts.not_after),
        }
    }
}

/// Rounded down, so that the last day is 0 and -1 means that it is over.
fn days_left(now: SystemTime, not_after: SystemTime) -> i64 {
    const DAY: u64 = 86_400;
    let days = |span: Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(i64::MAX);
    not_after.duration_since(now).map_or_else(|past| -1 - days(past.duration()), days)
}

/// A trust anchor in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaStatus {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex: what tells two CAs of one name apart.
    pub sha256: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), lower-case hex.
    pub spki_sha256: String,
    /// Its end.
    #[serde(serialize_with = "text")]
    pub not_after: SystemTime,
    /// Whole days until then; below 0 it has passed.
    pub days_left: i64,
    /// The certificate itself, DER in lower-case hex: when a bundle was replaced on disk, the one in use is only here.
    pub der: String,
}

impl CaStatus {
    pub(super) fn of(Anchor { facts, der, .. }: &Anchor, now: SystemTime) -> Self {
        Self {
            subject: facts.subject.clone(),
            sha256: facts.fingerprint(),
            spki_sha256: hex(&facts.spki_sha256),
            not_after: facts.not_after,
            days_left: days_left(now, facts.not_after),
            der: der.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// A revocation list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrlStatus {
    /// Its issuer's distinguished name.
    pub issuer: String,
    /// Its number, decimal or, beyond 128 bits, `0x` hex; `None` where it has none.
    pub number: Option<String>,
    /// How many certificates it lists.
    pub entries: usize,
    /// Which CA signed it: `in-use`; `held-back`, one of a bundle on disk that is not served, for which it waits; or `unknown`,
    /// that of an intermediate or of none that is used here.
    pub signer: &'static str,
    /// When the next one was or is due.
    #[serde(serialize_with = "text")]
    pub next_update: SystemTime,
    /// `fresh`, `late` (the next one is due, within the grace) or `too-old` (new handshakes that need it are refused).
    pub state: &'static str,
}

impl CrlStatus {
    /// `cas` are those in use and those held back.
    pub(super) fn of(crl: &Crl, grace: Duration, cas: [&[Anchor]; 2], now: SystemTime) -> Self {
        let [in_use, held_back] = cas.map(|cas| cas.iter().any(|anchor| crl.is_signed_by(&anchor.facts)));
        let signer = match (in_use, held_back) {
            (true, _) => "in-use",
            (_, true) => "held-back",
            _ => "unknown",
        };
        let state = match (crl.is_too_old(now, grace), crl.is_late(now)) {
            (true, _) => "too-old",
            (_, true) => "late",
            _ => "fresh",
        };
        Self {
            issuer: crl.issuer.clone(),
            number: crl.number().map(ToString::to_string),
            entries: crl.entries(),
            signer,
            next_update: crl.next_update,
            state,
        }
    }
}

/// What is in force of the distrust list, and what is not as it should be with that and with CRLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListsStatus {
    /// Hashes of public keys in force.
    pub distrusted_keys: usize,
    /// Hashes of certificates in force.
    pub distrusted_certificates: usize,
    /// The folder that keeps what is in force over a restart; `None` where none is set.
    pub state: Option<PathBuf>,
    /// What could not be used or stays in force against the files: file, line and remedy each. Some 30 at most.
    pub findings: Vec<String>,
    /// How many there are beyond these.
    pub more_findings: usize,
}

impl ListsStatus {
    pub(super) fn of(distrust: &Distrust, findings: &Findings, state: Option<&StateFolder>) -> Self {
        Self {
            distrusted_keys: distrust.keys.len(),
            distrusted_certificates: distrust.certificates.len(),
            state: state.map(|folder| folder.path().to_owned()),
            findings: findings.named.clone(),
            more_findings: findings.more,
        }
    }
}

/// Whether events of the file system come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WatchState {
    /// The folders of all files are watched.
    On,
    /// None is, as configured.
    Off,
    /// The kernel refuses to watch one of them at least. It is asked again at each look at the files.
    Failed,
}

/// How changes on disk are noticed besides the poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatchStatus {
    /// `on`, `off` or `failed`.
    pub state: WatchState,
    /// Why it failed, and what to do.
    pub reason: Option<String>,
}

/// When the files were last looked at. Of leaf, key and CAs on one side and lists and policy on the other, that which was longer
/// ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LookStatus {
    /// Seconds since the last look ended.
    pub age_seconds: u64,
    /// Whether that is more than three polls: nobody looks at the files any more.
    pub overdue: bool,
}

/// How an attempt to read the files ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// When.
    #[serde(serialize_with = "text")]
    pub at: SystemTime,
    /// `ok`, `unchanged` or `failed`.
    pub result: &'static str,
    /// Why it failed.
    pub reason: Option<String>,
}

fn text<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn maybe_text<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_day_is_day_zero() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000);
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        assert_eq!([days_left(now, now + hours(49)), days_left(now, now + hours(23)), days_left(now, now)], [2, 0, 0]);
        assert_eq!([days_left(now, now - hours(1)), days_left(now, now - hours(25))], [-1, -2]);
    }
}
