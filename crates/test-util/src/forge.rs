//! Certificates and chains as an attacker makes them: whatever DER can say, signed or not.
//!
//! 1. Nothing here checks what it writes. A [`Forged`] says what it is told to, twice or wrongly if need be; only the lengths are
//!    right, so that a parser reaches what it is to stumble over.
//! 2. An attacker has the private key of its own leaf and of no CA of ours. A signature that it cannot make is [`Forged::unsigned`]:
//!    of the right form and size, so that verifying it costs as much as verifying a good one.
//! 3. `chains` is what listeners and diallers are to refuse cheaply. Every chain of it fits into the 64 KiB that a handshake
//!    message may have.
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What all certificates of a chain may have together: a handshake message has 65,535 bytes, and so has all that a listener reads
/// before a handshake is over; the other messages need their part.
pub const ROOM: usize = 62_000;

const DAY: Duration = Duration::from_secs(86_400);

/// One element of DER.
#[must_use]
pub fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).expect("a length has at most eight bytes"));
            out.extend(bytes);
        }
    }
    content.iter().for_each(|part| out.extend_from_slice(part));
    out
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const TRUE: &[u8] = &[0x01, 0x01, 0xff];

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// id-kp-serverAuth, as it is encoded within an OID.
pub const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth.
pub const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// id-kp-codeSigning.
pub const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// id-kp-emailProtection.
pub const EMAIL_PROTECTION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 4];

/// A distinguished name of one CN.
#[must_use]
pub fn name(common_name: &str) -> Vec<u8> {
    let value = der(UTF8, &[common_name.as_bytes()]);
    der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &value])])])
}

/// The subject of the first certificate of a PEM file's text, as it is encoded.
///
/// # Panics
/// When there is no certificate.
#[must_use]
pub fn subject_of(pem: &str) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a PEM file with a certificate");
    let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
    certificate.subject().as_raw().to_vec()
}

/// A key, and what its certificates say of it.
#[derive(Debug)]
pub struct Key {
    pair: KeyPair,
    signs_with: &'static [u8],
}

impl Key {
    /// A new key on P-256.
    #[must_use]
    pub fn p256() -> Self {
        Self::of(&PKCS_ECDSA_P256_SHA256, ECDSA_SHA256)
    }

    /// A new key on P-521.
    #[must_use]
    pub fn p521() -> Self {
        Self::of(&PKCS_ECDSA_P521_SHA512, ECDSA_SHA512)
    }

    fn of(algorithm: &'static SignatureAlgorithm, signs_with: &'static [u8]) -> Self {
        Self { pair: KeyPair::generate_for(algorithm).expect("a key can be generated"), signs_with }
    }

    /// The CA's key that `meshctl certs init` left beside its certificate.
    ///
    /// # Panics
    /// When it is no key on P-256.
    #[must_use]
    pub fn of_pem(pem: &str) -> Self {
        Self { pair: KeyPair::from_pem(pem).expect("a private key"), signs_with: ECDSA_SHA256 }
    }

    /// The private key, to show a leaf with.
    #[must_use]
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    /// The private key, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    fn spki(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }
}

/// The public half of an RSA key of 8,192 bits that nobody has the private half of.
#[must_use]
pub fn rsa_8192_spki(seed: u8) -> Vec<u8> {
    let mut modulus = noise(seed, 1024);
    (modulus[0], modulus[1023]) = (0xf1, modulus[1023] | 1);
    let key = der(SEQUENCE, &[&der(INTEGER, &[&[0], &modulus]), &der(INTEGER, &[&[1, 0, 1]])]);
    let algorithm = der(SEQUENCE, &[&der(OID, &[RSA_ENCRYPTION]), &[0x05, 0]]);
    der(SEQUENCE, &[&algorithm, &der(BIT_STRING, &[&[0], &key])])
}

/// Bytes that repeat for nobody and are the same in each run.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A name in the SAN extension.
#[derive(Debug, Clone)]
pub enum San {
    /// dNSName, of any bytes.
    Dns(Vec<u8>),
    /// uniformResourceIdentifier, of any bytes.
    Uri(Vec<u8>),
}

impl San {
    /// A dNSName.
    #[must_use]
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.into())
    }

    /// A URI.
    #[must_use]
    pub fn uri(uri: &str) -> Self {
        Self::Uri(uri.into())
    }

    /// The two names of a node in `mesh.internal`.
    #[must_use]
    pub fn node(role: &str, node: &str) -> [Self; 2] {
        [Self::dns(&format!("{role}.mesh.internal")), Self::uri(&format!("spiffe://mesh.internal/{role}/{node}"))]
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Dns(bytes) => der(0x82, &[bytes]),
            Self::Uri(bytes) => der(0x86, &[bytes]),
        }
    }
}

/// How a certificate says that it is a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basic {
    NotCa,
    Ca,
    PathLen(u8),
}

/// A certificate to be.
#[derive(Debug, Clone)]
pub struct Forged {
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    basic: Basic,
    key_usage: bool,
    usages: Vec<&'static [u8]>,
    sans: Vec<San>,
    more: Vec<Vec<u8>>,
    ends_in: time::Duration,
}

impl Forged {
    fn new(subject: &[u8], issuer: &[u8], spki: Vec<u8>, basic: Basic) -> Self {
        let (sans, more, usages) = (Vec::new(), Vec::new(), Vec::new());
        let (issuer, subject) = (issuer.to_vec(), subject.to_vec());
        let ends_in = time::Duration::DAY;
        Self { serial: vec![1], issuer, subject, spki, basic, key_usage: true, usages, sans, more, ends_in }
    }

    /// A leaf with both usages. Names are encoded ones: see [`name`].
    #[must_use]
    pub fn leaf(subject: &[u8], issuer: &[u8], key: &Key) -> Self {
        Self::new(subject, issuer, key.spki(), Basic::NotCa).usages(&[SERVER_AUTH, CLIENT_AUTH])
    }

    /// A CA without a path length.
    #[must_use]
    pub fn ca(subject: &[u8], issuer: &[u8], key: &Key) -> Self {
        Self::new(subject, issuer, key.spki(), Basic::Ca)
    }

    /// A CA with this public key.
    #[must_use]
    pub fn ca_of(subject: &[u8], issuer: &[u8], spki: Vec<u8>) -> Self {
        Self::new(subject, issuer, spki, Basic::Ca)
    }

    /// A CA that no CA may follow beyond so many.
    #[must_use]
    pub fn path_len(mut self, most: u8) -> Self {
        self.basic = Basic::PathLen(most);
        self
    }

    /// CA:FALSE.
    #[must_use]
    pub fn not_ca(mut self) -> Self {
        self.basic = Basic::NotCa;
        self
    }

    /// Without the extension KeyUsage, which lets its key do anything.
    #[must_use]
    pub fn without_key_usage(mut self) -> Self {
        self.key_usage = false;
        self
    }

    /// This serial number, as it is encoded.
    #[must_use]
    pub fn serial(mut self, serial: &[u8]) -> Self {
        self.serial = serial.to_vec();
        self
    }

    /// These extended usages instead (encoded OIDs); none means no extension.
    #[must_use]
    pub fn usages(mut self, usages: &[&'static [u8]]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    /// More names.
    #[must_use]
    pub fn sans(mut self, sans: &[San]) -> Self {
        self.sans.extend_from_slice(sans);
        self
    }

    /// Over since an hour.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.ends_in = -time::Duration::HOUR;
        self
    }

    /// More extensions of nobody, each as small as an extension can be, until the certificate has `size` bytes.
    #[must_use]
    pub fn fat(mut self, size: usize) -> Self {
        let room = size.saturating_sub(self.clone().unsigned().len());
        // 2.5.29.x.y with a meaning to nobody; an extension is never there twice.
        let small = |n: usize| {
            let arcs = [0x55, 0x1d, 0x80 | (n >> 7 & 0x7f) as u8, (n & 0x7f) as u8];
            der(SEQUENCE, &[&der(OID, &[&arcs]), &der(OCTET_STRING, &[])])
        };
        self.more.extend((256..256 + room / small(0).len()).map(small));
        self
    }

    /// Signed by this key, whosever it is.
    ///
    /// # Panics
    /// When the key cannot sign.
    #[must_use]
    pub fn signed_by(&self, key: &Key) -> CertificateDer<'static> {
        let tbs = self.tbs(key.signs_with);
        let signature = key.pair.sign(&tbs).expect("a key signs");
        whole(&tbs, key.signs_with, &signature)
    }

    /// With a signature that fits nothing: ECDSA on P-256 by its form.
    #[must_use]
    pub fn unsigned(&self) -> CertificateDer<'static> {
        whole(&self.tbs(ECDSA_SHA256), ECDSA_SHA256, &ecdsa_noise(32))
    }

    /// With a signature that fits nothing: ECDSA on P-521 by its form.
    #[must_use]
    pub fn unsigned_p521(&self) -> CertificateDer<'static> {
        whole(&self.tbs(ECDSA_SHA512), ECDSA_SHA512, &ecdsa_noise(65))
    }

    /// With a signature that fits nothing: RSA of 8,192 bits by its form.
    #[must_use]
    pub fn unsigned_rsa_8192(&self) -> CertificateDer<'static> {
        let mut signature = noise(7, 1024);
        signature[0] = 1;
        whole(&self.tbs(RSA_SHA256), RSA_SHA256, &signature)
    }

    fn tbs(&self, algorithm: &[u8]) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let validity = der(SEQUENCE, &[&generalized(now - 2 * DAY), &generalized(now + self.ends_in)]);
        der(
            SEQUENCE,
            &[
                &der(0xa0, &[&der(INTEGER, &[&[2]])]),
                &der(INTEGER, &[&self.serial]),
                &algorithm_id(algorithm),
                &self.issuer,
                &validity,
                &self.subject,
                &self.spki,
                &der(0xa3, &[&der(SEQUENCE, &[&self.extensions()])]),
            ],
        )
    }

    fn extensions(&self) -> Vec<u8> {
        let basic = match self.basic {
            Basic::NotCa => der(SEQUENCE, &[]),
            Basic::Ca => der(SEQUENCE, &[TRUE]),
            Basic::PathLen(most) => der(SEQUENCE, &[TRUE, &der(INTEGER, &[&[most]])]),
        };
        let mut all = extension(BASIC_CONSTRAINTS, true, &basic);
        // keyCertSign and cRLSign, or digitalSignature.
        let usage: &[u8] = if self.basic == Basic::NotCa { &[7, 0x80] } else { &[1, 0x06] };
        if self.key_usage {
            all.extend(extension(KEY_USAGE, true, &der(BIT_STRING, &[usage])));
        }
        if !self.usages.is_empty() {
            let usages: Vec<u8> = self.usages.iter().flat_map(|usage| der(OID, &[usage])).collect();
            all.extend(extension(EXTENDED_KEY_USAGE, false, &der(SEQUENCE, &[&usages])));
        }
        if !self.sans.is_empty() {
            let names: Vec<u8> = self.sans.iter().flat_map(San::encode).collect();
            all.extend(extension(SUBJECT_ALT_NAME, false, &der(SEQUENCE, &[&names])));
        }
        all.extend(self.more.concat());
        all
    }
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { TRUE } else { &[] };
    der(SEQUENCE, &[&der(OID, &[oid]), critical, &der(OCTET_STRING, &[value])])
}

fn algorithm_id(oid: &[u8]) -> Vec<u8> {
    let parameters: &[u8] = if oid == RSA_SHA256 { &[0x05, 0] } else { &[] };
    der(SEQUENCE, &[&der(OID, &[oid]), parameters])
}

fn whole(tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> CertificateDer<'static> {
    der(SEQUENCE, &[tbs, &algorithm_id(algorithm), &der(BIT_STRING, &[&[0], signature])]).into()
}

/// Two numbers that are in range for the curve: a verifier does all of its work before it says no.
fn ecdsa_noise(size: usize) -> Vec<u8> {
    let number = |seed| {
        let mut bytes = noise(seed, size);
        bytes[0] = 0x3f;
        der(INTEGER, &[&bytes])
    };
    der(SEQUENCE, &[&number(3), &number(5)])
}

fn generalized(at: OffsetDateTime) -> Vec<u8> {
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    // RFC 5280 section 4.1.2.5: UTCTime until 2049.
    der(0x17, &[&text.as_bytes()[2..]])
}

/// DER as PEM.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64(certificate);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let value = chunk.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |at: usize| if at > chunk.len() { '=' } else { char::from(ALPHABET[value >> (18 - 6 * at) & 63]) };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A chain that somebody shows, and what it is.
#[derive(Debug, Clone)]
pub struct Shown {
    /// For messages.
    pub what: String,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Whose leaf a hostile chain begins with.
#[derive(Debug)]
pub struct Bearer<'a> {
    /// The key that the attacker has.
    pub key: &'a Key,
    /// The names that its leaf claims.
    pub sans: Vec<San>,
    /// The subject of a CA that the other side trusts, as it is encoded: everybody can read it off any certificate.
    pub trusted: Vec<u8>,
}

impl Bearer<'_> {
    fn leaf(&self, issuer: &[u8]) -> Forged {
        Forged::leaf(&name("nobody"), issuer, self.key).sans(&self.sans)
    }

    /// What honest people show whose CA nobody here knows: a leaf and one intermediate.
    #[must_use]
    pub fn stranger(&self) -> Shown {
        let (root, issuing) = (name("a stranger's root"), name("a stranger's issuing CA"));
        let (ca, root_key) = (Key::p256(), Key::p256());
        let leaf = self.leaf(&issuing).signed_by(&ca);
        let chain = vec![leaf, Forged::ca(&issuing, &root, &ca).signed_by(&root_key)];
        Shown { what: "a leaf and one intermediate of an unknown CA".into(), chain }
    }

    /// CAs of one name, each of which may have issued each other one, with as many extensions as fit into `room`.
    fn clique(&self, count: usize, room: usize, called: &[u8], what: &str) -> Shown {
        let size = room / count;
        let ca = || Forged::ca(called, called, &Key::p256()).fat(size).unsigned();
        let chain = std::iter::once(self.leaf(called).unsigned()).chain((0..count).map(|_| ca())).collect();
        Shown { what: format!("{count} CAs of one name, {what}"), chain }
    }

    /// The same with the largest keys that are verified.
    fn heavy(&self, count: usize) -> [Shown; 2] {
        let issuer = &self.trusted;
        let leaf = self.leaf(issuer);
        let of = |what: &str, leaf, ca: &dyn Fn(u8) -> CertificateDer<'static>| Shown {
            what: format!("{count} CAs of our CA's name with keys of {what}"),
            chain: std::iter::once(leaf).chain((0..count).map(|n| ca(n as u8))).collect(),
        };
        [
            of("P-521", leaf.unsigned_p521(), &|_| Forged::ca(issuer, issuer, &Key::p521()).unsigned_p521()),
            of("RSA-8192", leaf.unsigned_rsa_8192(), &|n| {
                Forged::ca_of(issuer, issuer, rsa_8192_spki(n)).unsigned_rsa_8192()
            }),
        ]
    }

    /// CAs of which each issued the one before, as many as fit.
    fn long(&self) -> Shown {
        let called = |n: usize| name(&format!("CA {n}"));
        let mut chain = vec![self.leaf(&called(0)).unsigned()];
        let key = Key::p256();
        while chain.iter().map(|der| der.len() + 5).sum::<usize>() < ROOM - 500 {
            let n = chain.len() - 1;
            chain.push(Forged::ca(&called(n), &called(n + 1), &key).unsigned());
        }
        Shown { what: format!("a chain of {}", chain.len()), chain }
    }

    fn fat(&self) -> [Shown; 4] {
        let issuer = name("a fat CA");
        let ca = || Forged::ca(&issuer, &name("root"), &Key::p256());
        let sans: Vec<San> = (0..2_300).map(|n| San::dns(&format!("name-{n:05}.mesh.internal"))).collect();
        let of = |what: &str, leaf: Forged, ca: Forged| Shown {
            what: what.into(),
            chain: vec![leaf.unsigned(), ca.unsigned()],
        };
        let serial = [&[1_u8][..], &noise(9, ROOM - 2_000)].concat();
        [
            of("a leaf with as many extensions as fit", self.leaf(&issuer).fat(ROOM - 600), ca()),
            of("an intermediate with as many extensions as fit", self.leaf(&issuer), ca().fat(ROOM - 600)),
            of("a leaf of 2,300 names", self.leaf(&issuer).sans(&sans), ca()),
            of("a serial number of 60 KB", self.leaf(&issuer).serial(&serial), ca()),
        ]
    }

    fn duplicated(&self) -> [Shown; 2] {
        let issuer = &self.trusted;
        let leaf = self.leaf(issuer).unsigned();
        let again = |ca: CertificateDer<'static>| {
            let count = (ROOM - leaf.len()) / (ca.len() + 5);
            let chain = std::iter::once(leaf.clone()).chain(std::iter::repeat_n(ca, count)).collect();
            Shown { what: format!("one intermediate {count} times"), chain }
        };
        let ca = Forged::ca(issuer, issuer, &Key::p256());
        [again(ca.unsigned()), again(ca.fat(6_000).unsigned())]
    }

    /// All of them.
    #[must_use]
    pub fn hostile(&self) -> Vec<Shown> {
        let (nobody, room) = (name("a CA of nobody"), ROOM - 700);
        let mut all: Vec<Shown> = [4, 5, 7, 9].map(|count| self.clique(count, room, &nobody, "as fat as fits")).into();
        all.push(self.clique(9, 4_000, &nobody, "in 4 KB"));
        all.push(self.clique(4, room, &self.trusted, "which is our CA's, as fat as fits"));
        all.push(self.clique(9, room, &self.trusted, "which is our CA's, as fat as fits"));
        all.extend(self.heavy(4));
        all.extend(self.heavy(9));
        all.push(self.long());
        all.extend(self.fat());
        all.extend(self.duplicated());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(key: &Key) -> Bearer<'_> {
        Bearer { key, sans: San::node("proxy", "proxy-1").into(), trusted: name("our CA") }
    }

    #[test]
    fn every_chain_parses_and_fits() {
        let key = Key::p256();
        let bearer = bearer(&key);
        for Shown { what, chain } in bearer.hostile().iter().chain([&bearer.stranger()]) {
            let size: usize = chain.iter().map(|der| der.len() + 5).sum();
            assert!(size < 64_500, "{what}: {size} bytes");
            for certificate in chain {
                let (rest, _) = X509Certificate::from_der(certificate).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(rest.is_empty(), "{what}");
                webpki_parses(certificate, what);
            }
        }
    }

    fn webpki_parses(certificate: &CertificateDer<'_>, what: &str) {
        // A root store parses by the code that verifies.
        let added = rustls::RootCertStore::empty().add(certificate.clone());
        assert!(added.is_ok(), "{what}: {added:?}");
    }

    #[test]
    fn a_signature_verifies() {
        let (key, ca) = (Key::p256(), Key::p256());
        let (issuer, subject) = (name("ca"), name("leaf"));
        let root = Forged::ca(&issuer, &issuer, &ca).signed_by(&ca);
        let leaf = Forged::leaf(&subject, &issuer, &key).signed_by(&ca);
        let (_, root) = X509Certificate::from_der(&root).expect("a certificate");
        let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
        assert_eq!((leaf.issuer().as_raw(), leaf.subject().as_raw()), (&issuer[..], &subject[..]));
        assert!(root.is_ca() && !leaf.is_ca());
    }

    #[test]
    fn pem_is_read_back() {
        let key = Key::p256();
        for size in [300, 301, 302] {
            let made =
                Forged::leaf(&name("a"), &name("b"), &key).fat(size + 100).serial(&vec![1; size % 7 + 1]).unsigned();
            assert_eq!(CertificateDer::from_pem_slice(pem(&made).as_bytes()).expect("PEM"), made);
        }
    }
}
