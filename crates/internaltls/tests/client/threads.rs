//! A listener on threads of its own is a listener like any other.
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use internaltls::{Channel, Endpoint, Mesh, Policy, Threads};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::bench::{LONG, Text, call, mesh, until};
use super::pki::Authority;

/// Tells when a call is held, and waits until it is released.
type Hold = Arc<(Notify, Notify)>;

/// Answers with the name of the thread it runs on.
async fn answer(request: Request<Text>, hold: Hold) -> Result<Response<Text>, Status> {
    if request.get_ref().text == "hold" {
        hold.0.notify_one();
        hold.1.notified().await;
    }
    let text = std::thread::current().name().unwrap_or_default().to_owned();
    Ok(Response::new(Text { text, ballast: Vec::new() }))
}

struct Served {
    address: SocketAddr,
    hold: Hold,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn serve(mesh: &Mesh, threads: &Threads) -> Served {
    let hold = Hold::default();
    let held = Arc::clone(&hold);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let hold = Arc::clone(&held);
        async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            let unary = tower::service_fn(move |request| answer(request, Arc::clone(&hold)));
            Ok::<_, Infallible>(grpc.unary(unary, request).await)
        }
    });
    let server = mesh.server(service).policy(Policy::allow_all()).threads(threads);
    let server = server.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (address, (stop, stopped)) = (server.local_addr(), oneshot::channel::<()>());
    let over = async move {
        let _ = stopped.await;
    };
    Served { address, hold, stop, serving: tokio::spawn(async move { server.serve(over).await.unwrap() }) }
}

fn channel(mesh: &Mesh, to: SocketAddr) -> Channel {
    mesh.channel("data-node".parse().unwrap(), Endpoint::from(to))
}

#[tokio::test]
async fn connections_on_threads_rotate_and_drain_as_others_do() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let (serving, dialling, threads) = (mesh(&server).await, mesh(&client).await, Threads::start(2).unwrap());
    let served = serve(&serving, &threads).await;
    let channels: Vec<_> = (0..4).map(|_| channel(&dialling, served.address)).collect();
    let mut names = BTreeSet::new();
    for channel in &channels {
        let first = call(channel, "who").await.unwrap();
        assert_eq!(call(channel, "again").await.unwrap(), first, "a connection stays with its thread");
        names.insert(first);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["mesh-0", "mesh-1"]);
    let serial = ca.renew(&server);
    serving.reload().await.unwrap();
    let shown = async || {
        call(&channels[0], "on").await.unwrap();
        dialling.registry().snapshot().iter().any(|c| c.peer_serial.as_deref() == Some(&serial))
    };
    until("the new leaf is shown", shown, |shown| *shown).await;
    let running = tokio::spawn({
        let channel = channels[0].clone();
        async move { call(&channel, "hold").await }
    });
    served.hold.0.notified().await;
    served.stop.send(()).unwrap();
    let closed = async || call(&channel(&dialling, served.address), "late").await.is_err();
    until("no connection is taken any more", closed, |closed| *closed).await;
    served.hold.1.notify_one();
    running.await.unwrap().expect("a running call may finish");
    tokio::time::timeout(LONG, served.serving).await.expect("it drains").unwrap();
    assert!(serving.registry().snapshot().is_empty());
}
