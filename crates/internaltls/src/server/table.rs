//! Which of a listener's handshakes go on, which wait, and which give way. Pure: the time is an argument.
//!
//! 1. A handshake is in one of three phases. *Hello*: its ClientHello is not whole; it costs us a socket. *Ready*: the
//!    ClientHello is whole, and it waits for one of the slots in which keys are computed. *Keys*: it has such a slot; it
//!    costs us a signature, and memory until the client answers.
//! 2. Nobody who comes is made to wait for `accept`, and no silence earns a place. At most `half_open` handshakes are in the
//!    first two phases; one more makes the address that has the most of them lose its oldest, a Hello before a Ready. So a
//!    flood displaces itself, and behind one NAT a client displaces the flood.
//! 3. A free slot goes to the address that holds the fewest, of those to one that authenticated lately. Of one address it goes
//!    to the one that came last and the one that came first by turns. A queue only grows when slots are held by silence, and
//!    then it is full of what came to be silent: in its order a client would wait for all of that, and in the reverse order
//!    one that was overtaken would wait for ever. An address holds at most its share of slots, or half of all while no more
//!    are taken. Who waits longest gives way first.
//! 4. The time that a phase has shrinks while others wait for what it holds, to a twentieth, see [`squeezed`]; that of slots
//!    for which many wait to a hundredth.
//! 5. A quarter of both kinds of places is kept for addresses that authenticated lately: they are not displaced by strangers
//!    as long as they stay within it. They are forgotten after a day, and the least recent first.
//! 6. A listener is *pressed* while a bound is near, and for a moment after. Whoever can put off what makes peers dial anew
//!    asks for that.
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The kept share of places is one in so many.
const KEPT: usize = 4;
/// The time of a phase shrinks to one in so many.
const SQUEEZE: u32 = 20;
/// And that of slots for which many wait, to one in so many of that.
const MOST_ROWS: u32 = 5;
/// Addresses that are remembered.
const KNOWN_AT_MOST: usize = 1_024;
/// How long they are.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a listener counts as pressed after the last sign of it.
const PRESSED_FOR: Duration = Duration::from_secs(2);

/// One handshake. A lower number came earlier.
pub(super) type Ticket = u64;

/// The bounds of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Handshakes without keys.
    pub(super) half_open: usize,
    /// Handshakes with keys.
    pub(super) keys: usize,
    /// Of those, of one address.
    pub(super) keys_per_address: usize,
    /// The time for a whole ClientHello.
    pub(super) hello_time: Duration,
    /// The time from the first answer to the end of the handshake.
    pub(super) keys_time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Hello,
    Ready,
    Keys,
    Displaced,
}

#[derive(Debug)]
struct Seat {
    address: IpAddr,
    phase: Phase,
    /// Since when it is in its phase.
    since: Instant,
}

/// The handshakes of one address, oldest first.
#[derive(Debug, Default)]
struct Lane {
    hello: BTreeSet<Ticket>,
    ready: BTreeSet<Ticket>,
    keys: usize,
    /// It authenticated lately.
    known: bool,
}

/// The order in which addresses pay: the last one first.
type Weight = (usize, Reverse<Ticket>, IpAddr);
/// The order in which addresses get slots: the first one first. The second part is whether it is a stranger.
type Turn = (usize, bool, Reverse<Ticket>, IpAddr);

impl Lane {
    fn half_open(&self) -> usize {
        self.hello.len() + self.ready.len()
    }

    fn is_empty(&self) -> bool {
        self.half_open() + self.keys == 0
    }

    fn weight(&self, address: IpAddr) -> Option<Weight> {
        self.oldest().map(|oldest| (self.half_open(), Reverse(oldest), address))
    }

    fn turn(&self, address: IpAddr) -> Option<Turn> {
        self.ready.last().map(|last| (self.keys, !self.known, Reverse(*last), address))
    }

    fn oldest(&self) -> Option<Ticket> {
        self.hello.first().or_else(|| self.ready.first()).copied()
    }
}

/// What a handshake is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may compute keys.
    Go,
    /// It stays in its phase; ask again after this time, or when it is woken.
    Wait(Duration),
    /// Others need its place.
    Displaced,
    /// It took too long.
    Overdue,
    /// The listener is closing.
    Closed,
}

/// The handshakes of one listener.
#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    next: Ticket,
    seats: HashMap<Ticket, Seat>,
    lanes: HashMap<IpAddr, Lane>,
    /// The lanes that have handshakes without keys, of strangers and of known addresses. A flood comes from many addresses,
    /// and each of its connections asks who pays.
    strangers: BTreeSet<Weight>,
    acquaintances: BTreeSet<Weight>,
    /// The lanes in which somebody waits for a slot.
    turns: BTreeSet<Turn>,
    half_open: usize,
    /// Of those, of known addresses.
    known_half_open: usize,
    /// Whether the next slot goes to whoever came last.
    newest_next: bool,
    ready: usize,
    keys: usize,
    known: HashMap<IpAddr, Instant>,
    pressed_at: Option<Instant>,
    closed: bool,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: 0,
            seats: HashMap::new(),
            lanes: HashMap::new(),
            strangers: BTreeSet::new(),
            acquaintances: BTreeSet::new(),
            turns: BTreeSet::new(),
            half_open: 0,
            known_half_open: 0,
            newest_next: false,
            ready: 0,
            keys: 0,
            known: HashMap::new(),
            pressed_at: None,
            closed: false,
        }
    }

    /// Takes in a connection that was just accepted. Gives its ticket, and the one that was displaced for it.
    pub(super) fn enter(&mut self, address: IpAddr, now: Instant) -> (Ticket, Option<Ticket>) {
        let full = self.half_open >= self.bounds.half_open;
        let displaced = if full { self.displace(now) } else { None };
        let ticket = self.next;
        self.next += 1;
        // It comes out of nowhere into its first phase, as it goes from one to the next.
        self.seats.insert(ticket, Seat { address, phase: Phase::Displaced, since: now });
        self.set_phase(ticket, Phase::Hello, now);
        if self.half_open * 2 > self.bounds.half_open {
            self.pressed_at = Some(now);
        }
        (ticket, displaced)
    }

    /// Displaces one handshake without keys, if there is any.
    pub(super) fn displace(&mut self, now: Instant) -> Option<Ticket> {
        self.pressed_at = Some(now);
        let victim = self.victim()?;
        self.set_phase(victim, Phase::Displaced, now);
        Some(victim)
    }

    /// The oldest of the address that has the most; strangers before addresses that are known and within the kept share.
    fn victim(&self) -> Option<Ticket> {
        let (stranger, known) = (self.strangers.last(), self.acquaintances.last());
        let spare_known = self.known_half_open <= self.bounds.half_open / KEPT;
        let pays = if spare_known { stranger.or(known) } else { stranger.max(known) };
        pays.map(|(_, Reverse(oldest), _)| *oldest)
    }

    /// The ClientHello is whole. Gives the tickets that have got a slot.
    pub(super) fn ready(&mut self, ticket: Ticket, now: Instant) -> Vec<Ticket> {
        if self.seats.get(&ticket).is_some_and(|seat| seat.phase == Phase::Hello) {
            self.set_phase(ticket, Phase::Ready, now);
        }
        self.promote(now)
    }

    /// From here on the handshake waits for its client, not for us.
    pub(super) fn answered(&mut self, ticket: Ticket, now: Instant) {
        if let Some(seat) = self.seats.get_mut(&ticket) {
            seat.since = now;
        }
    }

    /// The handshake is over, one way or another. Gives the tickets that have got a slot.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant) -> Vec<Ticket> {
        self.set_phase(ticket, Phase::Displaced, now);
        self.seats.remove(&ticket);
        self.promote(now)
    }

    /// The handshake of this address ended well, and proved who it is.
    pub(super) fn authenticated(&mut self, address: IpAddr, now: Instant) {
        if self.known.len() >= KNOWN_AT_MOST && !self.known.contains_key(&address) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|address| self.known.remove(&address));
        }
        self.known.insert(address, now);
        self.change_lane(address, now, |lane| lane.known = true);
    }

    /// Every handshake ends.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether a bound is near.
    pub(super) fn is_pressed(&self, now: Instant) -> bool {
        self.pressed_at.is_some_and(|at| now < at + PRESSED_FOR)
    }

    /// What the handshake is to do now.
    pub(super) fn verdict(&self, ticket: Ticket, now: Instant) -> Verdict {
        let Some(seat) = self.seats.get(&ticket).filter(|seat| seat.phase != Phase::Displaced) else {
            return Verdict::Displaced;
        };
        if self.closed {
            return Verdict::Closed;
        }
        let (allowed, whole) = self.allowed(seat);
        let left = allowed.saturating_sub(now.saturating_duration_since(seat.since));
        match (left.is_zero(), seat.phase) {
            (true, _) => Verdict::Overdue,
            (false, Phase::Keys) => Verdict::Go,
            // What is allowed may shrink meanwhile.
            (false, _) => Verdict::Wait(left.min(whole / (2 * SQUEEZE))),
        }
    }

    /// How long a handshake with keys may wait before it asks again.
    pub(super) fn pause(&self, ticket: Ticket, now: Instant) -> Duration {
        let Some(seat) = self.seats.get(&ticket) else { return Duration::ZERO };
        let (allowed, whole) = self.allowed(seat);
        let left = allowed.saturating_sub(now.saturating_duration_since(seat.since));
        left.min(whole / (SQUEEZE * MOST_ROWS))
    }

    /// The time of a phase, now and at best.
    fn allowed(&self, seat: &Seat) -> (Duration, Duration) {
        let Bounds { half_open, hello_time, keys_time, .. } = self.bounds;
        match seat.phase {
            Phase::Hello => (squeezed(hello_time, self.half_open, half_open), hello_time),
            // That it waits is not the client's fault.
            Phase::Ready | Phase::Displaced => (hello_time, hello_time),
            Phase::Keys => match self.waiting_for(seat.address) {
                0 => (keys_time, keys_time),
                // The more wait for each slot, the less.
                waiting => {
                    let rows = (waiting / self.bounds.keys_per_address) as u32;
                    (keys_time / SQUEEZE / (1 + rows).min(MOST_ROWS), keys_time)
                }
            },
        }
    }

    /// How many wait for the slot of a handshake of this address.
    fn waiting_for(&self, address: IpAddr) -> usize {
        if self.keys + self.kept() >= self.bounds.keys {
            return self.ready;
        }
        self.lanes.get(&address).map_or(0, |lane| lane.ready.len())
    }

    fn kept(&self) -> usize {
        if self.known.is_empty() { 0 } else { self.bounds.keys / KEPT }
    }

    fn is_known(&self, address: &IpAddr, now: Instant) -> bool {
        self.known.get(address).is_some_and(|at| now < *at + KNOWN_FOR)
    }

    /// Gives free slots away.
    fn promote(&mut self, now: Instant) -> Vec<Ticket> {
        let mut promoted = Vec::new();
        while let Some(ticket) = self.whose_turn() {
            self.newest_next = !self.newest_next;
            self.set_phase(ticket, Phase::Keys, now);
            promoted.push(ticket);
        }
        if self.ready > 0 {
            self.pressed_at = Some(now);
        }
        promoted
    }

    fn whose_turn(&self) -> Option<Ticket> {
        if self.ready == 0 || self.keys >= self.bounds.keys {
            return None;
        }
        let open_to_all = self.keys + self.kept() < self.bounds.keys;
        let share = self.bounds.keys_per_address;
        // Half of all slots are open to whoever comes: one address alone must not wait while most are free.
        let most = if self.keys < self.bounds.keys / 2 { share.max(self.bounds.keys / 2) } else { share };
        let within = self.turns.iter().take_while(|(keys, ..)| *keys < most);
        let mut may = within.filter(|(_, stranger, ..)| open_to_all || !stranger);
        let ready = &self.lanes.get(&may.next()?.3)?.ready;
        if self.newest_next { ready.last().copied() } else { ready.first().copied() }
    }

    /// The one place where a phase changes, so that the counts fit.
    fn set_phase(&mut self, ticket: Ticket, phase: Phase, now: Instant) {
        let Some(seat) = self.seats.get_mut(&ticket) else { return };
        let (was, address) = (seat.phase, seat.address);
        (seat.phase, seat.since) = (phase, now);
        self.change_lane(address, now, |lane| {
            match was {
                Phase::Hello => _ = lane.hello.remove(&ticket),
                Phase::Ready => _ = lane.ready.remove(&ticket),
                Phase::Keys => lane.keys -= 1,
                Phase::Displaced => {}
            }
            match phase {
                Phase::Hello => _ = lane.hello.insert(ticket),
                Phase::Ready => _ = lane.ready.insert(ticket),
                Phase::Keys => lane.keys += 1,
                Phase::Displaced => {}
            }
        });
    }

    /// The one place where a lane changes, so that the orders fit.
    fn change_lane(&mut self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Lane)) {
        let known = self.is_known(&address, now);
        let lane = self.lanes.entry(address).or_insert_with(|| Lane { known, ..Lane::default() });
        let weights = if lane.known { &mut self.acquaintances } else { &mut self.strangers };
        lane.weight(address).map(|weight| weights.remove(&weight));
        lane.turn(address).map(|turn| self.turns.remove(&turn));
        self.half_open -= lane.half_open();
        self.known_half_open -= if lane.known { lane.half_open() } else { 0 };
        self.ready -= lane.ready.len();
        self.keys -= lane.keys;
        change(lane);
        if lane.is_empty() {
            self.lanes.remove(&address);
            return;
        }
        let weights = if lane.known { &mut self.acquaintances } else { &mut self.strangers };
        weights.extend(lane.weight(address));
        self.turns.extend(lane.turn(address));
        self.half_open += lane.half_open();
        self.known_half_open += if lane.known { lane.half_open() } else { 0 };
        self.ready += lane.ready.len();
        self.keys += lane.keys;
    }
}

/// The whole time while less than half of the places are taken; from there on less, down to a twentieth at the bound.
fn squeezed(whole: Duration, taken: usize, places: usize) -> Duration {
    let least = whole / SQUEEZE;
    let free = places.saturating_sub(taken);
    let half = (places / 2).max(1);
    if free >= half { whole } else { least + (whole - least).mul_f64(free as f64 / half as f64) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        half_open: 8,
        keys: 4,
        keys_per_address: 3,
        hello_time: Duration::from_secs(10),
        keys_time: Duration::from_secs(10),
    };

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn table() -> (Table, Instant) {
        (Table::new(BOUNDS), Instant::now())
    }

    #[test]
    fn invariant_8_the_heaviest_address_pays_with_its_oldest() {
        let (mut table, now) = table();
        let flood: Vec<Ticket> = (0..7).map(|_| table.enter(host(1), now).0).collect();
        let (client, displaced) = table.enter(host(2), now);
        assert_eq!(displaced, None);
        let others: Vec<_> = (0..4).map(|_| table.enter(host(1), now).1.unwrap()).collect();
        assert_eq!(others, flood[..4]);
        assert!(matches!(table.verdict(client, now), Verdict::Wait(_)));
        assert_eq!(table.verdict(flood[0], now), Verdict::Displaced);
    }

    #[test]
    fn invariant_8_a_client_behind_the_flooded_nat_gets_in() {
        let (mut table, now) = table();
        (0..100).for_each(|_| _ = table.enter(host(1), now));
        let (client, displaced) = table.enter(host(1), now);
        assert!(displaced.is_some());
        assert_eq!(table.ready(client, now), [client]);
        assert_eq!(table.verdict(client, now), Verdict::Go);
    }

    #[test]
    fn invariant_8_a_whole_hello_outlives_silence() {
        let (mut table, now) = table();
        let slots: Vec<Ticket> = (0..3).map(|_| table.enter(host(1), now).0).collect();
        slots.iter().for_each(|ticket| drop(table.ready(*ticket, now)));
        let (whole, _) = table.enter(host(1), now);
        assert!(table.ready(whole, now).is_empty(), "the share of the address is taken");
        let silent: Vec<Ticket> = (0..7).map(|_| table.enter(host(1), now).0).collect();
        assert_eq!(table.enter(host(1), now).1, Some(silent[0]), "it came after the whole one");
    }

    #[test]
    fn invariant_8_slots_go_round_addresses() {
        let (mut table, now) = table();
        let mut order = Vec::new();
        let mut come = |table: &mut Table, n| {
            let (ticket, _) = table.enter(host(n), now);
            order.extend(table.ready(ticket, now));
            ticket
        };
        let flood: Vec<Ticket> = (0..6).map(|_| come(&mut table, 1)).collect();
        let client = come(&mut table, 2);
        assert_eq!(order, [flood[0], flood[1], flood[2], client], "three are its share, the fourth is free");
        let first_and_last = [table.leave(flood[0], now), table.leave(flood[1], now)].concat();
        assert!(first_and_last == [flood[3], flood[5]] || first_and_last == [flood[5], flood[3]], "{first_and_last:?}");
    }

    #[test]
    fn invariant_8_time_shrinks_while_others_wait() {
        let (mut table, now) = table();
        let tickets: Vec<Ticket> = (0..8).map(|n| table.enter(host(n), now).0).collect();
        let second = now + Duration::from_secs(1);
        assert_eq!(table.verdict(tickets[0], second), Verdict::Overdue, "all places are taken");
        tickets[1..].iter().for_each(|ticket| drop(table.leave(*ticket, now)));
        assert!(matches!(table.verdict(tickets[0], second), Verdict::Wait(_)), "nobody else is there");
        table.ready(tickets[0], now);
        let late = now + Duration::from_secs(9);
        assert_eq!(table.verdict(tickets[0], late), Verdict::Go);
        let rest: Vec<Ticket> = (10..14).map(|n| table.enter(host(n), now).0).collect();
        rest.iter().for_each(|ticket| drop(table.ready(*ticket, now)));
        assert_eq!(table.verdict(tickets[0], second), Verdict::Overdue, "somebody waits for the slot");
    }

    #[test]
    fn invariant_8_a_share_is_kept_for_known_addresses() {
        let (mut table, now) = table();
        table.authenticated(host(9), now);
        let known = [table.enter(host(9), now).0, table.enter(host(9), now).0];
        for n in 0..50 {
            let (ticket, _) = table.enter(host(n % 8), now);
            table.ready(ticket, now);
        }
        assert!(known.iter().all(|ticket| table.verdict(*ticket, now) != Verdict::Displaced));
        assert_eq!(table.keys, 3, "one slot of four is kept");
        assert_eq!(table.ready(known[0], now), [known[0]]);
        let forgotten = now + KNOWN_FOR;
        assert!(!table.is_known(&host(9), forgotten));
    }

    #[test]
    fn known_addresses_are_bounded() {
        let (mut table, now) = table();
        for n in 0..=KNOWN_AT_MOST as u32 {
            table.authenticated(std::net::Ipv4Addr::from_bits(n).into(), now + Duration::from_secs(n.into()));
        }
        assert_eq!(table.known.len(), KNOWN_AT_MOST);
        assert!(!table.known.contains_key(&std::net::Ipv4Addr::from_bits(0).into()), "the least recent goes first");
    }

    #[test]
    fn pressure_passes() {
        let (mut table, now) = table();
        (0..4).for_each(|_| _ = table.enter(host(1), now));
        assert!(!table.is_pressed(now));
        table.enter(host(1), now);
        assert!(table.is_pressed(now) && !table.is_pressed(now + PRESSED_FOR));
    }

    #[test]
    fn times_shrink_evenly_to_a_twentieth() {
        let whole = Duration::from_secs(10);
        assert_eq!([0, 4].map(|taken| squeezed(whole, taken, 8)), [whole; 2]);
        assert_eq!(squeezed(whole, 8, 8), whole / SQUEEZE);
        assert!(squeezed(whole, 7, 8) < squeezed(whole, 5, 8));
        assert_eq!(squeezed(whole, 1, 1), whole / SQUEEZE);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8),
        Ready(usize),
        Leave(usize),
        Authenticated(u8),
        Later(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8).prop_map(Step::Enter),
            3 => (0..32_usize).prop_map(Step::Ready),
            2 => (0..32_usize).prop_map(Step::Leave),
            1 => (0..6_u8).prop_map(Step::Authenticated),
            1 => (0..4_000_u16).prop_map(Step::Later),
        ]
    }

    proptest! {
        /// The bounds hold, the counts fit, and no slot is free while somebody may have it.
        #[test]
        fn invariant_8_bounds_hold_in_every_order(steps in prop::collection::vec(step(), 0..200)) {
            let (mut table, mut now) = table();
            let mut live: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter(n) => live.push(table.enter(host(n), now).0),
                    Step::Ready(nth) => if let Some(ticket) = live.get(nth) { table.ready(*ticket, now); },
                    Step::Leave(nth) => if nth < live.len() { table.leave(live.remove(nth), now); },
                    Step::Authenticated(n) => table.authenticated(host(n), now),
                    Step::Later(ms) => now += Duration::from_millis(ms.into()),
                }
                let phase = |wanted| table.seats.values().filter(|seat| seat.phase == wanted).count();
                prop_assert!(table.half_open <= BOUNDS.half_open && table.keys <= BOUNDS.keys);
                prop_assert_eq!(table.half_open, phase(Phase::Hello) + phase(Phase::Ready));
                prop_assert_eq!((table.ready, table.keys), (phase(Phase::Ready), phase(Phase::Keys)));
                prop_assert!(table.lanes.values().all(|lane| !lane.is_empty() && lane.keys <= BOUNDS.keys_per_address.max(BOUNDS.keys / 2)));
                prop_assert_eq!(table.lanes.values().map(Lane::half_open).sum::<usize>(), table.half_open);
                let weights: BTreeSet<Weight> = table.strangers.union(&table.acquaintances).copied().collect();
                let weigh = |(address, lane): (&IpAddr, &Lane)| lane.weight(*address);
                prop_assert_eq!(weights, table.lanes.iter().filter_map(weigh).collect::<BTreeSet<_>>());
                let turn = |(address, lane): (&IpAddr, &Lane)| lane.turn(*address);
                prop_assert_eq!(&table.turns, &table.lanes.iter().filter_map(turn).collect::<BTreeSet<_>>());
            }
            live.into_iter().for_each(|ticket| drop(table.leave(ticket, now)));
            prop_assert!(table.seats.is_empty() && table.lanes.is_empty() && table.turns.is_empty());
            prop_assert_eq!((table.half_open, table.known_half_open, table.ready, table.keys), (0, 0, 0, 0));
        }
    }
}
