//! What a call meets: who it is from, may it, for how long.
use tonic::Code;

use super::rig::{Rig, within};
use crate::config::Limits;
use crate::policy::Policy;

async fn open() -> Rig {
    Rig::plaintext(Limits::default(), Policy::allow_all()).await
}

#[tokio::test]
async fn tells_the_service_who_calls() {
    let rig = open().await;
    let (code, headers) = rig.client().await.answer("Who", None).await;
    assert_eq!((code, &headers["x-peer"]), (Code::Ok, &"plaintext".parse().unwrap()));
    assert!(headers["x-remote"].to_str().unwrap().starts_with("127.0.0.1:"), "{headers:?}");
}

#[tokio::test]
async fn grpc_timeout_ends_a_call() {
    let rig = open().await;
    let (code, headers) = rig.client().await.answer("Never", Some("30m")).await;
    assert_eq!((code, &headers["grpc-message"]), (Code::DeadlineExceeded, &"Timeout%20expired".parse().unwrap()));
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_calls_total{role=\"plaintext\",result=\"deadline\"} 1"), "{text}");
}

#[tokio::test]
async fn grpc_timeout_ends_a_stream() {
    let rig = open().await;
    let (code, _) = rig.client().await.answer("Endless", Some("30m")).await;
    assert_eq!(code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_ample_timeout_changes_nothing() {
    let rig = open().await;
    let (code, _) = rig.client().await.answer("Who", Some("1H")).await;
    assert_eq!(code, Code::Ok);
}

#[tokio::test]
async fn policy_refuses_what_it_does_not_name() {
    let policy = Policy::from_rules([("plaintext", "/test.Echo/Who")]).unwrap();
    let rig = Rig::plaintext(Limits::default(), policy).await;
    let client = rig.client().await;
    assert_eq!(client.answer("Who", None).await.0, Code::Ok);
    let (code, headers) = client.answer("Never", None).await;
    assert_eq!(code, Code::PermissionDenied);
    let message = headers["grpc-message"].to_str().unwrap();
    assert!(message.contains("plaintext") && message.contains("/test.Echo/Never"), "{message}");
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_policy_refusals_total{role=\"plaintext\"} 1"), "{text}");
    assert!(text.contains("internaltls_calls_total{role=\"plaintext\",result=\"refused\"} 1"), "{text}");
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_its_call() {
    let rig = open().await;
    let client = rig.client().await;
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", rig.behaviour.begun.notified()).await;
    assert_eq!(rig.registry.connections()[0].calls_in_flight(), 1);
    call.abort();
    rig.counted("internaltls_calls_total{role=\"plaintext\",result=\"cancelled\"} 1").await;
    assert_eq!(rig.registry.connections()[0].calls_in_flight(), 0);
}
