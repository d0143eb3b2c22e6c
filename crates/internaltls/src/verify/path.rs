//! From a leaf to an anchor: found by us, verified by webpki. Pure.
//!
//! 1. Names first. Where no route leads to an anchor that is valid now, no signature is checked.
//! 2. webpki gets one route at a time: its very intermediates, and one anchor. That it finds this path good is necessary;
//!    what it leaves out (distrust, the constraints of CAs) is asked of the same path, so nobody has to guess afterwards
//!    which anchor was used.
//! 3. One route goes to webpki at once: as many signatures as the path has. Of several, those that are signed from the
//!    anchor down go there.
//! 4. A refusal is the gravest over the signed paths. What our CAs did not sign does not change it, whatever is sent and in
//!    whichever place: who is distrusted or revoked cannot make it look like an accident.
use std::cmp::Reverse;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::chain::{Chain, INTERMEDIATES};
use super::constraints::{self, CaUsage};
use super::facts::CertificateFacts;
use super::outline::Outline;
use super::routes::{Map, Route};
use super::signatures::{Algorithms, Signatures};
use super::trust::{Anchor, Crl, Trust};
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
        if verified.is_err() && self.is_revoked(&above, anchor) {
            return Err(Reason::Revoked);
        }
        verified.map_err(|error| self.why(error, &above, anchor))?;
        constraints::check(&above, &anchor.facts, self.asked.usage)?;
        let ends = above.iter().chain([&anchor.facts]).map(|ca| ca.not_after);
        Ok(ends.fold(self.asked.facts.not_after, SystemTime::min))
    }

    /// What webpki says of this path and no other.
    fn verified(&self, route: &Route, anchor: &Anchor) -> Result<(), Refused> {
        let Asked { chain, now, algorithms, .. } = *self.asked;
        let leaf = CertificateDer::from(chain.leaf.der);
        let end_entity = EndEntityCert::try_from(&leaf)?;
        let (anchors, above) = ([anchor.anchor.clone()], self.ders(route));
        let crls = self.crls(anchor);
        let revocation = crls.as_deref().filter(|crls| !crls.is_empty()).map(revocation).transpose()?;
        // Where two CAs have one name, webpki could leave one out, or take them in another order.
        let exact = |path: &VerifiedPath<'_>| {
            let same = path.intermediate_certificates().map(|cert| cert.der()).eq(above.iter().cloned());
            if same { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        end_entity.verify_for_usage(algorithms, &anchors, &above, unix(now), AnyUsage, revocation, Some(&exact))?;
        if crls.is_some_and(|crls| crls.is_empty()) { Err(Refused::NoCrl) } else { Ok(()) }
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

    /// The lists that count for a path to this anchor; `None` where no CRL path is set. webpki knows a list by the name of
    /// its issuer alone, so those of another CA of that name are left out, and so is one in an anchor's name that no
    /// anchor signed: it is of a CA that has gone.
    fn crls(&self, anchor: &Anchor) -> Option<Vec<&'a CertRevocationList<'static>>> {
        let Trust { anchors, lists, .. } = self.trust;
        let of_a_namesake = |crl: &Crl| anchors.iter().any(|anchor| anchor.facts.subject_der == crl.issuer_der);
        let counts = |crl: &&Crl| {
            let ours = crl.signer.map_or_else(|| !of_a_namesake(crl), |key| key == anchor.facts.spki_sha256);
            ours && !crl.is_too_old(self.asked.now, lists.grace)
        };
        lists.crls.as_ref().map(|crls| crls.iter().filter(counts).map(|crl| &*crl.list).collect())
    }

    /// Whether a list of its issuer names a certificate of a path that is refused already.
    fn is_revoked(&self, above: &[CertificateFacts], anchor: &Anchor) -> bool {
        let path = [self.asked.facts].into_iter().chain(above);
        let issuers = above.iter().chain([&anchor.facts]);
        let listed = |(cert, issuer): (&CertificateFacts, &CertificateFacts)| {
            let of_issuer = |crl: &&Crl| {
                crl.issuer_der == cert.issuer_der && crl.signer.is_none_or(|key| key == issuer.spki_sha256)
            };
            self.trust.lists.crls.iter().flatten().filter(of_issuer).any(|crl| crl.lists(&cert.raw_serial))
        };
        path.zip(issuers).any(listed)
    }

    /// Whether a list in the name of the leaf's issuer names the leaf, whose CA may have left the bundle. Asked only of one
    /// that is refused already.
    fn is_listed(&self) -> bool {
        let leaf = self.asked.facts;
        let of_issuer = |crl: &&Crl| crl.issuer_der == leaf.issuer_der;
        self.trust.lists.crls.iter().flatten().filter(of_issuer).any(|crl| crl.lists(&leaf.raw_serial))
    }

    /// Why no list tells whether the path is good: the one that would is too old, or there is none.
    fn untold(&self, above: &[CertificateFacts], otherwise: &'static str) -> Reason {
        let issuers = || [self.asked.facts].into_iter().chain(above).map(|cert| &cert.issuer_der);
        let lists = &self.trust.lists;
        let too_old = |crl: &&Crl| {
            crl.is_too_old(self.asked.now, lists.grace) && issuers().any(|issuer| *issuer == crl.issuer_der)
        };
        match lists.crls.iter().flatten().find(too_old) {
            Some(crl) => Reason::StaleCrl { issuer: crl.issuer.clone(), next_update: crl.next_update },
            None => Reason::UnknownRevocation(otherwise),
        }
    }

    /// webpki's error as a reason of ours.
    fn why(&self, refused: Refused, above: &[CertificateFacts], anchor: &Anchor) -> Reason {
        use webpki::Error as E;
        let error = match refused {
            Refused::NoCrl => return self.untold(above, "there is no CRL"),
            Refused::Webpki(error) => error,
        };
        match error {
            E::CertExpired { not_after, .. } => Reason::Expired { not_after: system(not_after) },
            E::CertNotValidYet { not_before, .. } => Reason::NotYetValid { not_before: system(not_before) },
            E::CertRevoked => Reason::Revoked,
            E::UnknownRevocationStatus => self.untold(above, "no CRL of its issuer is at hand"),
            E::InvalidCrlSignatureForPublicKey => Reason::UnknownRevocation("the CRL is not signed by its issuer"),
            E::IssuerNotCrlSigner => Reason::UnknownRevocation("its issuer may not sign CRLs"),
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
            E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                Reason::UnknownRevocation("the CRL is signed in a way that is not accepted")
            }
            _ => Reason::BadEncoding,
        }
    }
}

/// Why an exact path is refused.
enum Refused {
    Webpki(webpki::Error),
    /// No list counts for its anchor.
    NoCrl,
}

impl From<webpki::Error> for Refused {
    fn from(error: webpki::Error) -> Self {
        Self::Webpki(error)
    }
}

/// webpki would pass a leaf whose extended key usage names nothing, and asks no CA: usages are asked by us.
pub(super) struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, mut usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        usages.try_for_each(|usage| usage.map(drop))
    }
}

/// Every certificate of the path is looked up, and not to be found is a refusal. Lists that are too old are not among these.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Result<RevocationOptions<'a>, Refused> {
    let builder = RevocationOptionsBuilder::new(crls).map_err(|_| Refused::NoCrl)?;
    Ok(builder.with_status_policy(UnknownStatusPolicy::Deny).with_expiration_policy(ExpirationPolicy::Ignore).build())
}
