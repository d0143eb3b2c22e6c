//! The little of DER (ITU-T X.690) that revocation lists need beyond what webpki tells. Pure.
//!
//! 1. A length is definite and at most four octets long; nothing is read beyond the input.
//! 2. Nothing is copied, and nothing recurses.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// One tag, length and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tlv<'a> {
    pub(super) tag: u8,
    pub(super) value: &'a [u8],
    /// With tag and length.
    pub(super) raw: &'a [u8],
}

/// Takes values off the front of its input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value if it has that tag. Otherwise the reader stays where it is.
    pub(super) fn tagged(&mut self, tag: u8) -> Option<Tlv<'a>> {
        let (found, rest) = split(self.0).filter(|(found, _)| found.tag == tag)?;
        self.0 = rest;
        Some(found)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (found, rest) = split(self.0)?;
        self.0 = rest;
        Some(found)
    }
}

fn split(input: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let [tag, first, after @ ..] = input else { return None };
    let (length, header) = match first {
        0..=0x7f => (usize::from(*first), 2),
        0x81..=0x84 => {
            let octets = usize::from(first & 0x7f);
            let length = after.get(..octets)?.iter().fold(0_usize, |sum, octet| sum << 8 | usize::from(*octet));
            (length, 2 + octets)
        }
        _ => return None,
    };
    let end = header.checked_add(length)?;
    let (raw, rest) = input.split_at_checked(end)?;
    Some((Tlv { tag: *tag, value: raw.get(header..)?, raw }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_whole_values() {
        let value = |input| Reader(input).next().map(|tlv: Tlv<'_>| tlv.value);
        assert_eq!(value(&[0x02, 0x01, 7, 9]), Some(&[7][..]));
        assert_eq!(value(&[0x30, 0x81, 0x02, 1, 2]), Some(&[1, 2][..]));
        let torn: [&[u8]; 6] =
            [&[], &[2], &[2, 1], &[0x30, 0x80, 0, 0], &[0x30, 0x82, 1], &[0x30, 0x84, 255, 255, 255, 255]];
        torn.iter().for_each(|input| assert_eq!(value(input), None, "{input:x?}"));
    }
}
