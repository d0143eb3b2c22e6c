//! A mesh of a few nodes in this process, an echo service, and calls to it.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use internaltls::{Channel, Files, Limits, Mesh, MeshConfig, PeerInfo, Policy, Reload, Security};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::pki::Node;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) ballast: Vec<u8>,
}

/// A node's mesh with short times and no watcher: tests reload when they say so.
pub(crate) async fn mesh(node: &Node) -> Mesh {
    mesh_with(node, |_| ()).await
}

pub(crate) async fn mesh_with(node: &Node, set: impl FnOnce(&mut Limits)) -> Mesh {
    let mut config = by_hand(node, node.files());
    set(&mut config.limits);
    Mesh::open(config).await.unwrap()
}

/// A node's configuration, without a watcher.
pub(crate) fn by_hand(node: &Node, files: Files) -> MeshConfig {
    let mut config = MeshConfig::new(node.role.clone(), node.id.clone(), files);
    config.reload = Reload { watch: false, ..Reload::default() };
    config
}

/// A mesh without TLS, to call scripted servers.
pub(crate) async fn plaintext() -> Mesh {
    let node = Node { role: "proxy".parse().unwrap(), id: "proxy-1".parse().unwrap(), folder: "/nowhere".into() };
    let mut config = MeshConfig::new(node.role.clone(), node.id.clone(), node.files());
    config.security = Security::Plaintext;
    Mesh::open(config).await.unwrap()
}

/// An echo server. It answers with the serial of the caller's certificate; a call that says `hold` is answered once
/// `release` is notified.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    pub(crate) mesh: Mesh,
    pub(crate) held: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
    _serving: AbortOnDropHandle<()>,
}

impl Echo {
    pub(crate) async fn start(mesh: Mesh) -> Self {
        Self::at(mesh, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn at(mesh: Mesh, address: SocketAddr) -> Self {
        let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let state = (Arc::clone(&held), Arc::clone(&release));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (held, release) = state.clone();
            async move {
                let echo = tower::service_fn(move |request| answer(request, Arc::clone(&held), Arc::clone(&release)));
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
                Ok::<_, Infallible>(grpc.unary(echo, request).await)
            }
        });
        let server = mesh.server(service).policy(Policy::allow_all()).bind(address).await.unwrap();
        let address = server.local_addr();
        let serving = tokio::spawn(async move { server.serve(std::future::pending()).await.unwrap() });
        Self { address, mesh, held, release, _serving: AbortOnDropHandle::new(serving) }
    }
}

async fn answer(request: Request<Text>, held: Arc<Notify>, release: Arc<Notify>) -> Result<Response<Text>, Status> {
    if request.get_ref().text == "hold" {
        held.notify_one();
        release.notified().await;
    }
    let serial = request.extensions().get::<PeerInfo>().and_then(|peer| peer.serial().map(str::to_owned));
    Ok(Response::new(Text { text: serial.unwrap_or_default(), ballast: Vec::new() }))
}

pub(crate) async fn call(channel: &Channel, text: &str) -> Result<String, Status> {
    send(channel, Request::new(Text { text: text.to_owned(), ballast: Vec::new() })).await
}

pub(crate) async fn send(channel: &Channel, request: Request<Text>) -> Result<String, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static("/echo.Echo/Say"), ProstCodec::<Text, Text>::default());
    Ok(grpc.unary(request, path, codec).await?.into_inner().text)
}

/// Polls until `probe` yields what `fits`, and panics with the last state otherwise.
pub(crate) async fn until<T: std::fmt::Debug>(
    what: &str,
    mut probe: impl AsyncFnMut() -> T,
    fits: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + LONG;
    loop {
        let state = probe().await;
        if fits(&state) {
            return state;
        }
        assert!(Instant::now() < end, "{what}: still {state:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
