//! What is served, told to people and tools. Serialises to the status document; times are RFC 3339, UTC.
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::clock::rfc3339;

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
    /// Its trust anchors.
    pub cas: Vec<CaStatus>,
    /// Its revocation lists; empty where none are configured.
    pub crls: Vec<CrlStatus>,
    /// How the last attempt to read the files ended.
    pub last_reload: ReloadStatus,
    /// Since when disk and served differ; `None` while they agree.
    #[serde(serialize_with = "maybe_text")]
    pub differs_since: Option<SystemTime>,
    /// The mesh's layout; `None` at an edge.
    pub layout: Option<Layout>,
}

/// A leaf in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeafStatus {
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// All of its SANs.
    pub sans: Vec<String>,
    /// Its beginning.
    #[serde(serialize_with = "text")]
    pub not_before: SystemTime,
    /// Its end.
    #[serde(serialize_with = "text")]
    pub not_after: SystemTime,
}

/// A trust anchor in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaStatus {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex: what tells two CAs of one name apart.
    pub sha256: String,
    /// Its end.
    #[serde(serialize_with = "text")]
    pub not_after: SystemTime,
}

/// A revocation list in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrlStatus {
    /// Its issuer's distinguished name.
    pub issuer: String,
    /// When the next one was or is due.
    #[serde(serialize_with = "text")]
    pub next_update: SystemTime,
    /// `fresh`, `late` (the next one is due, within the grace) or `too-old` (new handshakes that need it are refused).
    pub state: &'static str,
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
