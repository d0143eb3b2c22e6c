//! Material judged without being served: for tools that look at files before a process does.
//!
//! The same reading, parsing and judging as when material is loaded, so that a tool and a process never disagree. What is
//! left out is the trial handshake and whatever needs peers.
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::check::{check, judge_facts};
use super::generation::{Purpose, provider};
use super::parse::{self, Parsed, parse};
use super::permissions::Offence;
use super::source::{Source, read_file};
use super::status::Layout;
use super::trusted::Warning;
use crate::config::{EdgeConfig, EdgeMode, Files, MeshConfig, Security, TlsVersion};
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::CertificateFacts;

/// A set that would be taken.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The leaf that it serves.
    pub leaf: CertificateSummary,
    /// Its trust anchors.
    pub cas: Vec<CertificateSummary>,
    /// How certificates are laid out; `None` at an edge.
    pub layout: Option<Layout>,
    /// Keys that others than their owner may read, with their permission bits.
    pub readable_keys: Vec<(PathBuf, u32)>,
    /// What else is wrong with the files or the folders on the way to them, and no reason to refuse them.
    pub warnings: Vec<Warning>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Lower-case hex.
    pub serial: String,
    /// Its distinguished name.
    pub subject: String,
    /// All of its SANs.
    pub sans: Vec<String>,
    /// Its URI SANs.
    pub uris: Vec<String>,
    /// Its beginning.
    pub not_before: SystemTime,
    /// Its end.
    pub not_after: SystemTime,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// Whether serverAuth and clientAuth are named; `None` without the extension, when any use is meant.
    pub usages: Option<(bool, bool)>,
}

/// What one file holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Contents {
    /// Certificates, in their order.
    Certificates(Vec<CertificateSummary>),
    /// A private key that can be used.
    Key,
}

/// Judges what a node of the mesh would load. `None`: the mesh is plaintext, nothing is loaded. Blocks.
///
/// # Errors
/// [`LoadError`], as when it is loaded.
pub fn mesh(config: &MeshConfig, now: SystemTime) -> Result<Option<Inspection>, LoadError> {
    let Security::Tls { files, shared_name } = &config.security else { return Ok(None) };
    let purpose = Purpose::Mesh {
        trust_domain: config.trust_domain.clone(),
        role: config.role.clone(),
        node: config.node.clone(),
        shared_name: shared_name.clone(),
    };
    set(files, &purpose, config.reload.crl_grace, now).map(Some)
}

/// Judges what an edge would load. `None`: its mode is off, nothing is loaded. Blocks.
///
/// # Errors
/// [`LoadError`], as when it is loaded.
pub fn edge(config: &EdgeConfig, now: SystemTime) -> Result<Option<Inspection>, LoadError> {
    let (Some(files), false) = (&config.files, config.mode == EdgeMode::Off) else { return Ok(None) };
    let purpose = Purpose::Edge {
        mode: config.mode,
        min_version: config.min_version.unwrap_or(TlsVersion::V1_2),
        require_client_auth_eku: config.require_client_auth_eku,
    };
    set(files, &purpose, config.reload.crl_grace, now).map(Some)
}

/// Reads one file by itself: a key where it holds one, else certificates. Blocks.
///
/// # Errors
/// [`LoadError`], as when the file is loaded as part of an edge's material.
pub fn file(path: &Path) -> Result<Contents, LoadError> {
    let certificate = at_edge(path, Part::Certificate);
    let bytes = read_file(&certificate)?;
    if holds_key(&bytes) {
        let key = at_edge(path, Part::Key);
        // Once more, as a key: now its permissions count.
        parse::private_key(&key, &read_file(&key)?, &provider())?;
        return Ok(Contents::Key);
    }
    let chain = parse::certificates(&certificate, &bytes)?;
    let facts = parse::all_facts(&certificate, &chain)?;
    Ok(Contents::Certificates(facts.iter().map(CertificateSummary::of).collect()))
}

/// Judges a leaf of which the key is not at hand: its kind, its names, its time. Blocks.
///
/// # Errors
/// [`LoadError`], as when it is loaded.
pub fn leaf(path: &Path, now: SystemTime) -> Result<CertificateSummary, LoadError> {
    let file = at_edge(path, Part::Certificate);
    let chain = parse::certificates(&file, &read_file(&file)?)?;
    let facts = parse::all_facts(&file, &chain)?.swap_remove(0);
    judge_facts(&file, &facts, now, true)?;
    Ok(CertificateSummary::of(&facts))
}

fn set(files: &Files, purpose: &Purpose, crl_grace: Duration, now: SystemTime) -> Result<Inspection, LoadError> {
    let source = Source::of(files, purpose)?;
    let parsed: Parsed = parse(&source.read()?, &provider(), crl_grace)?;
    let checked = check(parsed, purpose, now)?;
    let mut warnings = source.warnings();
    warnings.retain(|warning| !matches!(warning.offence, Offence::Readable { .. }));
    Ok(Inspection {
        warnings,
        leaf: CertificateSummary::of(&checked.server.facts),
        cas: checked.anchors.iter().map(|anchor| CertificateSummary::of(&anchor.facts)).collect(),
        layout: checked.layout,
        readable_keys: source.readable_keys().into_iter().map(|(file, mode)| (file.path, mode)).collect(),
    })
}

fn at_edge(path: &Path, part: Part) -> MaterialFile {
    MaterialFile { part, path: path.to_owned(), edge: true }
}

fn holds_key(bytes: &[u8]) -> bool {
    let label = b"PRIVATE KEY-----";
    bytes.windows(label.len()).any(|window| window == label)
}

impl CertificateSummary {
    fn of(facts: &CertificateFacts) -> Self {
        Self {
            serial: facts.serial.clone(),
            subject: facts.subject.clone(),
            sans: facts.sans.clone(),
            uris: facts.uris.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            is_ca: facts.can_sign(),
            usages: facts.usages.map(|usages| (usages.server_auth, usages.client_auth)),
        }
    }
}
