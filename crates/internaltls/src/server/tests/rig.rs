//! What the tests stand on: a service with a few behaviours, a running server, a client, deadlines.
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::clock::{Clock, SystemClock};
use crate::config::Limits;
use crate::connections::{PeerInfo, Registry};
use crate::material::Store;
use crate::policy::Policy;
use crate::question::{PATH, Question};
use crate::server::service::{Service, erase};
use crate::server::{Context, ServeError, ServerBuilder};
use crate::telemetry::Telemetry;

/// Fails the test when `future` takes longer than anything healthy would.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("not within 10 s: {what}"))
}

/// What the test's service waits for, and says.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// `/test.Echo/Hold` answers once per permit.
    pub(crate) release: Arc<Semaphore>,
    /// Told when a call of `/test.Echo/Hold` has begun.
    pub(crate) begun: Arc<Notify>,
    /// What `/test.Echo/Upload` hears: bytes, and how the request ended.
    pub(crate) heard: watch::Sender<(usize, Option<Result<(), String>>)>,
}

impl Behaviour {
    pub(crate) fn new() -> Self {
        Self {
            release: Arc::new(Semaphore::new(0)),
            begun: Arc::new(Notify::new()),
            heard: watch::Sender::new((0, None)),
        }
    }

    /// The test's service.
    pub(crate) fn service(&self) -> Service {
        let behaviour = self.clone();
        erase(tower::service_fn(move |request| serve(behaviour.clone(), request)))
    }
}

/// A response with gRPC's status in its head.
fn answered(headers: &[(&'static str, String)]) -> Response<Body> {
    let mut response = tonic::Status::new(tonic::Code::Ok, "").into_http::<Body>();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// Always something to say.
fn flood() -> Response<Body> {
    let frames = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1024]))));
    Response::builder().header("content-type", "application/grpc").body(Body::new(StreamBody::new(frames))).unwrap()
}

/// Who called, as the extensions tell it.
fn who(request: &Request<Body>) -> Response<Body> {
    let peer: &PeerInfo = request.extensions().get().expect("PeerInfo stands in the extensions");
    let request = tonic::Request::from_parts(Default::default(), request.extensions().clone(), ());
    answered(&[
        ("x-peer", peer.identity().to_string()),
        ("x-name", peer.name().to_owned()),
        ("x-remote", request.remote_addr().map(|a| a.to_string()).unwrap_or_default()),
        ("x-certs", request.peer_certs().map_or(0, |c| c.len()).to_string()),
        ("x-tls", format!("{:?} {:?} {:?} {:?}", peer.tls_version(), peer.cipher_suite(), peer.kx_group(), peer.sni())),
        ("x-generation", peer.generation().to_string()),
    ])
}

/// One frame, then nothing for ever.
fn endless() -> Response<Body> {
    let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))]);
    let body = StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending()));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

/// Listens to a request until it ends.
async fn listen(behaviour: Behaviour, mut request: Body) {
    let mut ended = Ok(());
    // One that does not stop at an error must hear no more than one that does.
    while let Some(frame) = request.frame().await {
        match frame {
            Ok(frame) => behaviour.heard.send_modify(|(bytes, _)| *bytes += frame.data_ref().map_or(0, Bytes::len)),
            Err(error) => ended = Err(error.to_string()),
        }
    }
    behaviour.heard.send_modify(|(_, end)| *end = Some(ended));
}

async fn serve(behaviour: Behaviour, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/test.Echo/Who" => who(&request),
        "/test.Echo/Endless" => endless(),
        // A task of its own listens, as that of a stream in both directions may.
        "/test.Echo/Upload" => {
            tokio::spawn(listen(behaviour, request.into_body()));
            endless()
        }
        "/test.Echo/Flood" => flood(),
        "/test.Echo/Wordy" => tonic::Status::not_found("é".repeat(200_000)).into_http(),
        "/test.Echo/Never" => std::future::pending().await,
        "/test.Echo/Hold" => {
            behaviour.begun.notify_one();
            behaviour.release.acquire().await.unwrap().forget();
            answered(&[])
        }
        _ => tonic::Status::unimplemented("no such method").into_http(),
    })
}

/// A server under test.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) telemetry: Telemetry,
    pub(crate) registry: Registry,
    pub(crate) behaviour: Behaviour,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

impl Rig {
    /// Serves without TLS under `limits` and `policy`.
    pub(crate) async fn plaintext(limits: Limits, policy: Policy) -> Self {
        Self::serve(None, limits, policy, Arc::new(SystemClock)).await
    }

    /// Serves the material of `store` under `limits`.
    pub(crate) async fn tls(store: Arc<Store>, limits: Limits) -> Self {
        Self::tls_at(store, limits, Arc::new(SystemClock)).await
    }

    /// The same, by another clock.
    pub(crate) async fn tls_at(store: Arc<Store>, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self::serve(Some(store), limits, Policy::allow_all(), clock).await
    }

    async fn serve(store: Option<Arc<Store>>, limits: Limits, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        let telemetry = Telemetry::new();
        let registry = Registry::new(telemetry.clone());
        let behaviour = Behaviour::new();
        let service = behaviour.service();
        let local = "coordinator/c-1".to_owned();
        if let Some(store) = &store {
            crate::ticker::start(store, registry.clone(), Arc::clone(&clock), limits.drain);
        }
        let context = Context { store, limits, registry: registry.clone(), telemetry: telemetry.clone(), local, clock };
        let server =
            ServerBuilder::new(context, service).policy(policy).bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(shutdown.clone().cancelled_owned()));
        Self { address, telemetry, registry, behaviour, shutdown, serving }
    }

    /// A mesh client's connection, or why there is none. In TLS 1.3 a client is done before it is judged, so being
    /// connected says nothing yet: see [`Client::is_served`].
    pub(crate) async fn tls_client(&self, config: ClientConfig, name: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await?;
        Ok(Client::over(stream).await)
    }

    /// Waits until the metrics contain `text`.
    pub(crate) async fn counted(&self, text: &str) {
        let mut last = String::new();
        let counted = async {
            while !last.contains(text) {
                tokio::task::yield_now().await;
                last = self.telemetry.encode();
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), counted).await.is_err() {
            panic!("not counted within 10 s: {text}\n{last}");
        }
    }

    /// A client's connection.
    pub(crate) async fn client(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap()).await
    }
}

/// A plain HTTP/2 client.
pub(crate) struct Client {
    sender: http2::SendRequest<Body>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    /// Speaks HTTP/2 over `io`.
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Begins a call; the future is ready with the head of the answer.
    pub(crate) fn call(
        &self,
        method: &str,
        timeout: Option<&str>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        let mut request =
            Request::post(format!("http://test/test.Echo/{method}")).header("content-type", "application/grpc");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        self.sender.clone().send_request(request.body(Body::empty()).unwrap())
    }

    /// Begins a call that sends `body`.
    pub(crate) fn send(
        &self,
        method: &str,
        body: Body,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        let request =
            Request::post(format!("http://test/test.Echo/{method}")).header("content-type", "application/grpc");
        self.sender.clone().send_request(request.body(body).unwrap())
    }

    /// Calls, and says whether any answer came.
    pub(crate) async fn is_served(&self) -> bool {
        within("an answer or an error", self.call("Who", None)).await.is_ok()
    }

    /// Asks `mesh.Trial/Check` about this chain; `None` where no answer came.
    pub(crate) async fn trial(&self, chain: &[&[u8]]) -> Option<tonic::Code> {
        let chain: Vec<_> = chain.iter().map(|der| rustls::pki_types::CertificateDer::from(*der)).collect();
        let question = Question::of(&chain).encode_to_vec();
        let length = u32::try_from(question.len()).unwrap().to_be_bytes();
        let body = Full::from([&[0], &length[..], &question].concat());
        let request = Request::post(format!("http://test{PATH}")).header("content-type", "application/grpc");
        let answer = self.sender.clone().send_request(request.body(Body::new(body)).unwrap());
        let (mut head, body) = within("an answer or an error", answer).await.ok()?.into_parts();
        head.headers.extend(body.collect().await.ok()?.trailers().cloned().unwrap_or_default());
        Some(tonic::Status::from_header_map(&head.headers)?.code())
    }

    /// Calls, and gives the gRPC status and all headers and trailers of the answer.
    pub(crate) async fn answer(&self, method: &str, timeout: Option<&str>) -> (tonic::Code, HeaderMap) {
        let response = within(method, self.call(method, timeout)).await.unwrap();
        let (head, body) = response.into_parts();
        let mut headers = head.headers;
        let collected = within(method, body.collect()).await.unwrap();
        headers.extend(collected.trailers().cloned().unwrap_or_default());
        (tonic::Status::from_header_map(&headers).expect("a gRPC status").code(), headers)
    }
}
