//! What a peer may cost when it says nothing, or answers nothing.
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::attacks::{NAME, Scene};
use super::rig::{Rig, within};
use crate::config::Limits;
use crate::policy::Policy;

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn invariant_8_a_mute_connection_is_closed() {
    let limits = Limits { first_request: SHORT, keepalive_timeout: SHORT, ..Limits::default() };
    let rig = Rig::plaintext(limits, Policy::allow_all()).await;
    let mut mute = TcpStream::connect(rig.address).await.unwrap();
    let _ = within("the server closes", mute.read_to_end(&mut Vec::new())).await;
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_connections_drained_total{reason=\"no-request\"} 1"), "{text}");
}

#[tokio::test]
async fn invariant_8_a_peer_that_answers_no_ping_is_closed() {
    let limits = Limits { keepalive_interval: SHORT, keepalive_timeout: SHORT, ..Limits::default() };
    let rig = Rig::plaintext(limits, Policy::allow_all()).await;
    let mut deaf = TcpStream::connect(rig.address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    deaf.write_all(&settings).await.unwrap();
    let mut heard = Vec::new();
    let _ = within("the server closes", deaf.read_to_end(&mut heard)).await;
    let pinged = [0, 0, 8, 6, 0];
    assert!(heard.windows(5).any(|frame| frame == pinged), "{heard:?}");
}

#[tokio::test]
async fn pings_of_a_client_without_calls_are_answered() {
    let rig = Rig::plaintext(Limits::default(), Policy::allow_all()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (_send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..100 {
        within("a pong", pings.ping(h2::Ping::opaque())).await.unwrap();
    }
    driver.abort();
}

/// A TLS record that says a long handshake message follows.
const NEVER_ENDING: [u8; 9] = [0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];

/// Connections that say nothing, held open.
async fn stalled(scene: &Scene, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpStream::connect(scene.rig.address).await.unwrap());
    }
    held
}

#[tokio::test]
async fn invariant_8_the_timeout_frees_stalled_handshakes() {
    let limits = Limits { handshakes: 4, handshakes_per_address: 4, handshake_timeout: SHORT, ..Limits::default() };
    let scene = Scene::with(limits).await;
    // Three times the limit: the last are still in the backlog when the first time out.
    let held = stalled(&scene, 12).await;
    let config = scene.proxy();
    let client = within("a good client gets its turn", scene.rig.tls_client(config, NAME)).await.unwrap();
    assert!(client.is_served().await);
    scene.rig.counted("tls_handshakes_total{result=\"timeout\",resumed=\"false\",surface=\"mesh\"} 12").await;
    drop(held);
}

#[tokio::test]
async fn invariant_8_an_address_over_its_share_is_refused_at_once() {
    let limits = Limits { handshakes: 8, handshakes_per_address: 2, ..Limits::default() };
    let scene = Scene::with(limits).await;
    let held = stalled(&scene, 2).await;
    let mut third = TcpStream::connect(scene.rig.address).await.unwrap();
    let _ = within("the third is closed", third.read_to_end(&mut Vec::new())).await;
    scene.rig.counted("tls_handshakes_total{result=\"crowded\",resumed=\"false\",surface=\"mesh\"} 1").await;
    drop(held);
    scene.rig.counted("tls_handshakes_total{result=\"closed\",resumed=\"false\",surface=\"mesh\"} 2").await;
    assert!(scene.client().await.is_served().await, "the share is given back");
}

#[tokio::test]
async fn invariant_8_a_handshake_permit_is_not_held_by_the_connection() {
    let scene = Scene::with(Limits { handshakes: 1, handshakes_per_address: 1, ..Limits::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = scene.client().await;
        assert!(client.is_served().await);
        clients.push(client);
    }
    assert_eq!(scene.rig.registry.snapshot().len(), 4);
}

#[tokio::test]
async fn invariant_8_a_flood_of_bytes_is_cut() {
    let scene = Scene::with(Limits { handshake_bytes: 4 * 1024, ..Limits::default() }).await;
    let mut flood = TcpStream::connect(scene.rig.address).await.unwrap();
    let flooding = async {
        flood.write_all(&NEVER_ENDING).await?;
        loop {
            flood.write_all(&[0; 1024]).await?;
        }
    };
    let cut: std::io::Result<()> = within("the server closes", flooding).await;
    assert!(cut.is_err());
    scene.rig.counted("tls_handshakes_total{result=\"too-many-bytes\",resumed=\"false\",surface=\"mesh\"} 1").await;
}
