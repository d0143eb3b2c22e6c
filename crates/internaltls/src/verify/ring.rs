//! The public keys that a peer's shared leaf may have.
//!
//! 1. At each moment the ring holds the keys of three sets and no others: the one that is served; the one before it, until its
//!    time is over; and the one on disk now, while it passes every check of its own.
//! 2. The time of the set before is over at the first of: its certificate's notAfter; the moment it is distrusted; and the
//!    end of the retention, which a connected peer that still shows the key puts off. What is over does not come back.
//! 3. The state is pure: the time and who is connected are arguments. [`KeyRing`] is the state behind a pointer that
//!    handshakes load without waiting.
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

/// SHA-256 of a SubjectPublicKeyInfo.
pub(crate) type KeyHash = [u8; 32];

/// A key of ours, and how long its certificate lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedKey {
    pub(crate) spki_sha256: KeyHash,
    pub(crate) not_after: SystemTime,
}

/// Why a key is in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Of the set that is served.
    Current,
    /// Of the set before it, until this moment; after it for as long as a connected peer shows it.
    Before { until: SystemTime },
    /// Of the set on disk.
    OnDisk,
}

/// The state of a ring.
#[derive(Debug, Clone, Default)]
struct Keys {
    current: Vec<SharedKey>,
    before: Vec<SharedKey>,
    /// The end of the retention of those before.
    until: Option<SystemTime>,
    on_disk: Vec<SharedKey>,
    /// What connected peers showed when that was asked last.
    shown: HashSet<KeyHash>,
}

impl Keys {
    fn is_before(&self, key: &SharedKey, now: SystemTime) -> bool {
        let retained = self.until.is_some_and(|until| now < until);
        now <= key.not_after && (retained || self.shown.contains(&key.spki_sha256))
    }

    fn publish(&mut self, current: Vec<SharedKey>, now: SystemTime, retention: Duration) {
        if hashes(&self.current) != hashes(&current) {
            // A key that is served on needs no retention.
            let serves = |key: &SharedKey| current.iter().any(|one| one.spki_sha256 == key.spki_sha256);
            self.before = self.current.iter().filter(|key| !serves(key)).copied().collect();
            self.until = now.checked_add(retention);
        }
        self.current = current;
        self.on_disk.clear();
    }

    /// Forgets the keys before whose time is over.
    fn tend(&mut self, now: SystemTime) -> Vec<KeyHash> {
        let (stay, over): (Vec<_>, Vec<_>) = self.before.iter().partition(|key| self.is_before(key, now));
        self.before = stay;
        hashes(&over)
    }
}

fn hashes(keys: &[SharedKey]) -> Vec<KeyHash> {
    keys.iter().map(|key| key.spki_sha256).collect()
}

/// The ring of one mesh.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    keys: ArcSwap<Keys>,
    /// How long the keys of the set before are accepted.
    retention: Duration,
}

impl KeyRing {
    pub(crate) fn new(retention: Duration) -> Self {
        Self { keys: ArcSwap::default(), retention }
    }

    /// One of these keys alone, to judge them by themselves.
    pub(crate) fn of(keys: Vec<SharedKey>) -> Self {
        let ring = Self::default();
        ring.offer(&keys);
        ring
    }

    /// Whether a peer may show this key. Wait-free.
    pub(crate) fn holds(&self, key: &KeyHash, now: SystemTime) -> bool {
        let keys = self.keys.load();
        let is = |one: &&SharedKey| one.spki_sha256 == *key;
        keys.current.iter().chain(&keys.on_disk).any(|one| is(&one))
            || keys.before.iter().filter(is).any(|one| keys.is_before(one, now))
    }

    /// Whether it is a key of the set that is served.
    pub(crate) fn is_current(&self, key: &KeyHash) -> bool {
        self.keys.load().current.iter().any(|one| one.spki_sha256 == *key)
    }

    /// The keys of the set on disk, where it passed every check of its own and is not the one served; none otherwise.
    pub(crate) fn offer(&self, on_disk: &[SharedKey]) {
        self.change(|keys| keys.on_disk = on_disk.to_vec());
    }

    /// A set is served from now on.
    pub(crate) fn publish(&self, current: &[SharedKey], now: SystemTime) {
        self.change(|keys| keys.publish(current.to_vec(), now, self.retention));
    }

    /// These keys of the set before are distrusted.
    pub(crate) fn distrust(&self, distrusted: &[KeyHash]) {
        self.change(|keys| keys.before.retain(|key| !distrusted.contains(&key.spki_sha256)));
    }

    /// Takes down what connected peers show now, and forgets the keys whose time is over: those are the result.
    pub(crate) fn tend(&self, now: SystemTime, shown: &HashSet<KeyHash>) -> Vec<KeyHash> {
        let before = self.keys.load();
        if before.shown == *shown && before.before.iter().all(|key| before.is_before(key, now)) {
            return Vec::new();
        }
        drop(before);
        let mut over = Vec::new();
        self.change(|keys| {
            keys.shown.clone_from(shown);
            over = keys.tend(now);
        });
        over
    }

    /// All keys that it holds, and why, in the order of their origins.
    pub(crate) fn list(&self, now: SystemTime) -> Vec<(SharedKey, Origin)> {
        let keys = self.keys.load();
        let until = keys.until.unwrap_or(now);
        let of = |all: &[SharedKey], origin| all.iter().map(|key| (*key, origin)).collect::<Vec<_>>();
        let before = of(&keys.before, Origin::Before { until }).into_iter().filter(|(key, _)| keys.is_before(key, now));
        of(&keys.current, Origin::Current).into_iter().chain(before).chain(of(&keys.on_disk, Origin::OnDisk)).collect()
    }

    /// `change` may be made again where another change came between.
    fn change(&self, mut change: impl FnMut(&mut Keys)) {
        self.keys.rcu(|keys| {
            let mut keys = Keys::clone(keys);
            change(&mut keys);
            keys
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RETENTION: u64 = 600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn key(name: u8, not_after: u64) -> SharedKey {
        SharedKey { spki_sha256: [name; 32], not_after: at(not_after) }
    }

    fn nobody() -> HashSet<KeyHash> {
        HashSet::new()
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A set of so many keys, by name, with how long it lasts from now.
        Publish(Vec<u8>, u64),
        OnDisk(Vec<u8>),
        Distrust(u8),
        /// Time passes, and peers show these keys.
        Tend(u64, HashSet<u8>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let names = || proptest::collection::vec(0..5_u8, 1..3);
        let step = prop_oneof![
            3 => (names(), 1..2_000_u64).prop_map(|(names, lasts)| Step::Publish(names, lasts)),
            1 => proptest::collection::vec(0..5_u8, 0..3).prop_map(Step::OnDisk),
            1 => (0..5_u8).prop_map(Step::Distrust),
            4 => (0..500_u64, proptest::collection::hash_set(0..5_u8, 0..3)).prop_map(|(by, shown)| Step::Tend(by, shown)),
        ];
        proptest::collection::vec(step, 0..60)
    }

    /// What is known of the set before, in words as simple as the rule's.
    #[derive(Debug, Default)]
    struct Model {
        now: u64,
        current: Vec<(u8, u64)>,
        before: Vec<(u8, u64)>,
        replaced_at: u64,
        on_disk: Vec<u8>,
        shown: HashSet<u8>,
        /// Of those before: what ended for good.
        over: HashSet<u8>,
    }

    impl Model {
        fn step(&mut self, step: &Step) {
            match step {
                Step::Publish(names, lasts) => {
                    let next: Vec<_> = names.iter().map(|name| (*name, self.now + lasts)).collect();
                    let names_of = |set: &[(u8, u64)]| set.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                    if names_of(&next) != names_of(&self.current) {
                        self.before = std::mem::take(&mut self.current);
                        (self.replaced_at, self.over) = (self.now, HashSet::new());
                    }
                    (self.current, self.on_disk) = (next, Vec::new());
                }
                Step::OnDisk(names) => self.on_disk.clone_from(names),
                Step::Distrust(name) => drop(self.over.insert(*name)),
                Step::Tend(by, shown) => {
                    self.now += by;
                    self.shown.clone_from(shown);
                    let over = self.before.iter().filter(|one| !self.counts(one)).map(|(name, _)| *name);
                    let over: Vec<_> = over.collect();
                    self.over.extend(over);
                }
            }
        }

        fn counts(&self, (name, not_after): &(u8, u64)) -> bool {
            let retained = self.now < self.replaced_at + RETENTION;
            !self.over.contains(name) && self.now <= *not_after && (retained || self.shown.contains(name))
        }

        fn holds(&self, name: u8) -> bool {
            self.current.iter().any(|(one, _)| *one == name)
                || self.before.iter().any(|one| one.0 == name && self.counts(one))
                || self.on_disk.contains(&name)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn invariant_5_the_ring_is_the_model(steps in steps()) {
            let (ring, mut model) = (KeyRing::new(Duration::from_secs(RETENTION)), Model::default());
            for step in steps {
                let now = model.now;
                match &step {
                    Step::Publish(names, lasts) => {
                        let keys: Vec<_> = names.iter().map(|name| key(*name, now + lasts)).collect();
                        ring.publish(&keys, at(now));
                    }
                    Step::OnDisk(names) => ring.offer(&names.iter().map(|name| key(*name, u64::MAX / 2)).collect::<Vec<_>>()),
                    Step::Distrust(name) => ring.distrust(&[[*name; 32]]),
                    Step::Tend(by, shown) => {
                        drop(ring.tend(at(now + by), &shown.iter().map(|name| [*name; 32]).collect()));
                    }
                }
                model.step(&step);
                for name in 0..5 {
                    prop_assert_eq!(ring.holds(&[name; 32], at(model.now)), model.holds(name), "key {} after {:?}: {:?}", name, step, model);
                    let listed = ring.list(at(model.now)).iter().any(|(key, _)| key.spki_sha256 == [name; 32]);
                    prop_assert_eq!(listed, model.holds(name));
                }
            }
        }
    }

    #[test]
    fn retention_ends_by_the_clock() {
        let ring = KeyRing::new(Duration::from_secs(RETENTION));
        ring.publish(&[key(1, 9_000)], at(0));
        ring.publish(&[key(2, 9_000)], at(100));
        assert!(ring.holds(&[1; 32], at(100 + RETENTION - 1)));
        assert!(!ring.holds(&[1; 32], at(100 + RETENTION)), "without anybody tending it");
        assert_eq!(ring.tend(at(100 + RETENTION), &nobody()), [[1; 32]]);
        assert!(!ring.holds(&[1; 32], at(100)), "the clock was set back");
    }

    #[test]
    fn a_peer_that_shows_it_keeps_it() {
        let ring = KeyRing::new(Duration::ZERO);
        ring.publish(&[key(1, 500)], at(0));
        ring.tend(at(0), &HashSet::from([[1; 32]]));
        ring.publish(&[key(2, 9_000)], at(100));
        assert!(ring.holds(&[1; 32], at(500)));
        assert!(!ring.holds(&[1; 32], at(501)), "but not beyond its notAfter");
        assert_eq!(ring.tend(at(400), &nobody()), [[1; 32]], "the peer has gone");
        ring.tend(at(400), &HashSet::from([[1; 32]]));
        assert!(!ring.holds(&[1; 32], at(400)), "what is over does not come back");
    }
}
