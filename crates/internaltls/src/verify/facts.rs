//! What a certificate says, read once. Pure.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::error::{LeafNames, Reason};

/// The fewest bits of an RSA key that we take.
const RSA_BITS: usize = 2048;
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";
const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Lower-case hex.
    pub(crate) serial: String,
    pub(crate) subject: String,
    /// The subject as it is encoded, to tell issuers apart.
    pub(crate) subject_der: Vec<u8>,
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) dns: Vec<String>,
    pub(crate) uris: Vec<String>,
    /// All SANs as text, in their order.
    pub(crate) sans: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// CA:TRUE.
    pub(crate) is_ca: bool,
    /// `None` without the KeyUsage extension.
    pub(crate) key_usage: Option<KeyUsage>,
    /// `None` without the ExtendedKeyUsage extension.
    pub(crate) usages: Option<Usages>,
    /// What is wrong with the public key, if anything is.
    pub(crate) weak_key: Option<String>,
    /// Of the SubjectPublicKeyInfo as it is encoded.
    pub(crate) spki_sha256: [u8; 32],
    /// The public key itself, without its algorithm.
    pub(crate) public_key: Vec<u8>,
    /// Of the whole certificate as it is encoded: its fingerprint.
    pub(crate) sha256: [u8; 32],
}

/// The two bits of KeyUsage that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) key_cert_sign: bool,
    pub(crate) crl_sign: bool,
}

/// The ExtendedKeyUsage of a leaf. `anyExtendedKeyUsage` does not count as any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usages {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
}

impl CertificateFacts {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, Reason> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| Reason::BadEncoding)?;
        if !rest.is_empty() || has_twins(&cert) {
            return Err(Reason::BadEncoding);
        }
        let mut facts = Self { sha256: sha256(der), ..Self::basics(&cert) };
        for extension in cert.extensions() {
            facts.take(extension.parsed_extension())?;
        }
        Ok(facts)
    }

    fn basics(cert: &X509Certificate<'_>) -> Self {
        Self {
            serial: hex(cert.raw_serial()),
            subject: cert.subject().to_string(),
            subject_der: cert.subject().as_raw().to_vec(),
            issuer_der: cert.issuer().as_raw().to_vec(),
            dns: Vec::new(),
            uris: Vec::new(),
            sans: Vec::new(),
            not_before: system_time(cert.validity().not_before),
            not_after: system_time(cert.validity().not_after),
            is_ca: false,
            key_usage: None,
            usages: None,
            weak_key: weakness(cert),
            spki_sha256: sha256(cert.public_key().raw),
            public_key: cert.public_key().subject_public_key.data.to_vec(),
            sha256: [0; 32],
        }
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) -> Result<(), Reason> {
        match extension {
            ParsedExtension::BasicConstraints(basic) => self.is_ca = basic.ca,
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage { key_cert_sign: usage.key_cert_sign(), crl_sign: usage.crl_sign() });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => self.usages = Some(usages(usage)),
            ParsedExtension::SubjectAlternativeName(san) => {
                san.general_names.iter().try_for_each(|name| self.name(name))?
            }
            ParsedExtension::ParseError { .. } => return Err(Reason::BadEncoding),
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, name: &GeneralName<'_>) -> Result<(), Reason> {
        let text = match name {
            GeneralName::DNSName(name) => {
                self.dns.push((*name).to_owned());
                (*name).to_owned()
            }
            GeneralName::URI(uri) => {
                self.uris.push((*uri).to_owned());
                (*uri).to_owned()
            }
            GeneralName::IPAddress(bytes) => ip_address(bytes).ok_or(Reason::BadEncoding)?,
            GeneralName::RFC822Name(name) => (*name).to_owned(),
            GeneralName::Invalid(..) => return Err(Reason::BadEncoding),
            _ => "(a name of another kind)".to_owned(),
        };
        self.sans.push(text);
        Ok(())
    }

    /// Whether it may sign certificates: never true of a leaf.
    pub(crate) fn can_sign(&self) -> bool {
        self.is_ca || self.key_usage.is_some_and(|usage| usage.key_cert_sign)
    }

    /// The certificate's SHA-256 as people compare it: lower-case hex, as `openssl x509 -fingerprint -sha256` without colons.
    pub(crate) fn fingerprint(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Serial and SANs, for logs. SANs are a peer's text: cut to a length and stripped of control characters.
    pub(crate) fn names(&self) -> LeafNames {
        let clean = |san: &String| san.chars().filter(|c| !c.is_control()).take(200).collect();
        LeafNames { serial: self.serial.clone(), sans: self.sans.iter().take(16).map(clean).collect() }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Lower-case, without the zero byte that DER puts before a high bit.
fn hex(bytes: &[u8]) -> String {
    let bytes = if bytes.len() > 1 { bytes.strip_prefix(&[0]).unwrap_or(bytes) } else { bytes };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    Usages { server_auth: usage.server_auth, client_auth: usage.client_auth }
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
