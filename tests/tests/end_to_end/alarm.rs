//! What an operator hears of real processes, and how soon their word counts.
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use test_util::authority::write_public;
use test_util::cluster::Cluster;
use test_util::{http, wait};

use crate::fixtures::{plan, post, text};

const NODE: &str = "data-node-1";
const SOON: Duration = Duration::from_secs(20);
const POLICY: &str = include_str!("../../../config/policy.yaml");
const SEARCH: &str = "    - \"/mesh.v1.DataNode/Search\"\n";

/// The value of the series of the mesh that begins so.
fn metric(cluster: &Cluster, series: &str) -> Result<f64, String> {
    let (_, text) = http::get(&cluster.member(NODE).management, "/metrics")?;
    let line = text.lines().find(|line| line.starts_with(series)).ok_or_else(|| format!("no {series} in {text}"))?;
    line.rsplit(' ').next().unwrap_or_default().parse().map_err(|e| format!("{line}: {e}"))
}

fn is(found: f64, wanted: impl Fn(f64) -> bool) -> Result<(), String> {
    if wanted(found) { Ok(()) } else { Err(found.to_string()) }
}

#[test]
fn unfit_files_are_told_of_in_log_metrics_and_status() {
    let cluster = plan().start();
    let days = metric(&cluster, "internaltls_days_left{material=\"mesh\",certificate=\"ca\",subject=").unwrap();
    assert!(days > 300.0, "{days}");
    let bundle = cluster.mesh_certs(NODE).join("ca.pem");
    let good = fs::read_to_string(&bundle).unwrap();
    let other = fs::read_to_string(cluster.edge_certs().join("ca.pem")).unwrap();
    write_public(&bundle, &other);
    // The whole chain of causes on one line: which file and setting, whose certificate, why.
    let parts =
        ["[WARN]", "internaltls.caPemPath", "spiffe://mesh.internal/data-node/data-node-1", "no CA in our bundle"];
    wait::until("a warning in the log", SOON, || {
        let log = cluster.log(NODE);
        let told = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        if told { Ok(()) } else { Err(log) }
    });
    let differs = "internaltls_material_differs_seconds{material=\"mesh\"}";
    wait::until("seconds that count", SOON, || is(metric(&cluster, differs)?, |seconds| seconds >= 2.0));
    assert_eq!(metric(&cluster, "internaltls_last_reload_failed{material=\"mesh\"}"), Ok(1.0));
    let status = cluster.status(NODE).unwrap();
    assert!(
        status["differs_seconds"].as_u64().unwrap() >= 2 && status["last_reload"]["result"] == "failed",
        "{status}"
    );
    assert!(status["last_reload"]["reason"].as_str().unwrap().contains("no CA in our bundle"), "{status}");
    assert!(status["generation"] == 1 && status["cas"][0]["days_left"].as_i64().unwrap() > 300, "{status}");
    write_public(&bundle, &good);
    wait::until("disk and served agree", SOON, || is(metric(&cluster, differs)?, |seconds| seconds == 0.0));
    assert_eq!(metric(&cluster, "internaltls_last_reload_failed{material=\"mesh\"}"), Ok(0.0));
    assert!(cluster.log(NODE).contains("disk and served agree again"));
}

#[test]
fn a_changed_policy_file_counts_within_two_seconds() {
    let plan = plan();
    let policy = plan.dir().join("policy.yaml");
    write_public(&policy, POLICY);
    let cluster = plan.config(&format!("internaltls:\n  policyPath: {}\n", text(&policy))).start();
    let ask = |path: &str, body| post(cluster.edge(), path, &body).body;
    assert_eq!(ask("collections/create", json!({"collectionName": "policed", "dimension": 2}))["code"], 0);
    let search = || ask("entities/search", json!({"collectionName": "policed", "data": [[1.0, 0.0]], "limit": 1}));
    wait::until("a search is served", SOON, || {
        let said = search();
        if said["code"] == 0 { Ok(()) } else { Err(said.to_string()) }
    });
    assert!(POLICY.contains(SEARCH));
    write_public(&policy, &POLICY.replace(SEARCH, ""));
    let written = Instant::now();
    let refused = wait::until("a search is refused", SOON, || {
        let said = search();
        if said["code"] == 0 { Err("served") } else { Ok(said.to_string()) }
    });
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
    assert!(refused.contains("policy does not allow spiffe://mesh.internal/proxy/proxy-1 to call"), "{refused}");
    write_public(&policy, POLICY);
    wait::until("a search is served again", SOON, || {
        let said = search();
        if said["code"] == 0 { Ok(()) } else { Err(said.to_string()) }
    });
}
