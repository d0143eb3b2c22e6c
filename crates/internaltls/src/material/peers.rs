//! Whether a candidate may be published in view of the peers that are connected now. The decision is pure.
//!
//! 1. A candidate that would orphan a connected peer is held back: that is an accident, such as a bundle that was replaced
//!    where it should have been extended.
//! 2. To remove a peer on purpose is to list it. Whoever a CRL or the distrust list of the candidate names has no say, or a
//!    compromised peer could veto its own removal; so has a peer that what is served refuses already.
//! 3. A peer may have an old connection that drains beside a new one: it is orphaned only when none of its connections would
//!    be vouched for. One whose connection a rotation of ours has just ended counts until it has had the time to dial again.
//! 4. Then some of the peers that we dial are asked whether they would accept the candidate, by their own bundle of now. One
//!    that accepts the connection and says nothing has no say: a peer that hangs must not keep us from renewing.
//! 5. Peers that dial us and that we do not dial cannot be asked. A leaf of a CA that is new here waits until each of them has
//!    shown a leaf of that CA, which proves that it trusts it; but not for ever, since it may not mean to.
//! 6. Where all nodes share one pair, they get the next one together, and the key tells who belongs: nothing is held back.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tonic::Code;

use super::force::Force;
use super::generation::Generation;
use crate::client::{DialError, ProbeError, Target, ask};
use crate::config::Limits;
use crate::connections::{Connection, Direction, Registry, Shown};
use crate::error::{LoadError, MaterialFile, Reason, VerifyError};
use crate::foreign::chain;
use crate::identity::Identity;
use crate::question::{Answer, Question};
use crate::telemetry::Telemetry;
use crate::verify::{Expected, Lists, PeerSide, Rules, Trust};

/// What a candidate means for one connection's peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is vouched for.
    Kept,
    /// It was vouched for and is so no longer, though nobody listed it.
    Orphaned(VerifyError),
    /// It is listed, or not vouched for by what is served either.
    NoSay,
}

/// Who is at the other end, and which of its certificates it showed: one peer may dial with another leaf than it serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) dialled_us: bool,
}

/// The first peer that the candidate would orphan, and by which certificate.
pub(super) fn orphan(stands: impl IntoIterator<Item = (Peer, Stand)>) -> Option<(Peer, VerifyError)> {
    let mut left: BTreeMap<Peer, Option<VerifyError>> = BTreeMap::new();
    for (peer, stand) in stands {
        match stand {
            Stand::Kept => drop(left.insert(peer, None)),
            Stand::Orphaned(why) => drop(left.entry(peer).or_insert(Some(why))),
            Stand::NoSay => {}
        }
    }
    left.into_iter().find_map(|(peer, why)| why.map(|why| (peer, why)))
}

/// What `candidate` means for a peer that showed `chain` while `served` is in use.
pub(super) fn stand(
    served: &Trust,
    candidate: &Trust,
    chain: &[CertificateDer<'_>],
    side: PeerSide,
    now: SystemTime,
) -> Stand {
    match candidate.vouch(chain, side, None, now) {
        Ok(_) => Stand::Kept,
        Err(why) if why.is_distrust() || !still_has_a_say(served, candidate, chain, side, now) => Stand::NoSay,
        Err(why) => Stand::Orphaned(why),
    }
}

/// Whether what is served would vouch for the peer, were the CAs and keys that the candidate lists not in it: whoever
/// takes a CA out of the bundle in the same breath as it is listed means both.
fn still_has_a_say(
    served: &Trust,
    candidate: &Trust,
    chain: &[CertificateDer<'_>],
    side: PeerSide,
    now: SystemTime,
) -> bool {
    let lists = Lists { distrust: candidate.lists.distrust.clone(), ..Lists::default() };
    let unlisted = Trust::new(served.anchors.clone(), lists, served.rules.clone());
    let by_what_is_served = served.vouch(chain, side, None, now);
    by_what_is_served.is_ok() && unlisted.vouch(chain, side, None, now).is_ok()
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The first that would refuse us.
    pub(super) refused: Option<LoadError>,
    /// Those that did not answer in time.
    pub(super) silent: Vec<String>,
}

/// Whom to ask, and how.
pub(crate) struct Connected {
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    pub(crate) telemetry: Telemetry,
    pub(crate) runtime: Handle,
    /// How many peers are asked.
    pub(crate) trials: usize,
    /// How long each of them has to answer.
    pub(crate) trial_timeout: Duration,
    /// An operator's word goes above theirs.
    pub(crate) force: Force,
}

impl Connected {
    /// Asks live peers whether they would accept the candidate, each under its own bundle of now. One that is not reachable,
    /// is silent or does not know the question, has no say. Blocks, for no longer than one peer has to answer.
    pub(super) fn ask(
        &self,
        targets: Vec<Target>,
        candidate: &Arc<Generation>,
        chain: &[CertificateDer<'static>],
        file: &MaterialFile,
    ) -> Asked {
        let question = Question::of(chain);
        let (told, answers) = std::sync::mpsc::channel();
        for target in targets {
            let (told, candidate, question) = (told.clone(), Arc::clone(candidate), question.clone());
            let (limits, time) = (self.limits, self.trial_timeout);
            self.runtime.spawn(async move {
                let answer = ask(&target, &candidate, question, &limits, time).await;
                let _ = told.send((target, answer));
            });
        }
        drop(told);
        let mut asked = Asked::default();
        // All are heard: each has its own time limit.
        for (target, answer) in answers {
            if matches!(answer, Err(ProbeError::Silent { .. })) {
                asked.silent.push(target.name.clone());
            }
            let refused = self.heard(target, answer);
            asked.refused = asked.refused.or_else(|| {
                let (peer, source) = refused?;
                Some(LoadError::PeerTrial { file: file.clone(), peer, source: Box::new(source) })
            });
        }
        asked.silent.sort();
        asked
    }

    fn heard(&self, target: Target, answer: Result<Answer, ProbeError>) -> Option<(String, ProbeError)> {
        let (result, against) = match answer {
            Ok(answer) if answer.accepted => ("ok", None),
            Ok(answer) => ("refused", Some(ProbeError::refused(&answer.reason))),
            Err(error @ ProbeError::Silent { .. }) => {
                tracing::warn!(peer = target.name, reason = %chain(&error), "a peer that is connected does not answer a trial; it has no say");
                ("silent", None)
            }
            Err(error) if has_no_say(&error) => {
                tracing::info!(peer = target.name, reason = %chain(&error), "a peer has no say in a trial");
                ("no-say", None)
            }
            Err(error) => ("failed", Some(error)),
        };
        self.telemetry.trial("asked", result);
        against.map(|error| (target.name, error))
    }

    /// Those that we dial and that the candidate vouches for, newest first, one a role.
    pub(super) fn targets(&self, candidate: &Generation) -> Vec<Target> {
        if !matches!(candidate.trust.rules, Rules::PerNode { .. }) {
            return Vec::new();
        }
        let mut roles = BTreeSet::new();
        let connections = self.registry.connections();
        let dialled = connections.iter().rev().filter(|c| c.facts.direction == Direction::Outbound && !c.is_cut());
        let fit = dialled.filter(|c| candidate.vouch(c.chain(), PeerSide::Server, None).is_ok());
        fit.filter_map(|c| target(c)).filter(|t| roles.insert(t.expected.role.to_string())).take(self.trials).collect()
    }
}

/// The first peer that dials us, cannot be asked, and has not shown a leaf of the CAs that vouch for our new one (`ours`).
pub(super) fn unheard(registry: &Registry, candidate: &Trust, ours: &Trust, now: SystemTime) -> Option<String> {
    let shown = registry.shown();
    let of = |direction| shown.iter().filter(move |c| c.facts.direction == direction);
    let dialled: BTreeSet<_> = of(Direction::Outbound).map(|c| c.facts.peer.to_string()).collect();
    let vouched = of(Direction::Inbound).filter(|c| candidate.vouch(&c.chain, PeerSide::Client, None, now).is_ok());
    let heard = |c: &Shown| ours.vouch(&c.chain, PeerSide::Client, None, now).is_ok();
    let told = vouched.map(|c| (c.facts.peer.to_string(), heard(c)));
    silent(told.filter(|(peer, _)| !dialled.contains(peer)))
}

/// The first peer none of whose connections tells.
fn silent(told: impl IntoIterator<Item = (String, bool)>) -> Option<String> {
    let mut peers: BTreeMap<String, bool> = BTreeMap::new();
    for (peer, heard) in told {
        *peers.entry(peer).or_default() |= heard;
    }
    peers.into_iter().find_map(|(peer, heard)| (!heard).then_some(peer))
}

fn target(connection: &Connection) -> Option<Target> {
    let Identity::Node { role, node, .. } = &connection.facts.peer else { return None };
    let expected = Expected { role: role.clone(), node: Some(node.clone()) };
    Some(Target { address: connection.facts.peer_addr, expected, name: connection.facts.peer.to_string() })
}

/// Nobody there; one of before there was such a question; one whose own leaf is out of date, or whose chain nobody would take.
fn has_no_say(error: &ProbeError) -> bool {
    match error {
        ProbeError::Unreachable(_) => true,
        ProbeError::Call(status) => matches!(status.code(), Code::Unimplemented | Code::PermissionDenied),
        ProbeError::Dial(DialError::Certificate(why)) => {
            why.is_distrust()
                || why.is_over_limit()
                || matches!(why.reason, Reason::Expired { .. } | Reason::NotYetValid { .. })
        }
        _ => false,
    }
}

/// Refuses a candidate that would orphan a peer connected now. `ca` is the bundle's file.
pub(super) fn keeps_all(
    registry: &Registry,
    served: &Trust,
    candidate: &Trust,
    ca: MaterialFile,
    now: SystemTime,
) -> Result<(), LoadError> {
    if !matches!((&served.rules, &candidate.rules), (Rules::PerNode { .. }, Rules::PerNode { .. })) {
        return Ok(());
    }
    let shown = registry.shown();
    let stands = shown.iter().map(|c| (peer(c), stand(served, candidate, &c.chain, side(c), now)));
    match orphan(stands) {
        None => Ok(()),
        Some((peer, source)) => Err(LoadError::Orphan { ca, peer: peer.name, source: Box::new(source) }),
    }
}

fn peer(shown: &Shown) -> Peer {
    Peer { name: shown.facts.peer.to_string(), dialled_us: shown.facts.direction == Direction::Inbound }
}

fn side(shown: &Shown) -> PeerSide {
    match shown.facts.direction {
        Direction::Inbound => PeerSide::Client,
        Direction::Outbound => PeerSide::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{LeafNames, Reason};
    use proptest::prelude::*;

    fn refused() -> VerifyError {
        VerifyError { reason: Reason::UnknownIssuer, leaf: LeafNames::default() }
    }

    #[test]
    fn who_cannot_be_asked_has_no_say() {
        let call = |code| ProbeError::Call(Box::new(tonic::Status::new(code, "")));
        let shown =
            |reason| ProbeError::Dial(DialError::Certificate(VerifyError { reason, leaf: LeafNames::default() }));
        assert!(has_no_say(&ProbeError::Unreachable(DialError::Silent)));
        // One that has no such call asks its policy first.
        assert!(has_no_say(&call(Code::Unimplemented)) && has_no_say(&call(Code::PermissionDenied)));
        assert!(has_no_say(&shown(Reason::Distrusted)) && has_no_say(&shown(Reason::Revoked)));
        assert!(!has_no_say(&call(Code::Unavailable)) && !has_no_say(&shown(Reason::UnknownIssuer)));
        assert!(!has_no_say(&ProbeError::Refused(String::new())) && !has_no_say(&ProbeError::Dial(DialError::Silent)));
    }

    fn stands() -> impl Strategy<Value = Vec<(Peer, Stand)>> {
        let stand = prop_oneof![Just(Stand::Kept), Just(Stand::Orphaned(refused())), Just(Stand::NoSay)];
        let peer = (0..4_u8, any::<bool>())
            .prop_map(|(name, dialled_us)| Peer { name: format!("proxy/p-{name}"), dialled_us });
        proptest::collection::vec((peer, stand), 0..12)
    }

    fn kept(all: &[(Peer, Stand)], who: &Peer) -> bool {
        all.iter().any(|(peer, stand)| peer == who && *stand == Stand::Kept)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Held back exactly when somebody that has a say is orphaned on every connection.
        #[test]
        fn invariant_3_a_candidate_is_held_back_for_the_orphaned_alone(all in stands()) {
            let lost = all.iter().any(|(peer, stand)| matches!(stand, Stand::Orphaned(_)) && !kept(&all, peer));
            prop_assert_eq!(orphan(all.clone()).is_some(), lost);
        }

        #[test]
        fn who_is_named_is_orphaned_and_not_kept(all in stands()) {
            if let Some((named, _)) = orphan(all.clone()) {
                prop_assert!(!kept(&all, &named));
                prop_assert!(all.iter().any(|(peer, stand)| *peer == named && matches!(stand, Stand::Orphaned(_))));
            }
        }

        /// A compromised peer cannot veto its own removal, however many connections it opens.
        #[test]
        fn invariant_5_the_listed_have_no_veto(all in stands(), more in 0..9_usize) {
            let before = orphan(all.clone());
            let listed = (0..more).map(|_| (Peer { name: "proxy/p-0".to_owned(), dialled_us: true }, Stand::NoSay));
            prop_assert_eq!(orphan(all.into_iter().chain(listed)), before);
        }

        /// One connection that tells is enough, whichever it is, and nobody else's tells for a peer.
        #[test]
        fn a_peer_is_silent_when_all_its_connections_are(told in proptest::collection::vec(("[a-c]", any::<bool>()), 0..9)) {
            let heard = |who: &str| told.iter().any(|(peer, heard)| peer == who && *heard);
            let expected = told.iter().map(|(peer, _)| peer).filter(|peer| !heard(peer)).min().cloned();
            prop_assert_eq!(silent(told.clone()), expected);
        }

        /// Neither the order of connections nor which of them came first matters to whether it is held back.
        #[test]
        fn the_order_of_connections_does_not_matter(all in stands()) {
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(orphan(all).map(|(peer, _)| peer), orphan(turned).map(|(peer, _)| peer));
        }
    }
}
