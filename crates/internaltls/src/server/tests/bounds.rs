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

#[tokio::test]
async fn invariant_8_a_foreign_clients_metadata_fails_its_own_call() {
    let rig = Rig::plaintext(Limits::default(), Policy::allow_all()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = async |method: &str, notes: usize| {
        let request = http::Request::post(format!("http://test/test.Echo/{method}"))
            .header("content-type", "application/grpc")
            .header("x-notes", "n".repeat(notes));
        let (answer, _) = send.clone().send_request(request.body(()).unwrap(), true).unwrap();
        answer.await.map(|answer| answer.status())
    };
    let held = call("Hold", 1);
    let beside = async {
        within("the bystander begins", rig.behaviour.begun.notified()).await;
        for notes in [40 * 1024, 120 * 1024] {
            let refused = within("an answer", call("Who", notes)).await;
            let too_large = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            assert!(refused.is_err() || refused.as_ref().unwrap() == &too_large, "{notes}: {refused:?}");
        }
        rig.behaviour.release.add_permits(1);
    };
    let (held, ()) = tokio::join!(held, beside);
    assert_eq!(held.unwrap(), http::StatusCode::OK);
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
    let scene = Scene::with(Limits { half_open: 64, hello_timeout: SHORT, ..Limits::default() }).await;
    let held = stalled(&scene, 12).await;
    scene.rig.counted("tls_handshakes_total{result=\"timeout\",resumed=\"false\",surface=\"mesh\"} 12").await;
    assert!(scene.client().await.is_served().await);
    drop(held);
}

/// What a client hears that is turned away before there are keys.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

#[tokio::test]
async fn invariant_8_the_turned_away_hear_an_alert() {
    let scene = Scene::with(Limits { half_open: 2, ..Limits::default() }).await;
    let mut held = stalled(&scene, 2).await;
    // Also one that has begun.
    held[1].write_all(&NEVER_ENDING).await.unwrap();
    held.extend(stalled(&scene, 2).await);
    for mut displaced in held.drain(..2) {
        let mut heard = Vec::new();
        within("the oldest is closed", displaced.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, INTERNAL_ERROR);
    }
    scene.rig.counted("tls_handshakes_total{result=\"crowded\",resumed=\"false\",surface=\"mesh\"} 2").await;
    scene.rig.shutdown.cancel();
    for mut left in held {
        let mut heard = Vec::new();
        within("the others are closed", left.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, INTERNAL_ERROR);
    }
    within("the server stops", scene.rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn invariant_8_silence_holds_no_place() {
    let scene = Scene::with(Limits { half_open: 4, handshakes: 1, ..Limits::default() }).await;
    let held = stalled(&scene, 12).await;
    // From the very address of the silent ones.
    assert!(scene.client().await.is_served().await);
    drop(held);
}

/// What a client of the mesh sends first.
fn client_hello(scene: &Scene) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(scene.proxy()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn invariant_8_a_hello_alone_keeps_no_slot() {
    let limits = Limits { handshakes: 2, handshake_timeout: Duration::from_secs(2), ..Limits::default() };
    let scene = Scene::with(limits).await;
    let hello = client_hello(&scene);
    let mut held = stalled(&scene, 2).await;
    for silent in &mut held {
        silent.write_all(&hello).await.unwrap();
        // Its answer has come: it has a slot.
        within("an answer", silent.readable()).await.unwrap();
    }
    assert!(scene.client().await.is_served().await, "the slots' time shrinks to a twentieth");
    drop(held);
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
