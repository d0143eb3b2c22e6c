//! What RFC 5280 asks of the CAs of a path and webpki does not: sections 4.2.1.3 (key usage), 4.2.1.9 (basic
//! constraints) and 4.2.1.12 (extended key usage). Pure.
//!
//! 1. The anchor is a CA of the path like the others: its own extensions bind it. One of version 1 has none.
//! 2. An extended key usage in a CA's certificate bounds what the leaves below it may be used for, as all implementations
//!    have it. Where the leaf's own usage is not asked for, its CAs' are not either.
use super::facts::{CertificateFacts, Usages};
use crate::error::Reason;

/// What the CAs of a path must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaUsage {
    Server,
    Client,
    /// One of both: the edge that takes leaves without clientAuth.
    Either,
    /// Usages do not count: the shared layout, where the key alone tells who belongs.
    Any,
}

impl CaUsage {
    /// `anyExtendedKeyUsage` allows all, as does a CA that says nothing.
    fn is_allowed_by(self, usages: Option<Usages>) -> bool {
        let Some(Usages { server_auth, client_auth, any }) = usages else { return true };
        any || match self {
            Self::Server => server_auth,
            Self::Client => client_auth,
            Self::Either => server_auth || client_auth,
            Self::Any => true,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Server => "serverAuth",
            Self::Client | Self::Any => "clientAuth",
            Self::Either => "serverAuth and clientAuth",
        }
    }
}

/// Judges the CAs of a path, the intermediates from the leaf's issuer upwards. That intermediates are CAs, and their own
/// path lengths, webpki has judged.
pub(super) fn check(above: &[CertificateFacts], anchor: &CertificateFacts, usage: CaUsage) -> Result<(), Reason> {
    if !anchor.may_be_anchor() {
        return Err(Reason::BadChain("the trust anchor is no CA"));
    }
    let lengthens = above.iter().filter(|ca| !ca.is_self_issued()).count();
    if anchor.path_len.is_some_and(|most| lengthens > most as usize) {
        return Err(Reason::BadChain("the path length constraint of the trust anchor"));
    }
    for ca in above.iter().chain([anchor]) {
        if ca.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
            return Err(Reason::BadChain("the key usage of a CA in it lacks keyCertSign"));
        }
        if !usage.is_allowed_by(ca.usages) {
            return Err(Reason::CaUsage { missing: usage.word() });
        }
    }
    Ok(())
}
