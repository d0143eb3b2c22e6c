//! One live connection: its calls, how far it is on its way out, and the handles to end it.
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::awaited::Shown;
use super::facts::{ConnectionFacts, ConnectionStatus, PeerInfo};
use super::{Registry, Shelf};
use crate::ending::{Activity, EndReason, Fate, Neighbour, by_time};
use crate::telemetry::Telemetry;

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Draining(EndReason),
    Cut(EndReason),
}

impl Phase {
    fn strength(self) -> u8 {
        match self {
            Self::Serving => 0,
            Self::Draining(_) => 1,
            Self::Cut(_) => 2,
        }
    }

    fn reason(self) -> Option<EndReason> {
        match self {
            Self::Serving => None,
            Self::Draining(reason) | Self::Cut(reason) => Some(reason),
        }
    }
}

/// Where calls wait for a place on one of several connections. Bounded: see [`Room::enter`].
#[derive(Debug, Default)]
pub(crate) struct Room {
    waiting: AtomicUsize,
    place: Notify,
}

/// One that waits in a [`Room`].
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Room>);

impl Room {
    /// Waits from now on; `None` when `most` others do.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Waiting> {
        // Counted first, and only then are connections asked for a place: see `CallGuard`.
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= most {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Waiting(Arc::clone(self)))
    }

    fn one_left(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.place.notify_one();
        }
    }
}

impl Waiting {
    /// Ready once a call has ended since this was called, for one of those that wait.
    pub(crate) fn place(&self) -> Notified<'_> {
        self.0.place.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The calls of one connection.
#[derive(Debug)]
struct Load {
    in_flight: AtomicUsize,
    /// Requests that lie before HTTP/2, some of them perhaps without a caller any more.
    queued: AtomicUsize,
    /// Where others wait for one of these calls to end.
    room: OnceLock<Arc<Room>>,
    started: AtomicU64,
    /// When the last call ended, in milliseconds since `born`.
    ended: AtomicU64,
    born: Instant,
}

impl Load {
    fn note_end(&self) {
        let age = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ended.store(age, Ordering::Relaxed);
    }
}

/// Counts the calls of one connection, without keeping it alive.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<Load>);

impl Calls {
    /// Counts a call until the guard is dropped.
    pub(crate) fn begin(&self) -> CallGuard {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        self.0.started.fetch_add(1, Ordering::Relaxed);
        CallGuard(Arc::clone(&self.0))
    }

    /// Counts a request as queued until the place is dropped.
    pub(crate) fn queue(&self) -> Place {
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.0))
    }

    /// Whether `most` are under way, or as many lie in the queue.
    pub(crate) fn are(&self, most: usize) -> bool {
        self.0.in_flight.load(Ordering::SeqCst) >= most || self.0.queued.load(Ordering::Relaxed) >= most
    }

    /// From now on whoever waits in `room` is told when a call ends.
    pub(crate) fn make_room(&self, room: &Arc<Room>) {
        let _ = self.0.room.set(Arc::clone(room));
    }
}

/// Counts one request as queued for as long as it lives.
#[derive(Debug)]
pub(crate) struct Place(Arc<Load>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one call as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct CallGuard(Arc<Load>);

impl Drop for CallGuard {
    /// Only the end of the last call begins a silence, and the clock is not read for the others. The time is noted before
    /// the count falls, so that whoever sees none under way also sees since when; of two calls that end at once on two
    /// threads neither may look like the last one beforehand, and then it is noted right after.
    fn drop(&mut self) {
        let last = self.0.in_flight.load(Ordering::Relaxed) == 1;
        if last {
            self.0.note_end();
        }
        // Sequential: whoever waits was counted before it looked at this count, so one of both is seen.
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && !last {
            self.0.note_end();
        }
        if let Some(room) = self.0.room.get() {
            room.one_left();
        }
    }
}

/// One live connection. Dropping the last `Arc` takes it out of the registry.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) facts: Arc<ConnectionFacts>,
    shown: OnceLock<Arc<[CertificateDer<'static>]>>,
    load: Arc<Load>,
    phase: watch::Sender<Phase>,
    registry: Weak<Shelf>,
}

impl Connection {
    /// One that begins now; `registry` takes it in.
    pub(super) fn new(id: u64, facts: ConnectionFacts, registry: Weak<Shelf>) -> Self {
        let (in_flight, started, ended) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (queued, room, born) = (AtomicUsize::new(0), OnceLock::new(), Instant::now());
        Self {
            id,
            facts: Arc::new(facts),
            shown: OnceLock::new(),
            load: Arc::new(Load { in_flight, queued, room, started, ended, born }),
            phase: watch::Sender::new(Phase::Serving),
            registry,
        }
    }

    /// Asks the connection to finish its calls and close.
    pub(crate) fn drain(&self, reason: EndReason) {
        if self.advance(Phase::Draining(reason)) {
            self.telemetry(|t| t.drained(reason.label()));
        }
    }

    /// Asks the connection to close now.
    pub(crate) fn cut(&self, reason: EndReason) {
        if self.advance(Phase::Cut(reason)) {
            self.telemetry(|t| t.cut(reason.label()));
        }
    }

    fn advance(&self, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let onward = next.strength() > phase.strength();
            if onward {
                *phase = next;
            }
            onward
        })
    }

    /// Carries out what the wall clock says.
    pub(super) fn expire(&self, now: SystemTime, grace: Duration) {
        let Some(not_after) = self.facts.not_after else { return };
        match by_time(now, self.facts.since, not_after, grace) {
            Fate::Stay => {}
            Fate::Drain => self.drain(EndReason::Expiry),
            Fate::Cut => self.cut(EndReason::Expiry),
        }
    }

    /// Whether it could be drained for a successor now; see [`Registry::has_room`].
    pub(crate) fn has_room(&self) -> bool {
        self.registry.upgrade().is_none_or(|shelf| Registry { shelf }.has_room(self))
    }

    pub(super) fn neighbour(&self) -> Neighbour {
        Neighbour { making: self.facts.making(), going: *self.phase.borrow() != Phase::Serving }
    }

    fn telemetry(&self, count: impl FnOnce(&Telemetry)) {
        if let Some(shelf) = self.registry.upgrade() {
            count(&shelf.telemetry);
        }
    }

    /// Keeps the chain that the peer showed, so that a candidate can be judged by the peers connected now.
    pub(crate) fn keep_chain(&self, chain: &[CertificateDer<'static>]) {
        let _ = self.shown.set(chain.into());
    }

    /// The peer's certificates, leaf first; none where it showed none.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        self.shown.get().map_or(&[], |chain| &**chain)
    }

    /// What the peer showed; `None` where it showed nothing.
    pub(super) fn shown(&self) -> Option<Shown> {
        let chain = self.shown.get().filter(|chain| !chain.is_empty())?;
        Some(Shown { facts: Arc::clone(&self.facts), chain: Arc::clone(chain) })
    }

    /// Whether it takes new calls.
    pub(crate) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Whether it has been told to close at once.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Cut(_))
    }

    /// Whoever drives the connection follows its phase here.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The count of its calls, to be held by whoever makes them.
    pub(crate) fn calls(&self) -> Calls {
        Calls(Arc::clone(&self.load))
    }

    /// Counts a call until the guard is dropped.
    pub(crate) fn begin_call(&self) -> CallGuard {
        self.calls().begin()
    }

    /// Calls under way now.
    pub(crate) fn calls_in_flight(&self) -> usize {
        self.load.in_flight.load(Ordering::Acquire)
    }

    /// What [`quiet`](crate::ending::quiet) needs to know.
    pub(crate) fn activity(&self) -> Activity {
        let in_flight = self.calls_in_flight();
        Activity {
            in_flight,
            started: self.load.started.load(Ordering::Relaxed),
            age: self.load.born.elapsed(),
            ended: Duration::from_millis(self.load.ended.load(Ordering::Relaxed)),
        }
    }

    /// What goes into the extensions of its requests.
    pub(crate) fn peer_info(&self) -> PeerInfo {
        PeerInfo::new(self.id, Arc::clone(&self.facts))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(shelf) = self.registry.upgrade() {
            shelf.lock().remove(self.id, &self.facts.pair());
            if *self.phase.borrow() == Phase::Draining(EndReason::Rotation)
                && let Some(shown) = self.shown()
            {
                shelf.awaited.add(shown, Instant::now());
            }
            shelf.gauge(self.facts.direction).dec();
            shelf.departed.send_modify(|number| *number += 1);
        }
    }
}

impl From<&Connection> for ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        let ending = connection.phase.borrow().reason().map(EndReason::label);
        Self { ending, ..Self::from(&*connection.facts) }
    }
}
