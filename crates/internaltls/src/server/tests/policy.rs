//! A policy that changes while calls run.
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use rustls::version::TLS13;
use tonic::Code;
use tonic::body::Body;

use super::attacks::{NAME, Scene};
use super::pki::dialer;
use super::rig::{Client, within};

const BEFORE: &str = "allow:\n  proxy: [\"/test.Echo/*\"]\n  data-node: [\"/test.Echo/*\"]\n";
const AFTER: &str = "allow:\n  proxy: [\"/test.Echo/Who\"]\n  data-node: [\"/test.Echo/*\"]\n";
const WITHOUT: &str = "allow:\n  data-node: [\"/test.Echo/*\"]\n";
/// From the moment a policy is in force.
const SOON: Duration = Duration::from_secs(1);

async fn change(scene: &Scene, policy: &str) -> Instant {
    scene.folder.file("policy.yaml", policy);
    scene.store.reload().await.unwrap();
    Instant::now()
}

async fn data_node(scene: &Scene) -> Client {
    let leaf = scene.ca.node("data-node", "d-1");
    scene.rig.tls_client(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await.unwrap()
}

/// A stream that has begun: its head and its first frame are here.
async fn begun(client: &Client, method: &str) -> Response<Incoming> {
    let mut response = within(method, client.call(method, None)).await.unwrap();
    within("the first frame", response.body_mut().frame()).await.unwrap().unwrap();
    response
}

/// The status of a stream that ends.
async fn status(response: Response<Incoming>) -> (Code, String) {
    let ended = within("the stream ends", response.into_body().collect()).await.unwrap();
    let status = tonic::Status::from_header_map(ended.trailers().expect("trailers")).expect("a status");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn invariant_5_policy_ends_a_running_stream_within_a_second() {
    let scene = Scene::policed(BEFORE).await;
    let (proxy, other) = (scene.client().await, data_node(&scene).await);
    let (stream, mut kept) = (begun(&proxy, "Endless").await, begun(&other, "Endless").await);
    let changed = change(&scene, AFTER).await;
    let (code, message) = status(stream).await;
    assert!(changed.elapsed() < SOON, "{:?}", changed.elapsed());
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(message, "policy no longer allows spiffe://mesh.internal/proxy/p-1 to call /test.Echo/Endless");
    assert!(futures_util::FutureExt::now_or_never(kept.body_mut().frame()).is_none(), "the other role's stream ended");
    assert!(proxy.is_served().await && other.is_served().await, "what is allowed still is");
    let text = scene.rig.telemetry.encode();
    assert!(text.contains("internaltls_policy_refusals_total{role=\"proxy\"} 1"), "{text}");
    assert!(text.contains("internaltls_calls_total{role=\"proxy\",result=\"refused\"} 1"), "{text}");
    assert!(!text.contains("connections_drained_total{"), "{text}");
}

#[tokio::test]
async fn a_stream_that_never_pauses_ends_too() {
    let scene = Scene::policed(BEFORE).await;
    let client = scene.client().await;
    let stream = begun(&client, "Flood").await;
    let reading = tokio::spawn(status(stream));
    change(&scene, AFTER).await;
    assert_eq!(within("the flood ends", reading).await.unwrap().0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_call_that_is_not_answered_yet_is_refused() {
    let scene = Scene::policed(BEFORE).await;
    let client = scene.client().await;
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    change(&scene, AFTER).await;
    let head = within("an answer", call).await.unwrap().unwrap();
    assert_eq!(head.headers()["grpc-status"], "7");
}

#[tokio::test]
async fn what_is_sent_after_the_change_is_heard_by_nobody() {
    let scene = Scene::policed(BEFORE).await;
    let client = scene.client().await;
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, std::convert::Infallible>>();
    let mut heard = scene.rig.behaviour.heard.subscribe();
    let body = Body::new(StreamBody::new(tokio_stream::wrappers::UnboundedReceiverStream::new(receive)));
    let answer = tokio::spawn(client.send("Upload", body));
    send.send(Ok(Frame::data(Bytes::from_static(&[1; 100])))).unwrap();
    within("the first part is heard", heard.wait_for(|(bytes, _)| *bytes == 100)).await.unwrap();
    let answer = within("the head", answer).await.unwrap().unwrap();
    change(&scene, AFTER).await;
    assert_eq!(status(answer).await.0, Code::PermissionDenied);
    let _ = send.send(Ok(Frame::data(Bytes::from_static(&[2; 100]))));
    let (bytes, ended) = within("the request ends", heard.wait_for(|(_, end)| end.is_some())).await.unwrap().clone();
    assert_eq!(bytes, 100);
    assert!(ended.unwrap().unwrap_err().contains("policy no longer allows"));
}

#[tokio::test]
async fn a_role_that_is_left_nothing_loses_its_connections() {
    let scene = Scene::policed(BEFORE).await;
    let (proxy, other) = (scene.client().await, data_node(&scene).await);
    let stream = begun(&proxy, "Endless").await;
    assert!(other.is_served().await);
    let changed = change(&scene, WITHOUT).await;
    assert_eq!(status(stream).await.0, Code::PermissionDenied);
    within("the connection ends in order", proxy.connection).await.unwrap().unwrap();
    assert!(changed.elapsed() < SOON, "{:?}", changed.elapsed());
    scene.rig.counted("internaltls_connections_drained_total{reason=\"policy\"} 1").await;
    assert!(other.is_served().await);
}

#[tokio::test]
async fn a_change_that_leaves_a_call_allowed_leaves_it_alone() {
    let scene = Scene::policed(BEFORE).await;
    let client = scene.client().await;
    let call = tokio::spawn(client.call("Hold", None));
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    change(&scene, "allow:\n  proxy: [\"/test.Echo/Hold\"]\n").await;
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
}

/// Invariant 3, for contents that cost more than they may: the process lives, and so does the last good policy.
#[tokio::test]
async fn invariant_3_hostile_policy_leaves_the_last() {
    let scene = Scene::policed(AFTER).await;
    let client = scene.client().await;
    let whole = [("600 KB in one line", "- ".repeat(300_000)), ("600 KB of a mapping", "{a: ".repeat(150_000))];
    for (kind, text) in crate::yaml::tests::hostile().into_iter().chain(whole) {
        scene.folder.file("policy.yaml", &text);
        let refused = crate::foreign::chain(&scene.store.reload().await.unwrap_err());
        assert!(
            refused.contains("policy.yaml") && refused.contains("line ") && refused.len() < 1_000,
            "{kind}: {refused}"
        );
        assert!(client.is_served().await, "{kind}");
        let call = within("a call that the last policy refuses", client.call("Endless", None)).await.unwrap();
        let refused = tonic::Status::from_header_map(call.headers()).expect("a status");
        assert_eq!(refused.code(), Code::PermissionDenied, "{kind}");
    }
    change(&scene, BEFORE).await;
    begun(&client, "Endless").await;
}
