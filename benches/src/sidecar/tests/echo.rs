//! An echo service over tonic's own transport, and its client.
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use test_util::tls::Credentials;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::EXIT;

const SAY: &str = "/echo.Echo/Say";
const COUNT: &str = "/echo.Echo/Count";
const DENY: &str = "/echo.Echo/Deny";

/// Question and answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    /// Comes back as it is.
    #[prost(bytes = "vec", tag = "1")]
    ballast: Vec<u8>,
    /// How many answers a stream has; which of them this is.
    #[prost(uint32, tag = "2")]
    count: u32,
}

/// The service, which counts its calls.
#[derive(Clone, Default)]
struct Echo {
    calls: Arc<AtomicUsize>,
}

impl NamedService for Echo {
    const NAME: &'static str = "echo.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(answer(request).await) })
    }
}

async fn answer(request: http::Request<Body>) -> http::Response<Body> {
    let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
    match request.uri().path() {
        SAY => grpc.unary(tower::service_fn(say), request).await,
        COUNT => grpc.server_streaming(tower::service_fn(count), request).await,
        _ => grpc.unary(tower::service_fn(deny), request).await,
    }
}

async fn say(request: Request<Text>) -> Result<Response<Text>, Status> {
    Ok(Response::new(request.into_inner()))
}

async fn deny(_: Request<Text>) -> Result<Response<Text>, Status> {
    Err(Status::failed_precondition("because"))
}

type Answers = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

async fn count(request: Request<Text>) -> Result<Response<Answers>, Status> {
    let Text { ballast, count } = request.into_inner();
    let answers = stream::iter((0..count).map(move |count| Ok(Text { ballast: ballast.clone(), count })));
    Ok(Response::new(Box::pin(answers)))
}

/// A server that runs until its test ends.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    echo: Echo,
}

impl Served {
    pub(super) fn start() -> Self {
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (address, echo) = (incoming.local_addr().unwrap(), Echo::default());
        tokio::spawn(Server::builder().add_service(echo.clone()).serve_with_incoming(incoming));
        Self { address, echo }
    }

    /// How many calls have reached it.
    pub(super) fn calls(&self) -> usize {
        self.echo.calls.load(Ordering::SeqCst)
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub(super) struct Caller(tonic::client::Grpc<Channel>);

impl Caller {
    /// In the clear.
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self(tonic::client::Grpc::new(endpoint(address).connect_lazy()))
    }

    /// Over TLS, to whoever proves the name of an exit.
    pub(super) fn tls(address: SocketAddr, credentials: &Credentials) -> Self {
        let connector = TlsConnector::from(credentials.config(&["h2"]));
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                connector.connect(ServerName::try_from(EXIT).unwrap(), stream).await.map(TokioIo::new)
            }
        });
        Self(tonic::client::Grpc::new(endpoint(address).connect_with_connector_lazy(connect)))
    }

    /// What comes back for `ballast`.
    pub(super) async fn say(&mut self, ballast: Vec<u8>) -> Result<Vec<u8>, Status> {
        Ok(self.unary(SAY, Text { ballast, count: 0 }).await?.ballast)
    }

    /// The server's refusal.
    pub(super) async fn deny(&mut self) -> Status {
        self.unary(DENY, Text::default()).await.unwrap_err()
    }

    /// The numbers of a stream's answers, each of which brings `ballast`.
    pub(super) async fn count(&mut self, count: u32, ballast: Vec<u8>) -> Result<Vec<u32>, Status> {
        self.ready().await?;
        let request = Request::new(Text { ballast, count });
        let stream = self.0.server_streaming(request, COUNT.parse().unwrap(), codec()).await?;
        let answers: Vec<_> = stream.into_inner().collect().await;
        answers.into_iter().map(|answer| answer.map(|text| text.count)).collect()
    }

    async fn unary(&mut self, path: &str, text: Text) -> Result<Text, Status> {
        self.ready().await?;
        let answer = self.0.unary(Request::new(text), path.parse().unwrap(), codec()).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|e| Status::unknown(format!("{e:?}")))
    }
}

fn codec() -> ProstCodec<Text, Text> {
    ProstCodec::default()
}

fn endpoint(address: SocketAddr) -> Endpoint {
    // No call here takes long; one that hangs is to fail.
    Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(std::time::Duration::from_secs(60))
}
