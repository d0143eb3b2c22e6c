//! The external listener: its own material, its own mode, never the mesh's.
//!
//! 1. Three modes, as tlsMode: plaintext, a server certificate, a certificate on both sides. A mode that wants material
//!    does not open without.
//! 2. gRPC and REST share a port, TLS or not: HTTP/1.1 and HTTP/2 are told apart by ALPN or the first bytes, gRPC and the
//!    rest by content type. REST can have a port of its own as well.
//! 3. A missing server name is accepted, for clients that dial an address send none. A new leaf does not drain: clients
//!    that pinned the old one keep their connection. A client that the newest CA bundle no longer accepts is drained, a distrusted one cut.
//! 4. Handshakes are bounded as in the mesh. Message sizes are the services' own to limit.
//! 5. Who may do what is the services' to say: a client certificate proves a name and grants nothing.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::clock::{Clock, SystemClock};
use crate::config::{EdgeConfig, EdgeMode, Files, Limits, TlsVersion};
use crate::connections::{ConnectionStatus, Registry};
use crate::error::LoadError;
use crate::material::{MaterialStatus, Purpose, Reloaded, Store};
use crate::server::listener::{OnRotation, Shared};
use crate::server::service::{Service, erase};
use crate::server::{BindError, Bound, ServeError, Services, Threads, ToPlaintext, http as protocol};
use crate::telemetry::Telemetry;
use crate::ticker;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An edge could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// The mode asks for TLS and no files are named.
    #[error(
        "the edge's mode asks for TLS and no certificate is configured: set tls.serverPemPath and tls.serverKeyPath, or tlsMode 0"
    )]
    NoFiles,
    /// Two-way TLS without a CA to judge clients by.
    #[error("the edge's mode asks for client certificates and no CA is configured: set tls.caPemPath, or tlsMode 1")]
    NoCa,
    /// The material does not load.
    #[error("the edge's certificate does not load")]
    Load(#[source] Box<LoadError>),
}

/// The external listener's material and limits. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    mode: EdgeMode,
    limits: Limits,
    store: Option<Arc<Store>>,
    registry: Registry,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    threads: Option<Threads>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Edge {
    /// Loads and checks the material, and follows it from then on. Counts into metrics of its own.
    ///
    /// # Errors
    /// [`EdgeError`] when the mode wants material that is not there or not fit.
    pub async fn open(config: EdgeConfig) -> Result<Self, EdgeError> {
        Self::open_with(config, &Telemetry::new(), Arc::new(SystemClock)).await
    }

    /// The same, counting into the metrics of a mesh, and by another clock.
    ///
    /// # Errors
    /// As [`Edge::open`].
    pub async fn open_with(
        config: EdgeConfig,
        telemetry: &Telemetry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EdgeError> {
        let store = match wanted(&config)? {
            None => None,
            Some(files) => Some(
                open_store(&config, files, telemetry, Arc::clone(&clock))
                    .await
                    .map_err(|e| EdgeError::Load(Box::new(e)))?,
            ),
        };
        let registry = Registry::of_edge(telemetry.clone());
        if let Some(store) = &store {
            ticker::start(store, registry.clone(), Arc::clone(&clock), config.limits.drain);
        }
        let (mode, limits, telemetry, threads) = (config.mode, config.limits, telemetry.clone(), None);
        Ok(Self { mode, limits, store, registry, telemetry, clock, threads })
    }

    /// Serves connections on these threads, instead of on the runtime that [`Edge::serve`] is called in.
    #[must_use]
    pub fn threads(mut self, threads: &Threads) -> Self {
        self.threads = Some(threads.clone());
        self
    }

    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`] when the address cannot be had.
    pub fn bind(&self, address: SocketAddr) -> Result<EdgeListener, BindError> {
        Bound::to(address).map(|bound| EdgeListener { bound })
    }

    /// Serves until `shutdown` is ready, then tells every client to finish and cuts what still runs after
    /// `Limits::drain`. A request with a content type of `application/grpc…` goes to `grpc`, every other to `rest`.
    ///
    /// # Errors
    /// [`ServeError`] when a listener breaks.
    pub async fn serve<G, GB, R, RB>(
        &self,
        listeners: EdgeListeners,
        grpc: G,
        rest: R,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError>
    where
        G: tower_service::Service<Request<Body>, Response = Response<GB>, Error = Infallible>,
        G: Clone + Send + Sync + 'static,
        G::Future: Send + 'static,
        GB: http_body::Body<Data = Bytes> + Send + 'static,
        GB::Error: Into<BoxError>,
        R: tower_service::Service<Request<Body>, Response = Response<RB>, Error = Infallible>,
        R: Clone + Send + Sync + 'static,
        R::Future: Send + 'static,
        RB: http_body::Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        self.serve_erased(listeners, erase(grpc), erase(rest), shutdown).await
    }

    async fn serve_erased(
        &self,
        listeners: EdgeListeners,
        grpc: Service,
        rest: Service,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let stop = CancellationToken::new();
        let on_shutdown = async {
            tokio::select! {
                () = shutdown => stop.cancel(),
                () = stop.cancelled() => {}
            }
        };
        let both = self.listen(listeners.both, Services::edge(grpc, rest.clone()), &stop);
        let alone = async {
            match listeners.rest {
                Some(listener) => self.listen(listener, Services::edge(rest.clone(), rest), &stop).await,
                None => Ok(()),
            }
        };
        let ((), both, alone) = tokio::join!(on_shutdown, both, alone);
        both.and(alone)
    }

    /// One listener's share. If it breaks, the other stops too: half an edge would look alive.
    async fn listen(
        &self,
        listener: EdgeListener,
        services: Services,
        stop: &CancellationToken,
    ) -> Result<(), ServeError> {
        let outcome = listener.bound.serve(self.shared(services), stop.cancelled()).await;
        stop.cancel();
        outcome
    }

    fn shared(&self, services: Services) -> Shared {
        Shared {
            store: self.store.clone(),
            limits: self.limits,
            registry: self.registry.clone(),
            telemetry: self.telemetry.clone(),
            local: "edge".to_owned(),
            clock: Arc::clone(&self.clock),
            on_rotation: OnRotation::Keep,
            to_plaintext: ToPlaintext::Sentence,
            services,
            http: protocol::either(&self.limits),
            threads: self.threads.clone(),
        }
    }

    /// Reads the files now instead of at the next event. Gives the number of the generation that this published, if any.
    ///
    /// # Errors
    /// [`LoadError`] when they are not fit; what was served is served on.
    pub async fn reload(&self) -> Result<Option<u64>, LoadError> {
        let Some(store) = &self.store else { return Ok(None) };
        Ok(match store.reload().await? {
            Reloaded::Published(number) => Some(number),
            Reloaded::Unchanged => None,
        })
    }

    /// What is served, since when, and what became of the last attempt to reload; `None` without TLS.
    #[must_use]
    pub fn status(&self) -> Option<MaterialStatus> {
        self.store.as_ref().map(|store| store.status())
    }

    /// The clients connected now, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.registry.snapshot()
    }

    /// How many of them were made under which generation.
    #[must_use]
    pub fn connections_by_generation(&self) -> BTreeMap<u64, usize> {
        self.registry.by_generation()
    }

    /// The metrics that it counts into.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// What it asks of its clients.
    #[must_use]
    pub fn mode(&self) -> EdgeMode {
        self.mode
    }
}

/// The files that the mode asks for.
fn wanted(config: &EdgeConfig) -> Result<Option<Files>, EdgeError> {
    match (config.mode, &config.files) {
        (EdgeMode::Off, _) => Ok(None),
        (_, None) => Err(EdgeError::NoFiles),
        (EdgeMode::TwoWay, Some(files)) if files.ca.is_none() => Err(EdgeError::NoCa),
        (_, Some(files)) => Ok(Some(files.clone())),
    }
}

async fn open_store(
    config: &EdgeConfig,
    files: Files,
    telemetry: &Telemetry,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Store>, LoadError> {
    let purpose = Purpose::Edge {
        mode: config.mode,
        min_version: config.min_version.unwrap_or(default_version(config.mode)),
        require_client_auth_eku: config.require_client_auth_eku,
    };
    let (state, telemetry) = (config.state.clone(), Arc::new(telemetry.clone()));
    Store::open_with_state(purpose, files, None, state, config.reload, clock, telemetry).await
}

/// As Milvus has it.
fn default_version(mode: EdgeMode) -> TlsVersion {
    match mode {
        EdgeMode::TwoWay => TlsVersion::V1_3,
        EdgeMode::OneWay | EdgeMode::Off => TlsVersion::V1_2,
    }
}

/// A bound external listener.
#[derive(Debug)]
pub struct EdgeListener {
    bound: Bound,
}

impl EdgeListener {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.bound.address()
    }
}

/// The listeners of one edge.
#[derive(Debug)]
pub struct EdgeListeners {
    /// Where gRPC and REST are both served.
    pub both: EdgeListener,
    /// Where REST alone is served, if anywhere.
    pub rest: Option<EdgeListener>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: EdgeMode, files: Option<Files>) -> EdgeConfig {
        let (reload, limits) = Default::default();
        EdgeConfig { mode, files, min_version: None, require_client_auth_eku: false, reload, limits, state: None }
    }

    fn files(ca: Option<&str>) -> Files {
        Files {
            cert: "server.pem".into(),
            key: "server.key".into(),
            ca: ca.map(Into::into),
            client_cert: None,
            client_key: None,
            crl: None,
            distrust: None,
        }
    }

    #[test]
    fn a_mode_with_tls_wants_material() {
        assert!(matches!(wanted(&config(EdgeMode::OneWay, None)), Err(EdgeError::NoFiles)));
        assert!(matches!(wanted(&config(EdgeMode::TwoWay, Some(files(None)))), Err(EdgeError::NoCa)));
        assert!(matches!(wanted(&config(EdgeMode::TwoWay, Some(files(Some("ca.pem"))))), Ok(Some(_))));
        assert!(matches!(wanted(&config(EdgeMode::Off, Some(files(None)))), Ok(None)));
    }
}
