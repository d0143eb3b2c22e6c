//! Calls of every kind, begun before a rotation and ended after it.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use internaltls::{Channel, Endpoint, Mesh, Policy};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::bench::{Text, mesh, mesh_with, until};
use super::pki::{Authority, Node};

const MESSAGES: usize = 3;
/// The four kinds of gRPC.
const KINDS: [&str; 4] = ["unary", "up", "down", "both"];

type Answers = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

fn text(text: &str) -> Text {
    Text { text: text.to_owned(), ballast: Vec::new() }
}

/// A message for each of its own that the test lets through.
fn gated(gate: watch::Receiver<bool>) -> impl Stream<Item = Text> + Send {
    futures_util::stream::unfold((gate, 0), |(mut gate, sent)| async move {
        if sent > 0 {
            gate.wait_for(|open| *open).await.ok()?;
        }
        (sent < MESSAGES).then(|| (text("down"), (gate, sent + 1)))
    })
}

/// Answers all kinds; those that answer alone wait for `gate` before their second message.
async fn serve(request: http::Request<Body>, gate: watch::Receiver<bool>) -> Result<http::Response<Body>, Infallible> {
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
    Ok(match request.uri().path() {
        "/k.K/unary" => {
            let say = tower::service_fn(move |_: Request<Text>| {
                let mut gate = gate.clone();
                async move { Ok(Response::new(gate.wait_for(|open| *open).await.map(|_| text("1")).unwrap_or_default())) }
            });
            grpc.unary(say, request).await
        }
        "/k.K/up" => grpc.client_streaming(tower::service_fn(count), request).await,
        "/k.K/down" => {
            let down = tower::service_fn(move |_: Request<Text>| {
                let answers: Answers = Box::pin(gated(gate.clone()).map(Ok));
                async move { Ok(Response::new(answers)) }
            });
            grpc.server_streaming(down, request).await
        }
        _ => grpc.streaming(tower::service_fn(echo), request).await,
    })
}

async fn count(request: Request<Streaming<Text>>) -> Result<Response<Text>, Status> {
    let messages: Vec<_> = request.into_inner().collect().await;
    let heard: Result<Vec<_>, _> = messages.into_iter().collect();
    Ok(Response::new(text(&heard?.len().to_string())))
}

async fn echo(request: Request<Streaming<Text>>) -> Result<Response<Answers>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}

/// A call under way, and what lets it go on: the messages it still has to send.
struct Call {
    kind: &'static str,
    send: Option<UnboundedSender<Text>>,
    ended: JoinHandle<Result<usize, Status>>,
}

impl Call {
    /// Begins a call, with its first message where it sends any.
    fn begin(kind: &'static str, channel: &Channel) -> Self {
        let (send, messages) = unbounded_channel();
        send.send(text("first")).unwrap();
        let ended = tokio::spawn(run(kind, channel.clone(), UnboundedReceiverStream::new(messages)));
        Self { kind, send: ["up", "both"].contains(&kind).then_some(send), ended }
    }

    /// Sends the rest.
    fn go_on(&mut self) {
        if let Some(send) = self.send.take() {
            (1..MESSAGES).for_each(|_| send.send(text("more")).unwrap());
        }
    }
}

/// How many messages were heard, by whoever heard any.
async fn run(kind: &'static str, channel: Channel, messages: UnboundedReceiverStream<Text>) -> Result<usize, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let path: PathAndQuery = format!("/k.K/{kind}").parse().unwrap();
    let codec = ProstCodec::<Text, Text>::default();
    let said = |text: Text| text.text.parse().unwrap();
    Ok(match kind {
        "unary" => said(grpc.unary(Request::new(text("one")), path, codec).await?.into_inner()),
        "up" => said(grpc.client_streaming(Request::new(messages), path, codec).await?.into_inner()),
        "down" => heard(grpc.server_streaming(Request::new(text("one")), path, codec).await?.into_inner()).await?,
        _ => heard(grpc.streaming(Request::new(messages), path, codec).await?.into_inner()).await?,
    })
}

async fn heard(mut answers: Streaming<Text>) -> Result<usize, Status> {
    let mut count = 0;
    while answers.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Two nodes, and a call of each kind under way between them.
struct Scene {
    ca: Authority,
    server: Node,
    client: Node,
    serving: Mesh,
    dialling: Mesh,
    calls: Vec<Call>,
    gate: watch::Sender<bool>,
    _server: AbortOnDropHandle<()>,
}

impl Scene {
    async fn with(drain: Duration) -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let serving = mesh_with(&server, |limits| limits.drain = drain).await;
        let (gate, begun) = (watch::Sender::new(false), watch::Sender::new(0));
        let (address, task) = listen(&serving, &gate, &begun).await;
        let dialling = mesh(&client).await;
        let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(address));
        let calls = KINDS.map(|kind| Call::begin(kind, &channel)).into();
        let scene = Self { ca, server, client, serving, dialling, calls, gate, _server: task };
        until("the calls are under way", async || *begun.borrow(), |begun| *begun == KINDS.len()).await;
        scene
    }

    /// Renews both ends.
    async fn rotate(&self) {
        for (node, mesh) in [(&self.client, &self.dialling), (&self.server, &self.serving)] {
            self.ca.renew(node);
            assert_eq!(mesh.reload().await.unwrap(), Some(2));
        }
        let ending = async || self.serving.registry().snapshot().iter().filter(|c| c.ending.is_some()).count();
        until("the connection of the calls drains", ending, |ending| *ending == 1).await;
    }
}

async fn listen(
    mesh: &Mesh,
    gate: &watch::Sender<bool>,
    begun: &watch::Sender<usize>,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let (gate, begun) = (gate.subscribe(), begun.clone());
    let service = tower::service_fn(move |request| {
        begun.send_modify(|calls| *calls += 1);
        serve(request, gate.clone())
    });
    let server = mesh.server(service).policy(Policy::allow_all()).bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    let task = tokio::spawn(async move { server.serve(std::future::pending()).await.unwrap() });
    (address, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn calls_of_every_kind_live_through_a_rotation() {
    let mut scene = Scene::with(Duration::from_secs(30)).await;
    scene.rotate().await;
    assert!(scene.calls.iter().all(|call| !call.ended.is_finished()));
    scene.gate.send_replace(true);
    for mut call in scene.calls.drain(..) {
        call.go_on();
        let expected = if call.kind == "unary" { 1 } else { MESSAGES };
        assert_eq!(call.ended.await.unwrap().unwrap(), expected, "{}", call.kind);
    }
}

#[tokio::test]
async fn calls_of_every_kind_that_outlive_the_drain_are_unavailable() {
    let mut scene = Scene::with(Duration::from_millis(100)).await;
    scene.ca.renew(&scene.server);
    assert_eq!(scene.serving.reload().await.unwrap(), Some(2));
    for call in scene.calls.drain(..) {
        let status = call.ended.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{}: {status:?}", call.kind);
    }
    let metrics = scene.serving.telemetry().encode();
    assert!(metrics.contains("internaltls_connections_cut_total{reason=\"drain-timeout\"} 1"), "{metrics}");
}
