//! What travels between processes, recorded.
use serde_json::json;
use test_util::cluster::Edge;

use crate::fixtures::post;
use crate::hand::{Hand, Running};

const MARKER: &str = "quince-marmalade-1887";
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

#[test]
fn nothing_internal_travels_in_the_clear() {
    let running = Hand::new().with_relays().start();
    store_and_read(&running.hand.edge());
    let used: Vec<_> = running.hand.relays().filter(|(_, relay)| !relay.records().concat().is_empty()).collect();
    for (from, to) in
        [("proxy", "coordinator"), ("proxy", "data-node"), ("data-node", "coordinator"), ("coordinator", "data-node")]
    {
        let way = used.iter().any(|((f, t), _)| f.starts_with(from) && t.starts_with(to));
        assert!(way, "nothing went from {from} to {to}: the recording proves nothing");
    }
    for ((from, to), relay) in used {
        for clear in [MARKER.as_bytes(), PREFACE, b"mesh.v1"] {
            assert!(!relay.saw(clear), "{from} to {to}: {} in the clear", String::from_utf8_lossy(clear));
        }
    }
}

/// The control: the same recording sees everything once internal TLS is off.
#[test]
fn recording_sees_plaintext() {
    let running = Hand::new().in_plaintext().with_relays().start();
    store_and_read(&running.hand.edge());
    assert!(seen(&running, MARKER.as_bytes()), "the marker was not recorded");
    assert!(seen(&running, PREFACE), "the preface was not recorded");
}

fn seen(running: &Running, needle: &[u8]) -> bool {
    running.hand.relays().any(|(_, relay)| relay.saw(needle))
}

fn store_and_read(edge: &Edge) {
    let made = post(edge, "collections/create", &json!({"collectionName": "wire", "dimension": 2}));
    assert_eq!(made.body["code"], 0, "{made:?}");
    let rows: Vec<_> = (0..8).map(|id| json!({"id": id, "vector": [1.0, 0.5], "note": MARKER})).collect();
    let stored = post(edge, "entities/insert", &json!({"collectionName": "wire", "data": rows}));
    assert_eq!(stored.body["code"], 0, "{stored:?}");
    let ids: Vec<_> = (0..8).collect();
    let read = post(edge, "entities/get", &json!({"collectionName": "wire", "id": ids, "outputFields": ["note"]}));
    assert_eq!(read.body["data"].as_array().map(Vec::len), Some(8), "{read:?}");
    assert_eq!(read.body["data"][0]["note"], MARKER, "{read:?}");
}
