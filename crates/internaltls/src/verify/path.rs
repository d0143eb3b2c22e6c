//! From a leaf to an anchor, by webpki, within limits of ours. Pure.
use std::cell::Cell;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::facts::CertificateFacts;
use super::trust::{Anchor, Crl, Lists, Trust};
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
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| Reason::BadEncoding)?;
    let search = Search { trust, end_entity, sent, facts, now };
    let mut refused = Reason::UnknownIssuer;
    for only in search.anchors() {
        match search.among(only) {
            Ok(not_after) => return Ok(not_after),
            Err(reason) => refused = graver(refused, reason),
        }
    }
    Err(refused)
}

/// Of two refusals by CAs of one name, the one that tells more.
fn graver(one: Reason, other: Reason) -> Reason {
    let weight = |reason: &Reason| match reason {
        Reason::Distrusted | Reason::Revoked => 2,
        Reason::UnknownIssuer | Reason::BadSignature => 0,
        _ => 1,
    };
    if weight(&one) > weight(&other) { one } else { other }
}

/// The search for the path of one leaf.
struct Search<'a> {
    trust: &'a Trust,
    end_entity: EndEntityCert<'a>,
    sent: &'a [CertificateDer<'a>],
    facts: &'a CertificateFacts,
    now: SystemTime,
}

impl Search<'_> {
    /// All anchors together; or one by one where two have one name, for webpki knows lists by the name of their issuer.
    fn anchors(&self) -> Vec<Option<usize>> {
        let anchors = &self.trust.anchors;
        let named = |name: &[u8]| anchors.iter().filter(|a| a.facts.subject_der == name).count();
        let listed = self.trust.lists.crls.is_some();
        if listed && anchors.iter().any(|a| named(&a.facts.subject_der) > 1) {
            (0..anchors.len()).map(Some).collect()
        } else {
            vec![None]
        }
    }

    /// Paths to one anchor, or to any.
    fn among(&self, only: Option<usize>) -> Result<SystemTime, Reason> {
        let Self { trust, now, .. } = *self;
        let meant = |at: usize| only.is_none_or(|only| only == at);
        let fit = |(at, anchor): &(usize, &Anchor)| meant(*at) && anchor.valid_at(now) && anchor.may_sign();
        let anchors: Vec<TrustAnchor<'_>> =
            trust.anchors.iter().enumerate().filter(fit).map(|(_, anchor)| anchor.anchor.clone()).collect();
        let signs = |key: [u8; 32]| only.is_none_or(|at| trust.anchors[at].facts.spki_sha256 == key);
        // One in the name of an anchor that no anchor signed is of a CA that has gone: webpki would ask it for its namesake.
        let foreign = |crl: &Crl| trust.anchors.iter().any(|anchor| anchor.facts.subject_der == crl.issuer_der);
        let ours = |crl: &Crl| crl.signer.map_or_else(|| !foreign(crl), signs);
        let usable = |crl: &&Crl| ours(crl) && !crl.is_too_old(now, trust.lists.grace);
        let crls: Option<Vec<&CertRevocationList<'_>>> =
            trust.lists.crls.as_ref().map(|crls| crls.iter().filter(usable).map(|crl| &*crl.list).collect());
        let found = self.path(&anchors, crls.as_deref())?;
        if crls.is_some_and(|crls| crls.is_empty()) {
            return Err(self.untold("there is no CRL"));
        }
        Ok(found)
    }

    fn path(
        &self,
        anchors: &[TrustAnchor<'_>],
        crls: Option<&[&CertRevocationList<'_>]>,
    ) -> Result<SystemTime, Reason> {
        let Self { trust, end_entity, sent, facts, now } = self;
        let revocation = crls.filter(|crls| !crls.is_empty()).map(revocation).transpose()?;
        let distrust_met = Cell::new(false);
        let limits = |path: &VerifiedPath<'_>| {
            let judged = within(trust, path);
            distrust_met.set(distrust_met.get() || judged == Err(webpki::Error::CertDistrusted));
            judged
        };
        let found = end_entity.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            anchors,
            sent,
            unix(*now),
            AnyUsage,
            revocation,
            Some(&limits),
        );
        let found = found.map_err(|error| match error {
            // webpki goes on to other paths, and tells of the last or the gravest: a peer that sends an expired certificate
            // beside must not turn what is meant into what may be an accident.
            _ if distrust_met.get() => Reason::Distrusted,
            _ if listed(trust, end_entity) => Reason::Revoked,
            webpki::Error::UnknownRevocationStatus => self.untold("no CRL of its issuer is at hand"),
            error => why(error, trust, facts, sent, *now),
        })?;
        Ok(smallest_not_after(trust, &found, facts))
    }

    /// Why no list tells whether the leaf is good: the one that would is too old, or there is none.
    fn untold(&self, otherwise: &'static str) -> Reason {
        if listed(self.trust, &self.end_entity) {
            return Reason::Revoked;
        }
        let issuers = issuers(self.facts, self.sent);
        let lists = &self.trust.lists;
        let too_old = |crl: &&Crl| crl.is_too_old(self.now, lists.grace) && issuers.contains(&crl.issuer_der);
        match lists.crls.iter().flatten().find(too_old) {
            Some(crl) => Reason::StaleCrl { issuer: crl.issuer.clone(), next_update: crl.next_update },
            None => Reason::UnknownRevocation(otherwise),
        }
    }
}

/// Whether a CRL in the name of the leaf's issuer lists it. Asked only of a leaf that is refused already.
fn listed(trust: &Trust, leaf: &EndEntityCert<'_>) -> bool {
    let crls = trust.lists.crls.iter().flatten();
    crls.map(|crl| &*crl.list)
        .filter(|crl| crl.issuer() == leaf.issuer())
        .any(|crl| matches!(crl.find_serial(leaf.serial()), Ok(Some(_))))
}

/// Usages are asked of the leaf alone, by us: webpki would pass one that names none. Of an intermediate they are not asked.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, mut usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        usages.try_for_each(|usage| usage.map(drop))
    }
}

/// Every certificate of the path is looked up, and not to be found is a refusal. Lists that are too old are not among these.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Result<RevocationOptions<'a>, Reason> {
    let builder = RevocationOptionsBuilder::new(crls).map_err(|_| Reason::UnknownRevocation("there is no CRL"))?;
    Ok(builder.with_status_policy(UnknownStatusPolicy::Deny).with_expiration_policy(ExpirationPolicy::Ignore).build())
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
    let issuers = issuers(leaf, sent);
    trust.anchors.iter().any(|anchor| !anchor.valid_at(now) && issuers.contains(&anchor.facts.subject_der))
}

/// The names of all issuers in a chain.
fn issuers(leaf: &CertificateFacts, sent: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    let above = sent.iter().filter_map(|der| CertificateFacts::read(der).ok()).map(|facts| facts.issuer_der);
    above.chain([leaf.issuer_der.clone()]).collect()
}
