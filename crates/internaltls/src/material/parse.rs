//! PEM as people have it, understood. Pure.
//!
//! Text between blocks is a comment. A block that is not ours (`EC PARAMETERS`) is passed over. A block cut off is an
//! error: half a bundle is not a smaller bundle.
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::CertRevocationList as WebpkiCrl;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::source::Snapshot;
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{Anchor, CertificateFacts, Crl, Lists, system_time};

/// A leaf with its intermediates and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certificate: MaterialFile,
    pub(super) key: MaterialFile,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// A set of material, parsed.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) server: Pair,
    pub(super) client: Option<Pair>,
    pub(super) ca: Option<MaterialFile>,
    pub(super) anchors: Vec<Anchor>,
    pub(super) lists: Lists,
}

/// The files understood, each by itself.
pub(super) fn parse(snapshot: &Snapshot, provider: &CryptoProvider, crl_grace: Duration) -> Result<Parsed, LoadError> {
    let server = pair(snapshot, Part::Certificate, Part::Key, provider)?.ok_or(LoadError::HalfAPair)?;
    let client = pair(snapshot, Part::ClientCertificate, Part::ClientKey, provider)?;
    let ca = snapshot.one(Part::Ca);
    let anchors = ca.map(|(file, bytes)| anchors(file, bytes)).transpose()?.unwrap_or_default();
    let lists = lists(snapshot, ca.map(|(file, _)| file), &anchors, crl_grace)?;
    Ok(Parsed { server, client, ca: ca.map(|(file, _)| file.clone()), anchors, lists })
}

/// What revokes, to be used with these anchors.
pub(super) fn lists(
    snapshot: &Snapshot,
    ca: Option<&MaterialFile>,
    anchors: &[Anchor],
    crl_grace: Duration,
) -> Result<Lists, LoadError> {
    Ok(Lists { crls: crls(snapshot, ca, anchors)?, grace: crl_grace, distrust: distrust(snapshot)? })
}

fn pair(snapshot: &Snapshot, cert: Part, key: Part, provider: &CryptoProvider) -> Result<Option<Pair>, LoadError> {
    let (Some((certificate, cert_bytes)), Some((key, key_bytes))) = (snapshot.one(cert), snapshot.one(key)) else {
        return Ok(None);
    };
    let chain = certificates(certificate, cert_bytes)?;
    let facts = facts(certificate, &chain)?;
    let signer = private_key(key, key_bytes, provider)?;
    let certified = Arc::new(CertifiedKey::new(chain, signer));
    Ok(Some(Pair { certificate: certificate.clone(), key: key.clone(), certified, facts }))
}

/// The leaf's facts; every other certificate must at least parse.
fn facts(file: &MaterialFile, chain: &[CertificateDer<'_>]) -> Result<CertificateFacts, LoadError> {
    let all = all_facts(file, chain)?;
    all.into_iter().next().ok_or_else(|| LoadError::NoCertificate(file.clone()))
}

pub(super) fn all_facts(file: &MaterialFile, chain: &[CertificateDer<'_>]) -> Result<Vec<CertificateFacts>, LoadError> {
    let mut all = Vec::new();
    for (at, der) in chain.iter().enumerate() {
        let bad = |_| LoadError::BadCertificate { file: file.clone(), number: at + 1 };
        all.push(CertificateFacts::read(der).map_err(bad)?);
    }
    Ok(all)
}

pub(super) fn certificates(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Vec<_> = blocks(file, bytes)?
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if found.is_empty() { Err(LoadError::NoCertificate(file.clone())) } else { Ok(found) }
}

pub(super) fn private_key(
    file: &MaterialFile,
    bytes: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, LoadError> {
    if is_encrypted(bytes) {
        return Err(LoadError::EncryptedKey(file.clone()));
    }
    let mut keys: Vec<_> =
        blocks(file, bytes)?.into_iter().filter_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der)).collect();
    let key = keys.pop().ok_or_else(|| LoadError::NoKey(file.clone()))?;
    if !keys.is_empty() {
        return Err(LoadError::SeveralKeys { file: file.clone(), count: keys.len() + 1 });
    }
    // What the provider says about a key could hold some of it.
    provider.key_provider.load_private_key(key).map_err(|_| LoadError::UnusableKey(file.clone()))
}

/// PKCS#8 under a pass phrase, or the older headers inside a block.
fn is_encrypted(bytes: &[u8]) -> bool {
    lines(bytes).any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || (line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
    })
}

fn anchors(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<Anchor>, LoadError> {
    let certificates = certificates(file, bytes)?;
    let numbered = certificates.into_iter().enumerate();
    numbered
        .map(|(at, der)| anchor(der).ok_or_else(|| LoadError::BadCertificate { file: file.clone(), number: at + 1 }))
        .collect()
}

fn anchor(der: CertificateDer<'static>) -> Option<Anchor> {
    let facts = CertificateFacts::read(&der).ok()?;
    let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
    Some(Anchor { anchor, facts, der })
}

/// A CRL, and what tells it from another of its issuer.
struct FoundCrl {
    crl: Crl,
    issued: i64,
    /// The extension IssuingDistributionPoint as it is encoded: an issuer may split its list by it.
    split: Option<Vec<u8>>,
}

impl FoundCrl {
    /// Whether both are the same list, of two moments.
    fn is_twin(&self, other: &Self) -> bool {
        let facts = |found: &Self| (found.crl.issuer_der.clone(), found.crl.signer, found.split.clone());
        facts(self) == facts(other)
    }
}

/// The newest of each: one that is superseded must not count again when the newer is too old.
fn crls(snapshot: &Snapshot, ca: Option<&MaterialFile>, anchors: &[Anchor]) -> Result<Option<Vec<Crl>>, LoadError> {
    let Some((first, _)) = snapshot.one(Part::Crl) else { return Ok(None) };
    let mut found = Vec::new();
    for (file, bytes) in snapshot.all(Part::Crl) {
        let before = found.len();
        for (_, der) in blocks(file, bytes)?.into_iter().filter(|(kind, _)| *kind == SectionKind::Crl) {
            found.push(read_crl(file, &der, anchors)?);
        }
        if found.len() == before {
            return Err(LoadError::NoCrl(file.clone()));
        }
    }
    let bare = anchors.iter().find(|anchor| found.iter().all(|f| f.crl.signer != Some(anchor.facts.spki_sha256)));
    if let (Some(ca), Some(bare)) = (ca, bare) {
        let (crl, subject) = (first.clone(), bare.facts.subject.clone());
        return Err(LoadError::CaWithoutCrl { crl, ca: ca.clone(), subject });
    }
    Ok(Some(newest(found).into_iter().map(|found| found.crl).collect()))
}

fn newest(mut found: Vec<FoundCrl>) -> Vec<FoundCrl> {
    found.sort_by_key(|found| std::cmp::Reverse(found.issued));
    let mut kept: Vec<FoundCrl> = Vec::new();
    for next in found {
        if !kept.iter().any(|newer| newer.is_twin(&next)) {
            kept.push(next);
        }
    }
    kept
}

fn read_crl(file: &MaterialFile, der: &[u8], anchors: &[Anchor]) -> Result<FoundCrl, LoadError> {
    let bad = |_| bad_crl(file, "it cannot be parsed");
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(bad)?;
    let next_update = parsed.next_update().ok_or_else(|| bad_crl(file, "it names no next update"))?;
    let crl = Crl {
        list: crl(file, der, anchors)?,
        issuer: parsed.issuer().to_string(),
        issuer_der: parsed.issuer().as_raw().to_vec(),
        next_update: system_time(next_update),
        signer: anchors.iter().find(|anchor| is_of(&parsed, anchor)).map(|anchor| anchor.facts.spki_sha256),
    };
    let split = parsed.extensions().iter().find(|e| e.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    Ok(FoundCrl { crl, issued: parsed.last_update().timestamp(), split: split.map(|e| e.value.to_vec()) })
}

/// Whether the CA issued the list. Two CAs may have one name, as after a roll-over: only the signature tells them apart.
fn is_of(crl: &CertificateRevocationList<'_>, anchor: &Anchor) -> bool {
    crl.issuer().as_raw() == anchor.facts.subject_der && signed_by(crl, &anchor.facts.public_key)
}

/// In whichever way: the path builder asks for the algorithm that the list names.
fn signed_by(crl: &CertificateRevocationList<'_>, key: &[u8]) -> bool {
    let (message, signature) = (crl.tbs_cert_list.as_ref(), &crl.signature_value.data);
    let fits = |alg: &&dyn SignatureVerificationAlgorithm| alg.verify_signature(key, message, signature);
    webpki::ALL_VERIFICATION_ALGS.iter().any(|alg| fits(alg).is_ok())
}

fn crl(file: &MaterialFile, der: &[u8], anchors: &[Anchor]) -> Result<WebpkiCrl<'static>, LoadError> {
    let list = webpki::OwnedCertRevocationList::from_der(der).map_err(|error| bad_crl(file, crl_words(&error)))?;
    let list = WebpkiCrl::from(list);
    // webpki asks this of intermediates only: the KeyUsage of an anchor is not known to it.
    let may_not =
        |a: &Anchor| *a.anchor.subject == *list.issuer() && a.facts.key_usage.is_some_and(|usage| !usage.crl_sign);
    if anchors.iter().any(may_not) {
        return Err(bad_crl(file, "the CA that issued it lacks the key usage cRLSign"));
    }
    Ok(list)
}

fn crl_words(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;
    match error {
        E::UnsupportedDeltaCrl => "it is a delta CRL",
        E::UnsupportedIndirectCrl => "it is an indirect CRL",
        E::UnsupportedCrlVersion => "it is not of version 2",
        E::UnsupportedCriticalExtension => "it has a critical extension that is not understood",
        E::UnsupportedRevocationReasonsPartitioning => "it is split by reasons",
        _ => "it cannot be parsed",
    }
}

fn bad_crl(file: &MaterialFile, what: &'static str) -> LoadError {
    LoadError::BadCrl { file: file.clone(), what }
}

/// One SHA-256 a line, in hex of either case, colons between bytes allowed, `#` begins a comment.
fn distrust(snapshot: &Snapshot) -> Result<HashSet<[u8; 32]>, LoadError> {
    let Some((file, bytes)) = snapshot.one(Part::Distrust) else {
        return Ok(HashSet::new());
    };
    let mut found = HashSet::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let digits: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace() && *b != b':').collect();
        if !digits.is_empty() {
            let hash = from_hex(&digits).ok_or_else(|| LoadError::BadDistrust { file: file.clone(), line: at + 1 })?;
            found.insert(hash);
        }
    }
    Ok(found)
}

fn from_hex(digits: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    // `from_str_radix` would take a sign for a digit.
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// All blocks of kinds that TLS knows.
fn blocks(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, LoadError> {
    if is_der(bytes) {
        return Err(LoadError::Der(file.clone()));
    }
    let whole = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let blocks: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(whole).collect();
    let blocks = blocks.map_err(|error| LoadError::BadPem { file: file.clone(), what: pem_words(&error) })?;
    balanced(file, whole)?;
    Ok(blocks)
}

/// One DER SEQUENCE from the first byte to the last. The tag alone proves nothing: it is also the digit 0 of a torn PEM file.
fn is_der(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else { return false };
    let octets = usize::from(length & 0x7f);
    match length {
        ..=0x7f => rest.len() == octets,
        0x81..=0x84 if rest.len() > octets => {
            let (length, content) = rest.split_at(octets);
            length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) == content.len()
        }
        _ => false,
    }
}

/// The parser passes over an END without a BEGIN and takes a BEGIN in a block as its restart. Both mean a torn file.
fn balanced(file: &MaterialFile, bytes: &[u8]) -> Result<(), LoadError> {
    let mut open = false;
    for line in lines(bytes) {
        let begins = line.starts_with(b"-----BEGIN ");
        let ends = line.starts_with(b"-----END ");
        if (begins && open) || (ends && !open) {
            return Err(LoadError::BadPem { file: file.clone(), what: "a BEGIN without its END" });
        }
        open = (open || begins) && !ends;
    }
    Ok(())
}

/// In our words: those of the parser quote the file.
fn pem_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block is cut off",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is garbled",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "a block cannot be read",
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)
}
