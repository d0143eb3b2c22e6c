//! A network between the processes that refuses, stalls and cuts.
use std::time::Duration;

use serde_json::{Value, json};
use test_util::cluster::Edge;
use test_util::relay::Mode;
use test_util::wait;

use crate::fixtures::post;
use crate::hand::Hand;

#[test]
fn goes_on_after_faults_between_processes() {
    let running = Hand::new().with_relays().start();
    let edge = running.hand.edge();
    assert_eq!(post(&edge, "collections/create", &json!({"collectionName": "faults", "dimension": 2})).body["code"], 0);
    insert(&edge, 1).unwrap();

    running.hand.relays().for_each(|(_, relay)| relay.cut());
    wait::until("an insert after every connection was cut", Duration::from_secs(20), || insert(&edge, 2));

    let to_second = || running.hand.relays().filter(|((_, to), _)| to == "data-node-2").map(|(_, relay)| relay);
    to_second().for_each(|relay| relay.set(Mode::Refuse));
    to_second().for_each(test_util::relay::Relay::cut);
    let said =
        wait::until("an error that names the node", Duration::from_secs(20), || search(&edge).err().ok_or("served"));
    assert!(said.contains("data-node"), "{said}");

    to_second().for_each(|relay| relay.set(Mode::Forward));
    wait::until("a search after the node is back", Duration::from_secs(30), || search(&edge));
}

fn insert(edge: &Edge, id: i64) -> Result<(), String> {
    outcome(
        &post(
            edge,
            "entities/insert",
            &json!({"collectionName": "faults", "data": [{"id": id, "vector": [1.0, 0.0]}]}),
        )
        .body,
    )
}

fn search(edge: &Edge) -> Result<(), String> {
    outcome(&post(edge, "entities/search", &json!({"collectionName": "faults", "data": [[1.0, 0.0]], "limit": 1})).body)
}

fn outcome(body: &Value) -> Result<(), String> {
    if body["code"] == 0 { Ok(()) } else { Err(body.to_string()) }
}
