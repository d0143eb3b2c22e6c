//! When connections end, seen from the end that dials, and from both.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use internaltls::clock::TestClock;
use internaltls::{Channel, ChannelError, ConnectionStatus, Endpoint, Mesh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;

use super::bench::{Echo, by_hand, call, mesh, until};
use super::pki::{Authority, Node};

const ROTATIONS: usize = 10;
const DAY: Duration = Duration::from_secs(86_400);

struct Pair {
    ca: Authority,
    server: Node,
    client: Node,
    echo: Echo,
}

impl Pair {
    async fn new() -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let echo = Echo::start(mesh(&server).await).await;
        Self { ca, server, client, echo }
    }

    fn channel(&self, mesh: &Mesh) -> Channel {
        channel_to(mesh, self.echo.address)
    }
}

fn channel_to(mesh: &Mesh, address: SocketAddr) -> Channel {
    mesh.channel("data-node".parse().unwrap(), Endpoint::from(address))
}

/// A call that the echo holds until it is released.
async fn hold(channel: &Channel, echo: &Echo) -> JoinHandle<Result<String, Status>> {
    let channel = channel.clone();
    let held = tokio::spawn(async move { call(&channel, "hold").await });
    echo.held.notified().await;
    held
}

/// The most generations that drain between any two nodes: what a connection was made of tells them apart.
fn draining(connections: &[ConnectionStatus]) -> usize {
    let mut pairs: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for c in connections.iter().filter(|c| c.ending.is_some()) {
        pairs.entry((&c.from, &c.to)).or_default().insert((c.generation, &c.peer_serial));
    }
    pairs.values().map(BTreeSet::len).max().unwrap_or_default()
}

/// Rotates ten times, with a call that does not end begun under each generation, and other calls in between.
async fn rotate_fast(which: impl Fn(usize) -> (bool, bool)) {
    let pair = Pair::new().await;
    let dialling = mesh(&pair.client).await;
    let channel = pair.channel(&dialling);
    let mut held = Vec::new();
    let mut most = (0, 0);
    let (mut own, mut peer) = (None, None);
    for rotation in 0..ROTATIONS {
        held.push(hold(&channel, &pair.echo).await);
        let (client, server) = which(rotation);
        if client {
            own = Some(pair.ca.renew(&pair.client));
            dialling.reload().await.unwrap();
        }
        if server {
            peer = Some(pair.ca.renew(&pair.server));
            pair.echo.mesh.reload().await.unwrap();
        }
        let seen = || (draining(&dialling.registry().snapshot()), draining(&pair.echo.mesh.registry().snapshot()));
        if rotation < 2 {
            until("one more drains", async || seen(), |(near, far)| *near.max(far) == rotation + 1).await;
        }
        for _ in 0..50 {
            call(&channel, "short").await.unwrap();
            most = (most.0.max(seen().0), most.1.max(seen().1));
        }
    }
    assert!(most.0 <= 2 && most.1 <= 2, "generations that drained at once, as dialler and listener see it: {most:?}");
    assert!(held.iter().all(|call| !call.is_finished()), "a long call did not live through the rotations");
    for answered in 1..=held.len() {
        pair.echo.release.notify_one();
        let finished = async || held.iter().filter(|call| call.is_finished()).count();
        until("a held call is answered", finished, |finished| *finished == answered).await;
    }
    for call in held {
        call.await.unwrap().unwrap();
    }
    let newest = |all: &Vec<ConnectionStatus>| {
        let is = |now: &Option<String>, new: &Option<String>| new.is_none() || now == new;
        all.len() == 1 && is(&all[0].own_serial, &own) && is(&all[0].peer_serial, &peer)
    };
    // Who was told to go by a listener dials again with the next call.
    let after_a_call = async || {
        call(&channel, "last").await.unwrap();
        dialling.registry().snapshot()
    };
    until("the newest generation is in use", after_a_call, newest).await;
}

#[tokio::test]
async fn fast_rotations_of_the_dialler_drain_two_generations_at_most() {
    rotate_fast(|_| (true, false)).await;
}

#[tokio::test]
async fn fast_rotations_of_the_listener_drain_two_generations_at_most() {
    rotate_fast(|_| (false, true)).await;
}

#[tokio::test]
async fn fast_rotations_of_both_drain_two_generations_at_most() {
    rotate_fast(|rotation| (rotation % 3 != 1, rotation % 3 != 0)).await;
}

fn counted(mesh: &Mesh, what: &str, reason: &str) -> bool {
    mesh.telemetry().encode().contains(&format!("internaltls_connections_{what}_total{{reason=\"{reason}\"}} 1"))
}

#[tokio::test]
async fn invariant_5_a_dialler_ends_what_has_expired_by_the_wall_clock() {
    let pair = Pair::new().await;
    let clock = Arc::new(TestClock::at(SystemTime::now()));
    let dialling = Mesh::open_with(by_hand(&pair.client, pair.client.files()), clock.clone()).await.unwrap();
    let channel = pair.channel(&dialling);
    let held = hold(&channel, &pair.echo).await;
    // Leaves are good for a day; the grace of a drain is thirty seconds.
    clock.advance(DAY - Duration::from_secs(20));
    until("the old connection drains", async || counted(&dialling, "drained", "expiry"), |drained| *drained).await;
    call(&channel, "on a new connection").await.unwrap();
    assert!(!held.is_finished());
    clock.advance(Duration::from_secs(60));
    let status = held.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let metrics = dialling.telemetry().encode();
    assert!(metrics.contains("internaltls_connections_cut_total{reason=\"expiry\"}"), "{metrics}");
}

/// Lets one connection through, and the listener's first flight only when told.
async fn relay(to: SocketAddr, go: oneshot::Receiver<()>) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (half_way, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut far = TcpStream::connect(to).await.unwrap();
        let mut bytes = vec![0; 16 * 1024];
        let hello = near.read(&mut bytes).await.unwrap();
        far.write_all(&bytes[..hello]).await.unwrap();
        let answer = far.read(&mut bytes).await.unwrap();
        half_way.send(()).unwrap();
        go.await.unwrap();
        near.write_all(&bytes[..answer]).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    (address, told)
}

/// A call whose dial is overtaken by `change`, after the ClientHello and before the listener's certificate is seen.
async fn overtaken(pair: &Pair, dialling: &Mesh, change: impl AsyncFnOnce()) -> (Channel, Result<String, Status>) {
    let (go, wait) = oneshot::channel();
    let (address, half_way) = relay(pair.echo.address, wait).await;
    let channel = channel_to(dialling, address);
    let calling = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "overtaken").await }
    });
    half_way.await.unwrap();
    change().await;
    go.send(()).unwrap();
    (channel, calling.await.unwrap())
}

#[tokio::test]
async fn invariant_5_distrust_during_a_dial_is_met() {
    let pair = Pair::new().await;
    let files = pair.client.files_with_distrust();
    let dialling = Mesh::open(by_hand(&pair.client, files)).await.unwrap();
    let (_channel, answer) = overtaken(&pair, &dialling, async || {
        pair.client.distrust(&[pair.server.leaf()]);
        assert_eq!(dialling.reload().await.unwrap(), Some(2));
    })
    .await;
    let status = answer.unwrap_err();
    assert_eq!(refusal(&status), "distrusted");
    assert_eq!(dialling.registry().snapshot(), []);
    let metrics = pair.echo.mesh.telemetry().encode();
    assert!(!metrics.contains("internaltls_calls_total{role=\"proxy\",result=\"ok\"} 1"), "{metrics}");
}

#[tokio::test]
async fn invariant_2_a_dial_overtaken_by_a_rotation_is_made_again() {
    let pair = Pair::new().await;
    let dialling = mesh(&pair.client).await;
    let (_channel, answer) = overtaken(&pair, &dialling, async || {
        pair.ca.renew(&pair.client);
        assert_eq!(dialling.reload().await.unwrap(), Some(2));
    })
    .await;
    // The first dial's leaf, for one handshake sees one generation; the relay lets no second one through.
    answer.unwrap();
    assert_eq!(dialling.registry().snapshot()[0].generation, 1);
    let again = "grpc_client_tls_handshakes_total{result=\"connect\",resumed=\"false\"}";
    let dialled = async || dialling.telemetry().encode().contains(again);
    until("a dial under the new generation", dialled, |dialled| *dialled).await;
}

/// A dialling mesh with a revocation list that is due in an hour, and its clock.
async fn listed(pair: &Pair) -> (Mesh, Arc<TestClock>) {
    let clock = Arc::new(TestClock::at(SystemTime::now()));
    let files = pair.client.files_with_crl(&pair.ca.crl(&[], SystemTime::now() + HOUR));
    (Mesh::open_with(by_hand(&pair.client, files), clock.clone()).await.unwrap(), clock)
}

fn refusal(status: &Status) -> &'static str {
    match std::error::Error::source(status).and_then(|source| source.downcast_ref()) {
        Some(ChannelError::Unreachable { reason, .. }) => reason.label(),
        other => panic!("{other:?}"),
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_dialler_keeps_its_connection_while_its_list_is_too_old() {
    let pair = Pair::new().await;
    let (dialling, clock) = listed(&pair).await;
    let channel = pair.channel(&dialling);
    let held = hold(&channel, &pair.echo).await;
    clock.advance(3 * HOUR);
    let status = call(&pair.channel(&dialling), "anew").await.unwrap_err();
    assert_eq!(refusal(&status), "stale-crl");
    assert!(status.message().contains("internaltls.crl.graceSeconds"), "{status}");
    let metrics = dialling.telemetry().encode();
    assert!(
        metrics.contains("grpc_client_tls_handshakes_total{result=\"stale-crl\",resumed=\"false\"} 1"),
        "{metrics}"
    );
    call(&channel, "on the old connection").await.unwrap();
    pair.echo.release.notify_one();
    held.await.unwrap().unwrap();
    assert!(!dialling.telemetry().encode().contains("reason="), "{}", dialling.telemetry().encode());
    pair.client.files_with_crl(&pair.ca.crl(&[], SystemTime::now() + 4 * HOUR));
    dialling.reload().await.unwrap();
    call(&pair.channel(&dialling), "anew").await.unwrap();
}

#[tokio::test]
async fn invariant_5_a_dialler_cuts_whom_its_list_names_within_a_second() {
    let pair = Pair::new().await;
    let (dialling, _clock) = listed(&pair).await;
    let channel = pair.channel(&dialling);
    let held = hold(&channel, &pair.echo).await;
    let serial = dialling.registry().snapshot()[0].peer_serial.clone().unwrap();
    pair.client.files_with_crl(&pair.ca.crl(&[&serial], SystemTime::now() + HOUR));
    dialling.reload().await.unwrap();
    let published = std::time::Instant::now();
    assert_eq!(held.await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
    assert!(counted(&dialling, "cut", "distrusted"));
    assert_eq!(refusal(&call(&channel, "anew").await.unwrap_err()), "revoked");
}

#[tokio::test]
async fn status_and_metrics_tell_generations_and_ends() {
    let pair = Pair::new().await;
    let dialling = mesh(&pair.client).await;
    let channel = pair.channel(&dialling);
    let held = hold(&channel, &pair.echo).await;
    pair.ca.renew(&pair.client);
    dialling.reload().await.unwrap();
    until("the old connection drains", async || counted(&dialling, "drained", "replaced"), |drained| *drained).await;
    let status = serde_json::to_value(dialling.status()).unwrap();
    assert_eq!(status["connections_by_generation"], serde_json::json!({"1": 1, "2": 1}));
    assert_eq!(status["ended"], serde_json::json!({"drained": {"replaced": 1}, "cut": {}}));
    let ending: Vec<_> = status["connections"].as_array().unwrap().iter().map(|c| c["ending"].clone()).collect();
    assert_eq!(ending, [serde_json::json!("replaced"), serde_json::Value::Null]);
    let metrics = dialling.telemetry().encode();
    for generation in [1, 2] {
        let series = format!("internaltls_connections_by_generation{{surface=\"mesh\",generation=\"{generation}\"}} 1");
        assert!(metrics.contains(&series), "{metrics}");
    }
    pair.echo.release.notify_one();
    held.await.unwrap().unwrap();
    let left = async || dialling.registry().by_generation().into_iter().collect::<Vec<_>>();
    until("the old generation has no connection", left, |left| *left == [(2, 1)]).await;
    assert!(!dialling.telemetry().encode().contains("generation=\"1\""), "a series of what has gone");
}
