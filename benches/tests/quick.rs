//! The quick run, as CI smokes it: that it works and what shape its results have, not how fast anything is.
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_mesh-bench");
const NUMBERS: [&str; 8] =
    ["calls_per_s", "p50_us", "p99_us", "p999_us", "cpu_s_per_100k", "mb_per_s", "cpu_ratio", "noise"];

#[test]
fn quick_run_ends_within_a_minute_with_every_figure() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let began = Instant::now();
    let said = Command::new(BENCH)
        .args(["--quick", "--dir"])
        .arg(folder.path().join("run"))
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    assert!(began.elapsed() < Duration::from_secs(60), "took {:.0?}", began.elapsed());
    let figures: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let of = |name: &str| figures.iter().filter(|figure| figure["variant"] == name).count();
    assert_eq!((figures.len(), of("tonic"), of("tonic-again"), of("mesh")), (9, 3, 3, 3), "{text}");
    for figure in &figures {
        for number in NUMBERS {
            assert!(figure[number].as_f64().is_some_and(|n| n.is_finite()), "{number}: {figure}");
        }
        assert!(figure["calls_per_s"].as_f64() > Some(0.0), "{figure}");
    }
    let page = std::fs::read_to_string(html).unwrap();
    assert_eq!((page.matches("<section>").count(), page.matches("<polyline").count()), (3, 9));
    assert!(!page.contains("http://") && !page.contains("https://"), "the page needs nothing else");
}

#[test]
fn every_scenario_works_over_every_variant_that_needs_no_other_program() {
    // A window in which no call ends proves nothing, and on a busy machine a short one may be such: then a longer one.
    for seconds in ["0.2", "1", "5"] {
        let folder = tempfile::tempdir().unwrap();
        let said = Command::new(BENCH)
            .args(["--rounds", "1", "--seconds", seconds, "--dir"])
            .arg(folder.path())
            .args(["--variant", "tonic,tonic-tls,plain,mesh,mesh-shared,mesh-lanes,bare,bare-classic,bare-resumed"])
            .output()
            .unwrap();
        let (text, error) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if said.status.success() {
            return;
        }
        assert!(seconds != "5" && error.contains("no call ended within"), "{text}{error}");
    }
}

#[test]
fn what_is_not_known_is_refused_with_the_way_to_the_names() {
    for wrong in [["--scenario", "nothing"], ["--variant", "nothing"]] {
        let said = Command::new(BENCH).args(wrong).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && text.contains("nothing"), "{text}");
    }
}
