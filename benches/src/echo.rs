//! The service under test, the same for all variants: an echo, and a stream.
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request as HttpRequest, Response as HttpResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// The service's name.
pub const SERVICE: &str = "bench.Bench";
const ECHO: &str = "/bench.Bench/Echo";
const STREAM: &str = "/bench.Bench/Stream";
/// Messages that wait between a stream's source and the wire.
const AHEAD: usize = 16;
/// One message and its envelope.
const LARGEST: usize = 16 * 1024 * 1024;

/// Question and answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ask {
    /// So many bytes of whatever.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// How many bytes an answer is to have.
    #[prost(uint32, tag = "2")]
    pub reply: u32,
    /// How many messages a stream is to have.
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

type Codec = ProstCodec<Ask, Ask>;

/// The echo service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = SERVICE;
}

impl tower_service::Service<HttpRequest<Body>> for Echo {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move { Ok(serve(request).await) })
    }
}

async fn serve(request: HttpRequest<Body>) -> HttpResponse<Body> {
    let mut grpc = tonic::server::Grpc::new(Codec::default()).max_decoding_message_size(LARGEST);
    match request.uri().path() {
        ECHO => grpc.unary(tower::service_fn(echo), request).await,
        STREAM => grpc.server_streaming(tower::service_fn(stream), request).await,
        _ => Status::unimplemented("Echo and Stream are all there is").into_http(),
    }
}

async fn echo(request: Request<Ask>) -> Result<Response<Ask>, Status> {
    let Ask { body, reply, .. } = request.into_inner();
    Ok(Response::new(Ask { body: cut(body, reply), ..Ask::default() }))
}

/// Of what was sent, as much as is wanted.
fn cut(mut body: Bytes, reply: u32) -> Bytes {
    body.truncate(reply as usize);
    body
}

async fn stream(request: Request<Ask>) -> Result<Response<ReceiverStream<Result<Ask, Status>>>, Status> {
    let (tell, told) = mpsc::channel(AHEAD);
    tokio::spawn(messages(request.into_inner(), tell));
    Ok(Response::new(ReceiverStream::new(told)))
}

/// From a task of its own, as a server has it that reads its messages from somewhere.
async fn messages(ask: Ask, tell: mpsc::Sender<Result<Ask, Status>>) {
    let body = Bytes::from(vec![7; ask.reply as usize]);
    for count in 0..ask.count {
        if tell.send(Ok(Ask { body: body.clone(), reply: 0, count })).await.is_err() {
            return;
        }
    }
}

/// What a client calls through: any channel that tonic's clients can be built on.
pub trait Wire: Clone + Send + Sync + 'static {
    /// One call, and whether the answer is the one that was asked for.
    ///
    /// # Errors
    /// The call's status.
    fn ask(&self, ask: Ask) -> impl Future<Output = Result<(), Status>> + Send;

    /// A stream of messages, begun.
    ///
    /// # Errors
    /// The call's status.
    fn follow(&self, ask: Ask) -> impl Future<Output = Result<Streaming<Ask>, Status>> + Send;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<T, B> Wire for T
where
    T: tower_service::Service<HttpRequest<Body>, Response = HttpResponse<B>> + Clone + Send + Sync + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    async fn ask(&self, ask: Ask) -> Result<(), Status> {
        let wanted = ask.reply as usize;
        let mut grpc = ready(self).await?;
        let answer = grpc.unary(Request::new(ask), PathAndQuery::from_static(ECHO), Codec::default()).await?;
        let had = answer.get_ref().body.len();
        if had == wanted { Ok(()) } else { Err(Status::data_loss(format!("{had} bytes of {wanted} came back"))) }
    }

    async fn follow(&self, ask: Ask) -> Result<Streaming<Ask>, Status> {
        let mut grpc = ready(self).await?;
        let path = PathAndQuery::from_static(STREAM);
        Ok(grpc.server_streaming(Request::new(ask), path, Codec::default()).await?.into_inner())
    }
}

async fn ready<T>(channel: &T) -> Result<Grpc<T>, Status>
where
    T: GrpcService<Body> + Clone,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(LARGEST);
    let refused = |error: T::Error| Status::unavailable(format!("no connection: {}", error.into()));
    grpc.ready().await.map_err(refused)?;
    Ok(grpc)
}
