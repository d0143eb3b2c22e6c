//! Whom we believe.
//!
//! 1. One path of judgement: `Trust::vouch`. Both rustls verifiers, the check of our own leaf and the check after a
//!    handshake call it. It is pure: the time is an argument; what was verified a moment ago is not verified again.
//! 2. Limits come before work: a chain is bounded by count and bytes before anything of it is decoded, and the names in it
//!    must lead to an anchor of ours before a signature is checked.
//! 3. Paths are found by us and verified by webpki, each with the one anchor that it leads to; usages, CA constraints of the
//!    anchor, depth and distrust are ours: webpki alone passes a leaf without any EKU, ignores KeyUsage and everything about
//!    a trust anchor but its name and key, and its shortcut for servers ignores CRLs.
//! 4. Names are exact. No wildcard, no substring, nothing from the CN; DNS names compare without case.
//!
//! Parts: `outline` finds the parts of a certificate, `chain` bounds what was sent, `facts` reads a certificate, `trust`
//! judges it, `routes` finds its paths, `signatures` tells which of them are signed, `path` verifies them, `constraints` has
//! the rules for its CAs, `recent` remembers it for a moment, `ring` holds the shared keys, `verifier` speaks
//! to rustls; `crl` reads a revocation list (`der` helps), `revocation` asks the lists.
mod chain;
mod constraints;
pub(crate) mod crl;
mod der;
#[cfg(test)]
pub(crate) mod drafts;
mod facts;
mod outline;
mod path;
mod recent;
pub(crate) mod revocation;
mod ring;
mod routes;
mod signatures;
#[cfg(test)]
mod tests;
mod trust;
mod verifier;

pub(crate) use chain::{CHAIN_BYTES, SENT, leaf_facts};
pub(crate) use crl::Crl;
pub(crate) use facts::{CertificateFacts, sha256};
pub(crate) use revocation::{Distrust, Lists};
pub(crate) use ring::{KeyHash, KeyRing, Origin, SharedKey};
pub(crate) use trust::{Anchor, Expected, PeerSide, Rules, Trust, Vouched};
pub(crate) use verifier::{ClientSide, Notices, ServerSide};
