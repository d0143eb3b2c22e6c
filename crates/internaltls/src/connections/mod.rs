//! Every live connection: who, since when, under which generation, and the handles to end it.
//!
//! 1. A connection is registered before a byte of HTTP is served on it, and leaves the registry when its `Connection`
//!    is dropped. The registry itself keeps none alive.
//! 2. Ending has two strengths: drain (no new calls, running ones finish) and cut (close now). Neither is taken back,
//!    and only the first reason of each is counted.
//! 3. What decides who must go is pure, and lies in `ending`; here it is only carried out.
//!
//! Parts: `awaited` is who was connected a moment ago, `facts` is what is known of a connection, `connection` the connection itself; the registry is here.
mod awaited;
mod connection;
mod facts;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use self::awaited::Awaited;
pub(crate) use self::awaited::Shown;
pub(crate) use self::connection::{CallGuard, Calls, Connection, Phase, Place, Room, Waiting};
pub(crate) use self::facts::{ConnectionFacts, TlsFacts, end_of};
pub use self::facts::{ConnectionStatus, Direction, PeerInfo};
pub use crate::ending::EndReason;
use crate::ending::{Neighbour, has_room, replaced_by_dialler};
use crate::identity::Identity;
use crate::telemetry::{Reading, Surface, Telemetry};
use crate::verify::KeyHash;

/// All live connections of a mesh or an edge. Cheap to clone; clones show the same connections.
#[derive(Debug, Clone)]
pub struct Registry {
    shelf: Arc<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    live: Mutex<Live>,
    next: AtomicU64,
    /// Held by whoever asks for room and drains in one step.
    succession: Mutex<()>,
    /// Moves when a connection has gone.
    departed: watch::Sender<u64>,
    /// The peers that our rotations took a connection from.
    awaited: Awaited,
    telemetry: Telemetry,
    surface: Surface,
}

impl Shelf {
    fn gauge(&self, direction: Direction) -> Gauge {
        self.telemetry.live_connections(self.surface, direction.label())
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // No code panics while it holds the lock; were it to, the maps would still be whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Live connections, also by the two nodes that they join.
#[derive(Debug, Default)]
struct Live {
    all: BTreeMap<u64, Weak<Connection>>,
    pairs: HashMap<String, BTreeSet<u64>>,
}

impl Live {
    fn insert(&mut self, connection: &Arc<Connection>) {
        self.all.insert(connection.id, Arc::downgrade(connection));
        self.pairs.entry(connection.facts.pair()).or_default().insert(connection.id);
    }

    fn remove(&mut self, id: u64, pair: &str) {
        self.all.remove(&id);
        if let Some(ids) = self.pairs.get_mut(pair) {
            ids.remove(&id);
            if ids.is_empty() {
                self.pairs.remove(pair);
            }
        }
    }

    fn of_pair(&self, pair: &str) -> Vec<Arc<Connection>> {
        let ids = self.pairs.get(pair).into_iter().flatten();
        ids.filter_map(|id| self.all.get(id)).filter_map(Weak::upgrade).collect()
    }
}

impl Registry {
    /// An empty registry of a mesh, that counts into `telemetry`.
    pub(crate) fn new(telemetry: Telemetry) -> Self {
        Self::of(Surface::Mesh, telemetry)
    }

    /// An empty registry of an edge, that counts into `telemetry`.
    pub(crate) fn of_edge(telemetry: Telemetry) -> Self {
        Self::of(Surface::Edge, telemetry)
    }

    fn of(surface: Surface, telemetry: Telemetry) -> Self {
        let (live, succession, departed) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        let next = AtomicU64::new(1);
        let awaited = Awaited::default();
        let shelf =
            Arc::new(Shelf { live, next, succession, departed, awaited, telemetry: telemetry.clone(), surface });
        let asked = Arc::downgrade(&shelf);
        telemetry.ask(move || asked.upgrade().map(|shelf| Self { shelf }.readings()));
        Self { shelf }
    }

    /// Which side of the process its connections are on.
    pub(crate) fn surface(&self) -> Surface {
        self.shelf.surface
    }

    /// Takes a connection in; it stays for as long as the result lives.
    pub(crate) fn register(&self, facts: ConnectionFacts) -> Arc<Connection> {
        let id = self.shelf.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(id, facts, Arc::downgrade(&self.shelf)));
        self.shelf.gauge(connection.facts.direction).inc();
        self.shelf.lock().insert(&connection);
        connection
    }

    /// All live connections, oldest first.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.shelf.lock().all.values().filter_map(Weak::upgrade).collect()
    }

    /// How many connections live, by the number of the generation of ours that they were made under; 0 without TLS.
    #[must_use]
    pub fn by_generation(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        self.connections().iter().for_each(|c| *counts.entry(c.facts.generation).or_default() += 1);
        counts
    }

    fn readings(&self) -> Vec<Reading> {
        let labels = |generation: u64| {
            vec![("surface", self.surface().label().to_owned()), ("generation", generation.to_string())]
        };
        let reading = |(generation, count)| Reading {
            name: "internaltls_connections_by_generation",
            help: "Live connections, by the generation that they were made under",
            labels: labels(generation),
            value: count as f64,
        };
        self.by_generation().into_iter().map(reading).collect()
    }

    /// Ends what must end by the wall clock: a connection drains within `grace` of its path's end, and is cut at it.
    pub(crate) fn expire(&self, now: SystemTime, grace: Duration) {
        self.connections().iter().for_each(|connection| connection.expire(now, grace));
    }

    /// What every peer showed that is connected, or would be had a rotation of ours not just ended its connection.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let awaited = self.shelf.awaited.list(Instant::now());
        let live = self.connections();
        let live = live.iter().filter(|connection| !connection.is_cut());
        live.filter_map(|connection| connection.shown()).chain(awaited).collect()
    }

    /// The keys that connected peers show. A connection that was cut shows nothing any more.
    pub(crate) fn shown_keys(&self) -> HashSet<KeyHash> {
        self.connections().iter().filter(|c| !c.is_cut()).filter_map(|c| c.facts.peer_key).collect()
    }

    /// Drains the connections of peers whose key does not fit. Those that drain from now on.
    pub(crate) fn retire(&self, fits: impl Fn(&KeyHash) -> bool) -> Vec<Arc<Connection>> {
        let unfit = |c: &Arc<Connection>| c.facts.peer_key.is_some_and(|key| !fits(&key));
        let (retired, serving) = (self.connections().into_iter().filter(unfit), |c: &Arc<Connection>| c.is_serving());
        let retired: Vec<_> = retired.filter(serving).collect();
        retired.iter().for_each(|connection| connection.drain(EndReason::RetiredKey));
        retired
    }

    /// Moves whenever a connection has gone.
    pub(crate) fn departures(&self) -> watch::Receiver<u64> {
        self.shelf.departed.subscribe()
    }

    /// Drains the connection for a successor, unless too many generations drain between the two nodes already. Whether it
    /// drains now.
    pub(crate) fn succeed(&self, connection: &Connection, reason: EndReason) -> bool {
        let _one_at_a_time = self.shelf.succession.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.has_room(connection);
        if room {
            connection.drain(reason);
        }
        room
    }

    /// Whether the connection could be drained for a successor now.
    pub(crate) fn has_room(&self, connection: &Connection) -> bool {
        let connections = self.shelf.lock().of_pair(&connection.facts.pair());
        let mut neighbours: Vec<Neighbour> = connections.iter().map(|c| c.neighbour()).collect();
        if matches!((connection.facts.direction, &connection.facts.peer), (Direction::Inbound, Identity::Node { .. })) {
            replaced_by_dialler(&mut neighbours);
        }
        has_room(&neighbours, &connection.facts.making())
    }

    /// All live connections as the status page shows them, oldest first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ConnectionStatus> {
        self.connections().iter().map(|c| ConnectionStatus::from(&**c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(generation: u64) -> ConnectionFacts {
        ConnectionFacts {
            direction: Direction::Inbound,
            transport: "tcp",
            local: "coordinator/c-1".into(),
            remote: "proxy/p-1".into(),
            peer: Identity::Shared,
            peer_addr: ([127, 0, 0, 1], 1).into(),
            peer_serial: Some("0a".into()),
            peer_key: None,
            own_serial: Some("0b".into()),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher_suite: "TLS13_AES_256_GCM_SHA384",
                kx_group: "X25519MLKEM768".into(),
                sni: Some("coordinator.mesh.internal".into()),
                resumed: false,
            }),
            generation,
            since: SystemTime::UNIX_EPOCH,
            not_after: None,
        }
    }

    #[test]
    fn dropped_connections_leave_the_registry() {
        let telemetry = Telemetry::new();
        let registry = Registry::new(telemetry.clone());
        let (first, second) = (registry.register(facts(1)), registry.register(facts(2)));
        assert_ne!(first.id, second.id);
        drop(first);
        assert_eq!(registry.snapshot().iter().map(|c| c.generation).collect::<Vec<_>>(), [2]);
        assert!(telemetry.encode().contains("internaltls_connections{surface=\"mesh\",direction=\"inbound\"} 1"));
    }

    #[test]
    fn invariant_3_a_peer_that_rotation_let_go_still_counts() {
        let registry = Registry::new(Telemetry::new());
        let connection = |chain: &[u8]| {
            let connection = registry.register(facts(1));
            connection.keep_chain(&[chain.to_vec().into()]);
            connection
        };
        let [left, rotated, listed, live] = [&b"left"[..], b"rotated", b"listed", b"live"].map(connection);
        rotated.drain(EndReason::Rotation);
        listed.drain(EndReason::Rotation);
        listed.cut(EndReason::Distrusted);
        drop((left, rotated, listed));
        let shown: Vec<_> = registry.shown().iter().map(|shown| shown.chain[0].to_vec()).collect();
        assert_eq!(shown, [b"live".to_vec(), b"rotated".to_vec()]);
        drop(live);
    }

    #[test]
    fn the_third_generation_waits_for_one_that_drains() {
        let registry = Registry::new(Telemetry::new());
        let connections: Vec<_> = (1..=3).map(|generation| registry.register(facts(generation))).collect();
        let drained = |n: usize| registry.succeed(&connections[n], EndReason::Rotation);
        assert_eq!([drained(0), drained(1), drained(2)], [true, true, false]);
        let endings: Vec<_> = registry.snapshot().iter().map(|c| c.ending).collect();
        assert_eq!(endings, [Some("rotation"), Some("rotation"), None]);
        let mut gone = registry.departures();
        let mut connections = connections;
        drop(connections.remove(0));
        assert!(gone.has_changed().unwrap());
        gone.mark_unchanged();
        assert!(registry.succeed(&connections[1], EndReason::Rotation));
    }

    #[test]
    fn other_nodes_and_directions_have_room_of_their_own() {
        let registry = Registry::new(Telemetry::new());
        let of = |port: u8, direction| {
            let mut facts = facts(u64::from(port));
            (facts.peer_addr, facts.direction) = (([127, 0, 0, port], 1).into(), direction);
            registry.register(facts)
        };
        let connections: Vec<_> =
            (1..6).flat_map(|port| [of(port, Direction::Inbound), of(port, Direction::Outbound)]).collect();
        assert!(connections.iter().all(|c| registry.succeed(c, EndReason::Rotation)));
        drop(connections);
        assert!(registry.shelf.lock().pairs.is_empty());
    }

    #[test]
    fn a_call_or_peer_info_keeps_no_connection_alive() {
        let registry = Registry::new(Telemetry::new());
        let connection = registry.register(facts(1));
        let (_call, _info) = (connection.begin_call(), connection.peer_info());
        drop(connection);
        assert_eq!(registry.snapshot(), []);
    }

    #[test]
    fn status_is_told_from_the_diallers_end() {
        let mut outbound = facts(3);
        outbound.direction = Direction::Outbound;
        let (inbound, outbound) = (ConnectionStatus::from(&facts(3)), ConnectionStatus::from(&outbound));
        assert_eq!((&*inbound.from, &*inbound.to), ("proxy/p-1", "coordinator/c-1"));
        assert_eq!((&*outbound.from, &*outbound.to), ("coordinator/c-1", "proxy/p-1"));
    }

    #[test]
    fn status_json_names_every_field() {
        let json = serde_json::to_value(ConnectionStatus::from(&facts(3))).unwrap();
        let expected = serde_json::json!({
            "from": "proxy/p-1", "to": "coordinator/c-1", "direction": "inbound", "transport": "tcp",
            "tls_version": "TLSv1.3", "cipher_suite": "TLS13_AES_256_GCM_SHA384", "kx_group": "X25519MLKEM768",
            "sni": "coordinator.mesh.internal", "peer": "shared", "peer_serial": "0a", "own_serial": "0b",
            "generation": 3, "since": "1970-01-01T00:00:00Z", "ending": null,
        });
        assert_eq!(json, expected);
    }

    /// In bytes, a connection's chain included. By what the system gave, for many at once: other tests take from it meanwhile.
    ///
    /// `cargo test --release -p internaltls --lib memory_of_a_connection -- --nocapture`
    #[test]
    fn memory_of_a_connection_in_the_registry_is_small() {
        const MANY: u64 = 50_000;
        const MOST: u64 = 4 * 1024;
        /// A leaf of this library's own making is smaller.
        const CHAIN: usize = 700;
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            4096 * pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
        };
        let registry = Registry::new(Telemetry::new());
        let before = resident();
        let take = |nth: u64| {
            let connection = registry.register(facts(nth % 4));
            connection.keep_chain(&[vec![7; CHAIN].into()]);
            connection
        };
        let connections: Vec<_> = (0..MANY).map(take).collect();
        let each = resident().saturating_sub(before) / MANY;
        println!("a connection in the registry: {each} bytes");
        assert!(each < MOST, "{each} bytes a connection");
        drop(connections);
    }

    #[test]
    fn ending_only_goes_forward() {
        let telemetry = Telemetry::new();
        let registry = Registry::new(telemetry.clone());
        let connection = registry.register(facts(1));
        connection.drain(EndReason::Rotation);
        connection.drain(EndReason::Idle);
        assert_eq!(*connection.phase().borrow(), Phase::Draining(EndReason::Rotation));
        connection.cut(EndReason::DrainTimeout);
        connection.drain(EndReason::Shutdown);
        assert_eq!(*connection.phase().borrow(), Phase::Cut(EndReason::DrainTimeout));
        let text = telemetry.encode();
        assert!(text.contains("internaltls_connections_drained_total{reason=\"rotation\"} 1"), "{text}");
        assert!(!text.contains("reason=\"idle\""), "{text}");
    }

    #[test]
    fn calls_are_counted_until_they_end() {
        let registry = Registry::new(Telemetry::new());
        let connection = registry.register(facts(1));
        let (first, second) = (connection.begin_call(), connection.begin_call());
        assert_eq!(connection.calls_in_flight(), 2);
        drop((first, second));
        assert_eq!((connection.calls_in_flight(), connection.activity().started), (0, 2));
    }
}
