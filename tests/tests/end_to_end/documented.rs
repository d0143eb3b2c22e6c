//! The Milvus documentation's page on encryption in transit, walked in its order: certificates, the YAML sections, the start,
//! the log line, pymilvus and curl one-way and two-way, renewal, and all of it again.
use std::time::Duration;

use serde_json::json;
use test_util::cluster::{Cluster, follow};
use test_util::documented::Documented;
use test_util::load::Load;
use test_util::wait;

use crate::fixtures::{plan, rest, run, text};

#[test]
fn one_way_with_sni() {
    walk(1, "  sni: localhost\n");
}

#[test]
fn two_way_without_sni() {
    walk(2, "");
}

fn walk(mode: u8, sni: &str) {
    let plan = plan();
    let folder = plan.dir().join("tls");
    let files = Documented::create(&folder);
    let cluster = plan.config(&yaml(&text(&folder), mode, sni)).start();
    for member in cluster.members() {
        let log = cluster.log(&member.node);
        assert!(log.contains(r#"["Internal TLS Enabled"] [value=true]"#), "{} never said so:\n{log}", member.node);
    }
    assert_eq!(cluster.edge().tls_mode, u64::from(mode));
    clients_reach(&cluster);
    let load = Load::start(cluster.edge());
    files.new_key("server");
    let before = test_util::authority::serial_of_file(&files.path("server.pem"));
    wait::throughout("the old leaf is served", Duration::from_millis(500), || {
        let served = test_util::tls::served_serial(&cluster.edge().grpc, &cluster.edge().credentials().unwrap())?;
        if served == before { Ok(()) } else { Err(served) }
    });
    files.new_leaf("server");
    let leaf = files.path("server.pem");
    wait::until("the new leaf everywhere", Duration::from_secs(20), || {
        follow(cluster.members(), cluster.edge(), &|_| leaf.clone(), &leaf)
    });
    load.stop().assert_no_failure();
    clients_reach(&cluster);
}

/// The sections as they are documented.
fn yaml(tls: &str, mode: u8, sni: &str) -> String {
    format!(
        "tls:\n  serverPemPath: {tls}/server.pem\n  serverKeyPath: {tls}/server.key\n  caPemPath: {tls}/ca.pem\n\n\
         internaltls:\n  serverPemPath: {tls}/server.pem\n  serverKeyPath: {tls}/server.key\n  caPemPath: {tls}/ca.pem\n{sni}\n\
         common:\n  security:\n    tlsMode: {mode}\n    internaltlsEnabled : true\n"
    )
}

/// The documented lines: one-way pymilvus trusts the server's own leaf, curl the CA; two-way both show the client's.
fn clients_reach(cluster: &Cluster) {
    let mut edge = cluster.edge().clone();
    let answer = rest(&edge, &["-H", "Request-Timeout: 10"], "collections/list");
    assert_eq!((answer.status, &answer.body["code"]), (200, &json!(0)), "{answer:?}");
    if edge.tls_mode == 1 {
        edge.ca = edge.ca.with_file_name("server.pem");
    }
    let seen = run(&edge, "quick_setup.py", json!({"collection": "documented"}));
    assert_eq!(seen["inserted"], 10, "{seen}");
}
