//! Whom we believe.
//!
//! 1. One path of judgement: `Trust::vouch`. Both rustls verifiers, the check of our own leaf and the check after a
//!    handshake call it. It is pure: the time is an argument; what was verified a moment ago is not verified again.
//! 2. Paths are built by webpki, with usages, names, depth, revocation and distrust of ours around it: webpki alone passes a
//!    leaf without any EKU, ignores KeyUsage and the validity of trust anchors, and its shortcut for servers ignores CRLs.
//! 3. Names are exact. No wildcard, no substring, nothing from the CN.
//!
//! Parts: `facts` reads a certificate, `trust` judges it, `path` builds and limits its path, `recent` remembers
//! it for a moment, `verifier` speaks to rustls.
mod facts;
mod path;
mod recent;
mod trust;
mod verifier;

pub(crate) use facts::{CertificateFacts, sha256, system_time};
pub(crate) use trust::{Anchor, Crl, Expected, KeyRing, Lists, PeerSide, Rules, Trust, Vouched};
pub(crate) use verifier::{ClientSide, Notices, ServerSide};
