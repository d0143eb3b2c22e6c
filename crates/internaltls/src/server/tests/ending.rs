//! How connections end: on shutdown, when idle, when dropped.
use std::time::Duration;

use tokio::net::TcpStream;

use super::rig::{Client, Rig, within};
use crate::config::Limits;
use crate::policy::Policy;

const SHORT: Duration = Duration::from_millis(50);

async fn open(limits: Limits) -> Rig {
    Rig::plaintext(limits, Policy::allow_all()).await
}

/// A call that the service holds.
async fn held(
    rig: &Rig,
    client: &Client,
) -> tokio::task::JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>> {
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", rig.behaviour.begun.notified()).await;
    call
}

#[tokio::test]
async fn shutdown_lets_a_running_call_finish() {
    let rig = open(Limits::default()).await;
    let client = rig.client().await;
    let call = held(&rig, &client).await;
    rig.shutdown.cancel();
    within("the listener closes", async {
        while TcpStream::connect(rig.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    rig.behaviour.release.add_permits(1);
    let answer = within("the call finishes", call).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
    within("the server ends", rig.serving).await.unwrap().unwrap();
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_connections_drained_total{reason=\"shutdown\"} 1"), "{text}");
    assert!(!text.contains("drain-timeout"), "{text}");
    assert_eq!(rig.registry.snapshot(), []);
}

#[tokio::test]
async fn shutdown_cuts_what_will_not_finish() {
    let rig = open(Limits { drain: SHORT, ..Limits::default() }).await;
    let client = rig.client().await;
    let call = held(&rig, &client).await;
    rig.shutdown.cancel();
    within("the server ends", rig.serving).await.unwrap().unwrap();
    assert!(within("the call fails", call).await.unwrap().is_err());
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_connections_cut_total{reason=\"drain-timeout\"} 1"), "{text}");
}

#[tokio::test]
async fn dropping_the_server_closes_everything() {
    let rig = open(Limits::default()).await;
    let client = rig.client().await;
    let call = held(&rig, &client).await;
    rig.serving.abort();
    assert!(within("the call fails", call).await.unwrap().is_err());
    let _ = within("the connection ends", client.connection).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let rig = open(Limits { idle: SHORT, ..Limits::default() }).await;
    let client = rig.client().await;
    client.answer("Who", None).await;
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_connections_drained_total{reason=\"idle\"} 1"), "{text}");
}

#[tokio::test]
async fn a_connection_with_a_running_call_is_not_idle() {
    let rig = open(Limits { idle: SHORT, first_request: SHORT, ..Limits::default() }).await;
    let client = rig.client().await;
    let call = held(&rig, &client).await;
    let other = rig.client().await;
    within("one that asks for nothing ends meanwhile", other.connection).await.unwrap().unwrap();
    rig.behaviour.release.add_permits(1);
    assert!(within("the call finishes", call).await.unwrap().is_ok());
}
