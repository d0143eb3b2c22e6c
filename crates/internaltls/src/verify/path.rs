//! From a leaf to an anchor: found by us, verified by webpki. Pure.
//!
//! 1. Names first. Where no route leads to an anchor that is valid now, no signature is checked.
//! 2. webpki gets one route at a time: its very intermediates, and one anchor. That it finds this path good is necessary;
//!    what it leaves out (distrust, the constraints of CAs) is asked of the same path, so nobody has to guess afterwards
//!    which anchor was used.
//! 3. One route goes to webpki at once: as many signatures as the path has. Of several, those that are signed from the
//!    anchor down go there. No signature is computed twice, by webpki or by us ([`signatures`](super::signatures)).
//! 4. A refusal is the gravest over the signed paths. What our CAs did not sign does not change it, whatever is sent and in
//!    whichever place: who is distrusted or revoked cannot make it look like an accident.
use std::cmp::Reverse;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::chain::{Chain, INTERMEDIATES};
use super::constraints::{self, CaUsage};
use super::crl::Crl;
use super::facts::CertificateFacts;
use super::outline::Outline;
use super::revocation::{self, Link};
use super::routes::{Map, Route};
use super::signatures::{Algorithms, Signatures};
use super::trust::{Anchor, Trust};
use crate::clock::{system, unix};
use crate::error::Reason;

/// The most paths of one chain that webpki verifies.
const VERIFIED: usize = 8;

/// What is asked about a chain.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) chain: &'a Chain<'a>,
    /// Of the leaf.
    pub(super) facts: &'a CertificateFacts,
    pub(super) usage: CaUsage,
    pub(super) now: SystemTime,
    pub(super) algorithms: Algorithms<'a>,
}

/// Finds and checks the path, and tells the smallest notAfter on it; of several good ones, that which ends last.
pub(super) fn verify(trust: &Trust, asked: &Asked<'_>) -> Result<SystemTime, Reason> {
    if trust.lists.distrusts(asked.facts) {
        return Err(Reason::Distrusted);
    }
    match &asked.chain.above {
        Ok(above) => search(trust, asked, above),
        // The leaf by itself may be listed all the same: too long a chain must not hide it.
        Err(limit) => match search(trust, asked, &[]) {
            Err(listed @ (Reason::Distrusted | Reason::Revoked)) => Err(listed),
            _ => Err(limit.clone()),
        },
    }
}

fn search(trust: &Trust, asked: &Asked<'_>, above: &[Outline<'_>]) -> Result<SystemTime, Reason> {
    let map = Map { leaf: &asked.chain.leaf, above, anchors: &trust.anchors };
    let search = Search { trust, asked, map, signatures: Signatures::new(asked.algorithms) };
    search.best().map_err(|reason| if is_unsigned(&reason) && search.is_listed() { Reason::Revoked } else { reason })
}

/// Whether nothing of ours vouches for the chain.
fn is_unsigned(reason: &Reason) -> bool {
    matches!(reason, Reason::UnknownIssuer | Reason::AnchorExpired | Reason::BadSignature)
}

/// Of two refusals, the one that tells more; of two that tell as much, the first.
fn graver(one: Reason, other: Reason) -> Reason {
    let weight = |reason: &Reason| match reason {
        Reason::Distrusted | Reason::Revoked => 2,
        unsigned if is_unsigned(unsigned) => 0,
        _ => 1,
    };
    if weight(&other) > weight(&one) { other } else { one }
}

/// The search for the path of one leaf.
struct Search<'a> {
    trust: &'a Trust,
    asked: &'a Asked<'a>,
    map: Map<'a>,
    signatures: Signatures<'a>,
}

impl<'a> Search<'a> {
    fn best(&self) -> Result<SystemTime, Reason> {
        let now = self.asked.now;
        let routes = self.map.routes(|anchor| anchor.valid_at(now));
        let best = match routes.as_slice() {
            [] => Err(Reason::UnknownIssuer),
            [only] => self.along(only),
            several => self.best_of(several),
        };
        let stale = || !self.map.routes(|anchor| !anchor.valid_at(now)).is_empty();
        best.map_err(|reason| if is_unsigned(&reason) && stale() { Reason::AnchorExpired } else { reason })
    }

    fn best_of(&self, routes: &[Route]) -> Result<SystemTime, Reason> {
        // As between two CAs of one name in a roll-over: the identifiers tell which of them it is, at no cost.
        let mut hinted = routes.iter().filter(|route| self.map.is_hinted(route));
        if let (Some(only), None) = (hinted.next(), hinted.next())
            && let Ok(not_after) = self.along(only)
        {
            return Ok(not_after);
        }
        let mut refused = Reason::UnknownIssuer;
        let mut signed = Vec::new();
        for route in routes {
            match self.is_signed(route) {
                Ok(()) => signed.push(route),
                Err(reason) => refused = if refused == Reason::UnknownIssuer { reason } else { refused },
            }
        }
        signed.sort_by_cached_key(|route| Reverse(self.ends(route)));
        for (at, route) in signed.into_iter().take(VERIFIED).enumerate() {
            match self.along(route) {
                Ok(not_after) => return Ok(not_after),
                Err(reason) if at == 0 => refused = reason,
                Err(reason) => refused = graver(refused, reason),
            }
        }
        Err(refused)
    }

    /// The path to one of the route's anchors, the one that ends last before the others.
    fn along(&self, route: &Route) -> Result<SystemTime, Reason> {
        let mut refused = None;
        for at in route.anchors.iter().take(VERIFIED) {
            match self.judge(route, &self.trust.anchors[*at]) {
                Ok(not_after) => return Ok(not_after),
                // Nor is it signed by the others, which have the same key.
                Err(Reason::BadSignature) => return Err(refused.unwrap_or(Reason::BadSignature)),
                Err(reason) => refused = Some(refused.map_or(reason.clone(), |one| graver(one, reason))),
            }
        }
        Err(refused.unwrap_or(Reason::UnknownIssuer))
    }

    /// One exact path. That it is signed comes first: a path that is not says nothing of anybody.
    fn judge(&self, route: &Route, anchor: &Anchor) -> Result<SystemTime, Reason> {
        let verified = self.verified(route, anchor);
        if verified.is_err() {
            self.is_signed(route)?;
        }
        let above = self.ders(route).iter().map(CertificateFacts::read).collect::<Result<Vec<_>, _>>()?;
        let lists = &self.trust.lists;
        if above.iter().chain([&anchor.facts]).any(|ca| lists.distrusts(ca)) {
            return Err(Reason::Distrusted);
        }
        let revocation = self.revocation(&above, anchor, verified.is_ok());
        if revocation == Err(Reason::Revoked) {
            return Err(Reason::Revoked);
        }
        verified.map_err(|error| why(error, &above, anchor))?;
        revocation?;
        constraints::check(&above, &anchor.facts, self.asked.usage)?;
        let ends = above.iter().chain([&anchor.facts]).map(|ca| ca.not_after);
        Ok(ends.fold(self.asked.facts.not_after, SystemTime::min))
    }

    /// What webpki says of this path and no other.
    fn verified(&self, route: &Route, anchor: &Anchor) -> Result<(), webpki::Error> {
        let Asked { chain, now, .. } = *self.asked;
        let remembered = self.signatures.remembered();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> = remembered.iter().map(|one| one as _).collect();
        let leaf = CertificateDer::from(chain.leaf.der);
        let end_entity = EndEntityCert::try_from(&leaf)?;
        let (anchors, above) = ([anchor.anchor.clone()], self.ders(route));
        // Where two CAs have one name, webpki could leave one out, or take them in another order.
        let exact = |path: &VerifiedPath<'_>| {
            let same = path.intermediate_certificates().map(|cert| cert.der()).eq(above.iter().cloned());
            if same { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        end_entity.verify_for_usage(&algorithms, &anchors, &above, unix(now), AnyUsage, None, Some(&exact)).map(drop)
    }

    /// Whether every signature on the way verifies, from the anchor down.
    fn is_signed(&self, route: &Route) -> Result<(), Reason> {
        let mut key: &'a [u8] = &self.trust.anchors[route.anchors[0]].anchor.subject_public_key_info;
        for at in route.above.iter().rev() {
            let ca = &self.map.above[*at];
            self.signatures.check(ca, key)?;
            key = ca.spki;
        }
        self.signatures.check(self.map.leaf, key)
    }

    fn ders(&self, route: &Route) -> Vec<CertificateDer<'a>> {
        route.above.iter().map(|at| CertificateDer::from(self.map.above[*at].der)).collect()
    }

    /// When the path by this route ends.
    fn ends(&self, route: &Route) -> SystemTime {
        let above = self.ders(route).into_iter().filter_map(|der| CertificateFacts::read(&der).ok());
        let anchor = self.trust.anchors[route.anchors[0]].facts.not_after;
        above.map(|facts| facts.not_after).fold(anchor, SystemTime::min)
    }

    /// What the lists say of each certificate of the path below its anchor.
    fn revocation(&self, above: &[CertificateFacts], anchor: &Anchor, verified: bool) -> Result<(), Reason> {
        let certificates = [self.asked.facts].into_iter().chain(above);
        let issuers = above.iter().chain([&anchor.facts]);
        let links: Vec<_> =
            certificates.zip(issuers).map(|(certificate, issuer)| Link { certificate, issuer }).collect();
        if verified {
            revocation::prove(&self.trust.lists, &links);
        }
        revocation::check(&self.trust.lists, &links, self.asked.now)
    }

    /// Whether a list that a CA of ours signed names the leaf, by the name of its issuer: the CA may have left the bundle. A
    /// list that nobody is known to have signed says nothing. Asked only of a leaf that is refused already.
    fn is_listed(&self) -> bool {
        let (leaf, lists) = (self.asked.facts, &self.trust.lists);
        let names = |crl: &Crl| crl.issuer_der == leaf.issuer_der && crl.lists(&leaf.raw_serial);
        lists.crls.iter().any(|crl| names(crl) && lists.is_proven(crl))
    }
}

/// webpki's error as a reason of ours.
fn why(error: webpki::Error, above: &[CertificateFacts], anchor: &Anchor) -> Reason {
    use webpki::Error as E;
    match error {
        E::CertExpired { not_after, .. } => Reason::Expired { not_after: system(not_after) },
        E::CertNotValidYet { not_before, .. } => Reason::NotYetValid { not_before: system(not_before) },
        E::InvalidSignatureForPublicKey => Reason::BadSignature,
        E::UnknownIssuer => Reason::UnknownIssuer,
        E::CaUsedAsEndEntity => Reason::CaAsLeaf,
        E::MaximumPathDepthExceeded => Reason::ChainTooLong { limit: INTERMEDIATES },
        E::EndEntityUsedAsCa => Reason::BadChain("an issuer in it is no CA"),
        E::PathLenConstraintViolated => Reason::BadChain("a path length constraint"),
        E::NameConstraintViolation if above.iter().chain([&anchor.facts]).any(|ca| ca.constrains_uris) => {
            Reason::UriConstraint
        }
        E::NameConstraintViolation => Reason::BadChain("a name constraint"),
        E::UnsupportedCriticalExtension => Reason::BadChain("a critical extension that is not understood"),
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumNameConstraintComparisonsExceeded => Reason::BadChain("it takes too much work to verify"),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Reason::BadChain("a signature of a kind that is not accepted")
        }
        _ => Reason::BadEncoding,
    }
}

/// webpki would pass a leaf whose extended key usage names nothing, and asks no CA: usages are asked by us.
pub(super) struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, mut usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        usages.try_for_each(|usage| usage.map(drop))
    }
}
