//! What a renewed leaf says: what the one before it said, byte by byte. Pure.
//!
//! 1. The subject and every extension are repeated as they were encoded, critical or not, in their order.
//! 2. Made anew: the key identifiers. Left out: what binds an extension to the old certificate (timestamps of certificate transparency,
//!    the poison of a precertificate, the period of the old key's use).
//! 3. Mended, with a remark: the marks of a CA, and the usage that servers want of a client's leaf.
use anyhow::Context;
use internaltls::inspect::KeyKind as Kind;
use rustls::pki_types::CertificateDer;

use super::authority::KeyKind;
use super::der::{self, BITS, EXTENSIONS, OCTETS, SEQUENCE, element, elements};

// Object identifiers by their encoded content.
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const PRIVATE_KEY_USAGE_PERIOD: &[u8] = &[0x55, 0x1d, 0x10];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_USAGE: &[u8] = &[0x06, 0x04, 0x55, 0x1d, 0x25, 0x00];
const CLIENT_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const TIMESTAMPS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
const POISON: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03];
/// BOOLEAN TRUE.
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];
/// The sixth and seventh bit of KeyUsage: keyCertSign and cRLSign.
const SIGNS: u8 = 0b0000_0110;
/// KeyUsage with digitalSignature alone.
const DIGITAL_SIGNATURE: &[u8] = &[BITS, 2, 7, 0x80];

/// What is repeated of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// As it is encoded.
    pub(super) issuer: Vec<u8>,
    pub(super) subject: Vec<u8>,
    extensions: Vec<Extension>,
    kind: Kind,
    /// What its successor says differently, and why.
    pub remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Extension {
    oid: Vec<u8>,
    /// As it is encoded.
    der: Vec<u8>,
}

impl Extension {
    fn new(oid: &[u8], critical: bool, value: &[u8]) -> Self {
        let (id, value) = (element(0x06, &[oid]), element(OCTETS, &[value]));
        let der = element(SEQUENCE, &[&id, if critical { CRITICAL } else { &[] }, &value]);
        Self { oid: oid.to_owned(), der }
    }

    fn read(der: &[u8]) -> Option<Self> {
        let [id, ..] = elements(der::first(der)?.0.content)?[..] else { return None };
        Some(Self { oid: id.content.to_owned(), der: der.to_owned() })
    }

    fn is_critical(&self) -> bool {
        let parts = der::first(&self.der).and_then(|(whole, _)| elements(whole.content)).unwrap_or_default();
        parts.iter().any(|part| part.whole == CRITICAL)
    }

    /// The content of its OCTET STRING.
    fn value(&self) -> &[u8] {
        let parts = der::first(&self.der).and_then(|(whole, _)| elements(whole.content)).unwrap_or_default();
        parts.last().map_or(&[], |value| value.content)
    }
}

impl Template {
    /// What a successor of this certificate says.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn of(der: &CertificateDer<'_>) -> anyhow::Result<Self> {
        let read = || {
            let parts = parts(der)?;
            let extensions = extensions(&parts)?;
            Some(Self {
                issuer: parts.issuer.to_owned(),
                subject: parts.subject.to_owned(),
                extensions,
                kind: Kind::of(der)?,
                remarks: Vec::new(),
            })
        };
        let mut template = read().context("the certificate cannot be parsed")?;
        template.leave_out();
        template.mend_marks_of_a_ca();
        Ok(template)
    }

    fn leave_out(&mut self) {
        let before = self.extensions.len();
        self.extensions.retain(|extension| ![TIMESTAMPS, POISON, PRIVATE_KEY_USAGE_PERIOD].contains(&&*extension.oid));
        if self.extensions.len() < before {
            self.remarks.push(
                "what binds the leaf before to its own time (transparency timestamps, key usage period) is left out"
                    .to_owned(),
            );
        }
    }

    fn mend_marks_of_a_ca(&mut self) {
        let mut mended = false;
        for extension in &mut self.extensions {
            let value = extension.value();
            // CA:TRUE is a BOOLEAN in the SEQUENCE; CA:FALSE is its default and is not encoded.
            let is_ca = extension.oid == BASIC_CONSTRAINTS && value.get(2..5) == Some(CRITICAL);
            let signs = extension.oid == KEY_USAGE && value.get(3).is_some_and(|bits| bits & SIGNS != 0);
            if is_ca {
                *extension = Extension::new(BASIC_CONSTRAINTS, true, &element(SEQUENCE, &[]));
            } else if signs {
                *extension = Extension::new(KEY_USAGE, true, DIGITAL_SIGNATURE);
            }
            mended |= is_ca || signs;
        }
        if mended {
            self.remarks
                .push("the leaf before was marked as a CA, which is refused as a leaf; this one is not".to_owned());
        }
    }

    /// Adds clientAuth where usages are named without it, or none are.
    pub fn for_a_client(&mut self) {
        let named = self.extensions.iter_mut().find(|extension| extension.oid == EXTENDED_KEY_USAGE);
        let usages =
            named.as_ref().and_then(|named| Some(der::first(named.value())?.0.content.to_owned())).unwrap_or_default();
        let has =
            elements(&usages).unwrap_or_default().iter().any(|usage| [ANY_USAGE, CLIENT_AUTH].contains(&usage.whole));
        if has {
            return;
        }
        let critical = named.as_ref().is_some_and(|named| named.is_critical());
        let mended = Extension::new(EXTENDED_KEY_USAGE, critical, &element(SEQUENCE, &[&usages, CLIENT_AUTH]));
        match named {
            Some(named) => *named = mended,
            None => self.extensions.push(mended),
        }
        self.remarks.push(
            "the leaf before did not name clientAuth, which servers that check usages refuse; this one does".to_owned(),
        );
    }

    /// The kind and size of its key, for a new one.
    ///
    /// # Errors
    /// When no such key can be made here.
    pub fn key(&mut self) -> anyhow::Result<KeyKind> {
        let (kind, exact) = KeyKind::like(&self.kind).with_context(|| {
            format!("its key is {}, and no such key can be made here: issue the leaf by hand, with ECDSA on P-256 or P-384, or RSA", self.kind)
        })?;
        if !exact {
            self.remarks
                .push(format!("the key before was {}; the next larger size that can be made is taken", self.kind));
        }
        Ok(kind)
    }

    /// The parts of `draft`, a certificate for the new key, with what is repeated here in the place of its own. To be signed.
    pub(super) fn tbs(&self, draft: &[u8], issuer: &[u8]) -> Option<Vec<u8>> {
        let new = parts(draft)?;
        let fresh = extensions(&new)?;
        let mut list: Vec<&[u8]> = Vec::new();
        for extension in &self.extensions {
            let fresh = fresh.iter().find(|fresh| is_key_identifier(fresh) && fresh.oid == extension.oid);
            list.push(&fresh.unwrap_or(extension).der);
        }
        let added =
            fresh.iter().filter(|fresh| is_key_identifier(fresh) && self.extensions.iter().all(|e| e.oid != fresh.oid));
        list.extend(added.map(|extension| extension.der.as_slice()));
        let list = element(EXTENSIONS, &[&element(SEQUENCE, &list)]);
        Some(element(SEQUENCE, &[new.before_issuer, issuer, new.validity, &self.subject, new.key, &list]))
    }
}

fn is_key_identifier(extension: &Extension) -> bool {
    [SUBJECT_KEY_IDENTIFIER, AUTHORITY_KEY_IDENTIFIER].contains(&&*extension.oid)
}

/// A TBSCertificate in its parts (RFC 5280, section 4.1), as they are encoded.
struct Parts<'a> {
    /// Version, serial number and signature algorithm.
    before_issuer: &'a [u8],
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
    key: &'a [u8],
    extensions: &'a [u8],
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let tbs = elements(der::first(certificate)?.0.content)?.first()?.content;
    let all = elements(tbs)?;
    // A version 1 certificate has no version, and no extensions.
    let [version, serial, algorithm, issuer, validity, subject, key, more @ ..] = &all[..] else { return None };
    let before = version.whole.len() + serial.whole.len() + algorithm.whole.len();
    let extensions = more.iter().find(|element| element.tag == EXTENSIONS).map_or(&[][..], |element| element.content);
    Some(Parts {
        before_issuer: &tbs[..before],
        issuer: issuer.whole,
        validity: validity.whole,
        subject: subject.whole,
        key: key.whole,
        extensions,
    })
}

fn extensions(parts: &Parts<'_>) -> Option<Vec<Extension>> {
    if parts.extensions.is_empty() {
        return Some(Vec::new());
    }
    elements(der::first(parts.extensions)?.0.content)?.iter().map(|element| Extension::read(element.whole)).collect()
}

/// The subject of a certificate as it is encoded: the issuer of what it signs.
pub(super) fn subject_of(certificate: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(parts(certificate).context("the certificate cannot be parsed")?.subject.to_owned())
}

/// The algorithm that a certificate was signed by, as it is encoded.
pub(super) fn algorithm_of(certificate: &[u8]) -> Option<&[u8]> {
    elements(der::first(certificate)?.0.content)?.get(1).map(|algorithm| algorithm.whole)
}

/// A certificate of these parts.
pub(super) fn certificate(tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[tbs, algorithm, &element(BITS, &[&[0], signature])])
}
