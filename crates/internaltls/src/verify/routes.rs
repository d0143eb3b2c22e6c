//! The paths that names allow, from a leaf to anchors of ours. Pure, and without a signature.
//!
//! 1. A route follows issuer to subject, byte by byte, over the certificates that were sent, in the order sent. It holds no
//!    CA twice (RFC 4158 section 5.2), nor the anchor's own CA below the anchor.
//! 2. Anchors of one name and one key end one route: the signatures on it are the same whichever of them is used.
//! 3. Key identifiers are hints (RFC 5280 section 4.2.1.1): they say which route to try first, and rule out none. A CA that
//!    was renewed with its key may bear another identifier.
use std::cmp::Reverse;

use super::outline::Outline;
use super::trust::Anchor;

/// The most routes of one chain: more than four certificates of one name have to two anchors.
const ROUTES: usize = 256;

/// One path by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Which of the certificates above the leaf, from its issuer upwards.
    pub(super) above: Vec<usize>,
    /// Which anchors, of one name and one key: the one that ends last comes first.
    pub(super) anchors: Vec<usize>,
}

/// What routes are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) leaf: &'a Outline<'a>,
    pub(super) above: &'a [Outline<'a>],
    pub(super) anchors: &'a [Anchor],
}

impl Map<'_> {
    /// All routes to anchors that are `meant`.
    pub(super) fn routes(&self, meant: impl Fn(&Anchor) -> bool) -> Vec<Route> {
        let ends = [self.leaf].into_iter().chain(self.above).map(|cert| self.ends(cert, &meant)).collect();
        let mut climb = Climb { map: self, ends, path: Vec::new(), found: Vec::new() };
        climb.on();
        climb.found
    }

    /// Whether every identifier of an issuer on the way, where both have one, is the one that is asked for.
    pub(super) fn is_hinted(&self, route: &Route) -> bool {
        let below = [self.leaf].into_iter().chain(route.above.iter().map(|at| &self.above[*at]));
        let issuers = route.above.iter().map(|at| self.above[*at].subject_key_id);
        let fits = |asked: Option<&[u8]>, has: Option<&[u8]>| asked.zip(has).is_none_or(|(asked, has)| asked == has);
        let inner = below.clone().zip(issuers).all(|(cert, has)| fits(cert.authority_key_id, has));
        let top = below.last().and_then(|cert| cert.authority_key_id);
        let anchor = |at: &usize| fits(top, self.anchors[*at].facts.subject_key_id.as_deref());
        inner && route.anchors.iter().any(anchor)
    }

    /// The anchors in the name of this certificate's issuer, by key.
    fn ends(&self, cert: &Outline<'_>, meant: &impl Fn(&Anchor) -> bool) -> Vec<Vec<usize>> {
        let mut by_key: Vec<Vec<usize>> = Vec::new();
        for (at, anchor) in self.anchors.iter().enumerate() {
            if anchor.facts.subject_der != cert.issuer || !meant(anchor) {
                continue;
            }
            let same_key = |ends: &&mut Vec<usize>| self.anchors[ends[0]].facts.spki_sha256 == anchor.facts.spki_sha256;
            match by_key.iter_mut().find(same_key) {
                Some(ends) => ends.push(at),
                None => by_key.push(vec![at]),
            }
        }
        by_key.iter_mut().for_each(|ends| ends.sort_by_key(|at| Reverse(self.anchors[*at].facts.not_after)));
        by_key
    }
}

/// The way up, depth first: a shorter route comes before the longer ones that pass by it.
struct Climb<'a> {
    map: &'a Map<'a>,
    /// Where the leaf's way may end, and then that of each certificate above it.
    ends: Vec<Vec<Vec<usize>>>,
    path: Vec<usize>,
    found: Vec<Route>,
}

impl Climb<'_> {
    fn on(&mut self) {
        let Map { leaf, above, anchors } = *self.map;
        let (head, ends) = match self.path.last() {
            Some(at) => (&above[*at], &self.ends[at + 1]),
            None => (leaf, &self.ends[0]),
        };
        for ends in ends {
            let anchor = &anchors[ends[0]];
            let is_anchors_ca = |at: &usize| {
                above[*at].subject == anchor.facts.subject_der
                    && above[*at].spki == &*anchor.anchor.subject_public_key_info
            };
            if self.found.len() < ROUTES && !self.path.iter().any(is_anchors_ca) {
                self.found.push(Route { above: self.path.clone(), anchors: ends.clone() });
            }
        }
        for (at, cert) in above.iter().enumerate() {
            let is_on_path = |other: &Outline<'_>| other.subject == cert.subject && other.spki == cert.spki;
            if cert.subject == head.issuer && !is_on_path(leaf) && !self.path.iter().any(|at| is_on_path(&above[*at])) {
                self.path.push(at);
                self.on();
                self.path.pop();
            }
        }
    }
}
