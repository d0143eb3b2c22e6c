//! The chain that somebody sent, within limits (invariant 8).
//!
//! 1. Everything that takes a foreign chain begins here: both verifiers of rustls, the trial, the dialler, the judging
//!    anew of a live connection, and the check of our own material.
//! 2. Bytes and number are counted first, then exact duplicates are left out, then the outlines are walked. No signature is
//!    checked before, and no parser sees what is beyond a limit.
//! 3. A certificate above the leaf that is no certificate, or is beyond a limit of its own, is left out as if it had not
//!    been sent. Whoever is refused could otherwise choose the reason by what he adds.
use rustls::pki_types::CertificateDer;

use super::facts::CertificateFacts;
use super::outline::{Outline, within};
use crate::error::Reason;

/// The most intermediates in a path.
pub(super) const INTERMEDIATES: usize = 4;
/// Certificates that a peer may send, leaf and duplicates counted.
pub(crate) const SENT: usize = 16;
/// Bytes of all of them. A leaf and four intermediates of ML-DSA-87 have some 37,000.
pub(crate) const CHAIN_BYTES: usize = 64 * 1024;

/// A leaf, and what was sent with it.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) leaf: Outline<'a>,
    /// Each once, in the order sent; or the limit that is broken, which says nothing against the leaf.
    pub(super) above: Result<Vec<Outline<'a>>, Reason>,
}

impl<'a> Chain<'a> {
    /// # Errors
    /// What is wrong with the leaf.
    pub(super) fn admit(sent: &'a [CertificateDer<'_>]) -> Result<Self, Reason> {
        let (leaf, above) = sent.split_first().ok_or(Reason::NoCertificate)?;
        Ok(Self { leaf: Outline::read(leaf)?, above: outlines(leaf, above) })
    }
}

fn outlines<'a>(leaf: &CertificateDer<'_>, sent: &'a [CertificateDer<'_>]) -> Result<Vec<Outline<'a>>, Reason> {
    if sent.len() + 1 > SENT {
        return Err(Reason::ChainTooLong { limit: INTERMEDIATES });
    }
    let bytes = sent.iter().map(|der| der.len()).sum::<usize>() + leaf.len();
    within(bytes, CHAIN_BYTES, "bytes of a chain")?;
    let mut once: Vec<&CertificateDer<'_>> = Vec::new();
    for der in sent {
        // Slices of different lengths are told apart without a look at their bytes.
        if der.as_ref() != leaf.as_ref() && !once.iter().any(|seen| seen.as_ref() == der.as_ref()) {
            once.push(der);
        }
    }
    if once.len() > INTERMEDIATES {
        return Err(Reason::ChainTooLong { limit: INTERMEDIATES });
    }
    Ok(once.into_iter().filter_map(|der| Outline::read(der).ok()).collect())
}

/// What the leaf of a foreign chain says, if the chain is within limits.
///
/// # Errors
/// What is wrong with the leaf.
pub(crate) fn leaf_facts(sent: &[CertificateDer<'_>]) -> Result<CertificateFacts, Reason> {
    Chain::admit(sent)?;
    sent.first().ok_or(Reason::NoCertificate).and_then(CertificateFacts::read)
}
