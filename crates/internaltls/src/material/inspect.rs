//! Material judged without being served: for tools that look at files before a process does.
//!
//! The same reading, parsing, judging and trial handshake as when material is loaded, by the same functions, so that a tool and a
//! process never disagree. What is left out is whatever needs peers, and what is kept from before.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::check::judge_facts;
use super::force::hex;
use super::generation::{Purpose, Surroundings, provider};
pub use super::kind::KeyKind;
use super::list_turn::FirstLists;
use super::parse;
use super::permissions::Offence;
use super::policy_turn;
use super::prepare::prepare;
use super::source::{Source, read_file};
use super::status::Layout;
use super::trusted::Warning;
use crate::clock::Clock;
use crate::config::{EdgeConfig, EdgeMode, Files, MeshConfig, Reload, Security, TlsVersion};
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{CertificateFacts, KeyRing, Notices, Vouched};

/// A set that would be taken.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The leaf that it serves.
    pub leaf: CertificateSummary,
    /// Its trust anchors.
    pub cas: Vec<CertificateSummary>,
    /// How certificates are laid out; `None` at an edge.
    pub layout: Option<Layout>,
    /// What of the CRLs and the distrust list cannot be used: file, line and remedy each.
    pub findings: Vec<String>,
    /// Keys that others than their owner may read, with their permission bits.
    pub readable_keys: Vec<(PathBuf, u32)>,
    /// What else is wrong with the files or the folders on the way to them, and no reason to refuse them.
    pub warnings: Vec<Warning>,
    /// What the key of an edge's leaf keeps clients from.
    pub key_warning: Option<String>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Whether it may be a trust anchor: a CA, or a root of a version of X.509 that has no mark of one.
    pub may_be_anchor: bool,
    /// Whether serverAuth and clientAuth are named; `None` without the extension, when any use is meant.
    pub usages: Option<(bool, bool)>,
    /// The kind and size of its key.
    pub key: KeyKind,
    /// The SHA-256 of its public key (SubjectPublicKeyInfo), lower-case hex: what a renewal with the same key shares.
    pub spki_sha256: String,
    /// The SHA-256 of the whole certificate, lower-case hex: what `openssl x509 -fingerprint -sha256` tells.
    pub sha256: String,
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
    let inspection = set(files, purpose, config.reload, now)?;
    config.policy.as_deref().map(|path| policy_turn::read(&Source::of_policy(path))).transpose()?;
    Ok(Some(inspection))
}

/// Judges what an edge would load. `None`: its mode is off, nothing is loaded. Blocks.
///
/// # Errors
/// [`LoadError`], as when it is loaded.
pub fn edge(config: &EdgeConfig, now: SystemTime) -> Result<Option<Inspection>, LoadError> {
    if config.mode == EdgeMode::Off {
        return Ok(None);
    }
    let files = config.files.as_ref().ok_or(LoadError::NoLeaf)?;
    let purpose = Purpose::Edge {
        mode: config.mode,
        min_version: config.min_version.unwrap_or(TlsVersion::V1_2),
        require_client_auth_eku: config.require_client_auth_eku,
    };
    set(files, purpose, config.reload, now).map(Some)
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
        parse::private_key(&key, &read_file(&key)?)?;
        return Ok(Contents::Key);
    }
    let chain = parse::certificates(&certificate, &bytes)?;
    summaries(&certificate, &chain).map(Contents::Certificates)
}

/// Judges a bundle of trust anchors by itself. Blocks.
///
/// # Errors
/// [`LoadError`], as when it is loaded.
pub fn bundle(path: &Path) -> Result<Vec<CertificateSummary>, LoadError> {
    let file = at_edge(path, Part::Ca);
    let anchors = parse::anchors(&file, &read_file(&file)?)?;
    Ok(anchors.iter().map(|anchor| CertificateSummary::of(&anchor.der, &anchor.facts)).collect())
}

/// The certificates of a file, in their order. Blocks.
///
/// # Errors
/// [`LoadError`], as when the file is loaded.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let file = at_edge(path, Part::Certificate);
    parse::certificates(&file, &read_file(&file)?)
}

/// The same of bytes that were read already; `path` is for the message.
///
/// # Errors
/// [`LoadError`], as when the file is loaded.
pub fn certificates_in(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    parse::certificates(&at_edge(path, Part::Certificate), bytes)
}

/// What certificates say that were read already; `path` is for the message.
///
/// # Errors
/// [`LoadError`], where one cannot be parsed.
pub fn summaries_of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Vec<CertificateSummary>, LoadError> {
    summaries(&at_edge(path, Part::Certificate), chain)
}

/// The private key of a file. Blocks.
///
/// # Errors
/// [`LoadError`], as when the file is loaded.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let file = at_edge(path, Part::Key);
    Ok(parse::key_der(&file, &read_file(&file)?)?.clone_key())
}

/// Whether the key in one file is that of the first certificate in another. Blocks.
///
/// # Errors
/// [`LoadError`], where either cannot be read.
pub fn is_pair(certificate: &Path, key: &Path) -> Result<bool, LoadError> {
    let file = at_edge(key, Part::Key);
    let signer = parse::private_key(&file, &read_file(&file)?)?;
    Ok(CertifiedKey::new(certificates(certificate)?, signer).keys_match().is_ok())
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
    Ok(CertificateSummary::of(&chain[0], &facts))
}

fn set(files: &Files, purpose: Purpose, reload: Reload, now: SystemTime) -> Result<Inspection, LoadError> {
    let source = Source::of(files, &purpose)?;
    let around = Surroundings {
        purpose,
        provider: Arc::new(provider()),
        clock: Arc::new(At(now)),
        ring: Arc::new(KeyRing::default()),
        crl_grace: reload.crl_grace,
        notices: Arc::new(Nobody),
    };
    let (pair, lists) = (source.pair(), source.lists());
    let snapshot = pair.read()?;
    let first = FirstLists::read(lists.as_ref(), None, Some(&pair), &parse::bundle(&snapshot)?)?;
    let prepared = prepare(&snapshot, &first.in_force, &around, None, 1)?;
    let (kept, key_warning) = (prepared.kept, prepared.generation.warning);
    let mut warnings = source.warnings();
    warnings.retain(|warning| !matches!(warning.offence, Offence::Readable { .. }));
    Ok(Inspection {
        warnings,
        leaf: CertificateSummary::of(&kept.server.certified.cert[0], &kept.server.facts),
        cas: kept.anchors.iter().map(|anchor| CertificateSummary::of(&anchor.der, &anchor.facts)).collect(),
        layout: kept.layout,
        findings: first.findings().to_vec(),
        readable_keys: source.readable_keys().into_iter().map(|(file, mode)| (file.path, mode)).collect(),
        key_warning,
    })
}

/// The time that was asked about.
#[derive(Debug)]
struct At(SystemTime);

impl Clock for At {
    fn now(&self) -> SystemTime {
        self.0
    }
}

/// In a trial handshake with itself a set has nothing to announce.
struct Nobody;

impl Notices for Nobody {
    fn lax_client(&self, _: &Vouched) {}

    fn unknown_key(&self) {}
}

fn summaries(file: &MaterialFile, chain: &[CertificateDer<'_>]) -> Result<Vec<CertificateSummary>, LoadError> {
    let facts = parse::all_facts(file, chain)?;
    Ok(chain.iter().zip(&facts).map(|(der, facts)| CertificateSummary::of(der, facts)).collect())
}

fn at_edge(path: &Path, part: Part) -> MaterialFile {
    MaterialFile { part, path: path.to_owned(), edge: true }
}

fn holds_key(bytes: &[u8]) -> bool {
    let label = b"PRIVATE KEY-----";
    bytes.windows(label.len()).any(|window| window == label)
}

impl CertificateSummary {
    fn of(der: &CertificateDer<'_>, facts: &CertificateFacts) -> Self {
        Self {
            serial: facts.serial.clone(),
            subject: facts.subject.clone(),
            sans: facts.sans.clone(),
            uris: facts.uris.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            is_ca: facts.can_sign(),
            may_be_anchor: facts.may_be_anchor(),
            usages: facts.usages.map(|usages| (usages.server_auth, usages.client_auth)),
            key: KeyKind::of(der).unwrap_or_else(|| KeyKind::Other("unknown".to_owned())),
            spki_sha256: hex(&facts.spki_sha256),
            sha256: hex(&facts.sha256),
        }
    }
}
