//! Serving: an accept loop of our own over hyper, so that every connection can be named, counted and drained.
//!
//! 1. `accept` does nothing but accept, and waits for nothing else; handshakes run in tasks of their own, bounded in number,
//!    time and bytes, and those that are silent give way.
//! 2. One handshake sees one generation. The connection is registered when it is over, and then the generation of now
//!    is asked again, before a byte of HTTP is read.
//! 3. On shutdown and on a new generation a connection is told to finish (HTTP/2 GOAWAY, in two steps); what still runs
//!    after `Limits::drain` is cut.
//!
//! The parts, in the order a connection meets them: `accept`, `gate` (with `table`), `handshake` (with
//! `metered` and `refusal`),
//! `listener` (with `threads`), `drive` (with `http`), `call` (with `leave`, `deadline`, `service`,
//! `allowance` and `body`), `reply`.
mod accept;
mod allowance;
mod body;
mod call;
pub(crate) mod deadline;
mod drive;
mod gate;
mod handshake;
pub(crate) mod http;
mod leave;
mod linger;
pub(crate) mod listener;
mod metered;
mod refusal;
pub(crate) mod reply;
pub(crate) mod service;
mod table;
mod threads;
mod throttle;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub(crate) use self::call::Services;
pub(crate) use self::handshake::ToPlaintext;
use self::listener::{OnRotation, Shared, run};
use self::service::Service;
pub use self::threads::Threads;
use crate::clock::Clock;
use crate::config::Limits;
use crate::connections::Registry;
use crate::material::Store;
use crate::policy::Policy;
use crate::question;
use crate::telemetry::Telemetry;
use crate::transport::{descriptors, tcp};

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("{0} is in use by another process: stop it, or choose another port")]
    InUse(SocketAddr),
    /// The process may not have the port.
    #[error("this process may not listen on {0}: ports below 1024 need a privilege; choose a higher one")]
    Forbidden(SocketAddr),
    /// The host does not have the address.
    #[error("{0} is not an address of this host: choose one that is, or 0.0.0.0")]
    NotOurs(SocketAddr),
    /// Anything else that the operating system says.
    #[error("cannot listen on {address}")]
    Other {
        /// What was to be bound.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl BindError {
    fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => Self::NotOurs(address),
            _ => Self::Other { address, source },
        }
    }
}

/// A listener broke while it served. Its connections have been drained.
#[derive(Debug, thiserror::Error)]
#[error("the listener on {address} cannot accept any more")]
pub struct ServeError {
    address: SocketAddr,
    source: io::Error,
}

/// A listener and the address that it got.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds and listens. From here on the kernel completes TCP handshakes for us.
    pub(crate) fn to(address: SocketAddr) -> Result<Self, BindError> {
        descriptors::raise();
        let bound = tcp::listen(address).and_then(|l| Ok((l.local_addr()?, l)));
        bound.map(|(address, listener)| Self { listener, address }).map_err(|source| BindError::of(address, source))
    }

    /// The address, with the port that was chosen when it was asked for port 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, shared: Shared, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, address } = self;
        run(listener, shared, shutdown).await.map_err(|source| ServeError { address, source })
    }
}

/// What a mesh gives to its servers.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// `None` when the mesh is off.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) limits: Limits,
    pub(crate) registry: Registry,
    pub(crate) telemetry: Telemetry,
    /// Our end of its connections, `role/node`.
    pub(crate) local: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A server that still lacks a policy. There is no default: who may call what is said, or the server is not built.
pub struct ServerBuilder {
    context: Context,
    service: Service,
}

impl ServerBuilder {
    /// A server of `service` in the mesh that `context` belongs to.
    pub(crate) fn new(context: Context, service: Service) -> Self {
        Self { context, service }
    }

    /// Which identities may call which methods, unless a policy file says otherwise.
    #[must_use]
    pub fn policy(self, policy: Policy) -> PolicedServer {
        PolicedServer { builder: self, policy: Arc::new(policy), fixed: false, threads: None }
    }

    /// The same, and no policy file says otherwise: for a server whose paths are no gRPC methods, such as status for
    /// people, and which judges its callers itself.
    #[must_use]
    pub fn fixed_policy(self, policy: Policy) -> PolicedServer {
        PolicedServer { builder: self, policy: Arc::new(policy), fixed: true, threads: None }
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("local", &self.context.local).finish_non_exhaustive()
    }
}

/// A server that only lacks an address.
#[derive(Debug)]
pub struct PolicedServer {
    builder: ServerBuilder,
    policy: Arc<Policy>,
    fixed: bool,
    threads: Option<Threads>,
}

impl PolicedServer {
    /// Serves connections on these threads, instead of on the runtime that [`Server::serve`] is called in.
    #[must_use]
    pub fn threads(mut self, threads: &Threads) -> Self {
        self.threads = Some(threads.clone());
        self
    }

    /// Listens on `address`; port 0 takes a free one, see [`Server::local_addr`].
    ///
    /// # Errors
    /// [`BindError`] when the address cannot be had.
    #[expect(
        clippy::unused_async,
        reason = "binding will resolve names and open QUIC sockets; callers should not change then"
    )]
    pub async fn bind(self, address: SocketAddr) -> Result<Server, BindError> {
        let bound = Bound::to(address)?;
        let Context { store, limits, registry, telemetry, local, clock } = self.builder.context;
        let file = store.clone().filter(|_| !self.fixed);
        let trial = store.clone().filter(|_| !self.fixed).map(|store| question::service(store, telemetry.clone()));
        let services = Services::mesh(self.builder.service, file, self.policy, trial);
        let http = http::two_only(&limits);
        let (on_rotation, to_plaintext) = (OnRotation::Drain, ToPlaintext::Nothing);
        Ok(Server {
            bound,
            shared: Shared {
                store,
                limits,
                registry,
                telemetry,
                local,
                clock,
                on_rotation,
                to_plaintext,
                services,
                http,
                threads: self.threads,
            },
        })
    }
}

/// A bound listener of the mesh.
pub struct Server {
    bound: Bound,
    shared: Shared,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.bound.address()).finish_non_exhaustive()
    }
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Serves until `shutdown` is ready; then every connection is told to finish, and what still runs after
    /// `Limits::drain` is cut. Dropping the future closes everything at once.
    ///
    /// # Errors
    /// [`ServeError`] when the listener itself breaks. A lack of descriptors and errors of single connections are waited
    /// out, counted and logged.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        self.bound.serve(self.shared, shutdown).await
    }
}

#[cfg(test)]
mod tests;
