//! CAs of any shape in memory, and what a chain costs and brings.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm};

use crate::error::Reason;
use crate::identity::TrustDomain;
use crate::verify::chain::Chain;
use crate::verify::constraints::CaUsage;
use crate::verify::path::{self, Asked};
use crate::verify::{Anchor, CertificateFacts, Lists, Rules, Trust};

pub(super) type Der = CertificateDer<'static>;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// A CA, root or intermediate.
pub(super) struct Ca {
    pub(super) params: CertificateParams,
    pub(super) key: KeyPair,
    pub(super) der: Der,
}

/// What a CA's certificate says unless it is shaped otherwise.
pub(super) fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + 48 * HOUR).into();
    params
}

/// As a node's leaf must be.
pub(super) fn node(params: &mut CertificateParams) {
    let uri = "spiffe://mesh.internal/proxy/p".try_into().unwrap();
    params.subject_alt_names = vec![SanType::DnsName("proxy.mesh.internal".try_into().unwrap()), SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
}

/// An extension that means nothing, of so many bytes.
pub(super) fn padding(bytes: usize) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0x5a; bytes])
}

impl Ca {
    pub(super) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub(super) fn root_with(name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::keyed(name, KeyPair::generate().unwrap(), shape)
    }

    /// A root with this key.
    pub(super) fn keyed(name: &str, key: KeyPair, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        shape(&mut params);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// A certificate of the same name and key, made anew.
    pub(super) fn renewed(&self, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = self.params.clone();
        shape(&mut params);
        let key = KeyPair::from_pem(&self.key.serialize_pem()).unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    pub(super) fn child(&self, name: &str) -> Self {
        self.child_with(name, |_| {})
    }

    pub(super) fn child_with(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (ca_params(name), KeyPair::generate().unwrap());
        shape(&mut params);
        let der = params.signed_by(&key, &self.issuer()).unwrap().der().clone();
        Self { params, key, der }
    }

    /// This CA's certificate for another CA's name and key.
    pub(super) fn cross(&self, other: &Self) -> Der {
        other.params.signed_by(&other.key, &self.issuer()).unwrap().der().clone()
    }

    pub(super) fn node(&self) -> Der {
        self.leaf(|_| {})
    }

    /// A node's leaf, shaped further.
    pub(super) fn leaf(&self, shape: impl FnOnce(&mut CertificateParams)) -> Der {
        let mut params = params("a node");
        node(&mut params);
        shape(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer()).unwrap().der().clone()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub(super) fn anchor(&self) -> Anchor {
        anchor(&self.der)
    }
}

pub(super) fn anchor(der: &Der) -> Anchor {
    let anchor = webpki::anchor_from_trusted_cert(der).unwrap().to_owned();
    Anchor { anchor, facts: CertificateFacts::read(der).unwrap(), der: der.clone() }
}

/// Trust of a mesh with a leaf a node.
pub(super) fn trust(anchors: &[&Ca]) -> Trust {
    trusting(anchors.iter().map(|ca| ca.anchor()).collect())
}

pub(super) fn trusting(anchors: Vec<Anchor>) -> Trust {
    Trust::new(anchors, Lists::default(), Rules::PerNode { trust_domain: TrustDomain::default() })
}

/// What webpki verifies with, counted.
#[derive(Debug)]
struct Counted(&'static dyn SignatureVerificationAlgorithm, Arc<AtomicUsize>);

impl SignatureVerificationAlgorithm for Counted {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// What becomes of a client's chain, and how many signatures are checked for it.
pub(super) fn counted(trust: &Trust, chain: &[Der]) -> (Result<SystemTime, Reason>, usize) {
    counted_at(trust, chain, SystemTime::now())
}

pub(super) fn counted_at(trust: &Trust, chain: &[Der], now: SystemTime) -> (Result<SystemTime, Reason>, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = webpki::ALL_VERIFICATION_ALGS.iter().map(|one| Counted(*one, Arc::clone(&count))).collect();
    let algorithms: Vec<&dyn SignatureVerificationAlgorithm> = all.iter().map(|one| one as _).collect();
    let verified = Chain::admit(chain).and_then(|admitted| {
        let facts = CertificateFacts::read(&chain[0])?;
        let usage = CaUsage::Client;
        path::verify(trust, &Asked { chain: &admitted, facts: &facts, usage, now, algorithms: &algorithms })
    });
    (verified, count.load(Ordering::Relaxed))
}
