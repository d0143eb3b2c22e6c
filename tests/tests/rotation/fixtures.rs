//! Clusters, and the tool at work on them.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meshctl::ca::bundle::Bundle;
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

/// The CAs of a file.
pub(crate) fn bundle(path: &Path) -> Bundle {
    Bundle::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The one CA that signs.
pub(crate) fn signer(cluster: &Cluster) -> String {
    bundle(&cluster.dir().join("certs/mesh/ca.pem")).signer().to_owned()
}

/// The CAs that a node serves.
pub(crate) fn served(cluster: &Cluster, node: &str) -> Vec<String> {
    let status = cluster.status(node).unwrap();
    let cas = status["cas"].as_array().unwrap();
    cas.iter().map(|ca| ca["sha256"].as_str().unwrap().to_owned()).collect()
}

/// Every bundle on disk and in use is of this CA alone, and every connection of leaves that it signed.
pub(crate) fn is_of(cluster: &Cluster, ca: &str) {
    for member in cluster.members() {
        assert_eq!(served(cluster, &member.node), [ca], "served by {}", member.node);
        let on_disk = bundle(&cluster.mesh_certs(&member.node).join("ca.pem"));
        assert_eq!(on_disk.fingerprints(), [ca], "on disk of {}", member.node);
    }
    wait::until("every connection of the leaves on disk", LONG, || cluster.follows_disk());
    assert_eq!(bundle(&cluster.mesh_certs("operator-1").join("ca.pem")).fingerprints(), [ca]);
    assert!(!under_way(cluster), "the roll-over's folder is left over");
}

/// Whether a roll-over has begun and not ended.
pub(crate) fn under_way(cluster: &Cluster) -> bool {
    cluster.dir().join("ca-rotation").exists()
}

/// The number that a variable of the environment gives.
pub(crate) fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// A walk's seed, its length, and the variable that gives the length. Says which walk it was, when it fails.
pub(crate) struct Seed(pub(crate) u64, pub(crate) usize, pub(crate) &'static str);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the walk of {}={} ROTATION_SEED={} failed", self.2, self.1, self.0);
        }
    }
}
