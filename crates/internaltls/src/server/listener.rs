//! What a mesh listener and an edge listener have in common: from `accept` to the last byte of a connection.
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::accept::accept_all;
use super::call::{Calls, ConnectInfo, Services};
use super::drive::{Stream, drive};
use super::gate::{Gate, Permit};
use super::handshake::{Failure, Shaken, ToPlaintext, shake};
use super::http::Http;
use super::refusal::Refusal;
use super::threads::Threads;
use super::throttle::Throttle;
use crate::aside::Aside;
use crate::clock::Clock;
use crate::config::Limits;
use crate::connections::{Connection, ConnectionFacts, Direction, Registry, TlsFacts, end_of};
use crate::ending::{EndReason, Standing, Verdict, verdict};
use crate::foreign;
use crate::identity::Identity;
use crate::material::Store;
use crate::telemetry::Telemetry;
use crate::transport::tcp;
use crate::verify::PeerSide;

/// New generations reach all connections at once; this much spread keeps all peers from dialling at once.
const JITTER: Duration = Duration::from_millis(100);

/// How long a rotation waits for a flood to end. What expiry, distrust or policy asks for is never put off.
const MOST_POSTPONED: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What becomes of a connection when a newer generation still vouches for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRotation {
    /// It is drained, so that its successor is made under the newest generation.
    Drain,
    /// It stays: clients of an edge may have pinned the old leaf.
    Keep,
}

/// Everything that a listener's connections share.
pub(crate) struct Shared {
    /// `None` without TLS.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) limits: Limits,
    pub(crate) registry: Registry,
    pub(crate) telemetry: Telemetry,
    /// Our end of its connections.
    pub(crate) local: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_rotation: OnRotation,
    pub(crate) to_plaintext: ToPlaintext,
    pub(crate) services: Services,
    pub(crate) http: Http,
    /// Where connections are served, if not on the runtime that accepts.
    pub(crate) threads: Option<Threads>,
}

/// A connection that may be served.
struct Settled {
    io: Stream,
    connection: Arc<Connection>,
    chain: Vec<CertificateDer<'static>>,
    info: ConnectInfo,
}

/// A listener's tasks, and the two ways to end them.
struct Tasks {
    shared: Shared,
    tracker: TaskTracker,
    /// No new connections, running calls may finish.
    stop: CancellationToken,
    /// The future that serves was dropped: close everything.
    abort: CancellationToken,
    gate: Arc<Gate>,
    log: Throttle,
}

/// Accepts and serves until `shutdown` is ready, then drains.
///
/// # Errors
/// The error of a listener that broke; its connections have been drained as well.
pub(crate) async fn run(listener: TcpListener, shared: Shared, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let tasks = Arc::new(Tasks {
        gate: Gate::new(&shared.limits),
        shared,
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
        log: Throttle::new(Duration::from_millis(100)),
    });
    let _abort = tasks.abort.clone().drop_guard();
    let outcome = tokio::select! {
        error = tasks.accept(&listener) => Err(error),
        () = shutdown => Ok(()),
    };
    drop(listener);
    tasks.gate.close();
    tasks.stop.cancel();
    tasks.tracker.close();
    tasks.tracker.wait().await;
    outcome
}

impl Tasks {
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> io::Error {
        let take = |stream, address, permit| self.begin(stream, address, permit);
        accept_all(listener, &self.gate, &self.shared.telemetry, take).await
    }

    fn begin(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, permit: Permit) {
        let tasks = Arc::clone(self);
        let connection = move |stream| tasks.connection(stream, address, permit);
        match &self.shared.threads {
            Some(threads) => threads.serve(&self.tracker, stream, connection),
            None => drop(self.tracker.spawn(connection(stream))),
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, permit: Permit) {
        let settled = self.shared.settle(stream, address, &permit).await;
        if settled.as_ref().is_ok_and(|settled| !settled.chain.is_empty()) {
            self.gate.authenticated(address.ip());
        }
        drop(permit);
        match settled {
            Ok(settled) => self.serve(settled).await,
            Err(failure) => self.report(address, &failure),
        }
    }

    async fn serve(&self, settled: Settled) {
        let Settled { io, connection, chain, info } = settled;
        let shared = &self.shared;
        let calls = Calls::new(
            shared.services.clone(),
            Arc::clone(&connection),
            info,
            shared.telemetry.clone(),
            &shared.limits,
        );
        tokio::select! {
            biased;
            () = drive(io, &shared.http, calls, &connection, &shared.limits) => {}
            () = Aside::new(self.watch(&connection, &chain)) => {}
        }
    }

    /// What ends or drains a connection from elsewhere. Ends when the connection is to be closed at once.
    async fn watch(&self, connection: &Connection, chain: &[CertificateDer<'_>]) {
        tokio::select! {
            () = self.abort.cancelled() => connection.cut(EndReason::Shutdown),
            () = self.drain_on_stop(connection) => {}
            () = self.shared.follow(connection, chain, &self.gate) => {}
            () = self.shared.services.follow_policy(connection) => {}
        }
    }

    async fn drain_on_stop(&self, connection: &Connection) {
        self.stop.cancelled().await;
        connection.drain(EndReason::Shutdown);
        std::future::pending().await
    }

    fn report(&self, address: SocketAddr, failure: &Failure) {
        let Failure { sni, refusal } = failure;
        self.shared.handshake(refusal.label(), false);
        if !refusal.is_grave() {
            return tracing::debug!(%address, ?sni, reason = refusal.label(), "a connection came to nothing: {refusal}");
        }
        if let Some(suppressed) = self.log.permit(Instant::now()) {
            tracing::warn!(%address, ?sni, reason = refusal.label(), suppressed, "refused a connection: {refusal}");
        }
    }
}

impl Shared {
    /// Brings an accepted socket to where HTTP may begin.
    async fn settle(&self, stream: TcpStream, address: SocketAddr, permit: &Permit) -> Result<Settled, Failure> {
        tcp::tune(&stream, &self.limits).map_err(|error| Failure { sni: None, refusal: Refusal::Io(error) })?;
        match &self.store {
            None => Ok(self.settle_plaintext(stream, address)),
            Some(store) => {
                let shaken = shake(stream, store, &self.limits, self.to_plaintext, permit).await?;
                let sni = shaken.sni().map(foreign::name);
                self.settle_tls(store, shaken, address).map_err(|refusal| Failure { sni, refusal })
            }
        }
    }

    fn handshake(&self, result: &'static str, resumed: bool) {
        self.telemetry.server_handshake(self.registry.surface(), result, resumed);
    }

    fn settle_plaintext(&self, stream: TcpStream, address: SocketAddr) -> Settled {
        let info = ConnectInfo { tcp: stream.connect_info(), tls: None };
        let connection = self.registry.register(self.facts(address, &Identity::Plaintext));
        Settled { io: Stream::Left(stream), connection, chain: Vec::new(), info }
    }

    /// Registers first, then asks the generation of now: a change in between is met by one of the two.
    fn settle_tls(&self, store: &Store, shaken: Shaken, address: SocketAddr) -> Result<Settled, Refusal> {
        let chain = shaken.chain();
        let facts = self.tls_facts(&shaken, &chain, address)?;
        let resumed = facts.tls.as_ref().is_some_and(|t| t.resumed);
        let connection = self.registry.register(facts);
        connection.keep_chain(&chain);
        let newest = store.current();
        if newest.number != shaken.generation.number && !chain.is_empty() {
            newest.vouch(&chain, PeerSide::Client, None).map_err(Refusal::Overtaken)?;
        }
        self.handshake("ok", resumed);
        let tls = shaken.stream.connect_info();
        let info = ConnectInfo { tcp: tls.get_ref().clone(), tls: Some(tls) };
        Ok(Settled { io: Stream::Right(shaken.stream), connection, chain, info })
    }

    fn tls_facts(
        &self,
        shaken: &Shaken,
        chain: &[CertificateDer<'_>],
        address: SocketAddr,
    ) -> Result<ConnectionFacts, Refusal> {
        let generation = &shaken.generation;
        let vouched = match chain {
            [] => None,
            chain => Some(generation.vouch(chain, PeerSide::Client, None).map_err(Refusal::Unvouched)?),
        };
        let identity = vouched.as_ref().map_or(Identity::Anonymous, |v| v.identity.clone());
        Ok(ConnectionFacts {
            peer_serial: vouched.as_ref().map(|v| v.serial.clone()),
            peer_key: vouched.as_ref().map(|v| v.spki_sha256),
            own_serial: Some(generation.leaf.serial.clone()),
            tls: Some(TlsFacts::of(shaken.stream.get_ref().1, shaken.sni())),
            generation: generation.number,
            not_after: vouched.map(|v| v.not_after),
            ..self.facts(address, &identity)
        })
    }

    fn facts(&self, peer_addr: SocketAddr, peer: &Identity) -> ConnectionFacts {
        ConnectionFacts {
            direction: Direction::Inbound,
            transport: "tcp",
            local: self.local.clone(),
            remote: end_of(peer),
            peer: peer.clone(),
            peer_addr,
            peer_serial: None,
            peer_key: None,
            own_serial: None,
            tls: None,
            generation: 0,
            since: self.clock.now(),
            not_after: None,
        }
    }

    /// Judges the connection by each new generation. Never ends.
    async fn follow(&self, connection: &Connection, chain: &[CertificateDer<'_>], gate: &Gate) {
        let Some(store) = &self.store else { return std::future::pending().await };
        let mut newest = store.subscribe();
        let mut postponed = None;
        loop {
            let number = *newest.borrow_and_update();
            let standing = || standing(store, chain);
            let verdict = verdict(connection.facts.generation, number, standing);
            // One that waits for room is judged by the next generation all the same.
            tokio::select! {
                () = self.apply(verdict, connection, gate, &mut postponed) => {}
                Ok(()) = newest.changed() => {}
            }
        }
    }

    /// Never ends.
    async fn apply(&self, verdict: Verdict, connection: &Connection, gate: &Gate, postponed: &mut Option<Instant>) {
        match verdict {
            Verdict::Keep => {}
            Verdict::Succeed if self.on_rotation == OnRotation::Keep => {}
            Verdict::Succeed => {
                tokio::time::sleep(jitter()).await;
                calm(gate, postponed).await;
                self.succeed(connection).await;
            }
            Verdict::Drain(reason) => {
                tokio::time::sleep(jitter()).await;
                connection.drain(reason);
            }
            Verdict::Cut => connection.cut(EndReason::Distrusted),
        }
        std::future::pending().await
    }

    /// Drains the connection as soon as there is room for one more generation that drains between the two nodes.
    async fn succeed(&self, connection: &Connection) {
        let mut departures = self.registry.departures();
        while !self.registry.succeed(connection, EndReason::Rotation) && departures.changed().await.is_ok() {}
    }
}

/// Waits while new connections are hard to make, for [`MOST_POSTPONED`] in all: a peer whose connection is drained dials
/// anew. `since` is when it began to; a generation that comes meanwhile does not make it longer.
async fn calm(gate: &Gate, since: &mut Option<Instant>) {
    let began = *since.get_or_insert_with(Instant::now);
    while gate.is_pressed() {
        if began.elapsed() >= MOST_POSTPONED {
            return tracing::warn!("a rotation is postponed no longer, though the listener is still flooded");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    *since = None;
}

/// What the generation of now says of a client; one that showed no certificate has nothing to be judged by.
fn standing(store: &Store, chain: &[CertificateDer<'_>]) -> Standing {
    if chain.is_empty() {
        return Standing::Vouched;
    }
    let newest = store.current();
    Standing::of(&newest.vouch(chain, PeerSide::Client, None), |peer| newest.keeps_pace(peer))
}

/// A random time up to [`JITTER`]. Not a secret, so the hasher's own seed is enough.
fn jitter() -> Duration {
    let random = RandomState::new().build_hasher().finish();
    JITTER.mul_f64(random as f64 / u64::MAX as f64)
}
