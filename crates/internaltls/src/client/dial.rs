//! From an endpoint to a connection that takes calls.
//!
//! 1. One dial sees one generation. Once the handshake is over the peer is vouched for, the connection is registered,
//!    and then the generation of now is asked again, before a byte of HTTP is sent.
//! 2. The role is verified in the handshake, the node after it, both before the first byte of a request.
//! 3. A dial is over when the peer spoke HTTP/2: only that proves that it accepted us (see [`Socket`]).
//! 4. All of it together has `Limits::connect`.
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::DialError;
use super::link::{Conn, Connected, Sender, Streams, oversee};
use super::socket::{Scissors, Socket};
use crate::config::{Endpoint, Limits};
use crate::connections::{Connection, ConnectionFacts, Direction, Registry, Room, TlsFacts, end_of};
use crate::ending::{EndReason, Standing};
use crate::error::VerifyError;
use crate::foreign::chain as causes;
use crate::identity::{Identity, Role};
use crate::material::{Generation, Store};
use crate::server::http::{STREAM_WINDOW, shared_window};
use crate::telemetry::Telemetry;
use crate::transport::gathered::{Gathered, Turns};
use crate::transport::read_ahead::ReadAhead;
use crate::transport::tcp;
use crate::verify::{Expected, PeerSide, Vouched};

/// What an answer's headers or trailers may have. Our own listeners send 8 KiB at most (see `server::reply`). A larger block
/// fails its call alone as long as it comes in as many frames as h2 expects for this; hyper's 16 KiB would let 64 KiB of a
/// peer's text end the connection.
const HEADER_LIST: u32 = 256 * 1024;

/// What a mesh gives to its channels.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// `None` when the mesh is off.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) limits: Limits,
    pub(crate) registry: Registry,
    pub(crate) telemetry: Telemetry,
    /// Our end of its connections, `role/node`.
    pub(crate) local: String,
    pub(crate) clock: Arc<dyn crate::clock::Clock>,
    /// Where its tasks run.
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Context {
    /// The generation that connections should be of.
    pub(super) fn current(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.current().number)
    }

    /// Moves with every new generation. Without material it never does.
    pub(super) fn generations(&self) -> watch::Receiver<u64> {
        self.store.as_ref().map_or_else(|| watch::channel(0).1, |store| store.subscribe())
    }
}

/// Dials the nodes of one role.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) role: Role,
    pub(super) context: Context,
    /// Where calls wait that found no place on a connection.
    pub(super) room: Arc<Room>,
}

/// Runs the tasks of one connection, the one that writes among them. That others are counted too only makes a turn shorter.
#[derive(Debug, Clone)]
struct Executor {
    runtime: tokio::runtime::Handle,
    turns: Turns,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.runtime.spawn(self.turns.count(task));
    }
}

/// How far a dial is, for the error when it takes too long.
#[derive(Debug)]
struct Stage(Mutex<&'static str>);

impl Stage {
    fn enter(&self, stage: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn now(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialer {
    /// Connects, and counts how it went.
    pub(super) async fn dial(&self, endpoint: &Endpoint) -> Result<Conn, DialError> {
        let stage = Stage(Mutex::new("name resolution"));
        let after = self.context.limits.connect;
        let dialled = timeout(after, self.connect(endpoint, &stage)).await;
        let outcome = dialled.unwrap_or_else(|_| Err(DialError::TimedOut { after, stage: stage.now() }));
        self.count(endpoint, &outcome);
        outcome
    }

    async fn connect(&self, endpoint: &Endpoint, stage: &Stage) -> Result<Conn, DialError> {
        let tcp = self.reach(endpoint, stage).await?;
        let address = tcp.peer_addr().map_err(DialError::Connect)?;
        match &self.context.store {
            None => self.begin(tcp, self.facts(address, Identity::Plaintext), Vec::new(), stage, endpoint).await,
            Some(store) => {
                stage.enter("the TLS handshake");
                let generation = store.current();
                let tls = self.shake(tcp, &generation).await?;
                let chain = chain(&tls);
                let vouched = self.vouch(&generation, &chain, endpoint)?;
                let facts = self.tls_facts(address, &tls, &generation, vouched);
                self.begin(tls, facts, chain, stage, endpoint).await
            }
        }
    }

    async fn reach(&self, endpoint: &Endpoint, stage: &Stage) -> Result<TcpStream, DialError> {
        let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        stage.enter("the TCP handshake");
        let mut failed = DialError::Resolve(io::Error::other("no address"));
        for address in addresses.map_err(DialError::Resolve)? {
            match tcp::dial(address, &self.context.limits).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = DialError::Connect(error),
            }
        }
        Err(failed)
    }

    async fn shake(
        &self,
        tcp: TcpStream,
        generation: &Generation,
    ) -> Result<TlsStream<ReadAhead<TcpStream>>, DialError> {
        let config = generation.client.clone().ok_or(DialError::NoHttp2)?;
        let name = generation.server_name(&self.role);
        let tls = TlsConnector::from(config).connect(name, ReadAhead::new(tcp)).await.map_err(DialError::of_tls)?;
        match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(tls),
            _ => Err(DialError::NoHttp2),
        }
    }

    fn vouch(
        &self,
        generation: &Generation,
        chain: &[CertificateDer<'_>],
        endpoint: &Endpoint,
    ) -> Result<Vouched, DialError> {
        self.judged(generation, chain, endpoint).map_err(DialError::Certificate)
    }

    fn judged(
        &self,
        generation: &Generation,
        chain: &[CertificateDer<'_>],
        endpoint: &Endpoint,
    ) -> Result<Vouched, VerifyError> {
        let expected = Expected { role: self.role.clone(), node: endpoint.node.clone() };
        generation.vouch(chain, PeerSide::Server, Some(&expected))
    }

    /// Judges a connection by the generation of now. A peer that is distrusted is cut off; one that is only not vouched
    /// for any more may finish what it has. Whoever is vouched for stays until its successor is there.
    pub(super) fn judge(&self, conn: &Conn) {
        let Some(store) = &self.context.store else { return };
        match Standing::of(&self.judged(&store.current(), conn.chain(), conn.endpoint()), |_| true) {
            Standing::Distrusted => conn.cut(EndReason::Distrusted),
            Standing::Unvouched => conn.drain(EndReason::Rotation),
            Standing::KeyRetired => conn.drain(EndReason::RetiredKey),
            Standing::Vouched | Standing::Behind | Standing::Untold => {}
        }
    }

    /// Registers the connection, asks the generation of now, and begins HTTP/2.
    async fn begin<S>(
        &self,
        stream: S,
        facts: ConnectionFacts,
        chain: Vec<CertificateDer<'static>>,
        stage: &Stage,
        endpoint: &Endpoint,
    ) -> Result<Conn, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let generation = facts.generation;
        let entry = self.context.registry.register(facts);
        entry.keep_chain(&chain);
        if let Some(newest) = self.context.store.as_ref().map(|store| store.current())
            && newest.number != generation
        {
            self.vouch(&newest, &chain, endpoint)?;
        }
        stage.enter("the first HTTP/2 frame");
        let connected = self.speak(stream, entry).await?;
        Ok(Conn::new(connected, self.role.clone(), endpoint.clone(), generation, chain))
    }

    async fn speak<S>(&self, stream: S, entry: Arc<Connection>) -> Result<Connected, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scissors = Scissors::default();
        let (connection, calls, peer) = (Arc::downgrade(&entry), entry.calls(), entry.peer_info());
        calls.make_room(&self.room);
        let (socket, heard) = Socket::new(stream, entry, scissors.clone());
        let executor = Executor { runtime: self.context.runtime.clone(), turns: Turns::default() };
        let socket = Gathered::new(socket, executor.turns.clone());
        let http = self.http(executor).handshake(TokioIo::new(socket));
        let (send, task) = http.await.map_err(DialError::Http)?;
        let grace = self.context.limits.drain;
        let send = Sender::new(send);
        let streams = Streams::assumed(self.context.limits.streams);
        let task = streams.clone().follow(task);
        self.context.runtime.spawn(oversee(task, send.clone(), connection.clone(), move || scissors.cut(), grace));
        heard.await.unwrap_or(Err(DialError::Silent))?;
        Ok(Connected { send, connection, calls, peer, streams })
    }

    fn http(&self, executor: Executor) -> Builder<Executor> {
        let limits = &self.context.limits;
        let mut http = Builder::new(executor);
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(shared_window(limits.streams))
            .max_header_list_size(HEADER_LIST)
            // A late answer to a call that was taken back is dropped in silence, and counts nothing against its connection.
            .max_concurrent_reset_streams(limits.streams as usize)
            .max_local_error_reset_streams(None)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .keep_alive_while_idle(true);
        http
    }

    fn tls_facts(
        &self,
        address: SocketAddr,
        tls: &TlsStream<ReadAhead<TcpStream>>,
        generation: &Generation,
        vouched: Vouched,
    ) -> ConnectionFacts {
        let sni = generation.server_name(&self.role);
        ConnectionFacts {
            peer_serial: Some(vouched.serial),
            peer_key: Some(vouched.spki_sha256),
            own_serial: Some(generation.leaf.serial.clone()),
            tls: Some(TlsFacts::of(tls.get_ref().1, Some(&sni.to_str()))),
            generation: generation.number,
            not_after: Some(vouched.not_after),
            ..self.facts(address, vouched.identity)
        }
    }

    fn facts(&self, peer_addr: SocketAddr, peer: Identity) -> ConnectionFacts {
        ConnectionFacts {
            direction: Direction::Outbound,
            transport: "tcp",
            local: self.context.local.clone(),
            remote: end_of(&peer),
            peer,
            peer_addr,
            peer_serial: None,
            peer_key: None,
            own_serial: None,
            tls: None,
            generation: 0,
            since: self.context.clock.now(),
            not_after: None,
        }
    }

    fn count(&self, endpoint: &Endpoint, outcome: &Result<Conn, DialError>) {
        let label = outcome.as_ref().map_or_else(DialError::label, |_| "ok");
        if self.context.store.is_some() {
            self.context.telemetry.client_handshake(label, false);
        }
        if let Err(error) = outcome {
            let reason = causes(error);
            tracing::warn!(role = %self.role, %endpoint, label, reason, "cannot reach a peer");
        }
    }
}

fn chain(tls: &TlsStream<ReadAhead<TcpStream>>) -> Vec<CertificateDer<'static>> {
    tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
}
