//! Whether a leaf may be renewed: who signed it, and who holds its key. Pure.
//!
//! 1. A service may own its folder, and so write any leaf there. A successor says what the leaf before said, so that leaf must carry the
//!    signature of a CA that this tool vouches for. Names prove nothing.
//! 2. Leaves are public, so a leaf in a folder may be a copy of another node's. The key beside it must be its key.
//! 3. The signature counts, not the validity: leaves that have expired are renewed.
//! 4. Through intermediates the path is built as a verifier builds it, with all its constraints, at the latest beginning of the chain.
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::der::{self, BITS, Element, elements};
use super::successor;

/// The key in this PEM, if there is one that is not encrypted.
pub(super) fn private_key(pem: &[u8]) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).ok()
}

/// That one of `cas` signed the first certificate of `chain`, or the top of the path above it.
///
/// # Errors
/// When none did; `path` is for the message.
pub(super) fn is_signed(chain: &[CertificateDer<'_>], cas: &[CertificateDer<'_>], path: &Path) -> anyhow::Result<()> {
    let directly = chain.first().is_some_and(|leaf| cas.iter().any(|ca| signed(leaf, ca).is_some()));
    ensure!(
        directly || by_a_path(chain, cas).is_some(),
        "{} is not signed by the CA that is to sign its successor, so nothing vouches for what it says; put back the leaf that the CA \
         signed, or remove it and have one made by whoever keeps the CA",
        path.display()
    );
    Ok(())
}

/// That `key` (PEM) is the key of the first certificate of `chain`.
///
/// # Errors
/// When it is not, or cannot be read; the paths are for the message.
pub(super) fn is_held(chain: &[CertificateDer<'_>], key: &[u8], leaf: &Path, path: &Path) -> anyhow::Result<()> {
    let signer = private_key(key).and_then(|key| rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok());
    let held = signer.and_then(|signer| signer.public_key().map(|key| key.to_vec()));
    let named = chain.first().and_then(|leaf| Some(successor::subject_and_key(leaf)?.1));
    let fits = named.is_some() && held.as_deref() == named;
    ensure!(
        fits,
        "{} is not the key of {} (PEM, not encrypted), so the leaf may be a copy of another node's and is not renewed here; put back \
         the pair that was made together, or remove both and have them made by whoever keeps the CA",
        path.display(),
        leaf.display()
    );
    Ok(())
}

/// By the key of `ca`, and in its name.
fn signed(leaf: &[u8], ca: &[u8]) -> Option<()> {
    let [tbs, algorithm, signature] = elements(der::first(leaf)?.0.content)?[..] else { return None };
    let (issuer, (subject, key)) = (successor::issuer_of(leaf)?, successor::subject_and_key(ca)?);
    let [key_algorithm, key] = elements(der::first(key)?.0.content)?[..] else { return None };
    let (key, signature) = (octets(&key)?, octets(&signature)?);
    let verified = webpki::ALL_VERIFICATION_ALGS.iter().any(|by| {
        by.public_key_alg_id().as_ref() == key_algorithm.content
            && by.signature_alg_id().as_ref() == algorithm.content
            && by.verify_signature(key, tbs.whole, signature).is_ok()
    });
    (issuer == subject && verified).then_some(())
}

/// The content of a BIT STRING of whole octets.
fn octets<'a>(bits: &Element<'a>) -> Option<&'a [u8]> {
    bits.content.strip_prefix(&[0]).filter(|_| bits.tag == BITS)
}

/// Each certificate of the path is valid at its latest beginning, unless it never was whole.
fn by_a_path(chain: &[CertificateDer<'_>], cas: &[CertificateDer<'_>]) -> Option<()> {
    let (leaf, above) = chain.split_first().filter(|(_, above)| !above.is_empty())?;
    let begins = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        u64::try_from(certificate.validity().not_before.timestamp()).ok()
    };
    let at = chain.iter().map(begins).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    let anchors: Vec<_> = cas.iter().filter_map(|ca| webpki::anchor_from_trusted_cert(ca).ok()).collect();
    let leaf = EndEntityCert::try_from(leaf).ok()?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let builds =
        |usage| leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, above, time, usage, None, None).is_ok();
    [KeyUsage::server_auth(), KeyUsage::client_auth()].into_iter().any(builds).then_some(())
}
