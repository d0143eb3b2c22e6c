//! A search over real data, against brute force.
use serde_json::json;

use crate::fixtures::{here, run, shared};

#[test]
fn finds_exact_neighbours_of_digits() {
    let file = here().join("data/digits.csv.gz");
    let seen = run(shared(1).edge(), "digits.py", json!({"collection": "digits", "file": file}));
    assert_eq!(seen["rows"], 1_797);
    assert_eq!(seen["wrong"], json!([]));
    assert!(seen["alike"].as_f64().unwrap() > 0.9, "neighbours are of other digits: {seen}");
}
