//! Paths that were verified a moment ago.
//!
//! 1. A handshake verifies a chain, and whoever registers the connection asks for the verdict right after, by the same
//!    generation: the signatures on the path are not verified twice for that. Nor for each of many connections that one
//!    peer opens at once.
//! 2. What is remembered is what this very chain, byte by byte, says, that it leads to an anchor of this trust, and until
//!    when, for a peer of that side; it belongs to an immutable set of anchors and lists and goes with it. Names, usages
//!    and keys are judged anew each time, and that the peer holds the leaf's key is proven by its handshake, not here.
//! 3. It counts for a second, as long as what the clock decides may take to be noticed. Failures are not remembered.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::facts::CertificateFacts;
use super::trust::PeerSide;

/// How long a path counts as just verified.
const MOMENT: Duration = Duration::from_secs(1);
/// How many are remembered: as many handshakes as one address may have under way.
const MOST: usize = 64;

/// The paths, newest last.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Path>>);

#[derive(Debug)]
struct Path {
    chain: Vec<CertificateDer<'static>>,
    /// The usages of the CAs on the path were judged for it.
    side: PeerSide,
    facts: Arc<CertificateFacts>,
    not_after: SystemTime,
    at: SystemTime,
}

impl Path {
    fn counts(&self, now: SystemTime) -> bool {
        now.duration_since(self.at).is_ok_and(|age| age < MOMENT) && now <= self.not_after
    }
}

impl Recent {
    /// What this chain's leaf says and the end of its path, if it was verified a moment ago.
    pub(super) fn recall(
        &self,
        chain: &[CertificateDer<'_>],
        side: PeerSide,
        now: SystemTime,
    ) -> Option<(Arc<CertificateFacts>, SystemTime)> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = paths.iter().rev().find(|path| path.side == side && path.chain == chain && path.counts(now));
        found.map(|path| (Arc::clone(&path.facts), path.not_after))
    }

    /// Takes in a path that was verified in full.
    pub(super) fn remember(
        &self,
        chain: &[CertificateDer<'_>],
        side: PeerSide,
        facts: &Arc<CertificateFacts>,
        not_after: SystemTime,
        at: SystemTime,
    ) {
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.retain(|path| path.counts(at));
        if paths.len() == MOST {
            paths.pop_front();
        }
        paths.push_back(Path { chain, side, facts: Arc::clone(facts), not_after, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(bytes: &[u8]) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(bytes.to_vec())]
    }

    fn facts() -> Arc<CertificateFacts> {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        Arc::new(CertificateFacts::read(leaf.der()).unwrap())
    }

    fn end(recent: &Recent, chain: &[CertificateDer<'_>], now: SystemTime) -> Option<SystemTime> {
        recent.recall(chain, PeerSide::Client, now).map(|(_, not_after)| not_after)
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn only_the_same_bytes_within_a_moment() {
        let recent = Recent::default();
        recent.remember(&chain(b"leaf"), PeerSide::Client, &facts(), at(10_000), at(5_000));
        assert_eq!(end(&recent, &chain(b"leaf"), at(5_999)), Some(at(10_000)));
        assert_eq!(end(&recent, &chain(b"leaf"), at(6_000)), None, "a second later");
        assert_eq!(end(&recent, &chain(b"leaf"), at(4_999)), None, "the clock was set back");
        assert_eq!(end(&recent, &chain(b"leav"), at(5_000)), None);
        assert_eq!(end(&recent, &[chain(b"leaf"), chain(b"ca")].concat(), at(5_000)), None, "another chain");
        assert!(recent.recall(&chain(b"leaf"), PeerSide::Server, at(5_000)).is_none(), "of another side");
    }

    #[test]
    fn a_path_that_ends_within_the_moment_ends() {
        let recent = Recent::default();
        recent.remember(&chain(b"leaf"), PeerSide::Client, &facts(), at(5_100), at(5_000));
        assert_eq!(end(&recent, &chain(b"leaf"), at(5_100)), Some(at(5_100)));
        assert_eq!(end(&recent, &chain(b"leaf"), at(5_101)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let recent = Recent::default();
        let facts = facts();
        (0..=MOST).for_each(|n| recent.remember(&chain(&[n as u8]), PeerSide::Client, &facts, at(9_000), at(5_000)));
        assert_eq!(recent.0.lock().unwrap().len(), MOST);
        assert_eq!(end(&recent, &chain(&[0]), at(5_000)), None);
        recent.remember(&chain(b"later"), PeerSide::Client, &facts, at(9_000), at(7_000));
        assert_eq!(recent.0.lock().unwrap().len(), 1);
    }
}
