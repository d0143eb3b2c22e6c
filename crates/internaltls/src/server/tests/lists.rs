//! What revocation lists do to handshakes and to live connections.
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::version::TLS13;

use super::attacks::{NAME, Scene, text};
use super::pki::{Authority, Folder, Leaf, dialer};
use super::rig::{Client, Rig, within};
use crate::clock::{Clock as _, TestClock};
use crate::config::{Limits, Reload};
use crate::material::Reloaded;

const HOUR: Duration = Duration::from_secs(3_600);

/// A mesh with a list that is due in an hour.
async fn listed() -> (Scene, Arc<TestClock>) {
    let ca = Authority::new("mesh CA");
    let folder = Folder::with(&ca.node("coordinator", "c-1"), &ca.pem());
    let clock = Arc::new(TestClock::at(SystemTime::now()));
    folder.file("crl.pem", &ca.crl(&[], clock.now() + HOUR));
    let store = folder.mesh_store_at(clock.clone()).await;
    let rig = Rig::tls_at(Arc::clone(&store), Limits::default(), clock.clone()).await;
    (Scene { ca, folder, store, rig }, clock)
}

async fn client(scene: &Scene, leaf: &Leaf) -> Client {
    scene.rig.tls_client(dialer(&scene.ca.pem(), Some(leaf), &[&TLS13]), NAME).await.unwrap()
}

#[tokio::test]
async fn a_list_that_is_too_old_refuses_handshakes_and_cuts_nobody() {
    let (scene, clock) = listed().await;
    let bad = scene.ca.node("proxy", "p-2");
    let (live, other) = (scene.client().await, client(&scene, &bad).await);
    let call = tokio::spawn(live.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    assert!(other.is_served().await);
    // Late, and within its grace.
    clock.advance(HOUR + Reload::default().crl_grace / 2);
    assert!(scene.client().await.is_served().await);
    clock.advance(Reload::default().crl_grace);
    let refused =
        |n: u8| format!("tls_handshakes_total{{result=\"stale-crl\",resumed=\"false\",surface=\"mesh\"}} {n}");
    assert!(!scene.client().await.is_served().await);
    scene.rig.counted(&refused(1)).await;
    let head = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    let intruder = scene.openssl(&["-tls1_3", "-servername", NAME, "-ign_eof"], head.as_bytes()).await;
    scene.rig.counted(&refused(2)).await;
    assert!(!text(&intruder).contains("HTTP/"), "{}", text(&intruder));
    // A new generation in that state: who is listed goes, who cannot be told stays.
    scene.folder.distrust(&bad);
    scene.store.reload().await.unwrap_err();
    assert_eq!(scene.store.current().number, 2);
    scene.rig.counted("internaltls_connections_cut_total{reason=\"distrusted\"} 1").await;
    assert!(live.is_served().await, "a live connection ended for want of a list");
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
    assert!(live.is_served().await && !scene.rig.telemetry.encode().contains("reason=\"rotation\""));
    // The next list mends it.
    scene.folder.file("crl.pem", &scene.ca.crl(&[], clock.now() + HOUR));
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(3)));
    assert!(scene.client().await.is_served().await);
}

#[tokio::test]
async fn invariant_5_a_list_that_names_a_peer_cuts_it_within_a_second() {
    let (scene, clock) = listed().await;
    let (good, bad) = (scene.ca.node("proxy", "p-1"), scene.ca.node("proxy", "p-2"));
    let (kept, gone) = (client(&scene, &good).await, client(&scene, &bad).await);
    let (long, lost) = (tokio::spawn(kept.call("Hold", None)), tokio::spawn(gone.call("Never", None)));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    assert!(gone.is_served().await);
    scene.folder.file("crl.pem", &scene.ca.crl(&[&bad], clock.now() + HOUR));
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
    let published = Instant::now();
    assert!(within("the call fails", lost).await.unwrap().is_err());
    assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
    assert!(!client(&scene, &bad).await.is_served().await);
    scene.rig.counted("tls_handshakes_total{result=\"revoked\",resumed=\"false\",surface=\"mesh\"} 1").await;
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the other call finishes", long).await.unwrap().unwrap().headers()["grpc-status"], "0");
}
