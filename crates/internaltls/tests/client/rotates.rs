//! Certificates change under a living channel.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use internaltls::{Channel, Endpoint, Mesh};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::bench::{Echo, call, mesh, mesh_with, until};
use super::pki::Authority;

const SWAPS: usize = 20;
const CALLERS: usize = 8;

/// Callers that never pause, until they are stopped.
struct Load {
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
                }
                Ok(())
            });
        }
        Self { stop, done, callers }
    }

    /// How many calls were answered. Panics with the first error.
    async fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap().unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

fn outbound_serials(mesh: &Mesh) -> Vec<(Option<String>, Option<String>)> {
    mesh.status().connections.into_iter().map(|c| (c.own_serial, c.peer_serial)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_swaps_under_load_fail_no_call() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh(&server).await).await;
    let dialling = mesh(&client).await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(echo.address).of(server.id.clone()));
    let load = Load::start(&channel);
    for swap in 0..SWAPS {
        let (mut own, mut peer) = (None, None);
        // Either end alone, then both at once.
        if swap % 3 != 1 {
            own = Some(ca.renew(&client));
            dialling.reload().await.unwrap();
        }
        if swap % 3 != 0 {
            peer = Some(ca.renew(&server));
            echo.mesh.reload().await.unwrap();
        }
        if let Some(own) = &own {
            until("the server sees the new serial", async || call(&channel, "serial").await.unwrap(), |s| s == own)
                .await;
        }
        let moved = |serials: &Vec<(Option<String>, Option<String>)>| {
            let is = |now: &Option<String>, new: &Option<String>| new.is_none() || now == new;
            serials.len() == 1 && serials.iter().all(|(o, p)| is(o, &own) && is(p, &peer))
        };
        until("both ends show the new serials", async || outbound_serials(&dialling), moved).await;
    }
    let answered = load.finish().await;
    assert!(answered > SWAPS * CALLERS, "only {answered} calls: no load");
}

#[tokio::test]
async fn running_calls_finish_on_the_old_connection() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh(&server).await).await;
    let dialling = mesh(&client).await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(echo.address));
    let old = call(&channel, "").await.unwrap();
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "hold").await }
    });
    echo.held.notified().await;
    let new = ca.renew(&client);
    dialling.reload().await.unwrap();
    until("calls go to the new connection", async || call(&channel, "").await.unwrap(), |s| *s == new).await;
    assert_eq!(outbound_serials(&dialling).len(), 2, "the old connection has a call under way");
    assert!(!held.is_finished());
    echo.release.notify_one();
    assert_eq!(held.await.unwrap().unwrap(), old);
    until("the old connection closes", async || outbound_serials(&dialling), |s| s.len() == 1).await;
}

#[tokio::test]
async fn calls_longer_than_the_drain_are_cut_and_counted() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh(&server).await).await;
    let dialling = mesh_with(&client, |limits| limits.drain = Duration::from_millis(50)).await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(echo.address));
    let held = tokio::spawn(async move { call(&channel, "hold").await.map(|_| channel) });
    echo.held.notified().await;
    ca.renew(&client);
    dialling.reload().await.unwrap();
    let status = held.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("whether it was carried out is unknown"), "{status}");
    let metrics = dialling.telemetry().encode();
    assert!(metrics.contains("internaltls_connections_cut_total{reason=\"drain-timeout\"} 1"), "{metrics}");
}

#[tokio::test]
async fn calls_longer_than_the_drain_of_a_listener_are_unavailable_and_counted() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh_with(&server, |limits| limits.drain = Duration::from_millis(50)).await).await;
    let channel = mesh(&client).await.channel("data-node".parse().unwrap(), Endpoint::from(echo.address));
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "hold").await }
    });
    echo.held.notified().await;
    ca.renew(&server);
    echo.mesh.reload().await.unwrap();
    assert_eq!(held.await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    let metrics = echo.mesh.telemetry().encode();
    assert!(metrics.contains("internaltls_connections_cut_total{reason=\"drain-timeout\"} 1"), "{metrics}");
    call(&channel, "on a new connection").await.unwrap();
}

#[tokio::test]
async fn failed_redial_keeps_the_old_connection() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh(&server).await).await;
    let dialling = mesh(&client).await;
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from(relay.local_addr().unwrap());
    // Forwards one connection and refuses all others.
    let forward = tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        drop(relay);
        let mut far = TcpStream::connect(echo.address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let channel = dialling.channel("data-node".parse().unwrap(), endpoint);
    let old = call(&channel, "").await.unwrap();
    ca.renew(&client);
    dialling.reload().await.unwrap();
    let failed = "grpc_client_tls_handshakes_total{result=\"connect\",resumed=\"false\"}";
    let redialled = async || dialling.telemetry().encode().lines().any(|line| line.starts_with(failed));
    until("the new connection is refused", redialled, |seen| *seen).await;
    assert_eq!(call(&channel, "").await.unwrap(), old);
    assert!(!forward.is_finished());
}
