//! rustls and hyper put together by hand: the same libraries, settings and transport as internaltls, and none of its layers:
//! no identity, policy, metrics, registry, balance, replay, limits.
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use internaltls::bench::{Turns, above, beneath};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::body::Body;
use tower::ServiceExt;

use super::Dialler;
use crate::echo::Echo;
use crate::material::{End, Folder, VERSIONS, provider};
use crate::variant::Variant;

/// As internaltls has them.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const FRAME: u32 = 64 * 1024;
const PING: Duration = Duration::from_secs(10);

pub(super) async fn serve(
    variant: Variant,
    folder: &Path,
    tell: impl FnOnce(SocketAddr),
    over: impl Future<Output = ()>,
) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let tls = TlsAcceptor::from(Arc::new(server_config(variant, folder)?));
    tell(listener.local_addr()?);
    let mut over = pin!(over);
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(tokio::spawn(connection(tls.clone(), accepted?.0))),
            () = &mut over => return Ok(()),
        }
    }
}

async fn connection(tls: TlsAcceptor, tcp: TcpStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let stream = tls.accept(beneath(tcp)).await?;
    let service = TowerToHyperService::new(Echo.map_request(|request: Request<Incoming>| request.map(Body::new)));
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let turns = Turns::default();
    let stream = TokioIo::new(above(stream, &turns));
    Ok(turns.count(http.serve_connection(stream, service)).await?)
}

fn server_config(variant: Variant, folder: &Path) -> Result<ServerConfig> {
    let (chain, key, roots) = Folder::of(folder, End::Server).rustls()?;
    let provider = provider(variant != Variant::BareClassic);
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS)?;
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if variant != Variant::BareResumed {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

fn client_config(variant: Variant, folder: &Path) -> Result<ClientConfig> {
    let (chain, key, roots) = Folder::of(folder, End::Client).rustls()?;
    let provider = provider(variant != Variant::BareClassic);
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS)?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if variant != Variant::BareResumed {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Dials by hand.
#[derive(Debug)]
pub struct BareDialler {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl BareDialler {
    /// Of `address`, with certificates below `folder`.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub fn new(variant: Variant, address: SocketAddr, folder: &Path) -> Result<Self> {
        Ok(Self { address, config: Arc::new(client_config(variant, folder)?) })
    }
}

impl Dialler for BareDialler {
    type Wire = BareWire;

    async fn dial(&self) -> Result<BareWire> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(End::Server.name())?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, beneath(tcp)).await?;
        let executor = Executor(Turns::default());
        let stream = above(stream, &executor.0);
        let mut http = hyper::client::conn::http2::Builder::new(executor);
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let (send, connection) = http.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(BareWire(send))
    }
}

/// The tasks of one connection, counted.
#[derive(Debug, Clone)]
struct Executor(Turns);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        let turns = self.0.clone();
        tokio::spawn(async move { turns.count(task).await });
    }
}

/// A connection made by hand.
#[derive(Debug, Clone)]
pub struct BareWire(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for BareWire {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        *request.uri_mut() = whole(request.uri());
        Box::pin(self.0.send_request(request))
    }
}

/// HTTP/2 wants scheme and authority.
fn whole(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    let built = Uri::builder().scheme("https").authority("back.mesh.internal");
    path.and_then(|path| built.path_and_query(path).build().ok()).unwrap_or_default()
}
