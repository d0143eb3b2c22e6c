//! The three binaries, each started by hand with a configuration of its own.
use std::time::Duration;

use serde_json::json;

use crate::fixtures::run;
use crate::hand::Hand;

#[test]
fn three_binaries_make_a_cluster() {
    let mut running = Hand::new().start();
    let seen = run(&running.hand.edge(), "quick_setup.py", json!({"collection": "by_hand"}));
    assert_eq!(seen["inserted"], 10, "{seen}");
    for process in running.processes.iter_mut().rev() {
        process.terminate();
        assert_eq!(process.wait(Duration::from_secs(40)).code(), Some(0), "{}", process.log());
    }
}
