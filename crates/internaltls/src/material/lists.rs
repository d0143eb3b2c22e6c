//! What revokes: CRLs and the distrust list, understood. Pure.
use std::collections::HashSet;
use std::time::Duration;

use rustls::pki_types::SignatureVerificationAlgorithm;
use rustls::pki_types::pem::SectionKind;
use webpki::CertRevocationList as WebpkiCrl;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::pem::blocks;
use super::source::Snapshot;
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{Anchor, Crl, Lists, system_time};

/// What revokes, to be used with these anchors.
pub(super) fn lists(
    snapshot: &Snapshot,
    ca: Option<&MaterialFile>,
    anchors: &[Anchor],
    crl_grace: Duration,
) -> Result<Lists, LoadError> {
    Ok(Lists { crls: crls(snapshot, ca, anchors)?, grace: crl_grace, distrust: distrust(snapshot)? })
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
