//! PEM as people have it, taken apart. Pure.
//!
//! Text between blocks is a comment. A block that is not ours (`EC PARAMETERS`) is passed over. A block cut off is an
//! error: half a bundle is not a smaller bundle.
use rustls::pki_types::pem::{self, PemObject, SectionKind};

use crate::error::{LoadError, MaterialFile};

/// All blocks of kinds that TLS knows.
pub(super) fn blocks(file: &MaterialFile, bytes: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, LoadError> {
    if is_der(bytes) {
        return Err(LoadError::Der(file.clone()));
    }
    let whole = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let blocks: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(whole).collect();
    let blocks = blocks.map_err(|error| LoadError::BadPem { file: file.clone(), what: pem_words(&error) })?;
    balanced(file, whole)?;
    Ok(blocks)
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

/// The parser passes over an END without a BEGIN and takes a BEGIN in a block as its restart. Both mean a torn file.
fn balanced(file: &MaterialFile, bytes: &[u8]) -> Result<(), LoadError> {
    let mut open = false;
    for line in lines(bytes) {
        let begins = line.starts_with(b"-----BEGIN ");
        let ends = line.starts_with(b"-----END ");
        if (begins && open) || (ends && !open) {
            return Err(LoadError::BadPem { file: file.clone(), what: "a BEGIN without its END" });
        }
        open = (open || begins) && !ends;
    }
    Ok(())
}

/// In our words: those of the parser quote the file.
fn pem_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block is cut off",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is garbled",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "a block cannot be read",
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)
}

/// PKCS#8 under a pass phrase, or the older headers inside a block.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    lines(bytes).any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || (line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
    })
}
