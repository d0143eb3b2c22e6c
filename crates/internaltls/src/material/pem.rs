//! PEM as people have it (RFC 7468, read leniently), without losing a block. Pure.
//!
//! 1. Lines end with LF, CRLF or CR; a block may be indented as a whole; a byte order mark may stand before it. An END and the next
//!    BEGIN may share a line, as `cat` leaves them where a file has no last newline.
//! 2. Text between blocks is a comment (`openssl x509 -text`, Bag Attributes), unless it looks like a BEGIN, an END or the
//!    base64 of a block. Then it is an error that names the line: a bundle is never silently smaller than its BEGINs.
//! 3. A block is read, passed over because nothing of its label belongs to this part (a key in the leaf's file), or refused by name.
//!    `TRUSTED CERTIFICATE` is refused: OpenSSL's trust attributes behind the certificate may narrow what it is trusted for,
//!    and to ignore them would trust it for more.
//! 4. An error holds no byte of the file. Labels are named from the table in this file.
//! 5. The work is linear in the bytes, and a file has at most [`BLOCKS`] blocks. The text of a key is decoded without copies.
use rustls::pki_types::pem::SectionKind;
use zeroize::Zeroizing;

use crate::error::{LoadError, MaterialFile, Part};

/// The system bundles of distributions have 150 blocks, the largest public bundles a few hundred.
const BLOCKS: usize = 4096;

/// What a file holds that is for this part of the material, in its order.
pub(super) fn blocks(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<Block>, LoadError> {
    if is_der(bytes) {
        return Err(LoadError::Der(file.clone()));
    }
    let mut reader = Reader { file, bytes, at: 0, line: 0, block: 0 };
    let mut found = Vec::new();
    while let Some(block) = reader.next_block()? {
        found.extend(block);
    }
    Ok(found)
}

/// One DER SEQUENCE from the first byte to the last. The tag alone proves nothing: it is also the digit 0 of a torn PEM file.
fn is_der(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else { return false };
    let octets = usize::from(length & 0x7f);
    match length {
        ..=0x7f => rest.len() == octets,
        0x81..=0x84 if rest.len() > octets => {
            let (length, content) = rest.split_at(octets);
            length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) == content.len()
        }
        _ => false,
    }
}

/// What becomes of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Read(SectionKind),
    PassOver,
    /// An encrypted key where a key is read.
    Encrypted,
    /// The label, and what to do instead.
    Refuse(&'static str, &'static str),
}

const PKCS7: &str = "read the certificates out of it, as with `openssl pkcs7 -print_certs -in FILE`, and name those";
const CMS: &str =
    "read the certificates out of it, as with `openssl cms -verify -noverify -inform pem -in FILE -certsout OUT`";
const REQUEST: &str = "name the certificate that the CA issued for it";
const TRUSTED: &str =
    "its trust attributes would be ignored, so write it without them: `openssl x509 -in FILE -out OUT`";
const OTHER_KEY: &str =
    "convert it to PKCS#8, as with `openssl pkey -in FILE -out OUT` or, for OpenSSH, `ssh-keygen -p -m pkcs8`";
const UNKNOWN: &str =
    "nothing here reads it: correct the label (capitals, one blank between words), or take the block out";

fn verdict(part: Part, label: &[u8]) -> Verdict {
    match part {
        Part::Key | Part::ClientKey => verdict_on_key(label),
        Part::Crl => verdict_on_crl(label),
        _ => verdict_on_certificate(label),
    }
}

fn verdict_on_certificate(label: &[u8]) -> Verdict {
    match label {
        // The second is what OpenSSL wrote before 0.9.3, and reads to this day.
        b"CERTIFICATE" | b"X509 CERTIFICATE" => Verdict::Read(SectionKind::Certificate),
        b"TRUSTED CERTIFICATE" => Verdict::Refuse("TRUSTED CERTIFICATE", TRUSTED),
        b"CERTIFICATE REQUEST" => Verdict::Refuse("CERTIFICATE REQUEST", REQUEST),
        b"NEW CERTIFICATE REQUEST" => Verdict::Refuse("NEW CERTIFICATE REQUEST", REQUEST),
        b"X509 CRL" => Verdict::PassOver,
        other => verdict_on_containers(other).unwrap_or_else(|| beside(other)),
    }
}

fn verdict_on_crl(label: &[u8]) -> Verdict {
    match label {
        b"X509 CRL" => Verdict::Read(SectionKind::Crl),
        b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" => Verdict::PassOver,
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => Verdict::PassOver,
        other => verdict_on_containers(other).unwrap_or_else(|| beside(other)),
    }
}

/// The file of a key often holds the whole of what was issued. That there is exactly one key is asked of what is read.
fn verdict_on_key(label: &[u8]) -> Verdict {
    match label {
        b"PRIVATE KEY" => Verdict::Read(SectionKind::PrivateKey),
        b"RSA PRIVATE KEY" => Verdict::Read(SectionKind::RsaPrivateKey),
        b"EC PRIVATE KEY" => Verdict::Read(SectionKind::EcPrivateKey),
        b"ENCRYPTED PRIVATE KEY" => Verdict::Encrypted,
        b"OPENSSH PRIVATE KEY" => Verdict::Refuse("OPENSSH PRIVATE KEY", OTHER_KEY),
        b"DSA PRIVATE KEY" => Verdict::Refuse("DSA PRIVATE KEY", "TLS 1.3 has no DSA: make an RSA or ECDSA key"),
        b"ANY PRIVATE KEY" => Verdict::Refuse("ANY PRIVATE KEY", OTHER_KEY),
        b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" | b"X509 CRL" => Verdict::PassOver,
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => Verdict::PassOver,
        other if verdict_on_containers(other).is_some() => Verdict::PassOver,
        other => beside(other),
    }
}

/// Labels of what may hold certificates or CRLs within.
fn verdict_on_containers(label: &[u8]) -> Option<Verdict> {
    Some(match label {
        b"PKCS7" => Verdict::Refuse("PKCS7", PKCS7),
        b"PKCS #7 SIGNED DATA" => Verdict::Refuse("PKCS #7 SIGNED DATA", PKCS7),
        b"CMS" => Verdict::Refuse("CMS", CMS),
        b"PKCS12" => Verdict::Refuse("PKCS12", "convert it, as with `openssl pkcs12 -in FILE -nodes`"),
        b"CERTIFICATE CHAIN" => Verdict::Refuse("CERTIFICATE CHAIN", UNKNOWN),
        b"ATTRIBUTE CERTIFICATE" => Verdict::Refuse("ATTRIBUTE CERTIFICATE", "no attribute certificate is used in TLS"),
        _ => return None,
    })
}

/// What may stand beside anything, for it can hold neither certificate nor CRL.
fn beside(label: &[u8]) -> Verdict {
    match label {
        b"PRIVATE KEY"
        | b"RSA PRIVATE KEY"
        | b"EC PRIVATE KEY"
        | b"DSA PRIVATE KEY"
        | b"ENCRYPTED PRIVATE KEY"
        | b"ANY PRIVATE KEY"
        | b"OPENSSH PRIVATE KEY"
        | b"PUBLIC KEY"
        | b"RSA PUBLIC KEY"
        | b"EC PARAMETERS"
        | b"DSA PARAMETERS"
        | b"DH PARAMETERS"
        | b"X9.42 DH PARAMETERS" => Verdict::PassOver,
        _ => Verdict::Refuse("not a known one", UNKNOWN),
    }
}

/// What a block holds, and its kind. It may be a key: it is wiped when it is dropped, as where a later block is torn.
pub(super) type Block = (SectionKind, Zeroizing<Vec<u8>>);

/// Where the reader is in the file.
struct Reader<'a> {
    file: &'a MaterialFile,
    bytes: &'a [u8],
    /// The first byte that was not looked at.
    at: usize,
    /// The number of the line that was read last, from 1.
    line: usize,
    /// The number of the block that is open, or of the last one, from 1.
    block: usize,
}

impl<'a> Reader<'a> {
    /// The next block; `Some(None)` is one that is passed over.
    fn next_block(&mut self) -> Result<Option<Option<Block>>, LoadError> {
        while let Some(line) = self.next_line()? {
            if let Some(label) = begin(line) {
                self.block += 1;
                if self.block > BLOCKS {
                    return Err(LoadError::TooManyBlocks { file: self.file.clone(), limit: BLOCKS });
                }
                return self.rest_of_block(label).map(Some);
            }
            self.is_comment(line)?;
        }
        Ok(None)
    }

    /// From after the BEGIN to after the END.
    fn rest_of_block(&mut self, label: &'a [u8]) -> Result<Option<Block>, LoadError> {
        let (first, verdict) = (self.line, verdict(self.file.part, label));
        if let Verdict::Refuse(label, remedy) = verdict {
            let (file, block) = (self.file.clone(), self.block);
            return Err(LoadError::PemLabel { file, block, line: first, label, remedy });
        }
        let from = self.at;
        loop {
            let to = self.at;
            let Some(line) = self.next_line()? else {
                self.line = first;
                return Err(self.bad("a block is cut off: there is no END for this BEGIN"));
            };
            // No base64 has a dash: most lines end here.
            if !line.iter().any(|byte| *byte == b'-' || !byte.is_ascii()) {
                continue;
            }
            if let Some(after) = end(line, label) {
                // What follows on the line is looked at again, as a line of its own.
                self.back_to(after);
                return self.decoded(verdict, &self.bytes[from..to]);
            }
            if looks_like(line, b"begin") {
                return Err(self.bad("a BEGIN without its END before it: the block before is torn"));
            }
            if looks_like(line, b"end") {
                return Err(self.bad("an END that is not the END of this block: it must repeat the label of the BEGIN"));
            }
        }
    }

    fn decoded(&self, verdict: Verdict, text: &[u8]) -> Result<Option<Block>, LoadError> {
        let kind = match verdict {
            Verdict::Read(kind) => kind,
            Verdict::Encrypted => return Err(LoadError::EncryptedKey(self.file.clone())),
            Verdict::PassOver | Verdict::Refuse(..) => return Ok(None),
        };
        if matches!(self.file.part, Part::Key | Part::ClientKey) && is_encrypted(text) {
            return Err(LoadError::EncryptedKey(self.file.clone()));
        }
        let der = decode_base64(text).ok_or_else(|| self.bad("what is between BEGIN and END is not base64"))?;
        Ok(Some((kind, der)))
    }

    /// Text outside of blocks.
    fn is_comment(&self, line: &[u8]) -> Result<(), LoadError> {
        if contains(line, &[0]) {
            return Err(self.bad("it holds NUL bytes, as UTF-16 and binary files do: save it as plain text"));
        }
        if looks_like(line, b"begin") {
            return Err(self.bad(
                "it looks like a BEGIN and is none: a line of its own, `-----BEGIN CERTIFICATE-----`, five dashes, capitals, nothing after it",
            ));
        }
        if looks_like(line, b"end") {
            return Err(self.bad("an END without its BEGIN: the block is torn"));
        }
        if looks_like_base64(line) {
            return Err(self.bad("base64 outside of BEGIN and END: put the BEGIN back before it, or take it out"));
        }
        Ok(())
    }

    /// The next line without its end, its indentation and a byte order mark. CR, LF and CRLF end a line.
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, LoadError> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let ending = match rest[length..] {
            [b'\r', b'\n', ..] => 2,
            [_, ..] => 1,
            [] => 0,
        };
        self.at += length + ending;
        self.line += 1;
        Ok(Some(trimmed(&rest[..length])))
    }

    /// Makes `rest`, the end of the line that was read last, the next line.
    fn back_to(&mut self, rest: &'a [u8]) {
        if !rest.is_empty() {
            self.at = rest.as_ptr() as usize - self.bytes.as_ptr() as usize;
            self.line -= 1;
        }
    }

    fn bad(&self, what: &'static str) -> LoadError {
        LoadError::BadPem { file: self.file.clone(), block: self.block.max(1), line: self.line, what }
    }
}

/// The label of a BEGIN that has the line for itself.
fn begin(line: &[u8]) -> Option<&[u8]> {
    let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
    (!label.is_empty() && !label.contains(&b'-')).then_some(label)
}

/// What follows the END of a block of this label on its line.
fn end<'a>(line: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(b"-----END ")?.strip_prefix(label)?.strip_prefix(b"-----").map(trimmed)
}

/// Without blanks at either end, and without byte order marks before it.
fn trimmed(mut line: &[u8]) -> &[u8] {
    loop {
        line = match line {
            [b' ' | b'\t' | 0x0b | 0x0c, rest @ ..] | [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [rest @ .., b' ' | b'\t' | 0x0b | 0x0c] => rest,
            _ => return line,
        };
    }
}

/// Words of labels.
const LABELS: [&[u8]; 7] = [b"cert", b"key", b"crl", b"pkcs", b"cms", b"x509", b"param"];
/// How far from a BEGIN its dashes and its label are looked for: a bound on the work, and longer than any label.
const NEAR: usize = 64;

/// Whether a line holds what somebody meant as a BEGIN or an END (`word`, lower case): after two dashes of any kind, whatever is
/// between but letters; or a BEGIN after fewer, where a label follows.
fn looks_like(line: &[u8], word: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = find(&line[from..], word).map(|at| from + at) {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        from = at + word.len();
        if after.first().is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let after = &after[..after.len().min(NEAR)];
        let (is_begin, has_label) = (word == b"begin", LABELS.iter().any(|label| find(after, label).is_some()));
        let looks = match dashes_at_end(before) {
            // Comments speak of an end, between dashes or not; but a BEGIN of any label would be lost.
            2.. => is_begin || has_label,
            1 => is_begin && has_label,
            _ => has_label && before.is_empty() && line[at..from].iter().all(u8::is_ascii_uppercase),
        };
        if looks {
            return true;
        }
    }
    false
}

/// How many dashes there are after the last letter or digit of `text`. Word processors make one long dash of two.
fn dashes_at_end(text: &[u8]) -> usize {
    let near = &text[text.len().saturating_sub(NEAR)..];
    let letters = near.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |at| at + 1);
    let tail = &near[letters..];
    let short = tail.iter().filter(|byte| **byte == b'-').count();
    short + 2 * tail.windows(3).filter(|bytes| is_dash(bytes)).count()
}

/// U+2010 to U+2015, U+2212, U+FE58, U+FE63 and U+FF0D in UTF-8.
fn is_dash(bytes: &[u8]) -> bool {
    matches!(bytes, [0xe2, 0x80, 0x90..=0x95] | [0xe2, 0x88, 0x92] | [0xef, 0xbc, 0x8d] | [0xef, 0xb9, 0x98 | 0xa3])
}

/// A line of a block: DER of more than 127 bytes begins with `MI`, and a full line has 64 digits. A hash in hex is none.
fn looks_like_base64(line: &[u8]) -> bool {
    let digits = line.trim_ascii_end();
    let digits = digits.strip_suffix(b"==").or_else(|| digits.strip_suffix(b"=")).unwrap_or(digits);
    let is_text = digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    let is_mixed = digits.iter().any(u8::is_ascii_uppercase) && digits.iter().any(u8::is_ascii_lowercase);
    is_text && is_mixed && (digits.len() >= 60 || (digits.len() >= 40 && digits.starts_with(b"MI")))
}

/// The headers of RFC 1421 within a block, as OpenSSL's traditional encrypted keys have them. No base64 has a colon.
fn is_encrypted(text: &[u8]) -> bool {
    contains(text, b"Proc-Type:") && contains(text, b"ENCRYPTED")
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// The first place of `word`, which is lower case, whatever the case of the text.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

/// RFC 4648 base64 with its padding; blanks and line ends anywhere.
fn decode_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // As large as it can become, for a vector that grows leaves copies of a key behind.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    let (mut group, mut digits, mut padding) = (0_u32, 0, 0);
    for byte in text {
        match byte {
            b' ' | b'\t'..=b'\r' => continue,
            b'=' => padding += 1,
            _ if padding > 0 => return None,
            _ => {}
        }
        let six = if *byte == b'=' { 0 } else { sextet(*byte) };
        if six > 63 {
            return None;
        }
        group = group << 6 | u32::from(six);
        digits += 1;
        if digits == 4 {
            let [_, bytes @ ..] = group.to_be_bytes();
            out.extend_from_slice(bytes.get(..3_usize.checked_sub(padding).filter(|left| *left > 0)?)?);
            (group, digits) = (0, 0);
        }
    }
    (digits == 0).then_some(out)
}

/// The value of a base64 digit, 255 of another byte. Without a branch or a look-up in a table that depends on it: it may be a key's.
fn sextet(byte: u8) -> u8 {
    let digits = [(b'A', b'Z', 0_u8), (b'a', b'z', 26), (b'0', b'9', 52), (b'+', b'+', 62), (b'/', b'/', 63)];
    let (mut value, mut known) = (0, 0);
    for (from, to, first) in digits {
        let within = mask(byte.wrapping_sub(from), to - from);
        value |= within & byte.wrapping_sub(from).wrapping_add(first);
        known |= within;
    }
    value | !known
}

/// All ones where `offset` is at most `last`, else zero.
fn mask(offset: u8, last: u8) -> u8 {
    // The sign of the difference, spread over the byte.
    ((i16::from(offset) - i16::from(last) - 1) >> 15) as u8
}

#[cfg(test)]
mod tests;
