//! CAs, leaves and revocation lists of any shape, for tests.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::crl::Crl;
use super::facts::CertificateFacts;
use super::trust::Anchor;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn day(n: u32) -> SystemTime {
    UNIX_EPOCH + DAY * 20_000 + DAY * n
}

/// A CA in memory.
#[derive(Debug)]
pub(crate) struct Ca {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) facts: CertificateFacts,
}

pub(crate) fn shape(name: &str, usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages.to_vec();
    params
}

const BOTH: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

pub(crate) fn ca(name: &str) -> Ca {
    let (key, params) = (KeyPair::generate().unwrap(), shape(name, &BOTH));
    let der = params.self_signed(&key).unwrap().der().clone();
    Ca { facts: CertificateFacts::read(&der).unwrap(), der, issuer: Issuer::new(params, key) }
}

/// A list to be made.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) number: u64,
    pub(crate) this: u32,
    pub(crate) next: u32,
    pub(crate) listed: Vec<u8>,
    pub(crate) scope: Option<(Vec<&'static str>, Option<CrlScope>)>,
}

pub(crate) fn draft(number: u64, listed: &[u8]) -> Draft {
    Draft { number, this: 0, next: 10, listed: listed.to_vec(), scope: None }
}

impl Ca {
    pub(crate) fn leaf(&self, serial: u8) -> CertificateFacts {
        self.leaf_at(serial, &[])
    }

    pub(crate) fn leaf_at(&self, serial: u8, points: &[&str]) -> CertificateFacts {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let uris = points.iter().map(|uri| (*uri).to_owned()).collect();
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        if points.is_empty() {
            params.crl_distribution_points.clear();
        }
        let cert = params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap();
        CertificateFacts::read(cert.der()).unwrap()
    }

    pub(crate) fn intermediate(&self, name: &str, serial: u8) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), shape(name, &BOTH));
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { facts: CertificateFacts::read(&der).unwrap(), der, issuer: Issuer::new(params, key) }
    }

    /// As a trust anchor.
    pub(crate) fn anchor(&self) -> Anchor {
        let anchor = webpki::anchor_from_trusted_cert(&self.der).unwrap().to_owned();
        Anchor { anchor, der: self.der.clone(), facts: self.facts.clone() }
    }

    pub(crate) fn list(&self, draft: &Draft) -> Arc<Crl> {
        Arc::new(Crl::read(self.list_der(draft)).unwrap())
    }

    pub(crate) fn list_der(&self, draft: &Draft) -> Vec<u8> {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: day(0).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: day(draft.this).into(),
            next_update: day(draft.next).into(),
            crl_number: SerialNumber::from(draft.number),
            issuing_distribution_point: draft.scope.clone().map(|(uris, scope)| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: uris.into_iter().map(str::to_owned).collect() },
                scope,
            }),
            revoked_certs: draft.listed.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}
