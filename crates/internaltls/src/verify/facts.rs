//! What a certificate says, read once. Pure.
//!
//! Only the extensions that something here asks for are decoded: what a peer puts into others costs nothing.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::der_parser::oid::Oid;
use x509_parser::error::X509Error;
use x509_parser::extensions::{
    BasicConstraints, ExtendedKeyUsage, GeneralName, KeyIdentifier, KeyUsage as ParsedKeyUsage, NameConstraints,
    SubjectAlternativeName,
};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use super::outline::is_sequence;
use crate::error::{LeafNames, Reason};
use crate::foreign;

/// The fewest bits of an RSA key that we take.
const RSA_BITS: usize = 2048;
/// Octets of a serial number, RFC 5280 section 4.1.2.2.
const SERIAL: usize = 20;
/// Bytes of all names of a leaf that a log line shows.
const NAMES_SHOWN: usize = 1024;
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";
const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Lower-case hex, cut to the 20 octets of RFC 5280.
    pub(crate) serial: String,
    /// The serial number as it is encoded, to look it up in a CRL.
    pub(crate) raw_serial: Vec<u8>,
    /// For people: cut and escaped.
    pub(crate) subject: String,
    /// The subject as it is encoded, to tell issuers apart.
    pub(crate) subject_der: Vec<u8>,
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) dns: Vec<String>,
    pub(crate) uris: Vec<String>,
    /// All SANs as text for people, in their order, each cut and escaped.
    pub(crate) sans: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// X.509 version 1 has no extensions, so no word on whether it is a CA.
    pub(crate) is_version_1: bool,
    /// CA:TRUE.
    pub(crate) is_ca: bool,
    /// How many intermediates may be below it, RFC 5280 section 4.2.1.9; `None` without a limit.
    pub(crate) path_len: Option<u32>,
    /// `None` without the KeyUsage extension.
    pub(crate) key_usage: Option<KeyUsage>,
    /// `None` without the ExtendedKeyUsage extension.
    pub(crate) usages: Option<Usages>,
    /// It permits or excludes URI names, which webpki cannot check.
    pub(crate) constrains_uris: bool,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    /// What is wrong with the public key, if anything is.
    pub(crate) weak_key: Option<String>,
    /// Of the SubjectPublicKeyInfo as it is encoded.
    pub(crate) spki_sha256: [u8; 32],
    /// The SubjectPublicKeyInfo as it is encoded.
    pub(crate) spki: Vec<u8>,
    /// The extension CRLDistributionPoints as it is encoded, where it is there.
    pub(crate) crl_distribution_points: Option<Vec<u8>>,
    /// Of the whole certificate as it is encoded: its fingerprint.
    pub(crate) sha256: [u8; 32],
}

/// The two bits of KeyUsage that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) key_cert_sign: bool,
    pub(crate) crl_sign: bool,
}

/// The ExtendedKeyUsage of a certificate. In a leaf `anyExtendedKeyUsage` counts as none of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usages {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
    pub(crate) any: bool,
}

impl CertificateFacts {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, Reason> {
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, cert) = parser.parse(der).map_err(|_| Reason::BadEncoding)?;
        // Of a garbled name or key the parser takes the part that it understands: two that differ would be one, and a key
        // on the distrust list another.
        let compared = [cert.subject().as_raw(), cert.issuer().as_raw(), cert.public_key().raw];
        if !rest.is_empty() || has_twins(&cert) || !compared.into_iter().all(is_sequence) {
            return Err(Reason::BadEncoding);
        }
        let mut facts = Self { sha256: sha256(der), ..Self::basics(&cert) };
        for extension in cert.extensions() {
            facts.take(&extension.oid, extension.value)?;
        }
        Ok(facts)
    }

    fn basics(cert: &X509Certificate<'_>) -> Self {
        Self {
            serial: serial(cert.raw_serial()),
            raw_serial: cert.raw_serial().to_vec(),
            subject: foreign::name(&cert.subject().to_string()),
            subject_der: cert.subject().as_raw().to_vec(),
            issuer_der: cert.issuer().as_raw().to_vec(),
            dns: Vec::new(),
            uris: Vec::new(),
            sans: Vec::new(),
            not_before: system_time(cert.validity().not_before),
            not_after: system_time(cert.validity().not_after),
            is_version_1: cert.version() == X509Version::V1,
            is_ca: false,
            path_len: None,
            key_usage: None,
            usages: None,
            constrains_uris: false,
            subject_key_id: None,
            weak_key: weakness(cert),
            spki_sha256: sha256(cert.public_key().raw),
            spki: cert.public_key().raw.to_vec(),
            crl_distribution_points: None,
            sha256: [0; 32],
        }
    }

    fn take(&mut self, oid: &Oid<'_>, value: &[u8]) -> Result<(), Reason> {
        if *oid == OID_X509_EXT_BASIC_CONSTRAINTS {
            let basic: BasicConstraints = whole(value)?;
            (self.is_ca, self.path_len) = (basic.ca, basic.path_len_constraint);
        } else if *oid == OID_X509_EXT_KEY_USAGE {
            let usage: ParsedKeyUsage = whole(value)?;
            self.key_usage = Some(KeyUsage { key_cert_sign: usage.key_cert_sign(), crl_sign: usage.crl_sign() });
        } else if *oid == OID_X509_EXT_EXTENDED_KEY_USAGE {
            self.usages = Some(usages(&whole(value)?));
        } else if *oid == OID_X509_EXT_SUBJECT_ALT_NAME {
            let san: SubjectAlternativeName<'_> = whole(value)?;
            san.general_names.iter().try_for_each(|name| self.name(name))?;
        } else if *oid == OID_X509_EXT_NAME_CONSTRAINTS {
            self.constrains_uris = constrains_uris(&whole(value)?);
        } else if *oid == OID_X509_EXT_SUBJECT_KEY_IDENTIFIER {
            self.subject_key_id = Some(whole::<KeyIdentifier<'_>>(value)?.0.to_vec());
        } else if *oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS {
            // Read where a CRL that is split asks for it.
            self.crl_distribution_points = Some(value.to_vec());
        }
        Ok(())
    }

    fn name(&mut self, name: &GeneralName<'_>) -> Result<(), Reason> {
        let text = match name {
            GeneralName::DNSName(name) => {
                self.dns.push((*name).to_owned());
                foreign::name(name)
            }
            GeneralName::URI(uri) => {
                self.uris.push((*uri).to_owned());
                foreign::name(uri)
            }
            GeneralName::IPAddress(bytes) => ip_address(bytes).ok_or(Reason::BadEncoding)?,
            GeneralName::RFC822Name(name) => foreign::name(name),
            GeneralName::Invalid(..) => return Err(Reason::BadEncoding),
            _ => "(a name of another kind)".to_owned(),
        };
        self.sans.push(text);
        Ok(())
    }

    /// Whether it may be a trust anchor: CA:TRUE, or of version 1, which cannot say so.
    pub(crate) fn may_be_anchor(&self) -> bool {
        self.is_ca || self.is_version_1
    }

    /// RFC 5280 section 3.2: a CA's certificate for itself, as in a roll-over, does not lengthen a path.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether it may sign certificates: never true of a leaf.
    pub(crate) fn can_sign(&self) -> bool {
        self.is_ca || self.key_usage.is_some_and(|usage| usage.key_cert_sign)
    }

    /// The certificate's SHA-256 as people compare it: lower-case hex, as `openssl x509 -fingerprint -sha256` without colons.
    pub(crate) fn fingerprint(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Serial and SANs, for logs: as many names as fit.
    pub(crate) fn names(&self) -> LeafNames {
        let mut left = NAMES_SHOWN;
        let fits = |san: &&String| {
            left = left.saturating_sub(san.len() + 1);
            left > 0
        };
        let mut sans: Vec<String> = self.sans.iter().take_while(fits).cloned().collect();
        let more = self.sans.len() - sans.len();
        if more > 0 {
            sans.push(format!("and {more} more"));
        }
        LeafNames { serial: self.serial.clone(), sans }
    }
}

/// All of an extension's value is one value of its kind.
fn whole<'a, T: FromDer<'a, X509Error>>(value: &'a [u8]) -> Result<T, Reason> {
    match T::from_der(value) {
        Ok(([], value)) => Ok(value),
        _ => Err(Reason::BadEncoding),
    }
}

fn constrains_uris(constraints: &NameConstraints<'_>) -> bool {
    let subtrees = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
    subtrees.into_iter().flatten().flatten().any(|subtree| matches!(subtree.base, GeneralName::URI(_)))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Lower-case hex, without the zero byte that DER puts before a high bit.
fn serial(bytes: &[u8]) -> String {
    let bytes = if bytes.len() > 1 { bytes.strip_prefix(&[0]).unwrap_or(bytes) } else { bytes };
    bytes.iter().take(SERIAL).map(|byte| format!("{byte:02x}")).collect()
}

/// A year before 1970 or beyond what is known is 1970.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let by = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(by) } else { UNIX_EPOCH.checked_add(by) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Two extensions of one kind: readers differ on which counts.
fn has_twins(cert: &X509Certificate<'_>) -> bool {
    cert.extensions_map().is_err()
}

fn usages(usage: &ExtendedKeyUsage<'_>) -> Usages {
    Usages { server_auth: usage.server_auth, client_auth: usage.client_auth, any: usage.any }
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string());
    v4.or_else(|_| v6()).ok()
}

fn weakness(cert: &X509Certificate<'_>) -> Option<String> {
    let key = cert.public_key();
    match key.algorithm.algorithm.to_id_string().as_str() {
        RSA_ENCRYPTION => match key.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) if rsa_bits(rsa.modulus) >= RSA_BITS => None,
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => Some(format!("RSA of {} bits", rsa_bits(rsa.modulus))),
            _ => Some("RSA that cannot be read".to_owned()),
        },
        EC_PUBLIC_KEY => {
            // Parameters spelled out instead of named come here as one long text.
            let named = |oid: &String| oid.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string()).filter(named);
            let known = curve.as_deref().is_some_and(|curve| CURVES.contains(&curve));
            (!known).then(|| format!("ECDSA on the curve {}", curve.as_deref().unwrap_or("without a name")))
        }
        ED25519 => None,
        other => Some(format!("of the kind {other}")),
    }
}

fn rsa_bits(modulus: &[u8]) -> usize {
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = modulus.get(leading..).unwrap_or_default();
    modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize)
}
