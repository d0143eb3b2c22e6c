//! What is attacked: a mesh listener and an edge, with one process that calls over the mesh all the while.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use internaltls::edge::EdgeListeners;
use internaltls::{Channel, Edge, EdgeConfig, EdgeMode, Endpoint, Limits, Mesh, Reload};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

use super::bench::{Echo, call, mesh};
use super::pki::{Authority, Node};

const NAME: &str = "data-node.mesh.internal";
/// From one new client to the next.
const PACE: Duration = Duration::from_millis(7);
/// What a client waits at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls under way over the mesh.
const CALLERS: usize = 4;
/// The preface of HTTP/2 and empty settings (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Which listener is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    Mesh,
    Edge,
}

pub(crate) struct Scene {
    ca: Authority,
    server: Node,
    client: Node,
    echo: Echo,
    dialling: Mesh,
    edge: Edge,
    outside: SocketAddr,
    config: Arc<ClientConfig>,
    _serving: AbortOnDropHandle<()>,
}

/// How long new clients took, and why some failed.
#[derive(Debug, Default)]
pub(crate) struct Times {
    taken: Vec<Duration>,
    pub(crate) failed: Vec<String>,
}

impl Times {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.taken.clone();
        sorted.sort_unstable();
        let nth = (sorted.len() * percent).div_ceil(100);
        sorted.get(nth.saturating_sub(1)).copied().unwrap_or(PATIENCE)
    }
}

/// Callers that never pause, until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    callers: JoinSet<Result<(), tonic::Status>>,
}

impl Load {
    fn start(channel: &Channel) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (channel, stop, done) = (channel.clone(), Arc::clone(&stop), Arc::clone(&done));
            callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    call(&channel, "load").await?;
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            });
        }
        Self { stop, done, callers }
    }

    /// How many calls were answered. Panics with the first error.
    pub(crate) async fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap().expect("a call is lost");
        }
        self.done.load(Ordering::Relaxed)
    }
}

impl Scene {
    pub(crate) async fn open() -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let echo = Echo::start(mesh(&server).await).await;
        let dialling = mesh(&client).await;
        let (edge, outside, serving) = open_edge(&server).await;
        let config = Arc::new(dialler(&ca, &client));
        Self { ca, server, client, echo, dialling, edge, outside, config, _serving: serving }
    }

    pub(crate) fn address(&self, surface: Surface) -> SocketAddr {
        match surface {
            Surface::Mesh => self.echo.address,
            Surface::Edge => self.outside,
        }
    }

    /// A whole ClientHello, as a client of that listener sends it.
    pub(crate) fn hello(&self, _: Surface) -> Vec<u8> {
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    /// Calls over the mesh, from now on.
    pub(crate) fn load(&self) -> Load {
        Load::start(&self.dialling.channel("data-node".parse().unwrap(), Endpoint::from(self.echo.address)))
    }

    /// New leaves on all sides, taken into use.
    pub(crate) async fn renew(&self) {
        self.ca.renew(&self.client);
        self.dialling.reload().await.unwrap();
        self.ca.renew(&self.server);
        self.echo.mesh.reload().await.unwrap();
        self.edge.reload().await.unwrap();
    }

    /// So many new clients, one after another begun.
    pub(crate) async fn new_clients(&self, surface: Surface, count: usize) -> Times {
        let (mut clients, mut times) = (JoinSet::new(), Times::default());
        for _ in 0..count {
            let (config, address) = (Arc::clone(&self.config), self.address(surface));
            clients.spawn(async move {
                let began = Instant::now();
                let served = tokio::time::timeout(PATIENCE, come(config, address)).await;
                served.map_err(|_| "too late".to_owned())?.map_err(|error| error.to_string())?;
                Ok::<_, String>(began.elapsed())
            });
            tokio::time::sleep(PACE).await;
        }
        while let Some(ended) = clients.join_next().await {
            match ended.unwrap() {
                Ok(taken) => times.taken.push(taken),
                Err(why) => times.failed.push(why),
            }
        }
        times
    }
}

/// Connects until the server has shown that it lets us in.
async fn come(config: Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    stream.write_all(PREFACE).await?;
    stream.read_exact(&mut [0; 9]).await.map(drop)
}

fn dialler(ca: &Authority, client: &Node) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let [cert, key, _] = client.set();
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(vec![cert], key).unwrap();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn open_edge(server: &Node) -> (Edge, SocketAddr, AbortOnDropHandle<()>) {
    let config = EdgeConfig {
        mode: EdgeMode::OneWay,
        files: Some(server.files()),
        min_version: None,
        require_client_auth_eku: false,
        reload: Reload { watch: false, ..Reload::default() },
        limits: Limits::default(),
        state: None,
    };
    let edge = Edge::open(config).await.unwrap();
    let both = edge.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, serving) = (both.local_addr(), edge.clone());
    let nothing =
        tower::service_fn(async |_: http::Request<Body>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
    let serving = tokio::spawn(async move {
        let listeners = EdgeListeners { both, rest: None };
        serving.serve(listeners, nothing, nothing, std::future::pending()).await.unwrap();
    });
    (edge, address, AbortOnDropHandle::new(serving))
}
