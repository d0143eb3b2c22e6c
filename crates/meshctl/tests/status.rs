//! `status` against management ports that tell, and ones that do not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshctl::cluster::{Cluster, Edge, Process};
use meshctl::status::collect;
use tokio::net::TcpListener;

/// A process that answers with `status`.
async fn process(role: &str, status: serde_json::Value) -> Process {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let management = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let body = Bytes::from(status.to_string());
            let answer = service_fn(move |_| {
                let body = body.clone();
                async move { Ok::<_, Infallible>(http::Response::new(Full::new(body))) }
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), answer);
            tokio::spawn(served);
        }
    });
    let text = String::new;
    Process { role: role.into(), node: format!("{role}-1"), pid: 1, internal: text(), health: text(), management }
}

fn cluster(processes: Vec<Process>) -> Cluster {
    let edge =
        Edge { grpc: "localhost:1".into(), rest: "localhost:1".into(), tls_mode: 0, ca: None, cert: None, key: None };
    Cluster { processes, edge, certs: None }
}

fn told(role: &str, direction: &str, peer: &str) -> serde_json::Value {
    serde_json::json!({
        "role": role, "node": format!("{role}-1"), "generation": 1, "loaded_at": "2026-01-02T03:04:05Z", "ready": true, "not_ready": [],
        "leaf": {"serial": "ab", "sans": [format!("{role}.mesh.internal")], "not_before": "2026-01-02T03:04:05Z", "not_after": "2027-01-02T03:04:05Z"},
        "last_reload": {"at": "2026-01-02T03:04:05Z", "result": "ok", "reason": null}, "cas": [], "edge": null,
        "connections": [{
            "from": "proxy/proxy-1", "to": "coordinator/coordinator-1", "direction": direction, "transport": "tcp",
            "tls_version": "TLSv1.3", "cipher_suite": "TLS13_AES_256_GCM_SHA384", "kx_group": "X25519MLKEM768",
            "sni": "coordinator.mesh.internal", "peer": peer, "peer_serial": "ab", "own_serial": "ab", "generation": 1,
            "since": "2026-01-02T03:04:05Z",
        }],
    })
}

#[tokio::test]
async fn both_ends_tell_of_a_connection() {
    let proxy = process("proxy", told("proxy", "outbound", "spiffe://mesh.internal/coordinator/coordinator-1")).await;
    let coordinator =
        process("coordinator", told("coordinator", "inbound", "spiffe://mesh.internal/proxy/proxy-1")).await;
    let document = collect(&cluster(vec![proxy, coordinator])).await;
    assert!(document.complete(), "{document:?}");
    let ends: Vec<_> = document.connections.iter().map(|c| (c.told_by.as_str(), c.peer.as_deref().unwrap())).collect();
    let expected = [
        ("coordinator/coordinator-1", "spiffe://mesh.internal/proxy/proxy-1"),
        ("proxy/proxy-1", "spiffe://mesh.internal/coordinator/coordinator-1"),
    ];
    assert_eq!(ends, expected);
    let json = serde_json::to_value(&document).unwrap();
    for field in ["role", "node", "generation", "loaded_at", "leaf", "last_reload"] {
        assert!(!json["processes"][0][field].is_null(), "{field}");
    }
    for field in [
        "from",
        "to",
        "transport",
        "tls_version",
        "cipher_suite",
        "kx_group",
        "sni",
        "peer",
        "peer_serial",
        "generation",
        "since",
    ] {
        assert!(!json["connections"][0][field].is_null(), "{field}");
    }
}

#[tokio::test]
async fn dead_process_is_listed_with_the_reason() {
    let mut dead = process("coordinator", serde_json::Value::Null).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    dead.management = gone.local_addr().unwrap().to_string();
    drop(gone);
    let document = collect(&cluster(vec![dead])).await;
    let error = document.processes[0].error.as_deref().unwrap();
    assert!(error.contains("/status did not answer") && error.contains("refused"), "{error}");
    assert!(!document.complete());
}

#[tokio::test]
async fn process_at_anothers_address_is_told() {
    let mut other = process("coordinator", told("proxy", "outbound", "x")).await;
    other.node = "coordinator-1".into();
    let document = collect(&cluster(vec![other])).await;
    assert_eq!(document.processes[0].error.as_deref(), Some("proxy/proxy-1 answers at the address of coordinator-1"));
}

#[test]
fn missing_cluster_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = Cluster::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no cluster is up in") && error.contains("meshctl up --dir"), "{error}");
}
