//! Every command of README.md, run.
use std::path::Path;
use std::time::Duration;

use test_util::command::program;

use crate::fixtures::{MESHCTL, here, plan, text};

/// `cargo mesh` is the binary under test, and the ports are free ones; all else is as written.
#[test]
fn every_command_works_as_written() {
    let readme = std::fs::read_to_string(here().join("../README.md")).unwrap();
    let blocks = shell_blocks(&readme);
    assert_eq!(blocks.first().map(|block| block.trim()), Some("cargo mesh up"), "the first block starts a cluster");
    assert!(blocks.len() > 4, "README.md has lost its commands: {blocks:#?}");
    let folder = tempfile::TempDir::with_prefix("readme-").unwrap();
    let dir = folder.path().join(".mesh");
    std::fs::create_dir(&dir).unwrap();
    let cluster = plan().in_folder(&dir).start();
    for block in &blocks[1..] {
        let edge = cluster.edge();
        let block = block.replace("localhost:19530", &edge.grpc).replace("localhost:8080", &edge.rest);
        run(&block, folder.path());
    }
}

fn run(block: &str, folder: &Path) {
    let script = format!("set -eu\ncargo() {{ shift; '{MESHCTL}' \"$@\"; }}\n{block}");
    let said = program("bash").args(["-c", &script]).folder(folder).within(Duration::from_secs(180)).run();
    assert!(said.success, "in {}:\n{block}\nsaid:\n{}", text(folder), said.text());
    assert!(!said.out.contains("\"code\":1"), "{block}\nanswered:\n{}", said.out);
}

fn shell_blocks(readme: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in readme.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    blocks
}
