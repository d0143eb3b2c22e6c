//! A revocation list (RFC 5280, section 5), read once into an index of ours. Pure.
//!
//! 1. webpki judges the form: version 2, complete, direct, not split by reasons, no critical extension that is not
//!    understood, in the list and in each entry. What it keeps to itself is read beside it.
//! 2. Serial numbers lie sorted in one allocation: some 20 bytes an entry, and a look-up costs the same for 10 entries and
//!    for 100,000.
//! 3. Which CA below an anchor signed it is known only when a verified path leads through that CA: then it is taken down, and
//!    the list is proven.
//! 4. A signature over megabytes is verified once for each key, not at each look-up. What was found is remembered for a few
//!    keys; only keys that our anchors vouch for are asked about.
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::der::{self, Reader};
use super::facts::{CertificateFacts, sha256, system_time};
use crate::clock::rfc3339;
use crate::foreign;

/// The most entries of one list. A file within its limit has fewer, unless it is made to be costly.
pub(crate) const MOST_ENTRIES: usize = 2_000_000;
/// For how many keys a list remembers whether they signed it.
const REMEMBERED_KEYS: usize = 16;

const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];

/// Why a list cannot be used, in words of ours.
pub(crate) type Unusable = &'static str;

const UNREADABLE: Unusable = "it cannot be parsed";

/// A revocation list.
pub(crate) struct Crl {
    /// The issuer's distinguished name, for people.
    pub(crate) issuer: String,
    /// The same as it is encoded.
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: SystemTime,
    /// Of the list as it is encoded.
    pub(crate) sha256: [u8; 32],
    number: Option<Number>,
    authority_key: Option<Vec<u8>>,
    scope: Option<Scope>,
    serials: Serials,
    der: Box<[u8]>,
    signed: Signed,
    proven: Mutex<VecDeque<([u8; 32], bool)>>,
    prover: OnceLock<[u8; 32]>,
}

/// The number of a list (section 5.2.3), big-endian without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number(Vec<u8>);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 16 {
            return write!(f, "{}", self.0.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte)));
        }
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The certificates that a list speaks of (section 5.2.5), where it does not speak of all.
#[derive(Debug)]
struct Scope {
    /// The extension as it is encoded, which tells the parts of a list that is split from one another.
    der: Vec<u8>,
    only_leaves: bool,
    only_cas: bool,
    uris: Vec<Vec<u8>>,
}

/// Where the signed parts lie in the encoding.
struct Signed {
    message: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer)
            .field("number", &self.number)
            .field("entries", &self.serials.len())
            .finish_non_exhaustive()
    }
}

impl Crl {
    /// Reads a list. Its signature is not verified: see [`Self::is_signed_by`].
    pub(crate) fn read(der: Vec<u8>) -> Result<Self, Unusable> {
        let list = BorrowedCertRevocationList::from_der(&der).map_err(|error| words(&error))?;
        let serials = Serials::of(&list)?;
        let list = CertRevocationList::from(list);
        let scope = list.issuing_distribution_point().map(Scope::read).transpose()?;
        let parts = Parts::read(&der).ok_or(UNREADABLE)?;
        let (_, name) = X509Name::from_der(parts.issuer).map_err(|_| UNREADABLE)?;
        Ok(Self {
            issuer: foreign::name(&name.to_string()),
            issuer_der: parts.issuer.to_vec(),
            this_update: parts.this_update,
            next_update: parts.next_update,
            sha256: sha256(&der),
            number: parts.number.map(|number| Number(without_zeros(number).to_vec())),
            authority_key: parts.authority_key.map(<[u8]>::to_vec),
            scope,
            serials,
            signed: parts.signed,
            proven: Mutex::default(),
            prover: OnceLock::new(),
            der: der.into_boxed_slice(),
        })
    }

    /// The list as it is encoded.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// How many certificates it lists.
    pub(crate) fn entries(&self) -> usize {
        self.serials.len()
    }

    /// Its number, for people; a list may have none.
    pub(crate) fn number(&self) -> Option<&Number> {
        self.number.as_ref()
    }

    /// What tells its rank among the lists of one issuer, key and scope: the number, which names one list (section 5.2.3),
    /// so that of two with one number neither takes the place of the other. Lists without a number go by the time. They are
    /// below every list with one, for the order must be total.
    pub(crate) fn rank(&self) -> (Option<&Number>, Option<SystemTime>) {
        let time = self.number.is_none().then_some(self.this_update);
        (self.number.as_ref(), time)
    }

    /// Whether nothing is lost when `other`, of the same number, is in force without this one: it is younger, good for as long,
    /// and names every certificate that this one names.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let younger = other.this_update > self.this_update && other.next_update >= self.next_update;
        younger && !self.names_more_than(&[other])
    }

    /// Whether it names a certificate that none of `others` names.
    pub(crate) fn names_more_than(&self, others: &[&Self]) -> bool {
        let named = |serial| others.iter().any(|other| other.serials.holds(serial));
        (0..self.serials.len()).any(|at| !named(self.serials.get(at)))
    }

    #[cfg(test)]
    pub(crate) fn without_number(mut self) -> Self {
        self.number = None;
        self
    }

    /// The rank, for people.
    pub(crate) fn describe_rank(&self) -> String {
        let number = self.number.as_ref().map_or_else(|| "without a number".to_owned(), |n| format!("number {n}"));
        format!("{number}, of {}", rfc3339(self.this_update))
    }

    /// The issuer's name, and the part of a list that is split: lists in which these differ never supersede one another.
    pub(crate) fn series(&self) -> (&[u8], Option<&[u8]>) {
        (&self.issuer_der, self.scope.as_ref().map(|scope| scope.der.as_slice()))
    }

    /// The identifier of the key that it says signed it (section 5.2.1).
    pub(crate) fn authority_key(&self) -> Option<&[u8]> {
        self.authority_key.as_deref()
    }

    /// Whether `other` takes its place, as far as both say of themselves: whether one key signed them is another question.
    pub(crate) fn yields_to(&self, other: &Self) -> bool {
        self.series() == other.series() && self.authority_key == other.authority_key && self.rank() < other.rank()
    }

    /// Whether the next one should be here.
    pub(crate) fn is_late(&self, now: SystemTime) -> bool {
        now >= self.next_update
    }

    /// Whether it says nothing any more of who is good. Whom it lists it still lists.
    pub(crate) fn is_too_old(&self, now: SystemTime, grace: Duration) -> bool {
        self.next_update.checked_add(grace).is_some_and(|end| now >= end)
    }

    /// Whether it names the certificate. `serial` is the content of the DER integer.
    pub(crate) fn lists(&self, serial: &[u8]) -> bool {
        self.serials.holds(without_zeros(serial))
    }

    /// Whether it speaks of this certificate of its issuer, listed or not.
    pub(super) fn speaks_of(&self, certificate: &CertificateFacts, is_leaf: bool) -> bool {
        let Some(scope) = &self.scope else { return true };
        if (scope.only_cas && is_leaf) || (scope.only_leaves && !is_leaf) {
            return false;
        }
        let Some(points) = &certificate.crl_distribution_points else { return true };
        distribution_uris(points).any(|uri| scope.uris.iter().any(|own| own.as_slice() == uri))
    }

    /// Whether this CA, by name and by key, signed it. Two CAs may share a name, as after a roll-over.
    pub(crate) fn is_signed_by(&self, ca: &CertificateFacts) -> bool {
        if self.issuer_der != ca.subject_der {
            return false;
        }
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, signed)) = proven.iter().find(|(key, _)| *key == ca.spki_sha256) {
            return *signed;
        }
        // Under the lock: handshakes that come at once wait for one verification instead of doing it each.
        let signed = self.verify(&ca.spki);
        if proven.len() == REMEMBERED_KEYS {
            // The key that signed it is never forgotten: it is the one that is asked for.
            let oldest = proven.iter().position(|(_, signed)| !signed).unwrap_or(0);
            proven.remove(oldest);
        }
        proven.push_back((ca.spki_sha256, signed));
        signed
    }

    /// Takes down that a CA below an anchor of ours, of a path that was verified, signed it: the SHA-256 of the CA's SPKI.
    pub(crate) fn set_prover(&self, spki_sha256: [u8; 32]) {
        // One key alone signed it.
        let _ = self.prover.set(spki_sha256);
    }

    /// The key that [`Self::set_prover`] took down.
    pub(crate) fn prover(&self) -> Option<[u8; 32]> {
        self.prover.get().copied()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self, ca: &CertificateFacts) -> Option<bool> {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.iter().find(|(key, _)| *key == ca.spki_sha256).map(|(_, signed)| *signed)
    }

    fn verify(&self, spki: &[u8]) -> bool {
        let part = |range: &Range<usize>| self.der.get(range.clone()).unwrap_or_default();
        let Some((key_algorithm, key)) = split_key(spki) else { return false };
        let algorithm = part(&self.signed.algorithm);
        let fits = webpki::ALL_VERIFICATION_ALGS.iter().filter(|known| {
            known.signature_alg_id().as_ref() == algorithm && known.public_key_alg_id().as_ref() == key_algorithm
        });
        let (message, signature) = (part(&self.signed.message), part(&self.signed.signature));
        fits.into_iter().any(|known| known.verify_signature(key, message, signature).is_ok())
    }
}

impl Scope {
    fn read(der: &[u8]) -> Result<Self, Unusable> {
        let fields = Reader(der).tagged(der::SEQUENCE).ok_or(UNREADABLE)?;
        let mut scope = Self { der: der.to_vec(), only_leaves: false, only_cas: false, uris: Vec::new() };
        for field in Reader(fields.value) {
            match field.tag {
                0xa0 => scope.uris.extend(full_name_uris(field.value).map(<[u8]>::to_vec)),
                0x81 => scope.only_leaves = field.value != [0],
                0x82 => scope.only_cas = field.value != [0],
                _ => {}
            }
        }
        Ok(scope)
    }
}

/// The URIs of the distribution points (section 4.2.1.13) that neither another issuer nor a part of the reasons serves.
fn distribution_uris(extension: &[u8]) -> impl Iterator<Item = &[u8]> {
    let points = Reader(extension).tagged(der::SEQUENCE).map(|points| points.value).unwrap_or_default();
    Reader(points)
        .filter(|point| point.tag == der::SEQUENCE)
        .filter_map(|point| {
            let whole = Reader(point.value).all(|field| field.tag == 0xa0);
            Reader(point.value).next().filter(|_| whole).map(|name| full_name_uris(name.value))
        })
        .flatten()
}

/// Of a DistributionPointName.
fn full_name_uris(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = Reader(name).tagged(0xa0).map(|full| full.value).unwrap_or_default();
    Reader(names).filter(|name| name.tag == 0x86).map(|uri| uri.value)
}

/// Algorithm and key of a SubjectPublicKeyInfo.
fn split_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Reader(Reader(spki).tagged(der::SEQUENCE)?.value);
    let algorithm = fields.tagged(der::SEQUENCE)?.value;
    let key = fields.tagged(der::BIT_STRING)?.value.strip_prefix(&[0])?;
    Some((algorithm, key))
}

/// What webpki read too and keeps to itself.
struct Parts<'a> {
    issuer: &'a [u8],
    this_update: SystemTime,
    next_update: SystemTime,
    number: Option<&'a [u8]>,
    authority_key: Option<&'a [u8]>,
    signed: Signed,
}

impl<'a> Parts<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader(Reader(der).tagged(der::SEQUENCE)?.value);
        let tbs = outer.tagged(der::SEQUENCE)?;
        let algorithm = outer.tagged(der::SEQUENCE)?.value;
        let signature = outer.tagged(der::BIT_STRING)?.value.strip_prefix(&[0])?;
        let mut fields = Reader(tbs.value);
        fields.tagged(der::INTEGER)?;
        fields.tagged(der::SEQUENCE)?;
        let issuer = fields.tagged(der::SEQUENCE)?.raw;
        let this_update = time(fields.next()?.raw)?;
        let next_update = time(fields.next()?.raw)?;
        fields.tagged(der::SEQUENCE);
        let extensions = fields.tagged(0xa0).and_then(|tagged| Reader(tagged.value).tagged(der::SEQUENCE))?;
        let extension = |oid| Reader(extensions.value).find_map(|extension| value_of(extension.value, oid));
        let number = extension(CRL_NUMBER).and_then(|value| Reader(value).tagged(der::INTEGER));
        let authority_key = extension(AUTHORITY_KEY_IDENTIFIER)
            .and_then(|value| Reader(value).tagged(der::SEQUENCE))
            .and_then(|fields| Reader(fields.value).find(|field| field.tag == 0x80));
        let at = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        Some(Self {
            issuer,
            this_update,
            next_update,
            number: number.map(|number| number.value),
            authority_key: authority_key.map(|key| key.value),
            signed: Signed { message: at(tbs.raw), algorithm: at(algorithm), signature: at(signature) },
        })
    }
}

/// The value of an extension, if it is the one meant.
fn value_of<'a>(extension: &'a [u8], oid: &[u8]) -> Option<&'a [u8]> {
    let mut fields = Reader(extension);
    let found = fields.tagged(der::OBJECT_IDENTIFIER)?;
    (found.value == oid).then(|| fields.find(|field| field.tag == der::OCTET_STRING).map(|value| value.value)).flatten()
}

fn time(der: &[u8]) -> Option<SystemTime> {
    ASN1Time::from_der(der).ok().map(|(_, time)| system_time(time))
}

/// So that one number has one form: some write positive numbers without the zero that DER wants before a high bit.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn words(error: &webpki::Error) -> Unusable {
    use webpki::Error as E;
    match error {
        E::UnsupportedDeltaCrl => "it is a delta CRL",
        E::UnsupportedIndirectCrl => "it is an indirect CRL",
        E::UnsupportedCrlVersion => "it is not of version 2",
        E::UnsupportedCriticalExtension => "it has a critical extension that is not understood",
        E::UnsupportedRevocationReasonsPartitioning => "it is split by reasons",
        E::UnsupportedCrlIssuingDistributionPoint => "its issuing distribution point has no full name",
        _ => UNREADABLE,
    }
}

/// Serial numbers in their order, one after the other.
struct Serials {
    bytes: Box<[u8]>,
    ends: Box<[u32]>,
}

impl Serials {
    fn of(list: &BorrowedCertRevocationList<'_>) -> Result<Self, Unusable> {
        let mut found: Vec<&[u8]> = Vec::new();
        for entry in list {
            if found.len() == MOST_ENTRIES {
                return Err("it has more than 2,000,000 entries");
            }
            found.push(without_zeros(entry.map_err(|error| words(&error))?.serial_number));
        }
        found.sort_unstable();
        found.dedup();
        let mut bytes = Vec::with_capacity(found.iter().map(|serial| serial.len()).sum());
        let mut ends = Vec::with_capacity(found.len());
        for serial in found {
            bytes.extend_from_slice(serial);
            ends.push(u32::try_from(bytes.len()).map_err(|_| "it is too large")?);
        }
        Ok(Self { bytes: bytes.into_boxed_slice(), ends: ends.into_boxed_slice() })
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let start = at.checked_sub(1).map_or(0, end);
        self.bytes.get(start..end(at)).unwrap_or_default()
    }

    fn holds(&self, serial: &[u8]) -> bool {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(serial) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }
}
