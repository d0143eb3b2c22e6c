//! As much of DER (X.690) as it takes to put a certificate together from the parts of others, byte by byte. Pure.
//!
//! A library that writes certificates from values cannot repeat what it does not know: subjects with two attributes of one kind,
//! string types, extensions of others. Bytes can be repeated.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// OCTET STRING.
pub(super) const OCTETS: u8 = 0x04;
/// BIT STRING.
pub(super) const BITS: u8 = 0x03;
/// `[3]`, constructed: the extensions of a certificate.
pub(super) const EXTENSIONS: u8 = 0xa3;

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// With tag and length.
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

/// The element that `bytes` begin with, and what follows it. Of low tag numbers and definite lengths alone, as certificates are.
pub(super) fn first(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        ..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((Element { tag, whole: &bytes[..bytes.len() - after.len()], content }, after))
}

/// The elements within `content`.
pub(super) fn elements(mut content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (element, rest) = first(content)?;
        found.push(element);
        content = rest;
    }
    Some(found)
}

/// An element of these parts.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ ..=0x7f => out.push(short as u8),
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
            out.push(0x80 | octets.len() as u8);
            out.extend_from_slice(octets);
        }
    }
    out.extend(content);
    out
}

/// PEM with lines of 64 digits (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let digits = STANDARD.encode(der).into_bytes();
    let lines: Vec<_> = digits.chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_whole() {
        for length in [0, 1, 127, 128, 255, 256, 65_536] {
            let content = vec![7; length];
            let whole = [element(OCTETS, &[&content]), element(SEQUENCE, &[])].concat();
            let found = elements(&whole).unwrap();
            assert_eq!((found[0].tag, found[0].content), (OCTETS, content.as_slice()));
            assert_eq!(found.iter().map(|element| element.whole).collect::<Vec<_>>().concat(), whole);
            assert_eq!(elements(&whole[..whole.len() - 1]), None);
        }
        assert_eq!(elements(&[0x30, 0x80, 0, 0]), None);
    }
}
