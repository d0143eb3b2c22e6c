//! The outline of a certificate that somebody sent: where its parts are, found by one walk over its tags and lengths.
//!
//! 1. Nothing is decoded and nothing is copied. It costs a few steps a part, whatever the parts hold, so it comes before
//!    every parser that builds something.
//! 2. The limits on one certificate are here (invariant 8): its size, its names, its extensions. What is beyond one of them
//!    goes to no parser.
//! 3. It decides what is looked at, never what is accepted: each path that counts goes through webpki as well.
use rustls::pki_types::CertificateDer;

use crate::error::Reason;

/// Bytes of one certificate. One of ML-DSA-87 has some 7,500.
const CERTIFICATE: usize = 16 * 1024;
/// Bytes of a distinguished name.
const DISTINGUISHED_NAME: usize = 2 * 1024;
/// RFC 5280 section 4.1.2.2. One more for the zero octet before a high bit.
const SERIAL: usize = 20 + 1;
/// Extensions of one certificate.
const EXTENSIONS: usize = 32;
/// Bytes of all extensions of one certificate.
const EXTENSION_BYTES: usize = 8 * 1024;
/// Names in its subject alternative name.
const NAMES: usize = 256;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const VERSION: u8 = 0xa0;
const ISSUER_UID: u8 = 0x81;
const SUBJECT_UID: u8 = 0x82;
const EXTENSIONS_FIELD: u8 = 0xa3;
const KEY_IDENTIFIER: u8 = 0x80;

const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 14];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];

/// Where the parts of a certificate are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline<'a> {
    /// The whole of it.
    pub(super) der: &'a [u8],
    /// What is signed, with its tag.
    pub(super) tbs: &'a [u8],
    /// The AlgorithmIdentifier of the signature, without its tag.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    /// With their tags.
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// The SubjectPublicKeyInfo without its tag, as webpki's anchors have it.
    pub(super) spki: &'a [u8],
    pub(super) subject_key_id: Option<&'a [u8]>,
    pub(super) authority_key_id: Option<&'a [u8]>,
}

impl<'a> Outline<'a> {
    /// # Errors
    /// [`Reason::BadEncoding`] where it is no certificate, [`Reason::OverLimit`] where it is beyond a limit.
    pub(super) fn read(certificate: &'a CertificateDer<'_>) -> Result<Self, Reason> {
        let der: &'a [u8] = certificate.as_ref();
        within(der.len(), CERTIFICATE, "bytes of a certificate")?;
        let mut parts = Tags(der).only(SEQUENCE)?;
        let tbs = parts.expect(SEQUENCE)?;
        let algorithm = parts.expect(SEQUENCE)?.value;
        let signature = parts.bits()?;
        parts.end()?;
        Self { der, tbs: tbs.whole, algorithm, signature, ..Self::of_tbs(tbs.value)? }.bounded()
    }

    fn of_tbs(tbs: &'a [u8]) -> Result<Self, Reason> {
        let mut fields = Tags(tbs);
        fields.optional(VERSION)?;
        let serial = fields.expect(INTEGER)?.value;
        if serial.len() > SERIAL || (serial.len() == SERIAL && serial[0] != 0) {
            return Err(Reason::BadEncoding);
        }
        fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?.whole;
        fields.expect(SEQUENCE)?;
        let subject = fields.expect(SEQUENCE)?.whole;
        let spki = fields.expect(SEQUENCE)?.value;
        fields.optional(ISSUER_UID)?;
        fields.optional(SUBJECT_UID)?;
        let extensions = fields.optional(EXTENSIONS_FIELD)?;
        fields.end()?;
        let empty = Self {
            der: &[],
            tbs: &[],
            algorithm: &[],
            signature: &[],
            issuer,
            subject,
            spki,
            subject_key_id: None,
            authority_key_id: None,
        };
        extensions.map_or(Ok(empty), |list| empty.with_extensions(list))
    }

    fn bounded(self) -> Result<Self, Reason> {
        for name in [self.issuer, self.subject] {
            within(name.len(), DISTINGUISHED_NAME, "bytes of a distinguished name")?;
        }
        Ok(self)
    }

    fn with_extensions(mut self, list: &'a [u8]) -> Result<Self, Reason> {
        within(list.len(), EXTENSION_BYTES, "bytes of extensions in a certificate")?;
        let mut extensions = Tags(list).only(SEQUENCE)?;
        let mut count = 0;
        while !extensions.0.is_empty() {
            let mut extension = Tags(extensions.expect(SEQUENCE)?.value);
            let oid = extension.expect(OID)?.value;
            extension.optional(BOOLEAN)?;
            let value = extension.expect(OCTET_STRING)?.value;
            extension.end()?;
            count += 1;
            within(count, EXTENSIONS, "extensions in a certificate")?;
            match oid {
                SUBJECT_ALT_NAME => within(Tags(value).only(SEQUENCE)?.count(), NAMES, "names in a certificate")?,
                SUBJECT_KEY_IDENTIFIER => {
                    self.subject_key_id = Tags(value).expect(OCTET_STRING).ok().map(|id| id.value)
                }
                AUTHORITY_KEY_IDENTIFIER => self.authority_key_id = authority_key_id(value),
                _ => {}
            }
        }
        Ok(self)
    }

    /// Its key by itself: the AlgorithmIdentifier without its tag, and the bits.
    pub(super) fn key(spki: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let mut parts = Tags(spki);
        Some((parts.expect(SEQUENCE).ok()?.value, parts.bits().ok()?))
    }
}

/// The keyIdentifier of an AuthorityKeyIdentifier. It is a hint, so what cannot be read is none.
fn authority_key_id(value: &[u8]) -> Option<&[u8]> {
    let id = Tags(value).only(SEQUENCE).ok()?.optional(KEY_IDENTIFIER).ok()?;
    id.filter(|id| !id.is_empty())
}

/// Whether it is one SEQUENCE from the first octet to the last.
pub(super) fn is_sequence(der: &[u8]) -> bool {
    Tags(der).only(SEQUENCE).is_ok()
}

pub(super) fn within(count: usize, limit: usize, what: &'static str) -> Result<(), Reason> {
    if count > limit { Err(Reason::OverLimit { what, limit }) } else { Ok(()) }
}

/// What is left of a run of DER values.
#[derive(Clone, Copy)]
struct Tags<'a>(&'a [u8]);

struct Value<'a> {
    tag: u8,
    whole: &'a [u8],
    value: &'a [u8],
}

impl<'a> Tags<'a> {
    /// The next value: a tag of one octet and a length in its shortest form (X.690 section 10.1), of three octets at most.
    fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, header) = match first {
            ..=0x7f => (usize::from(first), 2),
            0x81 => (usize::from(*rest.first()?), 3),
            0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), 4),
            _ => return None,
        };
        let shortest = match header {
            2 => true,
            3 => length > 0x7f,
            _ => length > 0xff,
        };
        if !shortest || tag & 0x1f == 0x1f {
            return None;
        }
        let (whole, rest) = self.0.split_at_checked(header + length)?;
        self.0 = rest;
        Some(Value { tag, whole, value: &whole[header..] })
    }

    fn expect(&mut self, tag: u8) -> Result<Value<'a>, Reason> {
        self.next().filter(|value| value.tag == tag).ok_or(Reason::BadEncoding)
    }

    fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Reason> {
        if self.0.first() == Some(&tag) { self.expect(tag).map(|value| Some(value.value)) } else { Ok(None) }
    }

    /// What is inside the one value that all of it is.
    fn only(mut self, tag: u8) -> Result<Self, Reason> {
        let value = self.expect(tag)?.value;
        self.end()?;
        Ok(Self(value))
    }

    /// A BIT STRING of whole octets.
    fn bits(&mut self) -> Result<&'a [u8], Reason> {
        match self.expect(BIT_STRING)?.value {
            [0, bits @ ..] => Ok(bits),
            _ => Err(Reason::BadEncoding),
        }
    }

    fn end(&self) -> Result<(), Reason> {
        if self.0.is_empty() { Ok(()) } else { Err(Reason::BadEncoding) }
    }

    /// How many values there are; what is garbled ends them.
    fn count(mut self) -> usize {
        std::iter::from_fn(|| self.next()).count()
    }
}
