//! What was acknowledged stays; what is told to end, ends.
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use test_util::process::is_running;
use test_util::{http, wait};

use crate::fixtures::{plan, run};

#[test]
fn acknowledged_rows_survive_kill_of_everything() {
    let cluster = plan().start();
    let seen = run(cluster.edge(), "insert_rows.py", json!({"collection": "kept", "calls": 25}));
    let acknowledged = seen["acknowledged"].clone();
    assert_eq!(acknowledged.as_array().unwrap().len(), 500);
    let again = cluster.kill_all().start();
    let found = run(again.edge(), "read_rows.py", json!({"collection": "kept", "ids": acknowledged}));
    assert_eq!(sorted(&found["found"]), sorted(&acknowledged));
}

#[test]
fn ends_in_order_when_told() {
    let mut cluster = plan().start();
    let status = cluster.stop();
    assert_eq!(status.code(), Some(0), "{}", cluster.tails());
    assert!(cluster.members().iter().all(|member| !is_running(member.pid)), "a process stayed behind");
    assert!(!cluster.dir().join("cluster.json").exists(), "cluster.json tells of a cluster that is gone");
    let keys = fs::read_to_string(cluster.dir().join("certs/mesh/proxy-1/server.key")).unwrap();
    let secret = keys.lines().nth(1).unwrap();
    assert!(
        !cluster.members().iter().any(|member| cluster.log(&member.node).contains(secret)),
        "a key stands in a log"
    );
}

#[test]
fn health_tells_of_a_lost_data_node() {
    let cluster = plan().start();
    let proxy = &cluster.member("proxy-1").health;
    assert_eq!(http::get(proxy, "/healthz").unwrap().0, 200);
    test_util::process::signal(cluster.member("data-node-2").pid, test_util::process::KILL);
    let body =
        wait::until("the proxy says it is not ready", Duration::from_secs(20), || match http::get(proxy, "/healthz") {
            Ok((503, body)) => Ok(body),
            other => Err(format!("{other:?}")),
        });
    assert!(body.contains("data-node-2"), "the reason names no node: {body}");
    assert_eq!(http::get(proxy, "/livez").unwrap().0, 200);
}

fn sorted(ids: &Value) -> Vec<i64> {
    let mut ids: Vec<_> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}
