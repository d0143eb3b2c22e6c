//! One connection, many callers: what one of them does is not paid for by the others.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, Response};
use internaltls::{Channel, Endpoint, Limits, Mesh, Policy, Threads};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::bench::{LONG, Text, mesh_with, plaintext, until};
use super::pki::Authority;
use super::scripted::listen;

/// A gRPC request's metadata and trailers that are far beyond what any listener takes.
const HUGE: usize = 200 * 1024;

type Answers = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

/// What the service waits for and tells.
#[derive(Clone)]
struct Bench {
    /// `hold` answers once per permit.
    release: Arc<Semaphore>,
    /// `block` holds up its thread until this is dropped.
    gate: Arc<std::sync::Mutex<()>>,
    begun: mpsc::UnboundedSender<String>,
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned(), ballast: Vec::new() }
}

async fn answers(request: Request<Text>, bench: Bench) -> Result<tonic::Response<Answers>, Status> {
    let asked = request.into_inner().text;
    // The test may be over.
    let _ = bench.begun.send(asked.clone());
    match asked.as_str() {
        "hold" => bench.release.acquire().await.unwrap().forget(),
        "block" => drop(bench.gate.lock().unwrap()),
        "long text" => return Err(Status::not_found("é".repeat(HUGE))),
        "large details" => return Err(Status::with_details(Code::NotFound, "not here", vec![7; HUGE].into())),
        "endless" => {
            let piece = Text { text: String::new(), ballast: vec![7; 64 * 1024] };
            return Ok(tonic::Response::new(stream::repeat_with(move || Ok(piece.clone())).boxed()));
        }
        "large" => {
            let answer = Text { text: asked, ballast: vec![7; 2 * 1024 * 1024] };
            return Ok(tonic::Response::new(stream::iter([Ok(answer)]).boxed()));
        }
        _ => {}
    }
    Ok(tonic::Response::new(stream::iter([Ok(text(&asked))]).boxed()))
}

/// A server on one thread of its own, and a channel to it.
struct Shared {
    bench: Bench,
    begun: mpsc::UnboundedReceiver<String>,
    channel: Channel,
    dialling: Mesh,
    _serving: AbortOnDropHandle<()>,
    _ca: Authority,
}

impl Shared {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(set: impl Fn(&mut Limits)) -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let (serving, dialling) = (mesh_with(&server, &set).await, mesh_with(&client, &set).await);
        let (tell, begun) = mpsc::unbounded_channel();
        let bench = Bench { release: Arc::new(Semaphore::new(0)), gate: Arc::default(), begun: tell };
        let (address, serving) = serve(&serving, bench.clone()).await;
        let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(address));
        Self { bench, begun, channel, dialling, _serving: serving, _ca: ca }
    }

    /// Begins a call, and waits until the service has it.
    async fn held(&mut self) -> JoinHandle<Result<String, Status>> {
        let held = spawn(&self.channel, "hold", None);
        within("the call begins", self.begun.recv()).await.unwrap();
        held
    }

    /// One call that was under way all the time still gets its answer.
    async fn finishes(&self, held: JoinHandle<Result<String, Status>>) {
        self.bench.release.add_permits(1);
        assert_eq!(within("the bystander finishes", held).await.unwrap().unwrap(), "hold");
    }
}

async fn serve(mesh: &Mesh, bench: Bench) -> (SocketAddr, AbortOnDropHandle<()>) {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let bench = bench.clone();
        async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            let answers = tower::service_fn(move |request| answers(request, bench.clone()));
            Ok::<_, Infallible>(grpc.server_streaming(answers, request).await)
        }
    });
    let server = mesh.server(service).policy(Policy::allow_all()).threads(&Threads::start(1).unwrap());
    let server = server.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    let serving = tokio::spawn(async move { server.serve(std::future::pending()).await.unwrap() });
    (address, AbortOnDropHandle::new(serving))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"))
}

/// The head of a streaming answer.
async fn open(channel: &Channel, request: Request<Text>) -> Result<Streaming<Text>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static("/echo.Echo/Say"), ProstCodec::<Text, Text>::default());
    Ok(grpc.server_streaming(request, path, codec).await?.into_inner())
}

async fn call(channel: &Channel, request: Request<Text>) -> Result<String, Status> {
    let mut answers = open(channel, request).await?;
    let first = answers.next().await.ok_or_else(|| Status::internal("no message"))??;
    while answers.message().await?.is_some() {}
    Ok(first.text)
}

fn spawn(channel: &Channel, asked: &str, timeout: Option<Duration>) -> JoinHandle<Result<String, Status>> {
    let (channel, mut request) = (channel.clone(), Request::new(text(asked)));
    timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
    tokio::spawn(async move { call(&channel, request).await })
}

/// Lets `deadlines` calls expire while the listener's thread stands still, beside some that have time.
#[expect(clippy::await_holding_lock, reason = "that is what holds the thread of the listener up")]
async fn stall(deadlines: usize) {
    let mut shared = Shared::new().await;
    let held = shared.held().await;
    let gate = Arc::clone(&shared.bench.gate);
    let closed = gate.lock().unwrap();
    let blocked = spawn(&shared.channel, "block", None);
    within("the thread stands still", shared.begun.recv()).await.unwrap();
    let bystanders: Vec<_> = (0..4).map(|_| spawn(&shared.channel, "bystander", None)).collect();
    let mut impatient: JoinSet<_> = (0..deadlines)
        .map(|_| {
            let call = spawn(&shared.channel, "impatient", Some(Duration::from_millis(300)));
            async move { call.await.unwrap() }
        })
        .collect();
    while let Some(ended) = within("the deadlines pass", impatient.join_next()).await {
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
    drop(closed);
    for call in bystanders.into_iter().chain([blocked]) {
        let answer = within("a bystander's answer", call).await.unwrap();
        answer.unwrap_or_else(|status| panic!("{deadlines} deadlines passed, and a bystander hears {status:?}"));
    }
    shared.finishes(held).await;
    assert_eq!(shared.dialling.registry().snapshot().len(), 1, "the connection is the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_in_a_stall_spare_bystanders() {
    for deadlines in [1, 20, 21, 60, 300, 990] {
        stall(deadlines).await;
    }
}

#[tokio::test]
async fn long_status_texts_are_cut_and_spare_bystanders() {
    let mut shared = Shared::new().await;
    let held = shared.held().await;
    for (asked, expected) in [("long text", "éé"), ("large details", "not here")] {
        let status = within(asked, call(&shared.channel, Request::new(text(asked)))).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(status.message().starts_with(expected) && status.message().len() < 1_024, "{}", status.message());
        assert!(status.details().is_empty());
    }
    shared.finishes(held).await;
}

#[tokio::test]
async fn metadata_too_large_fails_its_own_call() {
    let mut shared = Shared::new().await;
    let held = shared.held().await;
    for size in [32 * 1024, 40 * 1024, HUGE] {
        let mut request = Request::new(text("short"));
        request.metadata_mut().insert("x-notes", "n".repeat(size).parse().unwrap());
        let status = within("an error", call(&shared.channel, request)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("data-node"), "{status:?}");
    }
    let mut request = Request::new(text("short"));
    request.metadata_mut().insert("x-notes", "n".repeat(28 * 1024).parse().unwrap());
    assert_eq!(call(&shared.channel, request).await.unwrap(), "short");
    shared.finishes(held).await;
}

#[tokio::test]
async fn trailers_of_a_foreign_server_fail_their_own_call() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let scripted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            // The first call is the bystander: it ends when the second has.
            if held.is_empty() {
                held.push((request, stream));
                continue;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            for nth in 0..30 {
                let name: http::HeaderName = format!("x-notes-{nth}").parse().unwrap();
                trailers.insert(name, "n".repeat(10_000).parse().unwrap());
            }
            stream.send_trailers(trailers).unwrap();
            let (_, mut first) = held.remove(0);
            first.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            first.send_trailers(trailers).unwrap();
        }
    });
    let dialling = plaintext().await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(address));
    let mut bystander = within("the bystander begins", open(&channel, Request::new(text("")))).await.unwrap();
    assert!(within("the other fails", call(&channel, Request::new(text("")))).await.is_err());
    assert!(within("the bystander's message", bystander.next()).await.unwrap().is_ok());
    assert!(within("the bystander's end", bystander.next()).await.is_none());
    scripted.abort();
}

#[tokio::test]
async fn answers_that_nobody_reads_spare_bystanders() {
    let mut shared = Shared::new().await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(within("an endless answer", open(&shared.channel, Request::new(text("endless")))).await.unwrap());
        shared.begun.recv().await.unwrap();
    }
    for _ in 0..3 {
        // More than what their windows could leave over of one for all.
        assert_eq!(
            within("a large answer", call(&shared.channel, Request::new(text("large")))).await.unwrap(),
            "large"
        );
    }
    assert_eq!(shared.dialling.registry().snapshot().len(), 1);
    drop(unread);
}

#[tokio::test]
async fn full_connections_get_another_beside_them() {
    let mut shared = Shared::with(|limits| limits.streams = 2).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(shared.held().await);
    }
    assert_eq!(shared.dialling.registry().snapshot().len(), 3);
    shared.bench.release.add_permits(5);
    for call in held {
        assert_eq!(within("an answer", call).await.unwrap().unwrap(), "hold");
    }
    assert_eq!(call(&shared.channel, Request::new(text("short"))).await.unwrap(), "short");
}

#[tokio::test]
async fn calls_that_wait_for_a_place_are_bounded() {
    let set = |limits: &mut Limits| (limits.streams, limits.max_pending) = (2, 3);
    let mut shared = Shared::with(set).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(shared.held().await);
    }
    let mut waiting: Vec<_> = (0..12).map(|_| spawn(&shared.channel, "hold", None)).collect();
    let refused = async || waiting.iter().filter(|call| call.is_finished()).count();
    until("nine are refused", refused, |refused| *refused == 9).await;
    let (over, waiting): (Vec<_>, Vec<_>) = waiting.drain(..).partition(JoinHandle::is_finished);
    for call in over {
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    shared.bench.release.add_permits(19);
    for call in held.into_iter().chain(waiting) {
        assert_eq!(within("an answer", call).await.unwrap().unwrap(), "hold");
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_dial_are_bounded() {
    let ca = Authority::new();
    // Accepts, and says nothing.
    let silent = listen().await;
    let dialling = mesh_with(&ca.node("proxy", "proxy-1"), |limits| limits.max_pending = 3).await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(silent.local_addr().unwrap()));
    let calls: Vec<_> = (0..10).map(|_| spawn(&channel, "short", Some(LONG / 2))).collect();
    let refused = async || calls.iter().filter(|call| call.is_finished()).count();
    until("seven are refused", refused, |refused| *refused == 7).await;
    for call in calls.into_iter().filter(JoinHandle::is_finished) {
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
    }
}
