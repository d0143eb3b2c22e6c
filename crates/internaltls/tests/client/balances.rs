//! Where calls go, when endpoints are dialled, and how long callers wait.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use internaltls::{ChannelError, Endpoint, Endpoints};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request};

use super::bench::{Echo, LONG, Text, call, mesh, plaintext, send, until};
use super::pki::Authority;
use super::scripted::{listen, serve};

/// A scripted server that counts connections and calls.
struct Counted {
    endpoint: Endpoint,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    _accepting: AbortOnDropHandle<()>,
}

impl Counted {
    async fn start() -> Self {
        Self::on(listen().await)
    }

    fn on(listener: TcpListener) -> Self {
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let (connections, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&connections), Arc::clone(&calls));
        let accepting = tokio::spawn(async move {
            // Aborted with this task.
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counters.0.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream, usize::MAX, Arc::clone(&counters.1)));
            }
        });
        Self { endpoint, connections, calls, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

fn role() -> internaltls::Role {
    "data-node".parse().unwrap()
}

#[tokio::test]
async fn dials_with_the_first_call_and_once_for_all() {
    let server = Counted::start().await;
    let channel = plaintext().await.channel(role(), server.endpoint.clone());
    assert_eq!(server.connections(), 0);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let channel = channel.clone();
        calls.spawn(async move { call(&channel, "").await });
    }
    while let Some(answer) = calls.join_next().await {
        answer.unwrap().unwrap();
    }
    assert_eq!((server.connections(), server.calls()), (1, 50));
}

#[tokio::test]
async fn spreads_calls_over_all_endpoints() {
    let (a, b) = (Counted::start().await, Counted::start().await);
    let list = Endpoints::fixed([a.endpoint.clone(), b.endpoint.clone()]);
    let channel = plaintext().await.channel(role(), list);
    let spread = async || {
        call(&channel, "").await.unwrap();
        (a.calls(), b.calls())
    };
    until("both serve", spread, |(a, b)| *a > 0 && *b > 0).await;
    let before = (a.calls(), b.calls());
    for _ in 0..10 {
        call(&channel, "").await.unwrap();
    }
    assert_eq!((a.calls() - before.0, b.calls() - before.1), (5, 5));
}

#[tokio::test]
async fn dead_endpoints_cost_no_call() {
    let (live, dead) = (Counted::start().await, Endpoint::from(listen().await.local_addr().unwrap()));
    let channel = plaintext().await.channel(role(), Endpoints::fixed([dead, live.endpoint.clone()]));
    for _ in 0..20 {
        call(&channel, "").await.unwrap();
    }
    assert_eq!(live.calls(), 20);
}

#[tokio::test]
async fn peers_that_come_back_are_found() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = plaintext().await.channel(role(), Endpoint::from(address));
    let status = call(&channel, "").await.unwrap_err();
    assert!(status.message().starts_with(&format!("cannot reach data-node at {address}: ")), "{status}");
    let started = Instant::now();
    call(&channel, "").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "a resting endpoint fails calls at once");
    let server = Counted::on(TcpListener::bind(address).await.unwrap());
    until("the peer is found", async || call(&channel, "").await.is_ok(), |found| *found).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn servers_that_vanish_are_dialled_anew() {
    let server = Counted::start().await;
    let endpoint = server.endpoint.clone();
    let channel = plaintext().await.channel(role(), endpoint.clone());
    call(&channel, "").await.unwrap();
    drop(server);
    let gone = async || call(&channel, "").await.is_err();
    until("the connection is gone", gone, |gone| *gone).await;
    let bind = async || TcpListener::bind((endpoint.host.as_str(), endpoint.port)).await;
    let listener = until("the port is free", bind, Result::is_ok).await.unwrap();
    let _again = Counted::on(listener);
    until("the peer is found", async || call(&channel, "").await.is_ok(), |found| *found).await;
}

#[tokio::test]
async fn follows_lists_as_they_change() {
    let (a, b) = (Counted::start().await, Counted::start().await);
    let (lists, receiver) = mpsc::unbounded_channel();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let dialling = plaintext().await;
    let channel = dialling.channel(role(), Endpoints::changing(stream));
    let early = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "").await }
    });
    tokio::task::yield_now().await;
    assert!(!early.is_finished(), "calls wait for the first list");
    lists.send(vec![a.endpoint.clone()]).unwrap();
    early.await.unwrap().unwrap();
    assert_eq!((a.calls(), b.calls()), (1, 0));

    lists.send(vec![b.endpoint.clone()]).unwrap();
    let moved = async || {
        call(&channel, "").await.unwrap();
        b.calls()
    };
    until("calls go to the new endpoint", moved, |calls| *calls > 0).await;
    let peers = async || dialling.registry().snapshot().len();
    until("the old connection closes", peers, |peers| *peers == 1).await;

    lists.send(Vec::new()).unwrap();
    let status = until("nobody is left", async || call(&channel, "").await, Result::is_err).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no endpoint of data-node is known"));

    lists.send(vec![b.endpoint.clone()]).unwrap();
    drop(lists);
    until("the last list stays", async || call(&channel, "").await.is_ok(), |ok| *ok).await;
}

#[tokio::test]
async fn the_callers_time_bounds_the_wait_for_a_connection() {
    let ca = Authority::new();
    let dialling = mesh(&ca.node("proxy", "proxy-1")).await;
    let swallows = listen().await;
    let channel = dialling.channel(role(), Endpoint::from(swallows.local_addr().unwrap()));
    let mut request = Request::new(Text::default());
    request.set_timeout(Duration::from_millis(80));
    let started = Instant::now();
    let status = send(&channel, request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(status.message(), "no answer from data-node within the call's 80ms");
    assert!(started.elapsed() < Duration::from_secs(4), "not the dial's own time");
}

#[tokio::test]
async fn the_callers_time_bounds_the_answer() {
    let ca = Authority::new();
    let echo = Echo::start(mesh(&ca.node("data-node", "data-node-1")).await).await;
    let channel = mesh(&ca.node("proxy", "proxy-1")).await.channel(role(), Endpoint::from(echo.address));
    let mut request = Request::new(Text { text: "hold".into(), ballast: Vec::new() });
    request.set_timeout(Duration::from_millis(100));
    let status = tokio::time::timeout(LONG, send(&channel, request)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    call(&channel, "").await.unwrap();
}

#[tokio::test]
async fn the_last_clone_closes_the_connections() {
    let ca = Authority::new();
    let echo = Echo::start(mesh(&ca.node("data-node", "data-node-1")).await).await;
    let dialling = mesh(&ca.node("proxy", "proxy-1")).await;
    let channel = dialling.channel(role(), Endpoint::from(echo.address));
    let clone = channel.clone();
    call(&channel, "").await.unwrap();
    drop(channel);
    call(&clone, "").await.unwrap();
    drop(clone);
    until("we hold none", async || dialling.registry().snapshot().len(), |n| *n == 0).await;
    until("the server holds none", async || echo.mesh.registry().snapshot().len(), |n| *n == 0).await;
}

#[tokio::test]
async fn nobody_is_unreachable_with_an_empty_list() {
    let channel = plaintext().await.channel(role(), Vec::new());
    let status = call(&channel, "").await.unwrap_err();
    let source = std::error::Error::source(&status).unwrap().downcast_ref();
    assert!(matches!(source, Some(ChannelError::NoEndpoint { .. })), "{status:?}");
}

/// Messages far above the protocol's own window of 64 KiB, both ways of flow control.
#[tokio::test]
async fn large_messages_pass() {
    let ca = Authority::new();
    let echo = Echo::start(mesh(&ca.node("data-node", "data-node-1")).await).await;
    let channel = mesh(&ca.node("proxy", "proxy-1")).await.channel(role(), Endpoint::from(echo.address));
    let request = Request::new(Text { text: String::new(), ballast: vec![1; 3 * 1024 * 1024] });
    send(&channel, request).await.unwrap();
}
