//! Clusters, and the tool at work on them.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use test_util::cluster::{Cluster, Plan};
use test_util::command::{Run, Said};
use test_util::process::Process;
use test_util::wait;

pub(crate) const MESHCTL: &str = env!("CARGO_BIN_EXE_mesh-under-test");
/// For what is quick on an idle machine; only a hang is to reach it.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// A cluster of one coordinator, one data-node and one proxy.
pub(crate) fn plan() -> Plan {
    Plan::new(MESHCTL).args(&["--data-nodes", "1"])
}

/// Says what a run did not prove, past the harness, which shows nothing of a test that passes.
pub(crate) fn not_run(what: &str, why: &str) {
    use std::io::Write;
    let line = format!("\nrotation: NOT RUN, and nothing said of {what}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// `path` as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `meshctl ca rotate`, run to its end.
pub(crate) fn rotate(cluster: &Cluster, more: &[&str]) -> Said {
    rotation(cluster).args(more).run()
}

/// The same, that must succeed.
pub(crate) fn rotated(cluster: &Cluster) -> Said {
    let said = rotate(cluster, &[]);
    assert!(said.success, "{}\n{}", said.text(), cluster.tails());
    said
}

fn rotation(cluster: &Cluster) -> Run {
    cluster.meshctl(&["ca", "rotate", "--dir", &text(cluster.dir())]).within(2 * LONG)
}

/// `meshctl ca rotate` until it has said `line`.
pub(crate) fn rotate_until(cluster: &Cluster, more: &[&str], line: &str) -> Process {
    let mut command = Command::new(MESHCTL);
    command.args(["ca", "rotate", "--wait", "10m", "--dir"]).arg(cluster.dir()).args(more);
    let mut tool = Process::spawn("meshctl ca rotate", command, &cluster.dir().join("rotate.log"));
    wait::until(&format!("the tool says {line}"), LONG, || {
        let said = tool.log();
        if said.contains(line) || tool.ended().is_some() { Ok(()) } else { Err(said) }
    });
    tool
}
