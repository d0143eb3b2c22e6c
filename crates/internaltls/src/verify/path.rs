//! From a leaf to an anchor, by webpki, within limits of ours. Pure.
use std::cell::Cell;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::facts::CertificateFacts;
use super::trust::{Anchor, Lists, Trust};
use crate::clock::{system, unix};
use crate::error::Reason;

/// The most intermediates in a path.
pub(super) const INTERMEDIATES: usize = 4;

/// Builds and checks a path, and tells the smallest notAfter on it.
pub(super) fn verify(
    trust: &Trust,
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    facts: &CertificateFacts,
    now: SystemTime,
) -> Result<SystemTime, Reason> {
    if trust.lists.distrust.contains(&facts.spki_sha256) {
        return Err(Reason::Distrusted);
    }
    let anchors: Vec<TrustAnchor<'_>> =
        trust.anchors.iter().filter(|a| a.valid_at(now) && a.may_sign()).map(|a| a.anchor.clone()).collect();
    let crls: Option<Vec<&CertRevocationList<'_>>> = trust.lists.crls.as_ref().map(|crls| crls.iter().collect());
    let revocation = crls.as_deref().map(revocation).transpose()?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| Reason::BadEncoding)?;
    let distrust_met = Cell::new(false);
    let limits = |path: &VerifiedPath<'_>| {
        let judged = within(trust, path);
        distrust_met.set(distrust_met.get() || judged == Err(webpki::Error::CertDistrusted));
        judged
    };
    let found = end_entity.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        sent,
        unix(now),
        AnyUsage,
        revocation,
        Some(&limits),
    );
    let found = found.map_err(|error| match error {
        // webpki goes on to other paths, and tells of the last or the gravest: a peer that sends an expired certificate beside
        // must not turn what is meant into what may be an accident.
        _ if distrust_met.get() => Reason::Distrusted,
        _ if listed(trust, &end_entity) => Reason::Revoked,
        error => why(error, trust, facts, sent, now),
    })?;
    Ok(smallest_not_after(trust, &found, facts))
}

/// Whether a CRL in the name of the leaf's issuer lists it. Asked only of a leaf that is refused already.
fn listed(trust: &Trust, leaf: &EndEntityCert<'_>) -> bool {
    let crls = trust.lists.crls.iter().flatten();
    crls.filter(|crl| crl.issuer() == leaf.issuer()).any(|crl| matches!(crl.find_serial(leaf.serial()), Ok(Some(_))))
}

/// Usages are asked of the leaf alone, by us: webpki would pass one that names none. Of an intermediate they are not asked.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, mut usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        usages.try_for_each(|usage| usage.map(drop))
    }
}

/// Every certificate of the path is looked up; none or a stale list is a refusal.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Result<RevocationOptions<'a>, Reason> {
    let builder = RevocationOptionsBuilder::new(crls).map_err(|_| Reason::UnknownRevocation("there is no CRL"))?;
    Ok(builder.with_status_policy(UnknownStatusPolicy::Deny).with_expiration_policy(ExpirationPolicy::Enforce).build())
}

/// Our limits on a path that webpki finds good. An error sends it to look for another.
fn within(trust: &Trust, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    if path.intermediate_certificates().count() > INTERMEDIATES {
        return Err(webpki::Error::MaximumPathDepthExceeded);
    }
    if anchor_of(trust, path).is_some_and(|anchor| trust.lists.distrust.contains(&anchor.facts.spki_sha256)) {
        return Err(webpki::Error::CertDistrusted);
    }
    path.intermediate_certificates().try_for_each(|cert| may_issue(&trust.lists, &cert.der()))
}

fn may_issue(lists: &Lists, der: &CertificateDer<'_>) -> Result<(), webpki::Error> {
    let facts = CertificateFacts::read(der).map_err(|_| webpki::Error::BadDer)?;
    if lists.distrust.contains(&facts.spki_sha256) {
        return Err(webpki::Error::CertDistrusted);
    }
    if facts.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
        return Err(webpki::Error::EndEntityUsedAsCa);
    }
    Ok(())
}

fn anchor_of<'a>(trust: &'a Trust, path: &VerifiedPath<'_>) -> Option<&'a Anchor> {
    trust.anchors.iter().find(|anchor| {
        anchor.anchor.subject == path.anchor().subject
            && anchor.anchor.subject_public_key_info == path.anchor().subject_public_key_info
    })
}

fn smallest_not_after(trust: &Trust, path: &VerifiedPath<'_>, leaf: &CertificateFacts) -> SystemTime {
    let intermediates = path
        .intermediate_certificates()
        .filter_map(|cert| CertificateFacts::read(&cert.der()).ok())
        .map(|f| f.not_after);
    let anchor = anchor_of(trust, path).map(|anchor| anchor.facts.not_after);
    intermediates.chain(anchor).fold(leaf.not_after, SystemTime::min)
}

/// webpki's error as a reason of ours.
fn why(
    error: webpki::Error,
    trust: &Trust,
    leaf: &CertificateFacts,
    sent: &[CertificateDer<'_>],
    now: SystemTime,
) -> Reason {
    use webpki::Error as E;
    match error {
        E::CertExpired { not_after, .. } => Reason::Expired { not_after: system(not_after) },
        E::CertNotValidYet { not_before, .. } => Reason::NotYetValid { not_before: system(not_before) },
        E::CertRevoked => Reason::Revoked,
        E::CertDistrusted => Reason::Distrusted,
        E::UnknownRevocationStatus => Reason::UnknownRevocation("no CRL of its issuer is at hand"),
        E::CrlExpired { .. } => Reason::UnknownRevocation("the CRL of its issuer is past its next update"),
        E::InvalidCrlSignatureForPublicKey => Reason::UnknownRevocation("the CRL is not signed by its issuer"),
        E::IssuerNotCrlSigner => Reason::UnknownRevocation("its issuer may not sign CRLs"),
        E::InvalidSignatureForPublicKey => Reason::BadSignature,
        E::UnknownIssuer if stale_anchor(trust, leaf, sent, now) => Reason::AnchorExpired,
        E::UnknownIssuer => Reason::UnknownIssuer,
        E::CaUsedAsEndEntity => Reason::CaAsLeaf,
        E::MaximumPathDepthExceeded => Reason::ChainTooLong { limit: INTERMEDIATES },
        E::EndEntityUsedAsCa => Reason::BadChain("an issuer in it is no CA"),
        E::PathLenConstraintViolated => Reason::BadChain("a path length constraint"),
        E::NameConstraintViolation => Reason::BadChain("a name constraint"),
        E::UnsupportedCriticalExtension => Reason::BadChain("a critical extension that is not understood"),
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumNameConstraintComparisonsExceeded => Reason::BadChain("it takes too much work to verify"),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Reason::BadChain("a signature of a kind that is not accepted")
        }
        E::UnsupportedCrlSignatureAlgorithmContext(_) | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            Reason::UnknownRevocation("the CRL is signed in a way that is not accepted")
        }
        _ => Reason::BadEncoding,
    }
}

/// Whether an anchor that is out of date bears the name of an issuer in the chain.
fn stale_anchor(trust: &Trust, leaf: &CertificateFacts, sent: &[CertificateDer<'_>], now: SystemTime) -> bool {
    let above = sent.iter().filter_map(|der| CertificateFacts::read(der).ok()).map(|facts| facts.issuer_der);
    let issuers: Vec<_> = above.chain([leaf.issuer_der.clone()]).collect();
    trust.anchors.iter().any(|anchor| !anchor.valid_at(now) && issuers.contains(&anchor.facts.subject_der))
}
