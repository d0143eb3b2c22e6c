//! Which endpoint a call goes to, and which endpoints must be dialled. Pure: the time and the jitter are arguments.
//!
//! 1. Calls go round robin over the endpoints that have a connection. An endpoint without one is dialled when its turn
//!    comes; the call waits for that only when no other endpoint has a connection. An endpoint whose connections are all full
//!    is dialled again, up to [`CONNECTIONS`] of them (gRFC A105); calls go to the first that has a place, so that those of a
//!    rush are idle after it, and end as idle ones do.
//! 2. One dial at a time and endpoint. A failed dial lets the endpoint rest (see [`rest`]); a resting endpoint gets no
//!    call. When all rest, calls are refused at once with the newest reason.
//! 3. A connection of an older generation goes on being used until its endpoint's new one is there, which takes the place of
//!    all older ones; a dial that fails does not take it away.
//!    Where generations pile up that drain between the two nodes, the dial waits until one of them has ended, and then is
//!    one of the newest.
//! 4. A connection that ends is news of its peer: whatever made dials fail while it lived counts no more, and the endpoint
//!    is dialled at once. A peer that takes over new material late refuses us until then, and then drains us: a call in that
//!    moment must not be refused for the failures before.
use std::sync::Arc;
use std::time::Instant;

use super::backoff::rest;
use crate::config::Endpoint;

/// Connections to one endpoint at once, at most, not counting those that drain.
pub(super) const CONNECTIONS: usize = 8;

/// A connection, as far as a choice depends on it.
pub(super) trait Link: Clone {
    /// Whether it takes new calls.
    fn usable(&self) -> bool;
    /// The generation of material under which it was dialled.
    fn generation(&self) -> u64;
    /// Whether as many calls are under way on it as the peer lets us have.
    fn is_full(&self) -> bool;
    /// Whether it may drain for a successor now: not while too many generations drain between the two nodes.
    fn has_room(&self) -> bool;
}

/// Names an endpoint for as long as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotId(u64);

/// What a call is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<L, E> {
    /// Go out on this connection.
    Use(L),
    /// Wait until something changes, then ask again. The slot is the one whose dial is awaited; without one, a place on a
    /// connection, or the first list.
    Wait(Option<SlotId>),
    /// Fail: every endpoint rests. The newest reason.
    Refuse(Endpoint, Arc<E>),
    /// Fail: the list of endpoints is empty.
    Nobody,
}

/// A dial that the caller of this module has to make, and whose outcome it reports with [`Balance::finished`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) slot: SlotId,
    pub(super) endpoint: Endpoint,
}

/// The endpoints of a channel and how each of them fares. `E` is why a dial failed.
#[derive(Debug)]
pub(super) struct Balance<L, E> {
    /// `None` until the first list is known.
    slots: Option<Vec<Slot<L, E>>>,
    cursor: usize,
    ids: u64,
}

#[derive(Debug)]
struct Slot<L, E> {
    id: SlotId,
    endpoint: Endpoint,
    /// In the order in which they were made.
    links: Vec<L>,
    dialling: bool,
    /// The dial under way began before the connection ended: its failure says nothing of the peer as it is now.
    stale: bool,
    failures: u32,
    failed: Option<Failed<E>>,
}

#[derive(Debug)]
struct Failed<E> {
    at: Instant,
    until: Instant,
    why: Arc<E>,
}

impl<L: Link, E> Balance<L, E> {
    pub(super) fn new() -> Self {
        Self { slots: None, cursor: 0, ids: 0 }
    }

    /// Takes over a list of endpoints. Those that stay keep their connection and their rest; the connections of those
    /// that went are handed back.
    pub(super) fn list(&mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<L> {
        let mut old = self.slots.take().unwrap_or_default();
        let mut new: Vec<Slot<L, E>> = Vec::new();
        for endpoint in endpoints {
            if new.iter().all(|slot| slot.endpoint != endpoint) {
                let known = old.iter().position(|slot| slot.endpoint == endpoint);
                new.push(known.map_or_else(|| self.cold(endpoint), |at| old.swap_remove(at)));
            }
        }
        self.slots = Some(new);
        old.into_iter().flat_map(|slot| slot.links).collect()
    }

    /// The next step of a call that waited in vain on the slots `tried`, and the dial that has to be started with it.
    pub(super) fn pick(&mut self, now: impl FnOnce() -> Instant, tried: &[SlotId]) -> (Step<L, E>, Option<Dial>) {
        match self.whose_turn() {
            Some(link) => (Step::Use(link), None),
            None => self.choose(now(), tried),
        }
    }

    /// The connection of the endpoint whose turn it is: all that most calls need to know.
    fn whose_turn(&mut self) -> Option<L> {
        let slots = self.slots.as_ref().filter(|slots| !slots.is_empty())?;
        let turn = self.cursor % slots.len();
        let link = slots[turn].links.iter().find(|link| link.usable() && !link.is_full())?.clone();
        self.cursor = turn + 1;
        Some(link)
    }

    fn choose(&mut self, now: Instant, tried: &[SlotId]) -> (Step<L, E>, Option<Dial>) {
        let Some(slots) = &mut self.slots else { return (Step::Wait(None), None) };
        if slots.is_empty() {
            return (Step::Nobody, None);
        }
        slots.iter_mut().for_each(Slot::tidy);
        let ring = |from: usize, n: usize| (from..from + n).map(move |i| i % n);
        let fits = |i: &usize| slots[*i].spare().is_some() || slots[*i].may_dial(now, tried);
        let Some(turn) = ring(self.cursor, slots.len()).find(fits) else {
            let all_full = slots.iter().any(|slot| !slot.links.is_empty());
            return (if all_full { Step::Wait(None) } else { Self::refuse(slots) }, None);
        };
        self.cursor = turn + 1;
        let dial = if slots[turn].spare().is_none() { slots[turn].start() } else { None };
        let ready = ring(turn, slots.len()).find_map(|i| slots[i].spare().cloned());
        (ready.map_or(Step::Wait(Some(slots[turn].id)), Step::Use), dial)
    }

    /// The dials that must be made although no call asks for them: of every endpoint whose connection is of an older
    /// generation than `current` and has room to drain.
    pub(super) fn due(&mut self, now: Instant, current: u64) -> Vec<Dial> {
        let slots = self.slots.iter_mut().flatten();
        slots.filter(|slot| slot.outdated(current) && !slot.resting(now)).filter_map(Slot::start).collect()
    }

    /// When [`Balance::due`] should be asked again, if nothing else happens before.
    pub(super) fn wake(&self, current: u64) -> Option<Instant> {
        let slots = self.slots.iter().flatten().filter(|slot| slot.outdated(current) && !slot.dialling);
        slots.filter_map(|slot| slot.failed.as_ref().map(|failed| failed.until)).min()
    }

    /// New material may mend what made dials fail: nothing rests any more.
    pub(super) fn forgive(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.failures = 0;
            slot.failed = None;
        }
    }

    /// Takes in the outcome of a dial. A new connection takes the place of those of older generations, which are handed back
    /// (as is the new one when its endpoint is no longer listed).
    pub(super) fn finished(&mut self, id: SlotId, outcome: Result<L, E>, now: Instant, jitter: f64) -> Vec<L> {
        let found = self.slots.iter_mut().flatten().find(|slot| slot.id == id);
        let Some(slot) = found else { return outcome.into_iter().collect() };
        slot.tidy();
        slot.dialling = false;
        match outcome {
            Ok(link) => slot.connected(link),
            Err(_) if std::mem::take(&mut slot.stale) => Vec::new(),
            Err(why) => {
                slot.rest(why, now, jitter);
                Vec::new()
            }
        }
    }

    /// Whether the slot's dial is over and failed, or the slot is gone.
    pub(super) fn failed(&self, id: SlotId) -> bool {
        let slot = self.slots.iter().flatten().find(|slot| slot.id == id);
        slot.is_none_or(|slot| !slot.dialling && slot.links.is_empty() && slot.failed.is_some())
    }

    /// Every connection there is, in the order of the endpoints.
    pub(super) fn links(&self) -> impl Iterator<Item = &L> {
        self.slots.iter().flatten().flat_map(|slot| slot.links.iter())
    }

    fn cold(&mut self, endpoint: Endpoint) -> Slot<L, E> {
        self.ids += 1;
        Slot {
            id: SlotId(self.ids),
            endpoint,
            links: Vec::new(),
            dialling: false,
            stale: false,
            failures: 0,
            failed: None,
        }
    }

    fn refuse(slots: &[Slot<L, E>]) -> Step<L, E> {
        let failures = slots.iter().filter_map(|slot| slot.failed.as_ref().map(|failed| (slot, failed)));
        failures
            .max_by_key(|(_, failed)| failed.at)
            .map_or(Step::Nobody, |(slot, failed)| Step::Refuse(slot.endpoint.clone(), Arc::clone(&failed.why)))
    }
}

impl<L: Link, E> Slot<L, E> {
    /// Lets go of a connection that takes no new calls; its running calls go on without us.
    fn tidy(&mut self) {
        let before = self.links.len();
        self.links.retain(Link::usable);
        if self.links.len() < before {
            self.stale = self.dialling;
            self.failures = 0;
            self.failed = None;
        }
    }

    /// The first connection that has a place.
    fn spare(&self) -> Option<&L> {
        self.links.iter().find(|link| !link.is_full())
    }

    fn resting(&self, now: Instant) -> bool {
        self.failed.as_ref().is_some_and(|failed| now < failed.until)
    }

    fn may_dial(&self, now: Instant, tried: &[SlotId]) -> bool {
        self.links.len() < CONNECTIONS && (self.dialling || !(self.resting(now) || tried.contains(&self.id)))
    }

    fn outdated(&self, current: u64) -> bool {
        self.links.iter().any(|link| link.usable() && link.generation() < current && link.has_room())
    }

    /// Begins a dial unless one is under way.
    fn start(&mut self) -> Option<Dial> {
        let fresh = !std::mem::replace(&mut self.dialling, true);
        self.stale &= !fresh;
        fresh.then(|| Dial { slot: self.id, endpoint: self.endpoint.clone() })
    }

    fn connected(&mut self, link: L) -> Vec<L> {
        self.stale = false;
        self.failures = 0;
        self.failed = None;
        let old = self.links.extract_if(.., |old| old.generation() < link.generation()).collect();
        self.links.push(link);
        old
    }

    fn rest(&mut self, why: E, now: Instant, jitter: f64) {
        self.failures += 1;
        self.failed = Some(Failed { at: now, until: now + rest(self.failures, jitter), why: Arc::new(why) });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Clone)]
    struct Fake {
        port: u16,
        generation: u64,
        open: Rc<Cell<bool>>,
        room: Rc<Cell<bool>>,
        full: Rc<Cell<bool>>,
    }

    impl Link for Fake {
        fn usable(&self) -> bool {
            self.open.get()
        }
        fn generation(&self) -> u64 {
            self.generation
        }
        fn is_full(&self) -> bool {
            self.full.get()
        }
        fn has_room(&self) -> bool {
            self.room.get()
        }
    }

    /// A balance on a clock that the test moves.
    struct Bench {
        balance: Balance<Fake, &'static str>,
        now: Instant,
        room: Rc<Cell<bool>>,
    }

    impl Bench {
        fn of(ports: impl IntoIterator<Item = u16>) -> Self {
            let mut balance = Balance::new();
            balance.list(ports.into_iter().map(endpoint));
            Self { balance, now: Instant::now(), room: Rc::new(Cell::new(true)) }
        }

        fn pick(&mut self) -> (Step<Fake, &'static str>, Option<Dial>) {
            self.pick_after(&[])
        }

        fn pick_after(&mut self, tried: &[SlotId]) -> (Step<Fake, &'static str>, Option<Dial>) {
            self.balance.pick(|| self.now, tried)
        }

        fn connect(&mut self, dial: &Dial, generation: u64) -> (Rc<Cell<bool>>, Option<Fake>) {
            let open = Rc::new(Cell::new(true));
            let (open_, room, full) = (Rc::clone(&open), Rc::clone(&self.room), Rc::default());
            let fake = Fake { port: dial.endpoint.port, generation, open: open_, room, full };
            let old = self.balance.finished(dial.slot, Ok(fake), self.now, 0.5);
            assert!(old.len() < 2);
            (open, old.into_iter().next())
        }

        fn fail(&mut self, dial: &Dial, why: &'static str) {
            assert!(self.balance.finished(dial.slot, Err(why), self.now, 0.5).is_empty());
        }

        fn used(&mut self) -> u16 {
            match self.pick().0 {
                Step::Use(fake) => fake.port,
                step => panic!("no connection: {step:?}"),
            }
        }

        fn dialled(&mut self) -> Dial {
            self.pick().1.expect("a dial")
        }
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    #[test]
    fn nothing_is_dialled_before_a_call() {
        let mut bench = Bench::of([1, 2]);
        assert!(bench.balance.due(bench.now, 9).is_empty());
        assert_eq!(bench.balance.wake(9), None);
    }

    #[test]
    fn waits_for_the_first_list() {
        let mut balance: Balance<Fake, &str> = Balance::new();
        assert!(matches!(balance.pick(Instant::now, &[]), (Step::Wait(None), None)));
        balance.list([]);
        assert!(matches!(balance.pick(Instant::now, &[]), (Step::Nobody, None)));
    }

    #[test]
    fn one_dial_serves_all_waiting_calls() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        for _ in 0..3 {
            let (step, again) = bench.pick();
            assert!(matches!(step, Step::Wait(Some(slot)) if slot == dial.slot));
            assert_eq!(again, None);
        }
        bench.connect(&dial, 1);
        assert_eq!(bench.used(), 1);
    }

    #[test]
    fn goes_round_connected_endpoints() {
        let mut bench = Bench::of([1, 2, 3]);
        for _ in 0..3 {
            let dial = bench.dialled();
            bench.connect(&dial, 1);
        }
        let mut used: Vec<u16> = (0..6).map(|_| bench.used()).collect();
        assert_eq!(used[..3], used[3..]);
        used.truncate(3);
        used.sort_unstable();
        assert_eq!(used, [1, 2, 3]);
    }

    #[test]
    fn calls_do_not_wait_while_another_is_connected() {
        let mut bench = Bench::of([1, 2]);
        let first = bench.dialled();
        bench.connect(&first, 1);
        let (step, dial) = bench.pick();
        assert!(matches!(step, Step::Use(fake) if fake.port == 1));
        assert_eq!(dial.unwrap().endpoint.port, 2);
        assert_eq!(bench.used(), 1);
    }

    fn fill(bench: &Bench, full: bool) {
        bench.balance.links().for_each(|link| link.full.set(full));
    }

    #[test]
    fn a_full_endpoint_is_dialled_again() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        fill(&bench, true);
        let (step, again) = bench.pick();
        assert!(matches!(step, Step::Wait(Some(slot)) if slot == dial.slot), "{step:?}");
        assert_eq!(again, Some(dial.clone()));
        assert!(bench.pick().1.is_none(), "one dial at a time");
        assert_eq!(bench.connect(&dial, 1).1.map(|link| link.port), None, "both stay");
        assert_eq!(bench.used(), 1);
        assert_eq!(bench.balance.links().count(), 2);
    }

    #[test]
    fn connections_to_one_endpoint_are_bounded() {
        let mut bench = Bench::of([1]);
        for _ in 0..CONNECTIONS {
            let dial = bench.dialled();
            bench.connect(&dial, 1);
            fill(&bench, true);
        }
        assert!(matches!(bench.pick(), (Step::Wait(None), None)), "a place is waited for");
        fill(&bench, false);
        assert_eq!(bench.used(), 1);
    }

    #[test]
    fn a_full_endpoint_that_cannot_be_dialled_is_waited_for() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        fill(&bench, true);
        let again = bench.dialled();
        bench.fail(&again, "no more");
        assert!(!bench.balance.failed(again.slot), "a waiting call would give up");
        assert!(matches!(bench.pick(), (Step::Wait(None), None)));
        bench.now += Duration::from_secs(1);
        assert!(bench.pick().1.is_some());
    }

    #[test]
    fn a_rotation_replaces_all_connections_of_an_endpoint() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        fill(&bench, true);
        let again = bench.dialled();
        bench.connect(&again, 1);
        let due = bench.balance.due(bench.now, 2);
        let (open, room, full) = (Rc::new(Cell::new(true)), Rc::clone(&bench.room), Rc::default());
        let new = Fake { port: 1, generation: 2, open, room, full };
        assert_eq!(bench.balance.finished(due[0].slot, Ok(new), bench.now, 0.5).len(), 2);
        assert_eq!(bench.balance.links().count(), 1);
    }

    #[test]
    fn failures_before_a_connection_ended_count_no_more() {
        let mut bench = Bench::of([1]);
        let first = bench.dialled();
        let (open, _) = bench.connect(&first, 1);
        let due = bench.balance.due(bench.now, 2);
        bench.fail(&due[0], "refused before the peer took over");
        assert_eq!(bench.used(), 1);
        open.set(false);
        let (step, dial) = bench.pick();
        assert!(matches!(step, Step::Wait(Some(slot)) if slot == first.slot), "{step:?}");
        assert!(dial.is_some(), "the endpoint still rests");
    }

    #[test]
    fn a_dial_begun_before_a_connection_ended_is_made_again() {
        let mut bench = Bench::of([1]);
        let first = bench.dialled();
        let (open, _) = bench.connect(&first, 1);
        let due = bench.balance.due(bench.now, 2);
        open.set(false);
        assert!(matches!(bench.pick(), (Step::Wait(Some(_)), None)), "the dial under way is waited for");
        bench.fail(&due[0], "refused before the peer took over");
        assert!(!bench.balance.failed(first.slot), "a waiting call would give up");
        let again = bench.dialled();
        bench.fail(&again, "refused");
        assert!(bench.balance.failed(first.slot));
        assert!(matches!(bench.pick().0, Step::Refuse(_, why) if *why == "refused"));
    }

    #[test]
    fn failed_endpoints_rest_and_others_are_preferred() {
        let mut bench = Bench::of([1, 2]);
        let bad = bench.dialled();
        let good = bench.dialled();
        assert_ne!(bad.endpoint, good.endpoint);
        bench.fail(&bad, "refused");
        bench.connect(&good, 1);
        for _ in 0..4 {
            assert_eq!(bench.used(), good.endpoint.port);
        }
        bench.now += Duration::from_secs(1);
        let again: Vec<Dial> = (0..2).filter_map(|_| bench.pick().1).collect();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].slot, bad.slot);
    }

    #[test]
    fn refuses_with_the_newest_reason_while_all_rest() {
        let mut bench = Bench::of([1, 2]);
        let (one, two) = (bench.dialled(), bench.dialled());
        bench.fail(&one, "older");
        bench.now += Duration::from_millis(1);
        bench.fail(&two, "newer");
        let (step, dial) = bench.pick();
        assert!(
            matches!(&step, Step::Refuse(endpoint, why) if **why == "newer" && *endpoint == two.endpoint),
            "{step:?}"
        );
        assert_eq!(dial, None);
        bench.now += Duration::from_secs(1);
        assert!(bench.pick().1.is_some());
    }

    #[test]
    fn rests_grow_and_end_with_success() {
        let mut bench = Bench::of([1]);
        let mut rests = Vec::new();
        for _ in 0..4 {
            let dial = bench.dialled();
            bench.fail(&dial, "refused");
            let until = bench.balance.slots.as_ref().unwrap()[0].failed.as_ref().unwrap().until;
            rests.push(until - bench.now);
            bench.now = until;
        }
        assert!(rests.windows(2).all(|pair| pair[1] == pair[0] * 2), "{rests:?}");
        let dial = bench.dialled();
        let (open, _) = bench.connect(&dial, 1);
        open.set(false);
        let dial = bench.dialled();
        bench.fail(&dial, "refused");
        assert_eq!(bench.balance.slots.as_ref().unwrap()[0].failures, 1);
    }

    #[test]
    fn calls_try_each_endpoint_once() {
        let mut bench = Bench::of([1, 2]);
        let one = bench.dialled();
        bench.fail(&one, "a");
        bench.now += Duration::from_secs(60);
        let (step, dial) = bench.pick_after(&[one.slot]);
        let two = dial.unwrap();
        assert!(matches!(step, Step::Wait(Some(slot)) if slot == two.slot));
        bench.fail(&two, "b");
        assert!(bench.balance.failed(two.slot));
        bench.now += Duration::from_secs(60);
        let (step, dial) = bench.pick_after(&[one.slot, two.slot]);
        assert!(matches!(step, Step::Refuse(_, why) if *why == "b"));
        assert_eq!(dial, None);
    }

    #[test]
    fn new_generations_are_dialled_before_the_old_goes() {
        let mut bench = Bench::of([1, 2]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        let due = bench.balance.due(bench.now, 2);
        assert_eq!(due, [dial]);
        assert!(bench.balance.due(bench.now, 2).is_empty(), "one dial at a time");
        assert_eq!(bench.used(), 1);
        let (_, old) = bench.connect(&due[0], 2);
        assert_eq!(old.unwrap().generation, 1);
        assert!(bench.balance.due(bench.now, 2).is_empty());
    }

    #[test]
    fn rotations_wait_for_room_and_skip_what_they_missed() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        bench.room.set(false);
        assert!(bench.balance.due(bench.now, 2).is_empty() && bench.balance.due(bench.now, 3).is_empty());
        assert_eq!((bench.balance.wake(3), bench.used()), (None, 1));
        bench.room.set(true);
        let due = bench.balance.due(bench.now, 4);
        assert_eq!(bench.connect(&due[0], 4).1.unwrap().generation, 1);
        assert!(bench.balance.due(bench.now, 4).is_empty());
    }

    #[test]
    fn failed_rotation_keeps_the_old_and_tries_again() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        let due = bench.balance.due(bench.now, 2);
        bench.fail(&due[0], "refused");
        assert_eq!(bench.used(), 1);
        assert!(bench.balance.due(bench.now, 2).is_empty());
        bench.now = bench.balance.wake(2).unwrap();
        assert_eq!(bench.balance.due(bench.now, 2), due);
        assert_eq!(bench.balance.wake(2), None, "a dial is under way");
    }

    #[test]
    fn dials_overtaken_by_a_generation_are_made_again() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        assert!(bench.balance.due(bench.now, 2).is_empty());
        bench.connect(&dial, 1);
        assert_eq!(bench.balance.due(bench.now, 2), [dial]);
    }

    #[test]
    fn new_material_ends_every_rest() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.fail(&dial, "bad certificate");
        assert!(bench.pick().1.is_none());
        bench.balance.forgive();
        assert!(bench.pick().1.is_some());
    }

    #[test]
    fn closed_connections_are_dialled_anew() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        let (open, _) = bench.connect(&dial, 1);
        open.set(false);
        let (step, again) = bench.pick();
        assert!(matches!(step, Step::Wait(Some(_))));
        assert_eq!(again, Some(dial));
    }

    #[test]
    fn lists_keep_what_stays_and_drop_what_goes() {
        let mut bench = Bench::of([1, 2]);
        for _ in 0..2 {
            let dial = bench.dialled();
            bench.connect(&dial, 1);
        }
        let gone = bench.balance.list([endpoint(3), endpoint(2), endpoint(2)]);
        assert_eq!(gone.iter().map(|link| link.port).collect::<Vec<_>>(), [1]);
        let ports: Vec<u16> = bench.balance.links().map(|link| link.port).collect();
        assert_eq!(ports, [2]);
        assert_eq!(bench.used(), 2);
        assert_eq!(bench.balance.slots.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn a_node_is_another_endpoint_than_any_node() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        bench.connect(&dial, 1);
        bench.balance.list([endpoint(1).of("n-1".parse().unwrap())]);
        assert_eq!(bench.balance.links().count(), 0);
    }

    #[test]
    fn dials_of_removed_endpoints_are_handed_back() {
        let mut bench = Bench::of([1]);
        let dial = bench.dialled();
        assert_eq!(bench.balance.list([endpoint(2)]).len(), 0);
        assert!(bench.balance.failed(dial.slot));
        let (_, back) = bench.connect(&dial, 1);
        assert_eq!(back.unwrap().port, 1);
    }
}
