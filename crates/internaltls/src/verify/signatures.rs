//! Which certificate is signed by which key, each asked once, and only so many in all (invariant 8).
//!
//! Asked from the anchor downwards: a key that nobody above has vouched for verifies nothing, so whoever sends keys of his
//! own makes no work with them.
use std::cell::RefCell;

use rustls::pki_types::SignatureVerificationAlgorithm;

use super::outline::Outline;
use crate::error::Reason;

/// Signatures that one chain may cost before webpki is asked. A stranger who knows the name of one CA of ours can make us
/// check five: the leaf's and those of four intermediates.
const MOST: usize = 16;

/// What signatures may be made with.
pub(super) type Algorithms<'a> = &'a [&'a dyn SignatureVerificationAlgorithm];

/// The signatures of one chain.
pub(super) struct Signatures<'a> {
    algorithms: Algorithms<'a>,
    asked: RefCell<Vec<Asked<'a>>>,
}

struct Asked<'a> {
    tbs: &'a [u8],
    spki: &'a [u8],
    answer: Result<(), Reason>,
}

impl<'a> Signatures<'a> {
    pub(super) fn new(algorithms: Algorithms<'a>) -> Self {
        Self { algorithms, asked: RefCell::default() }
    }

    /// Whether the key in `spki` signed `cert`.
    ///
    /// # Errors
    /// [`Reason::BadSignature`], or that the signature is of a kind, or the chain of a size, that is not accepted.
    pub(super) fn check(&self, cert: &Outline<'a>, spki: &'a [u8]) -> Result<(), Reason> {
        let mut asked = self.asked.borrow_mut();
        // Two certificates of one chain are two places in memory.
        let known = asked.iter().find(|known| std::ptr::eq(known.tbs, cert.tbs) && known.spki == spki);
        if let Some(known) = known {
            return known.answer.clone();
        }
        if asked.len() == MOST {
            return Err(Reason::BadChain("it takes too much work to verify"));
        }
        let answer = self.verify(cert, spki);
        asked.push(Asked { tbs: cert.tbs, spki, answer: answer.clone() });
        answer
    }

    fn verify(&self, cert: &Outline<'_>, spki: &[u8]) -> Result<(), Reason> {
        let (kind, key) = Outline::key(spki).ok_or(Reason::BadEncoding)?;
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.signature_alg_id().as_ref() == cert.algorithm && algorithm.public_key_alg_id().as_ref() == kind
        };
        let algorithm = self.algorithms.iter().find(fits);
        let algorithm = algorithm.ok_or(Reason::BadChain("a signature of a kind that is not accepted"))?;
        algorithm.verify_signature(key, cert.tbs, cert.signature).map_err(|_| Reason::BadSignature)
    }
}
