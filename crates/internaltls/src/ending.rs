//! Who must go, and when. Pure: the time, what material says of a peer and who else is going are arguments.
//!
//! 1. By material: who is distrusted is cut; who is merely not vouched for drains, for that may be an accident; who is still
//!    vouched for makes room for a successor. A revocation list too old to be asked says nothing of a peer: it stays.
//! 2. By time: the wall clock, and the smallest notAfter of the verified path. A connection drains before it and is cut at it.
//! 3. Rotations coalesce. No end begins to drain a third generation between two nodes while two drain that it knows of; it
//!    waits until one of them has ended, which the grace of a drain bounds, and then takes the newest generation. Where each
//!    generation brings a new leaf both ends know the same, and there are never more than [`MOST_DRAINING`].
//! 4. By quiet: too long without a call.
//! 5. By its shared key: who shows one that is in the ring no longer drains, whether or not a generation was published. The
//!    ring is asked once a second.
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::error::{Reason, VerifyError};

/// Generations that may drain between two nodes at once.
pub(crate) const MOST_DRAINING: usize = 2;

/// Why a connection is ended. Each is a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// A newer generation replaced the one that vouched for it.
    Rotation,
    /// A CRL or the distrust list names the peer.
    Distrusted,
    /// Policy lets the peer's role call nothing any more.
    Policy,
    /// The peer's verified path is about to expire.
    Expiry,
    /// The process stops.
    Shutdown,
    /// No call for too long.
    Idle,
    /// No first request in time.
    NoRequest,
    /// Calls still ran when the time to drain was over.
    DrainTimeout,
    /// The endpoint is no longer listed, or a new connection took its place.
    Replaced,
    /// The peer showed a shared key that is accepted no longer.
    RetiredKey,
    /// The peer takes no more calls on it, or closed it.
    Peer,
    /// The client took back more calls than it may.
    Cancellations,
}

impl EndReason {
    /// All of them, in the order of their names.
    pub(crate) const ALL: [Self; 12] = [
        Self::Cancellations,
        Self::Distrusted,
        Self::DrainTimeout,
        Self::Expiry,
        Self::Idle,
        Self::NoRequest,
        Self::Peer,
        Self::Policy,
        Self::Replaced,
        Self::RetiredKey,
        Self::Rotation,
        Self::Shutdown,
    ];

    /// The reason as a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Rotation => "rotation",
            Self::Distrusted => "distrusted",
            Self::Policy => "policy",
            Self::Expiry => "expiry",
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::NoRequest => "no-request",
            Self::DrainTimeout => "drain-timeout",
            Self::Replaced => "replaced",
            Self::RetiredKey => "retired-key",
            Self::Peer => "peer",
            Self::Cancellations => "cancellations",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What a connection has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stay,
    /// Its calls may finish.
    Drain,
    /// It closes now.
    Cut,
}

/// What the newest generation says of a connected peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It vouches for it.
    Vouched,
    /// It vouches for it, but the peer would refuse to connect anew: it has not got our shared key yet. It will dial by
    /// itself when it has.
    Behind,
    /// It cannot tell: the revocation list that it would ask is too old. The peer could not connect anew.
    Untold,
    /// It does not: its CA has gone. That may be an accident.
    Unvouched,
    /// It does not: its shared key is accepted no longer.
    KeyRetired,
    /// A CRL or the distrust list names it. That is meant.
    Distrusted,
}

impl Standing {
    /// What a verification says; `keeps_pace` tells whether the peer will accept what we show now.
    pub(crate) fn of<T>(vouched: &Result<T, VerifyError>, keeps_pace: impl FnOnce(&T) -> bool) -> Self {
        match vouched {
            Ok(peer) if keeps_pace(peer) => Self::Vouched,
            Ok(_) => Self::Behind,
            Err(error) if error.is_distrust() => Self::Distrusted,
            Err(error) if error.is_stale_list() => Self::Untold,
            Err(error) if error.reason == Reason::UnknownSharedKey => Self::KeyRetired,
            Err(_) => Self::Unvouched,
        }
    }
}

/// What a new generation means for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays as it is.
    Keep,
    /// The peer is still vouched for: its calls may finish where a listener drains on rotation.
    Succeed,
    /// The peer is no longer vouched for: its calls may finish, and then it goes.
    Drain(EndReason),
    /// The peer is distrusted: close now.
    Cut,
}

/// Judges a connection made under generation `made` when `newest` is in force. `standing` is asked only when the
/// generation moved.
pub(crate) fn verdict(made: u64, newest: u64, standing: impl FnOnce() -> Standing) -> Verdict {
    if made >= newest {
        return Verdict::Keep;
    }
    match standing() {
        Standing::Vouched => Verdict::Succeed,
        Standing::Behind | Standing::Untold => Verdict::Keep,
        Standing::Unvouched => Verdict::Drain(EndReason::Rotation),
        Standing::KeyRetired => Verdict::Drain(EndReason::RetiredKey),
        Standing::Distrusted => Verdict::Cut,
    }
}

/// Judges a connection by the wall clock. `since` is when it was made, `grace` the time that a drain has.
pub(crate) fn by_time(now: SystemTime, since: SystemTime, not_after: SystemTime, grace: Duration) -> Fate {
    if now >= not_after {
        Fate::Cut
    } else if now >= drains_at(since, not_after, grace) {
        Fate::Drain
    } else {
        Fate::Stay
    }
}

/// The grace before the end, or a tenth of its life where the leaf is so short-lived that this would be most of it.
fn drains_at(since: SystemTime, not_after: SystemTime, grace: Duration) -> SystemTime {
    let life = not_after.duration_since(since).unwrap_or_default();
    not_after - grace.min(life / 10)
}

/// What a connection was made of: the number of our generation, and the serial of the peer's leaf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Making {
    pub(crate) generation: u64,
    pub(crate) peer_serial: Option<String>,
}

/// A connection between two nodes, as far as [`has_room`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) making: Making,
    /// It takes no new calls, as far as we know.
    pub(crate) going: bool,
}

/// Those of a node that dialled us, oldest first. One that shows an older leaf than its youngest connection has been
/// replaced by its dialler, which does not tell us so.
pub(crate) fn replaced_by_dialler(neighbours: &mut [Neighbour]) {
    let Some(newest) = neighbours.last().map(|n| n.making.peer_serial.clone()) else { return };
    neighbours.iter_mut().for_each(|n| n.going |= n.making.peer_serial != newest);
}

/// Whether one that was made of `next` may be drained beside those that go already.
pub(crate) fn has_room(neighbours: &[Neighbour], next: &Making) -> bool {
    let going = neighbours.iter().filter(|n| n.going).map(|n| &n.making);
    going.chain([next]).collect::<BTreeSet<_>>().len() <= MOST_DRAINING
}

/// What a connection has been doing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    pub(crate) in_flight: usize,
    pub(crate) started: u64,
    /// How long the connection exists.
    pub(crate) age: Duration,
    /// Its age when the last call ended.
    pub(crate) ended: Duration,
}

/// What the time without calls means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Look again after this long.
    Wait(Duration),
    /// Too long.
    End(EndReason),
}

/// Judges the time without calls: `first` bounds the wait for the first call, `idle` each wait after a call.
pub(crate) fn quiet(activity: Activity, first: Duration, idle: Duration) -> Quiet {
    let (since, limit, reason) = match activity {
        Activity { in_flight: 1.., age, .. } => (age, idle, EndReason::Idle),
        Activity { started: 0, .. } => (Duration::ZERO, first, EndReason::NoRequest),
        Activity { ended, .. } => (ended, idle, EndReason::Idle),
    };
    match since.saturating_add(limit).checked_sub(activity.age) {
        Some(left) if !left.is_zero() => Quiet::Wait(left),
        _ => Quiet::End(reason),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::LeafNames;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_older_generations_are_drained() {
        assert_eq!(verdict(2, 2, || unreachable!("not asked")), Verdict::Keep);
        assert_eq!(verdict(3, 2, || unreachable!("not asked")), Verdict::Keep);
        assert_eq!(verdict(1, 2, || Standing::Vouched), Verdict::Succeed);
        assert_eq!(verdict(1, 2, || Standing::Behind), Verdict::Keep);
        assert_eq!(verdict(1, 2, || Standing::Untold), Verdict::Keep);
        assert_eq!(verdict(1, 2, || Standing::Unvouched), Verdict::Drain(EndReason::Rotation));
        assert_eq!(verdict(1, 2, || Standing::KeyRetired), Verdict::Drain(EndReason::RetiredKey));
        assert_eq!(verdict(1, 2, || Standing::Distrusted), Verdict::Cut);
    }

    #[test]
    fn a_list_that_is_too_old_is_no_distrust() {
        let refused = |reason| Err::<(), _>(VerifyError { reason, leaf: LeafNames::default() });
        let of = |reason| Standing::of(&refused(reason), |()| true);
        assert_eq!(of(Reason::StaleCrl { issuer: "CN=ca".into(), next_update: at(1) }), Standing::Untold);
        assert_eq!((of(Reason::Revoked), of(Reason::Distrusted)), (Standing::Distrusted, Standing::Distrusted));
        assert_eq!(of(Reason::UnknownRevocation("")), Standing::Unvouched);
        assert_eq!(of(Reason::UnknownSharedKey), Standing::KeyRetired);
    }

    #[test]
    fn expiry_is_met_early() {
        let fate = |now, not_after| by_time(at(now), at(1_000), at(not_after), 30 * SECOND);
        assert_eq!([fate(4_569, 4_600), fate(4_570, 4_600)], [Fate::Stay, Fate::Drain]);
        assert_eq!([fate(4_599, 4_600), fate(4_600, 4_600)], [Fate::Drain, Fate::Cut]);
        // A leaf of twenty seconds drains for the last two.
        assert_eq!([fate(1_017, 1_020), fate(1_018, 1_020)], [Fate::Stay, Fate::Drain]);
        assert_eq!(fate(1_000, 991), Fate::Cut);
    }

    #[test]
    fn quiet_connections_end() {
        let activity =
            |in_flight, started, age, ended| Activity { in_flight, started, age: age * SECOND, ended: ended * SECOND };
        let judge = |activity| quiet(activity, 30 * SECOND, 900 * SECOND);
        assert_eq!(judge(activity(0, 0, 10, 0)), Quiet::Wait(20 * SECOND));
        assert_eq!(judge(activity(0, 0, 30, 0)), Quiet::End(EndReason::NoRequest));
        assert_eq!(judge(activity(1, 1, 5_000, 0)), Quiet::Wait(900 * SECOND));
        assert_eq!(judge(activity(0, 7, 1_000, 400)), Quiet::Wait(300 * SECOND));
        assert_eq!(judge(activity(0, 7, 1_300, 400)), Quiet::End(EndReason::Idle));
    }

    #[test]
    fn reasons_are_listed_once_each() {
        let labels: Vec<_> = EndReason::ALL.iter().map(|reason| reason.label()).collect();
        assert!(labels.is_sorted_by(|a, b| a < b), "{labels:?}");
    }

    /// What may happen between two nodes, as one end sees it.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// We have a new generation.
        Rotate,
        /// The peer shows a new leaf on its next connection.
        PeerRotates,
        /// The connection in use may be succeeded, if there is room.
        Look,
        /// The calls on the n-th of those that drain have ended, or their time is over.
        End(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            1 => Just(Event::Rotate),
            1 => Just(Event::PeerRotates),
            3 => Just(Event::Look),
            1 => (0..4_usize).prop_map(Event::End)
        ];
        proptest::collection::vec(event, 0..200)
    }

    /// The connections of one pair: the last is in use.
    struct Pair {
        generation: u64,
        leaf: u64,
        connections: Vec<Neighbour>,
    }

    impl Pair {
        fn new() -> Self {
            let mut pair = Self { generation: 1, leaf: 1, connections: Vec::new() };
            pair.connect();
            pair
        }

        fn newest(&self) -> Making {
            Making { generation: self.generation, peer_serial: Some(self.leaf.to_string()) }
        }

        fn connect(&mut self) {
            self.connections.push(Neighbour { making: self.newest(), going: false });
        }

        fn look(&mut self) {
            let newest = self.newest();
            let used = self.connections.last().expect("one is in use").making.clone();
            if used != newest && has_room(&self.connections, &used) {
                self.connections.last_mut().expect("one is in use").going = true;
                self.connect();
            }
        }

        fn step(&mut self, event: Event) {
            let draining = self.connections.len() - 1;
            match event {
                Event::Rotate => self.generation += 1,
                Event::PeerRotates => self.leaf += 1,
                Event::Look => self.look(),
                Event::End(n) if n < draining => drop(self.connections.remove(n)),
                Event::End(_) => {}
            }
        }

        fn draining(&self) -> usize {
            let going = self.connections.iter().filter(|n| n.going);
            going.map(|n| n.making.clone()).collect::<BTreeSet<_>>().len()
        }
    }

    /// A connection as its two ends see it. Each generation brings a leaf, so a generation's number names the leaf too.
    #[derive(Debug, Clone)]
    struct Link {
        dialler: u64,
        listener: u64,
        /// The dialler has a newer one. It does not say so.
        replaced: bool,
        /// The listener said that it takes no more calls.
        told: bool,
    }

    /// Two nodes; the last connection is in use.
    struct Ends {
        dialler: u64,
        listener: u64,
        links: Vec<Link>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Turn {
        DiallerRotates,
        ListenerRotates,
        DiallerLooks,
        /// At one of its connections, whichever.
        ListenerLooks(usize),
        End(usize),
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = prop_oneof![
            1 => Just(Turn::DiallerRotates),
            1 => Just(Turn::ListenerRotates),
            2 => Just(Turn::DiallerLooks),
            2 => (0..6_usize).prop_map(Turn::ListenerLooks),
            1 => (0..6_usize).prop_map(Turn::End)
        ];
        proptest::collection::vec(turn, 0..300)
    }

    fn made(generation: u64, peer: u64) -> Making {
        Making { generation, peer_serial: Some(peer.to_string()) }
    }

    fn count(neighbours: &[Neighbour]) -> usize {
        neighbours.iter().filter(|n| n.going).map(|n| &n.making).collect::<BTreeSet<_>>().len()
    }

    impl Ends {
        fn new() -> Self {
            let mut ends = Self { dialler: 1, listener: 1, links: Vec::new() };
            ends.connect();
            ends
        }

        fn connect(&mut self) {
            let (dialler, listener) = (self.dialler, self.listener);
            self.links.push(Link { dialler, listener, replaced: false, told: false });
        }

        fn as_dialled(&self) -> Vec<Neighbour> {
            let seen = |l: &Link| Neighbour { making: made(l.dialler, l.listener), going: l.replaced || l.told };
            self.links.iter().map(seen).collect()
        }

        fn as_accepted(&self) -> Vec<Neighbour> {
            let seen = |l: &Link| Neighbour { making: made(l.listener, l.dialler), going: l.told };
            let mut all: Vec<_> = self.links.iter().map(seen).collect();
            replaced_by_dialler(&mut all);
            all
        }

        fn dialler_looks(&mut self) {
            let used = self.links.last().expect("one is in use").clone();
            if used.told {
                self.connect();
            } else if used.dialler < self.dialler && has_room(&self.as_dialled(), &made(used.dialler, used.listener)) {
                self.links.last_mut().expect("one is in use").replaced = true;
                self.connect();
            }
        }

        fn listener_looks(&mut self, at: usize) {
            let neighbours = self.as_accepted();
            let newest = self.listener;
            if let Some(link) = self.links.get_mut(at)
                && link.listener < newest
                && has_room(&neighbours, &made(link.listener, link.dialler))
            {
                link.told = true;
            }
        }

        fn take(&mut self, turn: Turn) {
            match turn {
                Turn::DiallerRotates => self.dialler += 1,
                Turn::ListenerRotates => self.listener += 1,
                Turn::DiallerLooks => self.dialler_looks(),
                Turn::ListenerLooks(at) => self.listener_looks(at),
                Turn::End(at) if at + 1 < self.links.len() => drop(self.links.remove(at)),
                Turn::End(_) => {}
            }
        }
    }

    #[test]
    fn an_endless_idle_time_ends_nothing() {
        let idle = Activity { in_flight: 0, started: 1, ended: Duration::from_secs(5), age: Duration::from_secs(9) };
        assert!(matches!(quiet(idle, Duration::MAX, Duration::MAX), Quiet::Wait(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever rotates, and however long calls run.
        #[test]
        fn at_most_two_generations_drain_between_two_nodes(events in events()) {
            let mut pair = Pair::new();
            for event in events {
                pair.step(event);
                prop_assert!(pair.draining() <= MOST_DRAINING, "{:?}", pair.connections);
            }
        }

        /// The same where both ends rotate and each decides by what it knows.
        #[test]
        fn two_ends_together_keep_to_two_generations(turns in turns()) {
            let mut ends = Ends::new();
            for turn in turns {
                ends.take(turn);
                let (near, far) = (count(&ends.as_dialled()), count(&ends.as_accepted()));
                prop_assert!(near <= MOST_DRAINING && far <= MOST_DRAINING, "{near} and {far} of {:?}", ends.links);
            }
        }

        /// Waiting for room is no waiting for ever: once what drains has ended, the newest generation is in use.
        #[test]
        fn the_newest_generation_comes_into_use(events in events()) {
            let mut pair = Pair::new();
            events.into_iter().for_each(|event| pair.step(event));
            while pair.connections.len() > 1 {
                pair.step(Event::End(0));
            }
            pair.look();
            prop_assert_eq!(&pair.connections.last().unwrap().making, &pair.newest());
        }

        /// One that goes already never has to wait for itself.
        #[test]
        fn what_goes_already_has_room(events in events()) {
            let mut pair = Pair::new();
            events.into_iter().for_each(|event| pair.step(event));
            for going in pair.connections.iter().filter(|n| n.going) {
                prop_assert!(has_room(&pair.connections, &going.making));
            }
        }

        /// No moment beyond the bound, no cut before it, and no way back.
        #[test]
        fn invariant_5_time_ends_a_connection(life in 0..100_000_u64, grace in 0..100_u32, mut times in proptest::collection::vec(0..200_000_u64, 1..20)) {
            let end = at(1_000 + life);
            times.sort_unstable();
            let fates: Vec<Fate> = times.iter().map(|t| by_time(at(1_000 + t), at(1_000), end, grace * SECOND)).collect();
            let strength = |fate: &Fate| match fate { Fate::Stay => 0, Fate::Drain => 1, Fate::Cut => 2 };
            prop_assert!(fates.is_sorted_by_key(strength), "{fates:?}");
            for (time, fate) in times.iter().zip(&fates) {
                prop_assert_eq!(*fate == Fate::Cut, *time >= life);
                prop_assert!(*fate == Fate::Stay || time + u64::from(grace) >= life);
            }
        }

        /// To be cut somebody must have been listed; and who is listed is cut, whatever else holds.
        #[test]
        fn invariant_5_the_distrusted_alone_are_cut(made in 0..9_u64, newest in 0..9_u64, standing in standings()) {
            let cut = verdict(made, newest, || standing) == Verdict::Cut;
            prop_assert_eq!(cut, made < newest && standing == Standing::Distrusted);
        }
    }

    fn standings() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::Vouched),
            Just(Standing::Behind),
            Just(Standing::Untold),
            Just(Standing::Unvouched),
            Just(Standing::Distrusted)
        ]
    }
}
