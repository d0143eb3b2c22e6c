//! What a new generation does to connections, also to those that are not there yet.
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::attacks::{NAME, Scene};
use super::pki::{Authority, Folder, dialer};
use super::rig::{Client, Rig, within};
use crate::clock::TestClock;
use crate::config::Limits;
use crate::material::Reloaded;

/// Publishes a generation with a new leaf under the same CA.
async fn renew(scene: &Scene) {
    scene.folder.write(&scene.ca.node("coordinator", "c-1"), &scene.ca.pem());
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
}

/// Publishes a generation under another CA, that trusts the old one no more.
async fn move_to(scene: &Scene, ca: &Authority) {
    scene.folder.write(&ca.node("coordinator", "c-1"), &ca.pem());
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
}

#[tokio::test]
async fn invariant_5_rotation_drains_and_running_calls_finish() {
    let scene = Scene::new().await;
    let client = scene.client().await;
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    renew(&scene).await;
    scene.rig.counted("internaltls_connections_drained_total{reason=\"rotation\"} 1").await;
    assert_eq!(scene.client().await.answer("Who", None).await.1["x-generation"], "2");
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    assert!(!scene.rig.telemetry.encode().contains("internaltls_connections_cut_total{"));
}

/// Silent connections, one after another, until it is dropped.
fn press(scene: &Scene) -> tokio_util::task::AbortOnDropHandle<()> {
    let address = scene.rig.address;
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(TcpStream::connect(address).await.unwrap());
            if held.len() > 8 {
                held.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
}

#[tokio::test]
async fn invariant_8_a_flood_puts_off_rotation_and_nothing_else() {
    let scene = Scene::with(Limits { half_open: 2, ..Limits::default() }).await;
    let (ours, leaf) = (scene.client().await, scene.ca.node("proxy", "p-2"));
    let theirs = scene.rig.tls_client(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await.unwrap();
    assert!(ours.is_served().await && theirs.is_served().await);
    let flood = press(&scene);
    scene.rig.counted("result=\"crowded\"").await;
    // One generation renews, the next one distrusts one of the two peers.
    renew(&scene).await;
    scene.folder.distrust(&leaf);
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(3)));
    scene.rig.counted("internaltls_connections_cut_total{reason=\"distrusted\"} 1").await;
    assert!(within("it is cut", theirs.connection).await.unwrap().is_err());
    // The connection of the other is judged by both. A dozen more that give way take longer than the jitter.
    let displaced = || {
        let text = scene.rig.telemetry.encode();
        let line = text.lines().find(|line| line.contains("result=\"crowded\"")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let more = displaced() + 12;
    within("a dozen more give way", async {
        while displaced() < more {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert!(!scene.rig.telemetry.encode().contains("reason=\"rotation\""));
    assert!(ours.is_served().await);
    drop(flood);
    scene.rig.counted("internaltls_connections_drained_total{reason=\"rotation\"} 1").await;
    within("the connection ends in order", ours.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn invariant_5_distrust_cuts() {
    let scene = Scene::new().await;
    let leaf = scene.ca.node("proxy", "p-1");
    let client = scene.rig.tls_client(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await.unwrap();
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    scene.folder.distrust(&leaf);
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
    scene.rig.counted("internaltls_connections_cut_total{reason=\"distrusted\"} 1").await;
    assert!(within("the call fails", call).await.unwrap().is_err());
    // Nor does the service go on with what was asked of it.
    scene.rig.counted("internaltls_calls_total{role=\"proxy\",result=\"cancelled\"} 1").await;
}

#[tokio::test]
async fn a_ca_that_has_gone_drains() {
    let scene = Scene::new().await;
    let client = scene.client().await;
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    move_to(&scene, &Authority::new("next CA")).await;
    scene.rig.counted("internaltls_connections_drained_total{reason=\"rotation\"} 1").await;
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn shared_layout_keeps_a_peer_that_is_behind() {
    let ca = Authority::new("mesh CA");
    let (old, new) = (ca.named("localhost"), ca.named("localhost"));
    let folder = Folder::with(&old, &ca.pem());
    let store = folder.mesh_store().await;
    let rig = Rig::tls(Arc::clone(&store), Limits::default()).await;
    let dial = |leaf| rig.tls_client(dialer(&ca.pem(), Some(leaf), &[&TLS13]), "localhost");
    let late = dial(&old).await.unwrap();
    assert!(late.is_served().await);
    // The late peer would refuse our new key, so it keeps the connection that it has.
    folder.write(&new, &ca.pem());
    assert!(matches!(store.reload().await.unwrap(), Reloaded::Published(2)));
    let renewed = dial(&new).await.unwrap();
    assert!(renewed.is_served().await && late.is_served().await);
    // One that shows our key of now can follow the next step.
    folder.file("distrust", &format!("{}\n", "ab".repeat(32)));
    assert!(matches!(store.reload().await.unwrap(), Reloaded::Published(3)));
    rig.counted("internaltls_connections_drained_total{reason=\"rotation\"} 1").await;
    within("the renewed peer's connection ends in order", renewed.connection).await.unwrap().unwrap();
    assert!(late.is_served().await);
}

/// Relays one connection to `to`, and lets the client's second flight through only when told.
async fn relay(to: std::net::SocketAddr, go: oneshot::Receiver<()>) -> (std::net::SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (half_way, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        let mut bytes = vec![0; 16 * 1024];
        let hello = client.read(&mut bytes).await.unwrap();
        server.write_all(&bytes[..hello]).await.unwrap();
        let answer = server.read(&mut bytes).await.unwrap();
        half_way.send(()).unwrap();
        go.await.unwrap();
        client.write_all(&bytes[..answer]).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    (address, told)
}

/// A handshake during which `change` happens, after the server has chosen its generation.
async fn overtaken(scene: &Scene, config: rustls::ClientConfig, change: impl Future<Output = ()>) -> Client {
    let (go, wait) = oneshot::channel();
    let (address, half_way) = relay(scene.rig.address, wait).await;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = tokio::spawn(connector.connect(ServerName::try_from(NAME).unwrap(), stream));
    within("the server answers the ClientHello", half_way).await.unwrap();
    change.await;
    go.send(()).unwrap();
    let stream = within("the client's half is done", connecting).await.unwrap().unwrap();
    Client::over(stream).await
}

#[tokio::test]
async fn invariant_5_distrust_during_a_handshake_is_met() {
    let scene = Scene::new().await;
    let leaf = scene.ca.node("proxy", "p-1");
    let config = dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]);
    let listed = async {
        scene.folder.distrust(&leaf);
        assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
    };
    let client = overtaken(&scene, config, listed).await;
    assert!(!client.is_served().await);
    scene.rig.counted("tls_handshakes_total{result=\"distrusted\",resumed=\"false\",surface=\"mesh\"} 1").await;
    let text = scene.rig.telemetry.encode();
    assert!(!text.contains("result=\"ok\"") && scene.rig.registry.snapshot().is_empty(), "{text}");
}

#[tokio::test]
async fn invariant_5_a_ca_that_goes_during_a_handshake_is_met() {
    let scene = Scene::new().await;
    let client = overtaken(&scene, scene.proxy(), move_to(&scene, &Authority::new("next CA"))).await;
    assert!(!client.is_served().await);
    scene.rig.counted("tls_handshakes_total{result=\"unknown-issuer\",resumed=\"false\",surface=\"mesh\"} 1").await;
    assert!(!scene.rig.telemetry.encode().contains("result=\"ok\""));
}

#[tokio::test]
async fn invariant_2_a_handshake_sees_one_generation() {
    let scene = Scene::new().await;
    let client = overtaken(&scene, scene.proxy(), renew(&scene)).await;
    // It was begun under the first generation, so it is served under that one and drained at once.
    scene.rig.counted("internaltls_connections_drained_total{reason=\"rotation\"} 1").await;
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    scene.rig.counted("tls_handshakes_total{result=\"ok\",resumed=\"false\",surface=\"mesh\"} 1").await;
}

#[tokio::test]
async fn a_client_of_the_next_ca_is_served_after_the_move() {
    let scene = Scene::new().await;
    let next = Authority::new("next CA");
    move_to(&scene, &next).await;
    let config = dialer(&next.pem(), Some(&next.node("proxy", "p-1")), &[&TLS13]);
    assert!(scene.rig.tls_client(config, NAME).await.unwrap().is_served().await);
}

#[tokio::test]
async fn invariant_10_a_changed_policy_reaches_open_connections() {
    let scene = Scene::policed("allow:\n  proxy: [\"/test.Echo/Who\"]\n").await;
    let client = scene.client().await;
    assert_eq!(client.answer("Who", None).await.0, Code::Ok);
    // Something is left to it, or the connection would go as well.
    scene.folder.file("policy.yaml", "allow:\n  data-node: [\"/test.Echo/Who\"]\n  proxy: [\"/test.Echo/Hold\"]\n");
    scene.store.reload().await.unwrap();
    let (code, headers) = client.answer("Who", None).await;
    assert_eq!(code, Code::PermissionDenied);
    let message = headers["grpc-message"].to_str().unwrap();
    assert!(message.contains("spiffe://mesh.internal/proxy/p-1") && message.contains("/test.Echo/Who"), "{message}");
}

/// A mesh by a clock of its own, and how `p-1` dials with a leaf that ends in an hour.
async fn an_hour(limits: Limits) -> (Scene, Arc<TestClock>, rustls::ClientConfig) {
    let ca = Authority::new("mesh CA");
    let folder = Folder::with(&ca.node("coordinator", "c-1"), &ca.pem());
    // Certificates tell whole seconds.
    let now = UNIX_EPOCH + Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let clock = Arc::new(TestClock::at(now));
    let store = folder.mesh_store_at(clock.clone()).await;
    let rig = Rig::tls_at(Arc::clone(&store), limits, clock.clone()).await;
    let brief = dialer(&ca.pem(), Some(&ca.node_until("proxy", "p-1", now + HOUR)), &[&TLS13]);
    (Scene { ca, folder, store, rig }, clock, brief)
}

const HOUR: Duration = Duration::from_secs(3_600);
/// A second until the clock is asked, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(3);

#[tokio::test]
async fn invariant_5_expiry_drains_by_the_wall_clock() {
    let (scene, clock, brief) = an_hour(Limits::default()).await;
    let client = scene.rig.tls_client(brief, NAME).await.unwrap();
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    let lasting = scene.client().await;
    assert!(lasting.is_served().await);
    clock.advance(HOUR - Limits::default().drain);
    let set = Instant::now();
    scene.rig.counted("internaltls_connections_drained_total{reason=\"expiry\"} 1").await;
    assert!(set.elapsed() < NOTICED, "{:?}", set.elapsed());
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    assert!(lasting.is_served().await);
    assert!(!scene.rig.telemetry.encode().contains("connections_cut_total{"));
}

/// As after a machine slept, or its clock was set.
#[tokio::test]
async fn invariant_5_a_clock_that_jumps_past_the_end_cuts() {
    let (scene, clock, brief) = an_hour(Limits::default()).await;
    let client = scene.rig.tls_client(brief, NAME).await.unwrap();
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    clock.advance(HOUR);
    let set = Instant::now();
    assert!(within("the call fails", call).await.unwrap().is_err());
    assert!(set.elapsed() < NOTICED, "{:?}", set.elapsed());
    scene.rig.counted("internaltls_connections_cut_total{reason=\"expiry\"} 1").await;
}

/// The leaf would last a month; the path ends with the CA.
#[tokio::test]
async fn invariant_5_a_connection_ends_with_the_ca_that_vouched_for_it() {
    let now = UNIX_EPOCH + Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let (lasting, brief) = (Authority::new("mesh CA"), Authority::until("brief CA", now + HOUR));
    let bundle = format!("{}{}", lasting.pem(), brief.pem());
    let folder = Folder::with(&lasting.node("coordinator", "c-1"), &bundle);
    let clock = Arc::new(TestClock::at(now));
    let store = folder.mesh_store_at(clock.clone()).await;
    let rig = Rig::tls_at(store, Limits::default(), clock.clone()).await;
    let dial = async |ca: &Authority| {
        let config = dialer(&lasting.pem(), Some(&ca.node("proxy", "p-1")), &[&TLS13]);
        rig.tls_client(config, NAME).await.unwrap()
    };
    let (kept, gone) = (dial(&lasting).await, dial(&brief).await);
    assert!(kept.is_served().await && gone.is_served().await);
    clock.advance(HOUR);
    let _ = within("the connection ends", gone.connection).await;
    rig.counted("internaltls_connections_cut_total{reason=\"expiry\"} 1").await;
    assert!(kept.is_served().await);
}
