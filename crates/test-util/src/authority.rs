//! A CA that signs leaves of any kind, fit and unfit.
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long before now a leaf's validity begins.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// How long a leaf is valid unless it says otherwise.
const DAY: Duration = Duration::from_secs(86_400);

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA of 2,048 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// What a leaf may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// serverAuth.
    Server,
    /// clientAuth.
    Client,
    /// codeSigning, which fits nothing here.
    CodeSigning,
}

/// What a leaf is to say.
#[derive(Debug, Clone)]
pub struct Leaf {
    name: String,
    sans: Vec<SanType>,
    usages: Vec<Usage>,
    key: Key,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    ca: bool,
}

impl Leaf {
    /// A leaf with this CN, both usages, valid for a day, without any SAN.
    #[must_use]
    pub fn nameless(name: &str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            name: name.into(),
            sans: Vec::new(),
            usages: vec![Usage::Server, Usage::Client],
            key: Key::Ecdsa,
            not_before: now - BACKDATE,
            not_after: now + DAY,
            ca: false,
        }
    }

    /// The leaf of a node in the trust domain `mesh.internal`.
    #[must_use]
    pub fn node(role: &str, node: &str) -> Self {
        Self::nameless(node).dns(&format!("{role}.mesh.internal")).uri(&format!("spiffe://mesh.internal/{role}/{node}"))
    }

    /// A server leaf for `localhost` and both loopback addresses.
    #[must_use]
    pub fn edge_server() -> Self {
        let mut leaf = Self::nameless("localhost").dns("localhost").usages(&[Usage::Server]);
        leaf.sans.extend(["127.0.0.1", "::1"].map(|ip| SanType::IpAddress(ip.parse().expect("an address"))));
        leaf
    }

    /// A leaf that a client shows at the edge.
    #[must_use]
    pub fn edge_client() -> Self {
        Self::nameless("localhost").dns("localhost").usages(&[Usage::Client])
    }

    /// One more DNS SAN.
    #[must_use]
    pub fn dns(mut self, name: &str) -> Self {
        self.sans.push(SanType::DnsName(name.try_into().expect("a DNS name is ASCII")));
        self
    }

    /// One more URI SAN.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.sans.push(SanType::URI(uri.try_into().expect("a URI is ASCII")));
        self
    }

    /// These usages instead; none means no extension.
    #[must_use]
    pub fn usages(mut self, usages: &[Usage]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    /// This kind of key instead of ECDSA.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    /// Valid from five minutes ago until `valid` from now.
    #[must_use]
    pub fn valid_for(mut self, valid: Duration) -> Self {
        self.not_after = OffsetDateTime::now_utc() + valid;
        self
    }

    /// Valid until a minute ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.not_after = OffsetDateTime::now_utc() - Duration::from_secs(60);
        self
    }

    /// Valid from an hour hence.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        self.not_before = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
        self
    }

    /// Marked as a CA.
    #[must_use]
    pub fn marked_as_ca(mut self) -> Self {
        self.ca = true;
        self
    }

    /// Whether it is for the edge: it names no role.
    #[must_use]
    pub fn is_of_edge(&self) -> bool {
        !self.sans.iter().any(|san| matches!(san, SanType::URI(_)))
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.name.as_str());
        params.subject_alt_names.clone_from(&self.sans);
        params.extended_key_usages = self.usages.iter().copied().map(Usage::purpose).collect();
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params
    }
}

impl Usage {
    fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Self::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
        }
    }
}

impl Key {
    fn generate(self) -> KeyPair {
        let algorithm = match self {
            Self::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Self::Rsa => &PKCS_RSA_SHA256,
            Self::Ed25519 => &PKCS_ED25519,
        };
        KeyPair::generate_for(algorithm).expect("a key can be generated")
    }
}

/// A certificate and its key, PEM.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds a private key")]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS#8.
    pub key: String,
}

impl Pair {
    /// The serial number, lower-case hex.
    #[must_use]
    pub fn serial(&self) -> String {
        serial_of_pem(self.cert.as_bytes())
    }

    /// The SHA-256 of its public key, as a distrust list names it.
    ///
    /// # Panics
    /// Never: it was made here.
    #[must_use]
    pub fn spki_sha256(&self) -> String {
        use aws_lc_rs::digest::{SHA256, digest};
        let der = der_of_pem(self.cert.as_bytes());
        let (_, cert) = X509Certificate::from_der(&der).expect("a certificate");
        digest(&SHA256, cert.public_key().raw).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes `STEM.pem` and `STEM.key` (0600) into `folder`, which is made.
    pub fn write(&self, folder: &Path, stem: &str) {
        write_public(&folder.join(format!("{stem}.pem")), &self.cert);
        write_secret(&folder.join(format!("{stem}.key")), &self.key);
    }
}

/// A CA.
#[expect(missing_debug_implementations, reason = "holds a private key")]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
    name: String,
}

impl Authority {
    /// A new CA of this name, which signs leaves alone.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::self_signed(name, BasicConstraints::Constrained(0))
    }

    /// A new CA of this name, which may sign CAs.
    #[must_use]
    pub fn root(name: &str) -> Self {
        Self::self_signed(name, BasicConstraints::Unconstrained)
    }

    fn self_signed(name: &str, constraints: BasicConstraints) -> Self {
        let (params, key) = (ca_params(name, constraints), Key::Ecdsa.generate());
        let cert = params.self_signed(&key).expect("a CA can sign itself").pem();
        Self { issuer: Issuer::new(params, key), cert, name: name.into() }
    }

    /// A new CA of this name that this one signed. Its leaves are shown with its certificate behind them.
    ///
    /// # Panics
    /// Never: a CA can sign.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (ca_params(name, BasicConstraints::Constrained(0)), Key::Ecdsa.generate());
        let cert = params.signed_by(&key, &self.issuer).expect("a CA can be signed").pem();
        Self { issuer: Issuer::new(params, key), cert, name: name.into() }
    }

    /// The CA of a certificate and a key on disk, as PEM. Its name is not read.
    ///
    /// # Panics
    /// When they are none.
    #[must_use]
    pub fn load(cert: &str, key: &str) -> Self {
        let key = KeyPair::from_pem(key).expect("a CA's private key");
        let issuer = Issuer::from_ca_cert_pem(cert, key).expect("a CA's certificate");
        Self { issuer, cert: cert.into(), name: String::new() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CA's own certificate, PEM.
    #[must_use]
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// The CA's own key, PEM.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A revocation list of leaves that it signed, PEM, good for a day.
    #[must_use]
    pub fn crl(&self, revoked: &[&Pair]) -> String {
        self.numbered_crl(revoked, OffsetDateTime::now_utc().unix_timestamp().unsigned_abs())
    }

    /// The same with this CRL number.
    #[must_use]
    pub fn numbered_crl(&self, revoked: &[&Pair], number: u64) -> String {
        let now = OffsetDateTime::now_utc();
        let entry = |pair: &&Pair| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial_bytes(&pair.cert)),
            revocation_time: now - BACKDATE,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + DAY,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("a CA can sign its list");
        signed.pem().expect("a list can be written as PEM")
    }

    /// Signs a leaf with a new key.
    #[must_use]
    pub fn sign(&self, leaf: &Leaf) -> Pair {
        self.sign_key(leaf, leaf.key.generate())
    }

    /// Signs a leaf with the key of another.
    ///
    /// # Panics
    /// When that is no key.
    #[must_use]
    pub fn sign_again(&self, leaf: &Leaf, key_of: &Pair) -> Pair {
        self.sign_key(leaf, KeyPair::from_pem(&key_of.key).expect("a private key"))
    }

    fn sign_key(&self, leaf: &Leaf, key: KeyPair) -> Pair {
        let cert = leaf.params().signed_by(&key, &self.issuer).expect("a leaf can be signed").pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// Writes `ca.pem`, and the leaf as `server.pem` and `server.key`, into `folder`.
    pub fn write_node(&self, folder: &Path, leaf: &Leaf) -> Pair {
        let pair = self.sign(leaf);
        pair.write(folder, "server");
        write_public(&folder.join("ca.pem"), &self.cert);
        pair
    }
}

fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATE;
    params.not_after = now + 3_650 * DAY;
    params
}

/// The serial number of the first certificate of a PEM file, lower-case hex without leading zeros.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn serial_of_file(path: &Path) -> String {
    serial_of_pem(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The serial number of a certificate, lower-case hex without leading zeros.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn serial_of_der(der: &[u8]) -> String {
    let (_, cert) = X509Certificate::from_der(der).expect("a certificate");
    plain_serial(&cert.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A serial number as all sides can compare it: lower-case hex, no colons, no leading zeros.
#[must_use]
pub fn plain_serial(text: &str) -> String {
    text.replace(':', "").to_ascii_lowercase().trim_start_matches('0').to_owned()
}

fn serial_of_pem(pem: &[u8]) -> String {
    serial_of_der(&der_of_pem(pem))
}

fn serial_bytes(pem: &str) -> Vec<u8> {
    let der = der_of_pem(pem.as_bytes());
    let (_, cert) = X509Certificate::from_der(&der).expect("a certificate");
    cert.tbs_certificate.raw_serial().iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn der_of_pem(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("a PEM file with a certificate")
}

/// Writes a file that everybody may read; its folder is made.
///
/// # Panics
/// When it cannot be written.
pub fn write_public(path: &Path, text: &str) {
    write(path, text, 0o644);
}

/// Writes a file that only its owner may read; its folder is made.
///
/// # Panics
/// When it cannot be written.
pub fn write_secret(path: &Path, text: &str) {
    write(path, text, 0o600);
}

fn write(path: &Path, text: &str, mode: u32) {
    use std::io::Write;
    let folder = path.parent().expect("a file lies in a folder");
    if !folder.exists() {
        fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("the folder is ours");
    }
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
