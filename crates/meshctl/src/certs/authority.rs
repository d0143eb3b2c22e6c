//! What signs: a CA's certificate and key, and the leaves they make.
//!
//! 1. A leaf's validity begins five minutes ago, so that a peer whose clock lags accepts it, and never ends after its CA's.
//! 2. Serial numbers are derived from the new key, so no two leaves of a CA share one.
//! 3. It renews the leaves of its own CA, and of those in a `ca.pem` that root or the caller owns.
//! 4. Key bytes live in [`Issued`] only, which has no `Debug`.
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use internaltls::inspect::{self, KeyKind as Kind};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SanType, SerialNumber,
    SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::der;
use super::dir::Dir;
use super::proof;
use super::successor::{self, Template};

/// How long before now a leaf's validity begins.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// How long a new CA is valid.
pub const CA_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: small, fast, what the mesh uses.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// ECDSA on P-521.
    EcP521,
    /// Ed25519.
    Ed25519,
    /// RSA of 2,048 bits: what the Milvus documentation uses.
    Rsa2048,
    /// RSA of 3,072 bits.
    Rsa3072,
    /// RSA of 4,096 bits.
    Rsa4096,
    /// RSA of 8,192 bits.
    Rsa8192,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::EcP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::EcP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::EcP521 => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => ed25519(),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
            Self::Rsa8192 => rsa_8192(),
        }
    }

    /// The kind to make a key of that is like `found`, and whether it is the same size. `None` where none can be made.
    pub(super) fn like(found: &Kind) -> Option<(Self, bool)> {
        let sizes = [(2048, Self::Rsa2048), (3072, Self::Rsa3072), (4096, Self::Rsa4096), (8192, Self::Rsa8192)];
        Some(match found {
            Kind::P256 => (Self::EcP256, true),
            Kind::P384 => (Self::EcP384, true),
            Kind::P521 => (Self::EcP521, true),
            Kind::Ed25519 => (Self::Ed25519, true),
            Kind::Rsa(bits) => {
                let (size, kind) = sizes.into_iter().find(|(size, _)| bits <= size)?;
                (kind, *bits == size)
            }
            _ => return None,
        })
    }

    fn usages(self) -> Vec<KeyUsagePurpose> {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 | Self::Rsa8192 => {
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
            }
            _ => vec![KeyUsagePurpose::DigitalSignature],
        }
    }
}

/// As PKCS#8 of version 1, the only one that OpenSSL reads; rcgen writes version 2.
fn ed25519() -> Result<KeyPair, rcgen::Error> {
    use aws_lc_rs::signature::Ed25519KeyPair;
    let made = Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1());
    KeyPair::try_from(made.map_err(|_| rcgen::Error::RingUnspecified)?.as_ref())
}

/// The largest size that TLS here takes, and rcgen has no name for.
fn rsa_8192() -> Result<KeyPair, rcgen::Error> {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair as Rsa, KeySize};
    let made = Rsa::generate(KeySize::Rsa8192).and_then(|key| key.as_der());
    KeyPair::try_from(made.map_err(|_| rcgen::Error::RingUnspecified)?.as_ref())
}

/// What a leaf is to say.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its subject.
    pub subject: DistinguishedName,
    /// Its names.
    pub sans: Vec<SanType>,
    /// What it may be used for.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// The kind of its key.
    pub key: KeyKind,
}

/// A certificate with its key, not yet on disk.
#[expect(missing_debug_implementations, reason = "holds a private key; nothing may print it by accident")]
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The end of its validity.
    pub not_after: OffsetDateTime,
}

/// A CA that can sign.
#[expect(missing_debug_implementations, reason = "holds a private key; nothing may print it by accident")]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its subject as it is encoded.
    subject: Vec<u8>,
    cert_pem: String,
    /// The CAs of which it renews leaves: itself first.
    vouch: Vec<CertificateDer<'static>>,
    not_after: OffsetDateTime,
}

impl Authority {
    /// A new CA named `name`: may sign certificates and CRLs, and no CA below itself.
    ///
    /// # Errors
    /// When the key cannot be generated.
    pub fn create(name: &str, key: KeyKind, now: OffsetDateTime) -> anyhow::Result<Self> {
        Self::create_as(common_name(name), key, now)
    }

    /// As [`Self::create`], under any subject.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_as(subject: DistinguishedName, key: KeyKind, now: OffsetDateTime) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATE;
        params.not_after = now + CA_LIFETIME;
        let not_after = params.not_after;
        let key = key.generate()?;
        let cert = params.self_signed(&key)?;
        let subject = successor::subject_of(cert.der())?;
        let vouch = vec![cert.der().clone()];
        Ok(Self { issuer: Issuer::new(params, key), subject, cert_pem: cert.pem(), vouch, not_after })
    }

    /// The CA whose `ca.pem` and `ca.key` lie in `folder`.
    ///
    /// # Errors
    /// When either cannot be read, when they do not belong together, when the CA has expired, or when the key belongs to another user
    /// than root, the caller and the folder's owner.
    pub fn load(folder: &Path, now: OffsetDateTime) -> anyhow::Result<Self> {
        let dir = Dir::open(folder)?;
        Self::load_in(&dir, folder, dir.owner()?, now)
    }

    /// As [`Self::load`], from a folder that is open; `folder` is for the messages. The key may be `owner`'s, whose folder the caller
    /// named, and no other user's.
    pub(super) fn load_in(dir: &Dir, folder: &Path, owner: u32, now: OffsetDateTime) -> anyhow::Result<Self> {
        let (cert_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        let bundle = dir.read(OsStr::new("ca.pem"))?;
        let mut vouch = inspect::certificates_in(&cert_path, &bundle.bytes)?;
        let der = vouch.first().with_context(|| format!("{} holds no certificate", cert_path.display()))?.clone();
        if !bundle.is_trusted() {
            // Whoever owns the file may add to it; the first is held to the key.
            vouch.truncate(1);
        }
        let cert_pem = String::from_utf8(bundle.bytes)
            .map_err(|_| anyhow::anyhow!("{} is no text; it must hold PEM", cert_path.display()))?;
        let facts = Facts::read(&der, &cert_path)?;
        ensure!(
            now <= facts.not_after,
            "the CA in {} expired on {}; make a new set of certificates with `meshctl certs init`",
            cert_path.display(),
            date(facts.not_after)
        );
        let key = dir.read(OsStr::new("ca.key"))?;
        ensure!(
            key.is_of(owner),
            "{} belongs to neither root nor the caller nor the owner of the folder that was named, so its owner would choose what is signed here; run this as its owner, or give the \
             key to root (chown root) and keep it out of folders of services",
            key_path.display()
        );
        let key = proof::private_key(&key.bytes).and_then(|key| KeyPair::try_from(&key).ok()).with_context(|| {
            format!(
                "{} holds no private key that can sign; it must be PEM, RSA or ECDSA, not encrypted",
                key_path.display()
            )
        })?;
        ensure!(
            key.subject_public_key_info() == facts.spki,
            "{} is not the key of {}; put back the pair that was made together",
            key_path.display(),
            cert_path.display()
        );
        let subject = successor::subject_of(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, subject, cert_pem, vouch, not_after: facts.not_after })
    }

    /// Renews leaves of `ca` too: the one that goes in a roll-over.
    pub(crate) fn vouch_for(&mut self, ca: CertificateDer<'static>) {
        self.vouch.push(ca);
    }

    /// The CAs of which it renews leaves.
    pub(super) fn vouched(&self) -> &[CertificateDer<'static>] {
        &self.vouch
    }

    /// Signs a leaf, with a new key, valid until `valid_for` from `now` or the end of this CA.
    ///
    /// # Errors
    /// When the key cannot be generated or the request holds what no certificate can.
    pub fn issue(&self, request: &Request, valid_for: Duration, now: OffsetDateTime) -> anyhow::Result<Issued> {
        self.sign(request, request.key.generate()?, now - BACKDATE, now + valid_for)
    }

    /// Signs the successor of a leaf, with a new key of the same kind, valid until `valid_for` from `now` or the end of this CA.
    ///
    /// # Errors
    /// When no such key can be made here.
    pub fn succeed(&self, template: &mut Template, valid_for: Duration, now: OffsetDateTime) -> anyhow::Result<Issued> {
        let key = template.key()?.generate()?;
        let mut params = CertificateParams::default();
        // For the key identifiers, which it takes from this draft.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATE;
        params.not_after = (now + valid_for).min(self.not_after);
        let draft = params.signed_by(&key, &self.issuer)?;
        let tbs = template.tbs(draft.der(), &self.subject).context("the draft of a leaf cannot be parsed")?;
        let algorithm = successor::algorithm_of(draft.der()).context("the draft of a leaf cannot be parsed")?;
        let signed = successor::certificate(&tbs, algorithm, &self.issuer.key().sign(&tbs)?);
        let facts = Facts::read(&signed, Path::new("the new leaf"))?;
        Ok(Issued {
            cert_pem: der::pem("CERTIFICATE", &signed),
            key_pem: key.serialize_pem(),
            serial: facts.serial,
            not_after: facts.not_after,
        })
    }

    /// Whether it issued the certificate that `template` is of, by name.
    pub(super) fn issued(&self, template: &Template) -> bool {
        template.issuer == self.subject
    }

    /// Signs a leaf for a key that exists, with exactly this validity, as long as the CA's does not end before.
    ///
    /// # Errors
    /// When the key cannot be read or the request holds what no certificate can.
    pub fn reissue(
        &self,
        request: &Request,
        key: &PrivateKeyDer<'_>,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> anyhow::Result<Issued> {
        self.sign(request, KeyPair::try_from(key)?, not_before, not_after)
    }

    fn sign(
        &self,
        request: &Request,
        key: KeyPair,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> anyhow::Result<Issued> {
        let mut params = CertificateParams::default();
        params.distinguished_name = request.subject.clone();
        params.subject_alt_names.clone_from(&request.sans);
        params.extended_key_usages.clone_from(&request.usages);
        params.key_usages = request.key.usages();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before;
        params.not_after = not_after.min(self.not_after);
        let cert = params.signed_by(&key, &self.issuer)?;
        let facts = Facts::read(cert.der(), Path::new("the new leaf"))?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            serial: facts.serial,
            not_after: facts.not_after,
        })
    }

    /// A revocation list that revokes nothing, PEM, to be replaced by the next one within `good_for`.
    ///
    /// # Errors
    /// When this CA may not sign lists.
    pub fn empty_crl(&self, good_for: Duration, now: OffsetDateTime) -> anyhow::Result<String> {
        let list = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + good_for,
            crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// Its certificate, PEM: what peers are given to trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// What is read off a certificate on disk.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The end of its validity.
    pub not_after: OffsetDateTime,
    /// The public key, DER.
    pub spki: Vec<u8>,
    /// What can be said again with other words: names of the usual kinds, usages for TLS. [`Template`] has all of it.
    pub request: Request,
}

impl Facts {
    /// Reads `der`; `path` is for the message.
    ///
    /// # Errors
    /// When it is not a certificate.
    pub fn read(der: &[u8], path: &Path) -> anyhow::Result<Self> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| {
            anyhow::anyhow!("{} holds a certificate that cannot be parsed; make it again", path.display())
        })?;
        Ok(Self {
            serial: hex(cert.raw_serial()),
            not_after: cert.validity().not_after.to_datetime(),
            spki: cert.public_key().raw.to_vec(),
            request: Request {
                subject: subject_of(&cert),
                sans: sans_of(&cert),
                usages: usages_of(&cert),
                key: key_kind_of(&CertificateDer::from(der)),
            },
        })
    }

    /// The first certificate of the file at `path`.
    ///
    /// # Errors
    /// As [`Self::read`], and when the file cannot be read.
    pub fn of_file(path: &Path) -> anyhow::Result<Self> {
        Self::read(&first_certificate(path)?, path)
    }
}

/// A subject that is one CN. Nothing reads a role or a host name from it.
#[must_use]
pub fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// `name` as a SAN: an address where it is one, else a DNS name.
///
/// # Errors
/// When it has characters that no DNS name has.
pub fn san(name: &str) -> anyhow::Result<SanType> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
    ensure!(
        fits,
        "`{name}` is neither a DNS name nor an IP address; give --san names such as db.example.com or 192.0.2.7"
    );
    Ok(SanType::DnsName(name.try_into()?))
}

/// Day and time as everything here prints it: RFC 3339, UTC.
#[must_use]
pub fn date(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .replace_nanosecond(0)
        .unwrap_or(at)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| at.unix_timestamp().to_string())
}

pub(super) fn first_certificate(path: &Path) -> anyhow::Result<CertificateDer<'static>> {
    inspect::certificates(path)?.into_iter().next().with_context(|| format!("{} holds no certificate", path.display()))
}

fn subject_of(cert: &X509Certificate<'_>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for attribute in cert.subject().iter_attributes() {
        if let (Some(oid), Ok(value)) = (attribute.attr_type().iter(), attribute.as_str()) {
            subject.push(DnType::from_oid(&oid.collect::<Vec<_>>()), value);
        }
    }
    subject
}

fn sans_of(cert: &X509Certificate<'_>) -> Vec<SanType> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(san_of).collect()
}

fn san_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<SanType> {
    use x509_parser::extensions::GeneralName;
    Some(match name {
        GeneralName::DNSName(name) => SanType::DnsName((*name).try_into().ok()?),
        GeneralName::URI(name) => SanType::URI((*name).try_into().ok()?),
        GeneralName::RFC822Name(name) => SanType::Rfc822Name((*name).try_into().ok()?),
        GeneralName::IPAddress(octets) => SanType::IpAddress(address(octets)?),
        _ => return None,
    })
}

fn address(octets: &[u8]) -> Option<std::net::IpAddr> {
    match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
        (Ok(v4), _) => Some(v4.into()),
        (_, Ok(v6)) => Some(v6.into()),
        _ => None,
    }
}

fn usages_of(cert: &X509Certificate<'_>) -> Vec<ExtendedKeyUsagePurpose> {
    let Ok(Some(extension)) = cert.extended_key_usage() else { return Vec::new() };
    let named = [
        (extension.value.any, ExtendedKeyUsagePurpose::Any),
        (extension.value.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
        (extension.value.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    named.into_iter().filter_map(|(has, usage)| has.then_some(usage)).collect()
}

fn key_kind_of(cert: &CertificateDer<'_>) -> KeyKind {
    Kind::of(cert).and_then(|kind| KeyKind::like(&kind)).map_or(KeyKind::EcP256, |(kind, _)| kind)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
