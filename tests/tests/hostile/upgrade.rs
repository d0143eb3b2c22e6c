//! The build before this one and this one: one cluster while nodes are replaced, and folders that are taken over.
//!
//! The build before is `meshctl` of the commit in `tests/before/commit`. BUILD_BEFORE names one that is there already; else
//! `tests/before/build` makes it. Where it cannot be had, nothing runs and the last lines say so.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use test_util::clients::post;
use test_util::cluster::{Cluster, Edge, Member, Plan};
use test_util::command::program;
use test_util::load::Load;
use test_util::process::{Process, TERMINATE, is_running, signal, tail};
use test_util::{http, wait};

use crate::fixtures::{meshctl, not_run, text};

const LONG: Duration = Duration::from_secs(60);
const BATCH: i64 = 20;

/// `meshctl` of before; made at most once.
fn before() -> Result<&'static Path, &'static str> {
    static BEFORE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = BEFORE.get_or_init(|| match std::env::var_os("BUILD_BEFORE") {
        Some(path) => Ok(path.into()),
        None => build(),
    });
    made.as_deref().map_err(String::as_str)
}

fn build() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("before/build");
    let said = program(&script).within(Duration::from_secs(900)).run();
    let path = PathBuf::from(said.out.trim());
    if said.success && path.is_file() {
        Ok(path)
    } else {
        Err(format!("tests/before/build failed: {}", said.err.trim()))
    }
}

/// Rows that were acknowledged: `id` from 0 on.
struct Rows {
    edge: Edge,
    count: i64,
}

impl Rows {
    fn create(edge: &Edge) -> Self {
        let made = post(edge, "collections/create", &json!({"collectionName": "kept", "dimension": 2}));
        assert_eq!(made.body["code"], 0, "{made:?}");
        let mut rows = Self { edge: edge.clone(), count: 0 };
        rows.more();
        rows
    }

    fn more(&mut self) {
        let data: Vec<_> = (self.count..self.count + BATCH).map(|id| json!({"id": id, "vector": [id, 1]})).collect();
        let stored = post(&self.edge, "entities/insert", &json!({"collectionName": "kept", "data": data}));
        assert_eq!(stored.body["code"], 0, "{stored:?}");
        self.count += BATCH;
    }

    /// All are there, and one more batch can be written.
    fn stay(&mut self, when: &str) {
        let ids: Vec<i64> = (0..self.count).collect();
        wait::until(&format!("all rows {when}"), LONG, || {
            let found = post(&self.edge, "entities/get", &json!({"collectionName": "kept", "id": ids}));
            let count = found.body["data"].as_array().map_or(0, Vec::len);
            if i64::try_from(count) == Ok(self.count) {
                Ok(())
            } else {
                Err(format!("{count} of {}: {found:?}", self.count))
            }
        });
        self.more();
    }
}

/// Ends the process of a node, and starts `meshctl` in its place, with the configuration that it had.
fn replace(cluster: &Cluster, member: &Member, process: &mut Option<Process>, meshctl: &Path) {
    match process.take() {
        // Of this build, or of one that took its place.
        Some(process) => drop(process),
        None => {
            signal(member.pid, TERMINATE);
            wait::until_true(&format!("the end of {}", member.node), LONG, || !is_running(member.pid));
        }
    }
    let config = cluster.dir().join("config").join(&member.node);
    let mut command = Command::new(meshctl);
    command.args(["run", &member.role, "--node", &member.node, "--config"]).arg(config);
    command.current_dir(cluster.dir()).env_remove("RUST_LOG");
    let log = cluster.dir().join("logs").join(format!("{}-next.log", member.node));
    let started = Process::spawn(&member.node, command, &log);
    *process = Some(started);
    ready(cluster, &log);
}

/// Every process says that it is ready: it reaches all others that it needs.
fn ready(cluster: &Cluster, log: &Path) {
    for member in cluster.members() {
        wait::until(&format!("{} is ready", member.node), LONG, || match http::get(&member.health, "/healthz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}\n{}\n{}", tail(log), cluster.tails())),
        });
    }
}

/// New leaves by this tool, and every connection shows them at both ends.
fn renew(cluster: &Cluster, meshctl: &Path) {
    let said = program(meshctl).args(["certs", "renew", "--dir", &text(cluster.dir())]).run();
    assert!(said.success, "{}", said.text());
    wait::until("every connection under the new leaves", LONG, || cluster.follows_disk());
}

/// Calls of every kind go on without a failure.
fn serves(load: &Load) {
    load.more_calls(30);
    let seen = load.seen();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
}

#[test]
fn rolling_upgrade_keeps_rows_and_calls() {
    let before = match before() {
        Ok(before) => before,
        Err(why) => return not_run("a rolling upgrade", why),
    };
    let this = PathBuf::from(meshctl());
    let cluster = Plan::new(before).start();
    let mut rows = Rows::create(cluster.edge());
    let order = ["data-node-1", "coordinator-1", "proxy-1", "data-node-2"];
    let mut processes: Vec<Option<Process>> = order.iter().map(|_| None).collect();
    for (nth, node) in order.iter().enumerate() {
        let member = cluster.member(node);
        replace(&cluster, member, &mut processes[nth], &this);
        let when = format!("after {node} was replaced");
        rows.stay(&when);
        // Each tool renews what both builds serve.
        renew(&cluster, if nth % 2 == 0 { before } else { &this });
        rows.stay(&format!("{when} and leaves were renewed"));
    }
    // One that went ahead goes back, and forth again.
    let member = cluster.member("data-node-1");
    for build in [before, this.as_path()] {
        replace(&cluster, member, &mut processes[0], build);
        rows.stay("after data-node-1 went back and forth");
    }
    let load = Load::start(cluster.edge());
    renew(&cluster, &this);
    serves(&load);
    load.stop().assert_no_failure();
    // `up` has ended with the last process that it started, and cluster.json with it.
    let targets = cluster.members().iter().map(|member| format!("--target={}={}", member.internal, member.role));
    let certs = text(&cluster.dir().join("certs"));
    let said = program(&this).args(["verify", "--certs", &certs]).args(targets).within(2 * LONG).run();
    assert!(said.success, "{}", said.text());
}

/// While half of the nodes are of one build and half of the other, nothing fails under load.
#[test]
fn two_builds_serve_one_load() {
    let before = match before() {
        Ok(before) => before,
        Err(why) => return not_run("a cluster of two builds", why),
    };
    let this = PathBuf::from(meshctl());
    let cluster = Plan::new(before).start();
    let mut processes = [None, None];
    replace(&cluster, cluster.member("data-node-2"), &mut processes[0], &this);
    replace(&cluster, cluster.member("proxy-1"), &mut processes[1], &this);
    let load = Load::start(cluster.edge());
    for tool in [before, &this] {
        renew(&cluster, tool);
        serves(&load);
    }
    load.stop().assert_no_failure();
    let said = program(&this).args(["status", "--dir", &text(cluster.dir())]).run();
    assert!(said.success, "{}", said.text());
}

/// What `up` left behind is what the next build starts with: certificates, configuration and rows.
#[test]
fn folders_of_before_are_taken_over() {
    let before = match before() {
        Ok(before) => before,
        Err(why) => return not_run("a folder that is taken over", why),
    };
    let folder = tempfile::TempDir::with_prefix("taken-over-").unwrap();
    let mut cluster = Plan::new(before).in_folder(folder.path()).tls_mode(2).start();
    let mut rows = Rows::create(cluster.edge());
    assert!(cluster.stop().success(), "{}", cluster.tails());
    drop(cluster);
    for (turn, build) in [PathBuf::from(meshctl()), before.into(), meshctl().into()].iter().enumerate() {
        let mut cluster = Plan::new(build).in_folder(folder.path()).tls_mode(2).start();
        rows.edge = cluster.edge().clone();
        rows.stay(&format!("at start {turn} after the folder was made"));
        renew(&cluster, build);
        assert!(cluster.stop().success(), "{}", cluster.tails());
    }
}
