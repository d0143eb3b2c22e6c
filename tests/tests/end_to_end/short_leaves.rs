//! Leaves of twenty seconds, with real processes and the clock of this machine.
use std::time::{Duration, Instant};

use serde_json::json;
use test_util::load::Load;
use test_util::wait;

use crate::fixtures::{plan, post, text};

const CONFIG: &str = "internaltls:\n  drain:\n    graceSeconds: 3\n";

/// Two and a half lifetimes long, renewed every few seconds; then not renewed, and told of.
#[test]
fn live_by_renewal_and_die_without() {
    let plan = plan().tls_mode(0).config(CONFIG);
    let dir = text(plan.dir());
    let made = plan.meshctl(&["certs", "init", "--out", "certs", "--valid-for", "20s"]).run();
    assert!(made.success, "{}", made.text());
    let cluster = plan.start();
    let load = Load::start(cluster.edge());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(50) {
        let renewed = cluster.meshctl(&["certs", "renew", "--dir", &dir, "--valid-for", "20s"]).run();
        assert!(renewed.success, "{}", renewed.text());
        wait::until("every connection under the new leaves", Duration::from_secs(10), || cluster.follows_disk());
        wait::throughout("calls go on", Duration::from_secs(6), || match load.seen().failures.first() {
            None => Ok(()),
            Some(failure) => Err(format!("{failure}\n{}", cluster.tails())),
        });
    }
    load.stop().assert_no_failure();
    // The leaves end within a moment of each other: at first a peer may only say that it refuses ours.
    wait::until("calls fail, because the leaves have expired", Duration::from_secs(60), || {
        let answer = post(cluster.edge(), "entities/get", &json!({"collectionName": "load", "id": [1, 2, 3, 4]}));
        let said = answer.body.to_string();
        if answer.body["code"] != 0 && said.contains("expired") { Ok(()) } else { Err(said) }
    });
    let renewed = cluster.meshctl(&["certs", "renew", "--dir", &dir]).run();
    assert!(renewed.success, "{}", renewed.text());
    wait::until("calls are served again", Duration::from_secs(30), || {
        let answer = post(cluster.edge(), "entities/get", &json!({"collectionName": "load", "id": [1, 2, 3, 4]}));
        if answer.body["code"] == 0 { Ok(()) } else { Err(answer.body.to_string()) }
    });
}
