//! Every live connection: who, since when, under which generation, and the handles to end it.
//!
//! 1. A connection is registered before a byte of HTTP is served on it, and leaves the registry when its `Connection`
//!    is dropped. The registry itself keeps none alive.
//! 2. Ending has two strengths: drain (no new calls, running ones finish) and cut (close now). Neither is taken back,
//!    and only the first reason of each is counted.
//! 3. What decides who must go is pure, and lies in `ending`; here it is only carried out.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use rustls::pki_types::CertificateDer;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

pub use crate::ending::EndReason;
use crate::ending::{Activity, Fate, Making, Neighbour, by_time, has_room, replaced_by_dialler};
use crate::identity::Identity;
use crate::telemetry::{Reading, Surface, Telemetry};

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What a TLS handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) cipher_suite: &'static str,
    pub(crate) kx_group: String,
    pub(crate) sni: Option<String>,
    pub(crate) resumed: bool,
}

impl TlsFacts {
    /// Reads the facts of a handshake that is over.
    pub(crate) fn of(state: &rustls::CommonState, sni: Option<&str>) -> Self {
        Self {
            version: version(state.protocol_version()),
            cipher_suite: state.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown"),
            kx_group: state.negotiated_key_exchange_group().map_or_else(String::new, |g| format!("{:?}", g.name())),
            sni: sni.map(str::to_owned),
            resumed: state.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

/// What is known of a connection once its handshake is over; never changes.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionFacts {
    pub(crate) direction: Direction,
    /// `tcp` or `quic`.
    pub(crate) transport: &'static str,
    /// Our end as `role/node`.
    pub(crate) local: String,
    /// The peer's end as `role/node`; see [`end_of`].
    pub(crate) remote: String,
    pub(crate) peer: Identity,
    pub(crate) peer_addr: SocketAddr,
    /// Lower hex; `None` when the peer showed no certificate.
    pub(crate) peer_serial: Option<String>,
    /// Serial of the leaf that we showed; `None` without TLS.
    pub(crate) own_serial: Option<String>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsFacts>,
    /// Number of the generation the handshake was done under; 0 without TLS.
    pub(crate) generation: u64,
    pub(crate) since: SystemTime,
    /// The smallest `notAfter` of the peer's verified path.
    pub(crate) not_after: Option<SystemTime>,
}

impl ConnectionFacts {
    fn making(&self) -> Making {
        Making { generation: self.generation, peer_serial: self.peer_serial.clone() }
    }

    /// Names the two nodes and who dialled. Who has no node's name is known by its address.
    fn pair(&self) -> String {
        let direction = self.direction.label();
        match &self.peer {
            Identity::Node { .. } => format!("{direction} {}", self.remote),
            _ => format!("{direction} {} {}", self.remote, self.peer_addr.ip()),
        }
    }
}

/// How an identity is shown at one end of a connection: `role/node`, an edge client's name, `shared` or `plaintext`.
pub(crate) fn end_of(identity: &Identity) -> String {
    match identity {
        Identity::Node { role, node, .. } => format!("{role}/{node}"),
        Identity::Client { name } => name.to_string(),
        other => other.to_string(),
    }
}

/// One connection as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The dialling end, `role/node`.
    pub from: String,
    /// The accepting end, `role/node`.
    pub to: String,
    /// Which of the two is us.
    pub direction: Direction,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// `TLSv1.3`; null without TLS.
    pub tls_version: Option<&'static str>,
    /// Such as `TLS13_AES_256_GCM_SHA384`; null without TLS.
    pub cipher_suite: Option<&'static str>,
    /// Such as `X25519MLKEM768`; null without TLS.
    pub kx_group: Option<String>,
    /// The server name that the dialler asked for; null without TLS, or where none was sent.
    pub sni: Option<String>,
    /// The peer's identity, such as `spiffe://mesh.internal/proxy/proxy-1`.
    pub peer: String,
    /// The peer's leaf, lower hex.
    pub peer_serial: Option<String>,
    /// Our leaf, lower hex.
    pub own_serial: Option<String>,
    /// The generation of ours that the handshake was done under; 0 without TLS.
    pub generation: u64,
    /// When the handshake ended, RFC 3339 in UTC.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Why it takes no new calls; null while it does.
    pub ending: Option<&'static str>,
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let at = time::OffsetDateTime::from(*at);
    time::serde::rfc3339::serialize(&at, serializer)
}

impl From<&ConnectionFacts> for ConnectionStatus {
    fn from(facts: &ConnectionFacts) -> Self {
        let (from, to) = match facts.direction {
            Direction::Inbound => (&facts.remote, &facts.local),
            Direction::Outbound => (&facts.local, &facts.remote),
        };
        let tls = facts.tls.as_ref();
        Self {
            from: from.clone(),
            to: to.clone(),
            direction: facts.direction,
            transport: facts.transport,
            tls_version: tls.map(|t| t.version),
            cipher_suite: tls.map(|t| t.cipher_suite),
            kx_group: tls.map(|t| t.kx_group.clone()),
            sni: tls.and_then(|t| t.sni.clone()),
            peer: facts.peer.to_string(),
            peer_serial: facts.peer_serial.clone(),
            own_serial: facts.own_serial.clone(),
            generation: facts.generation,
            since: facts.since,
            ending: None,
        }
    }
}

impl From<&Connection> for ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        let ending = connection.phase.borrow().reason().map(EndReason::label);
        Self { ending, ..Self::from(&*connection.facts) }
    }
}

/// Who is calling, in the extensions of every request. Cheap to clone; keeps no connection alive.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    id: u64,
    facts: Arc<ConnectionFacts>,
}

impl PeerInfo {
    /// Who the peer's certificate proves it to be.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.facts.peer
    }

    /// The peer's name: `role/node` in the mesh, the first name of a client's leaf at an edge.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.remote
    }

    /// Serial number of the peer's leaf in lower hex; `None` when it showed none.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.facts.peer_serial.as_deref()
    }

    /// `TLSv1.3` or `TLSv1.2`; `None` without TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        self.facts.tls.as_ref().map(|t| t.version)
    }

    /// Such as `TLS13_AES_256_GCM_SHA384`; `None` without TLS.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.facts.tls.as_ref().map(|t| t.cipher_suite)
    }

    /// Such as `X25519MLKEM768`; `None` without TLS.
    #[must_use]
    pub fn kx_group(&self) -> Option<&str> {
        self.facts.tls.as_ref().map(|t| t.kx_group.as_str())
    }

    /// The server name that the peer asked for.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        self.facts.tls.as_ref().and_then(|t| t.sni.as_deref())
    }

    /// The generation of ours that the handshake was done under; 0 without TLS.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.facts.generation
    }

    /// Unique within this process's registry.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.id
    }

    /// Where the peer's end of the connection is.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.facts.peer_addr
    }
}

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

/// The calls of one connection.
#[derive(Debug)]
struct Load {
    in_flight: AtomicUsize,
    started: AtomicU64,
    /// When the last call ended, in milliseconds since `born`.
    ended: AtomicU64,
    born: Instant,
}

/// Counts one call as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct CallGuard(Arc<Load>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        let age = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(age, Ordering::Relaxed);
        // Release: whoever sees the count fall also sees `ended`.
        self.0.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// One live connection. Dropping the last `Arc` takes it out of the registry.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) facts: Arc<ConnectionFacts>,
    shown: OnceLock<Vec<CertificateDer<'static>>>,
    load: Arc<Load>,
    phase: watch::Sender<Phase>,
    registry: Weak<Shelf>,
}

impl Connection {
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
    fn expire(&self, now: SystemTime, grace: Duration) {
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

    fn neighbour(&self) -> Neighbour {
        Neighbour { making: self.facts.making(), going: *self.phase.borrow() != Phase::Serving }
    }

    fn telemetry(&self, count: impl FnOnce(&Telemetry)) {
        if let Some(shelf) = self.registry.upgrade() {
            count(&shelf.telemetry);
        }
    }

    /// Keeps the chain that the peer showed, so that a candidate can be judged by the peers connected now.
    pub(crate) fn keep_chain(&self, chain: &[CertificateDer<'static>]) {
        let _ = self.shown.set(chain.to_vec());
    }

    /// The peer's certificates, leaf first; none where it showed none.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        self.shown.get().map_or(&[], Vec::as_slice)
    }

    /// Whether it has been told to close at once.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Cut(_))
    }

    /// Whoever drives the connection follows its phase here.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Counts a call until the guard is dropped. The guard keeps the count alive, not the connection.
    pub(crate) fn begin_call(&self) -> CallGuard {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        self.load.started.fetch_add(1, Ordering::Relaxed);
        CallGuard(Arc::clone(&self.load))
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
        PeerInfo { id: self.id, facts: Arc::clone(&self.facts) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(shelf) = self.registry.upgrade() {
            shelf.lock().remove(self.id, &self.facts.pair());
            shelf.gauge(self.facts.direction).dec();
            shelf.departed.send_modify(|number| *number += 1);
        }
    }
}

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
        let shelf = Arc::new(Shelf { live, next, succession, departed, telemetry: telemetry.clone(), surface });
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
        let connection = Arc::new(Connection {
            id: self.shelf.next.fetch_add(1, Ordering::Relaxed),
            facts: Arc::new(facts),
            shown: OnceLock::new(),
            load: Arc::new(Load {
                in_flight: AtomicUsize::new(0),
                started: AtomicU64::new(0),
                ended: AtomicU64::new(0),
                born: Instant::now(),
            }),
            phase: watch::Sender::new(Phase::Serving),
            registry: Arc::downgrade(&self.shelf),
        });
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
