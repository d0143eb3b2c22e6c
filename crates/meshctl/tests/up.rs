//! `up` where it cannot: what it says, and that it leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn meshctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl")).args(args).output().unwrap()
}

fn refused(dir: &Path, more: &[&str]) -> String {
    let given = ["up", "--dir", dir.to_str().unwrap(), "--free-ports"];
    let output = meshctl(&given.iter().chain(more).copied().collect::<Vec<_>>());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!dir.join("cluster.json").exists());
    text
}

#[test]
fn port_in_use_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let text = refused(dir.path(), &["--port", &port]);
    assert!(text.starts_with(&format!("error: port {port} (clients) is in use; stop what uses it")), "{text}");
    assert!(!dir.path().join("certs").exists(), "nothing is made for a cluster that cannot start");
}

#[test]
fn folder_of_a_living_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("up.pid");
    fs::write(&pid, "4711\n").unwrap();
    let held = File::open(&pid).unwrap();
    held.lock().unwrap();
    let text = refused(dir.path(), &[]);
    assert!(text.contains("a cluster is up in") && text.contains("kill 4711") && text.contains("--dir"), "{text}");
}

#[test]
fn file_in_place_of_the_folder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let text = refused(&file, &[]);
    assert!(text.contains("could not write") && text.contains("--dir"), "{text}");
}

#[test]
fn configuration_that_does_not_fit_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mine.yaml");
    fs::write(&config, "internaltls: { trustDomian: example.org }\n").unwrap();
    let text = refused(&dir.path().join("mesh"), &["--config", config.to_str().unwrap()]);
    assert!(text.contains("trustDomian") && text.contains("trustDomain"), "{text}");
}

#[test]
fn process_that_dies_at_start_shows_why_and_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    assert!(meshctl(&["certs", "init", "--out", certs.to_str().unwrap()]).status.success());
    for node in ["proxy-1", "coordinator-1", "data-node-1", "data-node-2"] {
        fs::copy(certs.join("mesh/operator-1/server.key"), certs.join("mesh").join(node).join("server.key")).unwrap();
    }
    let text = refused(dir.path(), &[]);
    assert!(text.contains("ended while it started") && text.contains(".log"), "{text}");
    assert!(text.contains("is not the key of the leaf"), "the end of the log is shown: {text}");
    File::open(dir.path().join("up.pid")).unwrap().try_lock().unwrap();
}

#[test]
fn half_of_the_certificates_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    assert!(meshctl(&["certs", "init", "--out", certs.to_str().unwrap()]).status.success());
    fs::remove_dir_all(certs.join("edge")).unwrap();
    let text = refused(dir.path(), &[]);
    assert!(text.contains("has mesh certificates but none for edge"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [["up", "--tls-mode=3"], ["up", "--data-nodes=0"], ["certs", "renew"], ["verify", "--target=nonsense"]]
    {
        let code = meshctl(&args).status.code();
        let expected = if args == ["certs", "renew"] { 1 } else { 2 };
        assert_eq!(code, Some(expected), "{args:?}");
    }
}

#[test]
fn every_command_teaches_with_an_example() {
    let commands = [
        vec!["up"],
        vec!["run"],
        vec!["status"],
        vec!["verify"],
        vec!["certs", "init"],
        vec!["certs", "renew"],
        vec!["certs", "check"],
    ];
    for mut command in commands {
        command.push("--help");
        let output = meshctl(&command);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Example:\n  meshctl "), "{command:?}");
    }
}
