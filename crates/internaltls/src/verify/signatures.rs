//! Which key signed what, each asked once, and only so many in all (invariant 8).
//!
//! 1. Asked from the anchor downwards: a key that nobody above has vouched for verifies nothing, so whoever sends keys of his
//!    own makes no work with them.
//! 2. webpki asks through the same memory ([`Signatures::remembered`]), so that what it found good or bad is not computed
//!    again when we ask why, nor for the next anchor of the same key.
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use super::outline::Outline;
use crate::error::Reason;

/// Signatures that one chain may cost, webpki's among them. A stranger who knows the name of one CA of ours can make us check
/// five, the leaf's and those of four intermediates, though he sends true intermediates of ours; and one more for each
/// further key that our CAs of that name have.
const MOST: usize = 16;

/// What signatures may be made with.
pub(super) type Algorithms<'a> = &'a [&'a dyn SignatureVerificationAlgorithm];

/// The signatures of one chain.
#[derive(Debug)]
pub(super) struct Signatures<'a> {
    algorithms: Algorithms<'a>,
    asked: Mutex<Vec<Asked>>,
}

/// One signature, and whether it is good.
#[derive(Debug)]
struct Asked {
    /// Of the signature and of the key.
    algorithms: (AlgorithmIdentifier, AlgorithmIdentifier),
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    answer: Result<(), InvalidSignature>,
}

/// One more than [`MOST`].
struct TooMany;

impl<'a> Signatures<'a> {
    pub(super) fn new(algorithms: Algorithms<'a>) -> Self {
        Self { algorithms, asked: Mutex::default() }
    }

    /// Whether the key in `spki` signed `cert`.
    ///
    /// # Errors
    /// [`Reason::BadSignature`], or that the signature is of a kind, or the chain of a size, that is not accepted.
    pub(super) fn check(&self, cert: &Outline<'_>, spki: &[u8]) -> Result<(), Reason> {
        let (kind, key) = Outline::key(spki).ok_or(Reason::BadEncoding)?;
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.signature_alg_id().as_ref() == cert.algorithm && algorithm.public_key_alg_id().as_ref() == kind
        };
        let algorithm = self.algorithms.iter().find(fits);
        let algorithm = algorithm.ok_or(Reason::BadChain("a signature of a kind that is not accepted"))?;
        match self.ask(*algorithm, key, cert.tbs, cert.signature) {
            Ok(answer) => answer.map_err(|_| Reason::BadSignature),
            Err(TooMany) => Err(Reason::BadChain("it takes too much work to verify")),
        }
    }

    /// The algorithms for webpki, which share this memory.
    pub(super) fn remembered(&self) -> Vec<Remembered<'_>> {
        self.algorithms.iter().map(|algorithm| Remembered { algorithm: *algorithm, signatures: self }).collect()
    }

    fn ask(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<Result<(), InvalidSignature>, TooMany> {
        let algorithms = (algorithm.signature_alg_id(), algorithm.public_key_alg_id());
        let mut asked = self.asked();
        let same = |known: &&Asked| {
            known.algorithms == algorithms
                && known.key == key
                && known.signature == signature
                && known.message == message
        };
        if let Some(known) = asked.iter().find(same) {
            return Ok(known.answer);
        }
        if asked.len() == MOST {
            return Err(TooMany);
        }
        let answer = algorithm.verify_signature(key, message, signature);
        let (key, message, signature) = (key.to_vec(), message.to_vec(), signature.to_vec());
        asked.push(Asked { algorithms, key, message, signature, answer });
        Ok(answer)
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An algorithm that asks nothing twice.
#[derive(Debug)]
pub(super) struct Remembered<'s> {
    algorithm: &'s dyn SignatureVerificationAlgorithm,
    signatures: &'s Signatures<'s>,
}

impl SignatureVerificationAlgorithm for Remembered<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        // Beyond the limit nothing is good: whoever asks why is told of the limit by `check`.
        self.signatures.ask(self.algorithm, key, message, signature).unwrap_or(Err(InvalidSignature))
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}
