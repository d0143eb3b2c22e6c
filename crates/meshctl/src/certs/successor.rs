//! What a renewed leaf says: what the one before it said, byte by byte. Pure.
//!
//! 1. The subject and every extension are repeated as they were encoded, critical or not, in their order. `proof` holds
//!    the leaf before to its CA, so what is repeated was signed already. What is unknown here is repeated and told.
//! 2. Made anew: the key identifiers. Left out, and told: what binds an extension to the old certificate (timestamps of certificate
//!    transparency, the poison of a precertificate, the period of the old key's use), what only a CA may say (constraints on names and
//!    policies), and what lets a leaf vouch for others (proxy certificates, delegated credentials).
//! 3. Mended, with a remark: the marks of a CA, and the usage that servers want of a client's leaf. The marks are read strictly: a
//!    basicConstraints or keyUsage that is not as RFC 5280 and DER have it, or an extension that is there twice, is refused.
//! 4. A certificate of version 1 or 2 has no extensions, so no names that anybody reads: refused, as a leaf and as a CA that signs.
use anyhow::{Context, ensure};
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
const PROXY: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x0e];
const DELEGATION: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xda, 0x4b, 0x2c];
/// nameConstraints, policyMappings, policyConstraints, inhibitAnyPolicy: of CAs alone.
const OF_CAS: [&[u8]; 4] = [&[0x55, 0x1d, 0x1e], &[0x55, 0x1d, 0x21], &[0x55, 0x1d, 0x24], &[0x55, 0x1d, 0x36]];
/// What a leaf may say and is repeated without a remark.
const KNOWN: [&[u8]; 13] = [
    SUBJECT_KEY_IDENTIFIER,
    AUTHORITY_KEY_IDENTIFIER,
    KEY_USAGE,
    BASIC_CONSTRAINTS,
    EXTENDED_KEY_USAGE,
    // subjectAltName, issuerAltName, certificatePolicies, CRLDistributionPoints, freshestCRL.
    &[0x55, 0x1d, 0x11],
    &[0x55, 0x1d, 0x12],
    &[0x55, 0x1d, 0x20],
    &[0x55, 0x1d, 0x1f],
    &[0x55, 0x1d, 0x2e],
    // authorityInfoAccess, TLS features (RFC 7633), Netscape's comment, which `openssl ca` writes.
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18],
    &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x01, 0x0d],
];
const TIMESTAMPS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
const POISON: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03];
/// BOOLEAN TRUE.
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];
/// `[0]`, constructed: the version of a certificate. This one is version 3.
const V3: &[u8] = &[0xa0, 3, 2, 1, 2];
/// The sixth and seventh bit of KeyUsage: keyCertSign and cRLSign.
const SIGNS: u8 = 0b0000_0110;
/// KeyUsage with digitalSignature alone.
const DIGITAL_SIGNATURE: &[u8] = &[BITS, 2, 7, 0x80];

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const UNREADABLE: &str = "the certificate cannot be parsed, or is not of version 3; issue it by hand";

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
        parts.iter().any(|part| part.tag == BOOLEAN && part.content != [0])
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
        let mut template = read().context(UNREADABLE)?;
        template.refuse_twins()?;
        template.leave_out();
        template.mend_marks_of_a_ca()?;
        template.tell_unknown();
        Ok(template)
    }

    /// Readers differ in which of two counts.
    fn refuse_twins(&self) -> anyhow::Result<()> {
        let mut oids: Vec<_> = self.extensions.iter().map(|extension| &extension.oid).collect();
        oids.sort();
        let twin = oids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| dotted(pair[0]));
        ensure!(
            twin.is_none(),
            "the certificate has the extension {} twice; issue it by hand",
            twin.unwrap_or_default()
        );
        Ok(())
    }

    fn leave_out(&mut self) {
        let bound: [&[u8]; 3] = [TIMESTAMPS, POISON, PRIVATE_KEY_USAGE_PERIOD];
        let vouching = [&OF_CAS[..], &[PROXY, DELEGATION]].concat();
        for (oids, why) in [
            (
                &bound[..],
                "what binds the leaf before to its own time (transparency timestamps, key usage period) is left out",
            ),
            (&vouching, "what only a CA may say, or lets a leaf vouch for others, is left out"),
        ] {
            let before = self.extensions.len();
            self.extensions.retain(|extension| !oids.contains(&&*extension.oid));
            if self.extensions.len() < before {
                self.remarks.push(why.to_owned());
            }
        }
    }

    fn mend_marks_of_a_ca(&mut self) -> anyhow::Result<()> {
        let mut mended = false;
        for extension in &mut self.extensions {
            let mend = match &*extension.oid {
                BASIC_CONSTRAINTS => is_ca(extension.value())
                    .context("its basicConstraints are not as RFC 5280 has them; issue the leaf by hand")?
                    .then(|| Extension::new(BASIC_CONSTRAINTS, true, &element(SEQUENCE, &[]))),
                KEY_USAGE => may_sign(extension.value())
                    .context("its keyUsage is not as RFC 5280 has it; issue the leaf by hand")?
                    .then(|| Extension::new(KEY_USAGE, true, DIGITAL_SIGNATURE)),
                _ => None,
            };
            mended |= mend.is_some();
            if let Some(mend) = mend {
                *extension = mend;
            }
        }
        if mended {
            self.remarks
                .push("the leaf before was marked as a CA, which is refused as a leaf; this one is not".to_owned());
        }
        Ok(())
    }

    fn tell_unknown(&mut self) {
        let unknown = self.extensions.iter().filter(|extension| !KNOWN.contains(&&*extension.oid));
        let unknown: Vec<_> = unknown.map(|extension| dotted(&extension.oid)).collect();
        if !unknown.is_empty() {
            self.remarks.push(format!(
                "not known here, and repeated as the CA signed it: the extension {}",
                unknown.join(", the extension ")
            ));
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

/// `None` for what is not of version 3: fact 4.
fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let tbs = elements(der::first(certificate)?.0.content)?.first()?.content;
    let all = elements(tbs)?;
    let [version, serial, algorithm, issuer, validity, subject, key, more @ ..] = &all[..] else { return None };
    let before = version.whole.len() + serial.whole.len() + algorithm.whole.len();
    let extensions = more.iter().find(|element| element.tag == EXTENSIONS).map_or(&[][..], |element| element.content);
    (version.whole == V3).then_some(Parts {
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
    Ok(parts(certificate).context(UNREADABLE)?.subject.to_owned())
}

/// The issuer of a certificate as it is encoded.
pub(super) fn issuer_of(certificate: &[u8]) -> Option<&[u8]> {
    Some(parts(certificate)?.issuer)
}

/// The subject of a certificate and its SubjectPublicKeyInfo, as they are encoded.
pub(super) fn subject_and_key(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let parts = parts(certificate)?;
    Some((parts.subject, parts.key))
}

/// BasicConstraints (RFC 5280, section 4.2.1.9) in DER: whether cA is TRUE. `None` for what is neither.
fn is_ca(value: &[u8]) -> Option<bool> {
    let parts = elements(sole(value, SEQUENCE)?)?;
    match &parts[..] {
        [] => Some(false),
        // FALSE is the default; OpenSSL's readers take it spelt out, and so do we.
        [ca] if ca.tag == BOOLEAN && ca.content == [0] => Some(false),
        [ca, length @ ..] if ca.whole == CRITICAL => match length {
            [] => Some(true),
            [length] => (length.tag == INTEGER && !length.content.is_empty()).then_some(true),
            _ => None,
        },
        _ => None,
    }
}

/// KeyUsage (RFC 5280, section 4.2.1.3): whether it names keyCertSign or cRLSign. `None` for what is no such BIT STRING.
fn may_sign(value: &[u8]) -> Option<bool> {
    match sole(value, BITS)? {
        [0] => Some(false),
        [0..=7, first, rest @ ..] if rest.len() <= 1 => Some(first & SIGNS != 0),
        _ => None,
    }
}

/// The content of the one element that `der` is, of this tag and in the shortest form.
fn sole(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (it, rest) = der::first(der)?;
    (rest.is_empty() && element(tag, &[it.content]) == der).then_some(it.content)
}

/// An object identifier as people write it; as hex where it is none.
fn dotted(oid: &[u8]) -> String {
    let hex = || oid.iter().map(|byte| format!("{byte:02x}")).collect();
    let read = x509_parser::der_parser::oid::Oid::new(oid.into());
    read.iter().map_or_else(hex, |_| read.to_id_string())
}

/// The algorithm that a certificate was signed by, as it is encoded.
pub(super) fn algorithm_of(certificate: &[u8]) -> Option<&[u8]> {
    elements(der::first(certificate)?.0.content)?.get(1).map(|algorithm| algorithm.whole)
}

/// A certificate of these parts.
pub(super) fn certificate(tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[tbs, algorithm, &element(BITS, &[&[0], signature])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_a_ca_are_read_strictly() {
        for (value, says) in [
            (&[0x30, 0x00][..], Some(false)),
            (&[0x30, 0x03, 0x01, 0x01, 0x00], Some(false)),
            (&[0x30, 0x03, 0x01, 0x01, 0xff], Some(true)),
            (&[0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00], Some(true)),
            // A long form of the length, another TRUE, something after, a length without a CA, no SEQUENCE.
            (&[0x30, 0x81, 0x03, 0x01, 0x01, 0xff], None),
            (&[0x30, 0x03, 0x01, 0x01, 0x01], None),
            (&[0x30, 0x03, 0x01, 0x01, 0xff, 0x00], None),
            (&[0x30, 0x03, 0x02, 0x01, 0x00], None),
            (&[0x31, 0x03, 0x01, 0x01, 0xff], None),
            (&[], None),
        ] {
            assert_eq!(is_ca(value), says, "{value:02x?}");
        }
        for (value, says) in [
            (&[0x03, 0x02, 0x07, 0x80][..], Some(false)),
            (&[0x03, 0x02, 0x02, 0x84], Some(true)),
            (&[0x03, 0x02, 0x01, 0x82], Some(true)),
            (&[0x03, 0x03, 0x07, 0x00, 0x80], Some(false)),
            (&[0x03, 0x81, 0x02, 0x02, 0x84], None),
            (&[0x03, 0x02, 0x08, 0x84], None),
            (&[0x04, 0x02, 0x02, 0x84], None),
        ] {
            assert_eq!(may_sign(value), says, "{value:02x?}");
        }
    }
}
