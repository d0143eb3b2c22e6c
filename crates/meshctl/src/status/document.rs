//! The status of a cluster as JSON: `processes` and `connections`.
//!
//! What a process tells is foreign text, and it is escaped and cut where it is read: `Answer::read`.
use internaltls::foreign;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::Process;

/// Everything that is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Each process.
    pub processes: Vec<ProcessStatus>,
    /// Each live connection of the mesh, once for each end that told of it.
    pub connections: Vec<Told>,
}

/// What a process serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it is.
    pub role: String,
    /// Which one.
    pub node: String,
    /// The number of its material in the mesh; null without TLS, or when it did not answer. So are the next three.
    pub generation: Option<u64>,
    /// When that was loaded, RFC 3339.
    pub loaded_at: Option<String>,
    /// The leaf that it shows.
    pub leaf: Option<Leaf>,
    /// The CAs that it trusts in the mesh; empty without TLS.
    #[serde(default)]
    pub cas: Vec<Ca>,
    /// What came of the last look at the files.
    pub last_reload: Option<Reload>,
    /// Since when the files differ from what is served, RFC 3339; null while they agree.
    #[serde(default)]
    pub differs_since: Option<String>,
    /// The set on disk that peers stand against; null while there is none.
    #[serde(default)]
    pub held: Option<Held>,
    /// Whether its mesh's folders are watched; null without TLS.
    #[serde(default)]
    pub watch: Option<Watch>,
    /// Its CRLs and its distrust list; null without TLS.
    #[serde(default)]
    pub lists: Option<Lists>,
    /// The proxy's external listener; null at other roles, and without TLS there.
    #[serde(default)]
    pub edge: Option<Material>,
    /// Whether it is ready.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// Why nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A set of material.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Material {
    /// Its number.
    pub generation: u64,
    /// When it was loaded, RFC 3339.
    pub loaded_at: String,
    /// The leaf that is shown.
    pub leaf: Leaf,
    /// What came of the last look at the files.
    pub last_reload: Option<Reload>,
    /// Whether its folders are watched.
    #[serde(default)]
    pub watch: Option<Watch>,
    /// Its CRLs and its distrust list.
    #[serde(default)]
    pub lists: Option<Lists>,
}

/// What is in force of the distrust list, and what is not as it should be with that and with CRLs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lists {
    /// Hashes of public keys in force.
    pub distrusted_keys: u64,
    /// Hashes of certificates in force.
    pub distrusted_certificates: u64,
    /// File, line and remedy each.
    pub findings: Vec<String>,
    /// How many there are beyond these.
    pub more_findings: u64,
}

/// Whether the file system tells of changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// `on`, `off` or `failed`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A set that is held back for the sake of peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The SHA-256 of its content, lower-case hex.
    pub sha256: String,
    /// What to type on its host so that it is served all the same, once.
    pub force: String,
    /// Why a force file that is there was not heeded.
    pub unheeded: Option<String>,
}

/// A leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Its names.
    pub sans: Vec<String>,
    /// The end of its validity, RFC 3339.
    pub not_after: String,
}

/// A CA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ca {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex.
    #[serde(default)]
    pub sha256: String,
    /// The certificate, DER in lower-case hex.
    #[serde(default)]
    pub der: String,
}

/// A look at the files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// When, RFC 3339.
    pub at: String,
    /// `ok`, `unchanged` or `failed`.
    pub result: String,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A connection, as one of its ends tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// `role/node` of the process that told.
    #[serde(default)]
    pub told_by: String,
    /// Who dialled: `role/node`.
    pub from: String,
    /// Who accepted.
    pub to: String,
    /// `tcp` or `quic`.
    pub transport: String,
    /// Such as `TLSv1.3`; null without TLS, as the next six.
    pub tls_version: Option<String>,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: Option<String>,
    /// Such as `X25519MLKEM768`.
    pub kx_group: Option<String>,
    /// The name that was dialled.
    pub sni: Option<String>,
    /// Whom the teller verified at the other end.
    pub peer: Option<String>,
    /// The leaf that it verified.
    pub peer_serial: Option<String>,
    /// The leaf that it showed.
    #[serde(default)]
    pub own_serial: Option<String>,
    /// The teller's material.
    pub generation: Option<u64>,
    /// Since when the connection is open, RFC 3339.
    pub since: String,
}

/// What one process answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    #[serde(flatten)]
    process: ProcessStatus,
    #[serde(default)]
    connections: Vec<Told>,
}

impl Answer {
    /// Reads what a process answered. No string of it can steer a terminal or fill a page.
    ///
    /// # Errors
    /// When it is not the status of a node.
    pub(super) fn read(body: &[u8]) -> serde_json::Result<Self> {
        let mut value = serde_json::from_slice(body)?;
        tame("", &mut value);
        serde_json::from_value(value)
    }

    /// Apart, and signed; what the process says it is counts, not what was expected at its address.
    pub(super) fn split(self, asked: &Process) -> (ProcessStatus, Vec<Told>) {
        let mut process = self.process;
        let told_by = format!("{}/{}", process.role, process.node);
        if (&process.role, &process.node) != (&asked.role, &asked.node) {
            process.error = Some(format!("{told_by} answers at the address of {}", asked.node));
        }
        let sign = |told| Told { told_by: told_by.clone(), ..told };
        (process, self.connections.into_iter().map(sign).collect())
    }
}

/// Every string below `key`, escaped and cut. Hex is compared as well as shown and has no bound of its own.
fn tame(key: &str, value: &mut Value) {
    match value {
        Value::String(text) if matches!(key, "der" | "sha256") && text.bytes().all(|b| b.is_ascii_hexdigit()) => {}
        Value::String(text) => *text = shown(key, text),
        Value::Array(items) => items.iter_mut().for_each(|item| tame(key, item)),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| tame(key, field)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn shown(key: &str, text: &str) -> String {
    match key {
        "reason" | "not_ready" | "findings" | "force" | "unheeded" | "error" => foreign::cause(text),
        _ => foreign::name(text),
    }
}

impl ProcessStatus {
    /// One that told nothing.
    pub(super) fn silent(process: &Process, error: String) -> Self {
        Self {
            role: process.role.clone(),
            node: process.node.clone(),
            generation: None,
            loaded_at: None,
            leaf: None,
            cas: Vec::new(),
            last_reload: None,
            differs_since: None,
            held: None,
            watch: None,
            lists: None,
            edge: None,
            ready: false,
            not_ready: Vec::new(),
            error: Some(error),
        }
    }
}

impl Document {
    /// Whether every process told.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.processes.iter().all(|process| process.error.is_none())
    }

    pub(super) fn add(&mut self, process: ProcessStatus, told: Vec<Told>) {
        self.processes.push(process);
        self.connections.extend(told);
        self.connections
            .sort_by(|a, b| (&a.from, &a.to, &a.since, &a.told_by).cmp(&(&b.from, &b.to, &b.since, &b.told_by)));
    }
}
