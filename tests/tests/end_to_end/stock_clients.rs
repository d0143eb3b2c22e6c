//! pymilvus and curl as they come, at an edge in each of its modes.
use serde_json::json;
use test_util::cluster::Edge;

use crate::fixtures::{post, rest, run, shared};

macro_rules! in_every_mode {
    ($($test:ident = $check:ident;)*) => {
        $(mod $test {
            #[test]
            fn in_mode_0() {
                super::$check(super::shared(0).edge());
            }
            #[test]
            fn in_mode_1() {
                super::$check(super::shared(1).edge());
            }
            #[test]
            fn in_mode_2() {
                super::$check(super::shared(2).edge());
            }
        })*
    };
}

in_every_mode! {
    pymilvus_walks_the_quick_start = quick_start;
    pymilvus_uses_a_schema = schema;
    pymilvus_searches_by_each_metric = metrics;
    curl_lists_without_a_body = list_without_body;
    curl_inserts_and_searches = insert_and_search;
}

fn quick_start(edge: &Edge) {
    let seen = run(edge, "quick_setup.py", json!({"collection": "quick"}));
    assert_eq!(seen["inserted"], 10, "{seen}");
    assert_eq!(seen["got"], json!([[2, "color-2"], [7, "color-7"]]));
    assert_eq!(seen["queried"], json!([1, 2]));
    assert_eq!(seen["by_expression"], json!([4, 5]));
    assert_eq!(seen["hits"][0], json!([3, "color-3"]), "{seen}");
    assert_eq!(seen["hits"].as_array().unwrap().len(), 3);
    assert_eq!(seen["listed"], true);
    assert_eq!(seen["described"], json!(["id", "vector"]));
    assert_eq!(seen["dropped"], true);
}

fn schema(edge: &Edge) {
    let seen = run(edge, "by_schema.py", json!({"collection": "schema"}));
    assert_eq!(seen["states"], json!(["NotLoad", "Loaded", "NotLoad"]), "{seen}");
    assert_eq!(seen["inserted"], 6);
    assert_eq!(seen["hits"], json!([["k5", 5.5, 5, false], ["k4", 4.5, 4, true]]));
    assert_eq!(seen["row"], json!({"key": "k3", "price": 3.5, "stock": 3, "sold": false}));
    assert!(seen["refused"].as_str().unwrap().contains("collection not loaded"), "{seen}");
}

fn metrics(edge: &Edge) {
    let seen = run(edge, "metrics.py", json!({"collection": "metric"}));
    assert_eq!(seen["L2"], json!([[1, 1.0], [3, 2.0], [2, 5.0]]));
    assert_eq!(seen["IP"], json!([[3, 4.0], [2, 3.0], [1, 1.0]]));
    assert_eq!(seen["COSINE"][0], json!([3, 1.0]));
    assert!((seen["COSINE"][1][1].as_f64().unwrap() - 0.5_f64.sqrt()).abs() < 1e-3, "{seen}");
}

/// The line of the documentation: a GET without a body, over HTTP/2 and HTTP/1.1.
fn list_without_body(edge: &Edge) {
    let versions: &[(&str, &str)] = match edge.tls_mode {
        0 => &[("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")],
        _ => &[("--http1.1", "1.1"), ("--http2", "2")],
    };
    for (flag, version) in versions {
        let answer = rest(edge, &[flag, "-H", "Request-Timeout: 10"], "collections/list");
        assert_eq!((answer.status, answer.version.as_str()), (200, *version), "{answer:?}");
        assert_eq!(answer.body["code"], 0, "{answer:?}");
        assert!(answer.body["data"].is_array(), "{answer:?}");
    }
}

fn insert_and_search(edge: &Edge) {
    let name = json!({"collectionName": "rest"});
    post(edge, "collections/drop", &name);
    let created =
        post(edge, "collections/create", &json!({"collectionName": "rest", "dimension": 2, "metricType": "L2"}));
    assert_eq!(created.body["code"], 0, "{created:?}");
    let rows = json!([{"id": 1, "vector": [0.0, 1.0], "tag": "a"}, {"id": 2, "vector": [5.0, 5.0], "tag": "b"}]);
    let inserted = post(edge, "entities/insert", &json!({"collectionName": "rest", "data": rows}));
    assert_eq!(inserted.body["data"]["insertCount"], 2, "{inserted:?}");
    let query = json!({"collectionName": "rest", "data": [[4.0, 4.0]], "limit": 1, "outputFields": ["tag"]});
    let found = post(edge, "entities/search", &query);
    assert_eq!(found.body["data"], json!([{"id": 2, "distance": 2.0, "tag": "b"}]), "{found:?}");
    assert_eq!(post(edge, "collections/drop", &name).body["code"], 0);
}

#[test]
fn carries_sixty_megabytes_in_one_message() {
    let seen = run(shared(1).edge(), "large_message.py", json!({"collection": "large"}));
    assert_eq!(seen, json!({"inserted": 7_500, "back": 3_750, "whole": true}));
}

#[test]
fn bears_pings_of_an_idle_client() {
    let seen = run(shared(2).edge(), "idle.py", json!({}));
    assert_eq!(seen["again_within_a_second"], true);
}

#[test]
fn refuses_what_is_not_built() {
    let edge = shared(1).edge();
    let name = json!({"collectionName": "unbuilt"});
    // Many times: an answer that overtakes its request is lost on some clients, some of the time.
    for _ in 0..40 {
        let answer = post(edge, "no/such/path", &json!({}));
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    let answer = post(edge, "partitions/list", &name);
    assert_ne!(answer.body["code"], 0, "a call that is not built succeeded: {answer:?}");
}

#[test]
fn two_way_edge_wants_a_certificate() {
    let mut edge = shared(2).edge().clone();
    edge.tls_mode = 1;
    let answer = rest(&edge, &[], "collections/list");
    assert_eq!(answer.status, 0, "answered a client without a certificate: {answer:?}");
    let seen = run(&edge, "connect.py", json!({}));
    assert!(seen["error"].is_string(), "let in a client without a certificate: {seen}");
}
