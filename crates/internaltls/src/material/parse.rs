//! The files of a set understood, each by itself: pairs and trust anchors. Pure.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroizing;

use super::in_force::InForce;
use super::pem::blocks;
use super::source::Snapshot;
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{Anchor, CertificateFacts, Lists, SharedKey};

/// A leaf with its intermediates and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certificate: MaterialFile,
    pub(super) key: MaterialFile,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

impl Pair {
    /// Its key, as a leaf that all nodes share.
    pub(super) fn shared_key(&self) -> SharedKey {
        SharedKey { spki_sha256: self.facts.spki_sha256, not_after: self.facts.not_after }
    }
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

/// Leaf, key and CAs of a snapshot, each by itself, under the lists in force.
pub(super) fn parse(snapshot: &Snapshot, lists: &InForce, crl_grace: Duration) -> Result<Parsed, LoadError> {
    let server = pair(snapshot, Part::Certificate, Part::Key)?.ok_or(LoadError::HalfAPair)?;
    let client = pair(snapshot, Part::ClientCertificate, Part::ClientKey)?;
    let (ca, anchors) = (snapshot.one(Part::Ca).map(|(file, _)| file), bundle(snapshot)?);
    lists.covers(ca, &anchors)?;
    Ok(Parsed { server, client, ca: ca.cloned(), anchors, lists: lists.lists(crl_grace) })
}

/// The CAs of a snapshot.
pub(super) fn bundle(snapshot: &Snapshot) -> Result<Vec<Anchor>, LoadError> {
    let ca = snapshot.one(Part::Ca);
    Ok(ca.map(|(file, bytes)| anchors(file, bytes)).transpose()?.unwrap_or_default())
}

fn pair(snapshot: &Snapshot, cert: Part, key: Part) -> Result<Option<Pair>, LoadError> {
    let (Some((certificate, cert_bytes)), Some((key, key_bytes))) = (snapshot.one(cert), snapshot.one(key)) else {
        return Ok(None);
    };
    let chain = certificates(certificate, cert_bytes)?;
    let facts = facts(certificate, &chain)?;
    let signer = private_key(key, key_bytes)?;
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
        .map(|(_, mut der)| CertificateDer::from(std::mem::take(&mut *der)))
        .collect();
    if found.is_empty() { Err(LoadError::NoCertificate(file.clone())) } else { Ok(found) }
}

pub(super) fn private_key(file: &MaterialFile, bytes: &[u8]) -> Result<Arc<dyn SigningKey>, LoadError> {
    // A provider's own function takes the DER away and drops it as it is; this one borrows it, and it is wiped here.
    let key = key_der(file, bytes)?;
    // What it says about a key could hold some of it.
    any_supported_type(&key).map_err(|_| LoadError::UnusableKey(file.clone()))
}

/// The one key of a file, wiped when it is dropped.
pub(super) fn key_der(file: &MaterialFile, bytes: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, LoadError> {
    let keys = blocks(file, bytes)?.into_iter();
    let keys = keys.filter_map(|(kind, mut der)| PrivateKeyDer::from_pem(kind, std::mem::take(&mut *der)));
    let mut keys: Vec<_> = keys.map(Zeroizing::new).collect();
    let key = keys.pop().ok_or_else(|| LoadError::NoKey(file.clone()))?;
    if !keys.is_empty() {
        return Err(LoadError::SeveralKeys { file: file.clone(), count: keys.len() + 1 });
    }
    Ok(key)
}

/// A leaf among them is an error: it would vouch for whatever its key signs.
pub(super) fn anchors(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<Anchor>, LoadError> {
    let mut anchors = Vec::new();
    for (at, der) in certificates(file, bytes)?.into_iter().enumerate() {
        let (file, number) = (file.clone(), at + 1);
        let Some(anchor) = anchor(der) else { return Err(LoadError::BadCertificate { file, number }) };
        if !anchor.facts.may_be_anchor() {
            return Err(LoadError::LeafAsAnchor { file, number, subject: anchor.facts.subject });
        }
        anchors.push(anchor);
    }
    Ok(anchors)
}

fn anchor(der: CertificateDer<'static>) -> Option<Anchor> {
    let facts = CertificateFacts::read(&der).ok()?;
    let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
    Some(Anchor { anchor, facts, der })
}
