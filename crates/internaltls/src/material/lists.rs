//! What revokes: CRLs and the distrust list, understood. Pure.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

/// What files say of the distrusted, whoever our CAs are.
///
/// Lists outlive the bundle that they came with, so what depends on the CAs is worked out anew for each generation.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// `None` where no CRL path is set; else the first file of it.
    crl_file: Option<MaterialFile>,
    crls: Vec<Arc<FoundCrl>>,
    distrust: HashSet<[u8; 32]>,
}

impl Seen {
    /// Reads the lists of a snapshot.
    pub(super) fn read(snapshot: &Snapshot) -> Result<Self, LoadError> {
        let crl_file = snapshot.one(Part::Crl).map(|(file, _)| file.clone());
        Ok(Self { crl_file, crls: crls(snapshot)?, distrust: distrust(snapshot)? })
    }

    /// What revokes under these anchors. `ca` is their file.
    pub(super) fn under(
        &self,
        ca: Option<&MaterialFile>,
        anchors: &[Anchor],
        crl_grace: Duration,
    ) -> Result<Lists, LoadError> {
        let crls = self.crl_file.as_ref().map(|first| self.crls_under(first, ca, anchors)).transpose()?;
        Ok(Lists { crls, grace: crl_grace, distrust: self.distrust.clone() })
    }

    fn crls_under(
        &self,
        first: &MaterialFile,
        ca: Option<&MaterialFile>,
        anchors: &[Anchor],
    ) -> Result<Vec<Crl>, LoadError> {
        let signed = self.crls.iter().map(|found| Ok((found, found.signer(anchors)?)));
        let signed = signed.collect::<Result<Vec<_>, LoadError>>()?;
        let lacks = |anchor: &&Anchor| signed.iter().all(|(_, signer)| *signer != Some(anchor.facts.spki_sha256));
        if let (Some(ca), Some(bare)) = (ca, anchors.iter().find(lacks)) {
            let (crl, subject) = (first.clone(), bare.facts.subject.clone());
            return Err(LoadError::CaWithoutCrl { crl, ca: ca.clone(), subject });
        }
        Ok(newest(signed).into_iter().map(|(found, signer)| found.crl(signer)).collect())
    }
}

/// The one place where lists that were read come into force: `seen` is on disk now, `before` was in force until now, and
/// `anchors` are the CAs in use. A CRL of a CA in use that is no longer on disk stays, so that a bundle and its CRLs can be
/// replaced together.
pub(super) fn in_force(before: &Seen, mut seen: Seen, anchors: &[Anchor]) -> Seen {
    let of_ca_in_use = |found: &FoundCrl| anchors.iter().any(|anchor| anchor.facts.subject_der == found.issuer_der);
    let gone = |found: &&Arc<FoundCrl>| seen.crls.iter().all(|new| !new.may_be_twin(found)) && of_ca_in_use(found);
    let kept: Vec<_> = before.crls.iter().filter(gone).cloned().collect();
    seen.crls.extend(kept);
    seen
}

/// A CRL, and what tells it from another of its issuer.
#[derive(Debug)]
struct FoundCrl {
    file: MaterialFile,
    der: Vec<u8>,
    list: Arc<WebpkiCrl<'static>>,
    issuer: String,
    issuer_der: Vec<u8>,
    issued: i64,
    next_update: SystemTime,
    /// The extension IssuingDistributionPoint as it is encoded: an issuer may split its list by it.
    split: Option<Vec<u8>>,
}

impl FoundCrl {
    /// Whether both are lists of one name, of two moments. Two CAs may have one name.
    fn may_be_twin(&self, other: &Self) -> bool {
        (&self.issuer_der, &self.split) == (&other.issuer_der, &other.split)
    }

    /// The key of the anchor that signed it.
    fn signer(&self, anchors: &[Anchor]) -> Result<Option<[u8; 32]>, LoadError> {
        // webpki asks this of intermediates only: the KeyUsage of an anchor is not known to it.
        let may_not = |a: &Anchor| {
            *a.anchor.subject == *self.list.issuer() && a.facts.key_usage.is_some_and(|usage| !usage.crl_sign)
        };
        if anchors.iter().any(may_not) {
            return Err(bad_crl(&self.file, "the CA that issued it lacks the key usage cRLSign"));
        }
        let (_, parsed) =
            CertificateRevocationList::from_der(&self.der).map_err(|_| bad_crl(&self.file, "it cannot be parsed"))?;
        Ok(anchors.iter().find(|anchor| is_of(&parsed, anchor)).map(|anchor| anchor.facts.spki_sha256))
    }

    fn crl(&self, signer: Option<[u8; 32]>) -> Crl {
        Crl {
            list: Arc::clone(&self.list),
            issuer: self.issuer.clone(),
            issuer_der: self.issuer_der.clone(),
            next_update: self.next_update,
            signer,
        }
    }
}

fn crls(snapshot: &Snapshot) -> Result<Vec<Arc<FoundCrl>>, LoadError> {
    let mut found = Vec::new();
    for (file, bytes) in snapshot.all(Part::Crl) {
        let before = found.len();
        for (_, der) in blocks(file, bytes)?.into_iter().filter(|(kind, _)| *kind == SectionKind::Crl) {
            found.push(Arc::new(read_crl(file, der)?));
        }
        if found.len() == before {
            return Err(LoadError::NoCrl(file.clone()));
        }
    }
    Ok(found)
}

type Signed<'a> = (&'a Arc<FoundCrl>, Option<[u8; 32]>);

/// The newest of each: one that is superseded must not count again when the newer is too old.
fn newest(mut signed: Vec<Signed<'_>>) -> Vec<Signed<'_>> {
    signed.sort_by_key(|(found, _)| std::cmp::Reverse(found.issued));
    let mut kept: Vec<Signed<'_>> = Vec::new();
    for next in signed {
        if !kept.iter().any(|newer| newer.1 == next.1 && newer.0.may_be_twin(next.0)) {
            kept.push(next);
        }
    }
    kept
}

fn read_crl(file: &MaterialFile, der: Vec<u8>) -> Result<FoundCrl, LoadError> {
    let list = webpki::OwnedCertRevocationList::from_der(&der).map_err(|error| bad_crl(file, crl_words(&error)));
    let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|_| bad_crl(file, "it cannot be parsed"))?;
    let next_update = parsed.next_update().ok_or_else(|| bad_crl(file, "it names no next update"))?;
    let split = parsed.extensions().iter().find(|e| e.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    Ok(FoundCrl {
        file: file.clone(),
        list: Arc::new(WebpkiCrl::from(list?)),
        issuer: parsed.issuer().to_string(),
        issuer_der: parsed.issuer().as_raw().to_vec(),
        issued: parsed.last_update().timestamp(),
        next_update: system_time(next_update),
        split: split.map(|e| e.value.to_vec()),
        der,
    })
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
