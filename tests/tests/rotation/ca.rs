//! `meshctl ca rotate` on a running cluster.
use std::fs;
use std::path::Path;
use std::time::Duration;

use meshctl::ca::journal::Journal;
use meshctl::certs::authority::{Authority, KeyKind};
use meshctl::certs::folder::{self, NewFile};
use test_util::cluster::Cluster;
use test_util::command::{Said, program};
use test_util::load::Load;
use test_util::process::{CONTINUE, INTERRUPT, KILL, STOP, signal};
use test_util::wait;

use crate::fixtures::{
    LONG, MESHCTL, bundle, is_of, plan, rotate, rotate_until, rotated, served, signer, text, under_way,
};

/// How long the tool may wait where it is meant to give up.
const SHORT: [&str; 2] = ["--wait", "3s"];

#[test]
fn roll_overs_cost_no_call() {
    let cluster = plan().start();
    let load = Load::start(cluster.edge());
    for _ in 0..2 {
        let old = signer(&cluster);
        let said = rotated(&cluster);
        for step in 1..=6 {
            assert!(said.out.contains(&format!("[{step}/6]")), "step {step}: {}", said.text());
        }
        assert_ne!(signer(&cluster), old);
        is_of(&cluster, &signer(&cluster));
        assert!(load.seen().failures.is_empty(), "{:#?}\n{}", load.seen(), cluster.tails());
    }
    load.more_calls(20);
    load.stop().assert_no_failure();
    let renewed = cluster.meshctl(&["certs", "renew", "--dir", &text(cluster.dir())]).run();
    assert!(renewed.success, "the new CA signs: {}", renewed.text());
    wait::until("every connection of renewed leaves", LONG, || cluster.follows_disk());
}

/// SIGKILL at each step; every run goes on with what the last one left.
#[test]
fn a_killed_tool_goes_on_where_it_stopped() {
    let cluster = plan().start();
    let load = Load::start(cluster.edge());
    let old = signer(&cluster);
    for step in 1..=6 {
        let mut tool = rotate_until(&cluster, &[], &format!("[{step}/6]"));
        tool.kill();
        tool.wait(LONG);
    }
    if under_way(&cluster) {
        let said = rotated(&cluster);
        assert!(said.out.contains("going on with the roll-over"), "{}", said.text());
    }
    assert_ne!(signer(&cluster), old);
    is_of(&cluster, &signer(&cluster));
    load.more_calls(20);
    load.stop().assert_no_failure();
}

/// A node that is stopped half-way: nobody goes on past it; Ctrl-C ends the wait; when it is back the same command ends it.
#[test]
fn nobody_goes_on_past_a_node_that_is_behind() {
    let cluster = plan().start();
    let pid = cluster.member("data-node-1").pid;
    begin(&cluster);
    signal(pid, STOP);
    let said = rotate(&cluster, &SHORT);
    assert_eq!(said.code, Some(1), "{}", said.text());
    for part in ["data-node-1 does not tell its status", "start it again", "goes on from here"] {
        assert!(said.err.contains(part), "{part}: {}", said.text());
    }
    let mut tool = rotate_until(&cluster, &[], "waiting for data-node-1");
    signal(tool.pid(), INTERRUPT);
    assert_eq!(tool.wait(LONG).code(), Some(1));
    assert!(tool.log().contains("interrupted"), "{}", tool.log());
    signal(pid, CONTINUE);
    let said = rotated(&cluster);
    assert!(said.out.contains("going on with"), "{}", said.text());
    is_of(&cluster, &signer(&cluster));
}

/// As a tool leaves it that is killed before its first step.
fn begin(cluster: &Cluster) {
    let new = Authority::create("the next CA", KeyKind::EcP256, time::OffsetDateTime::now_utc()).unwrap();
    Journal::begin(cluster.dir(), &bundle(&cluster.dir().join("certs/mesh/ca.pem")), &new).unwrap();
}

#[test]
fn a_cluster_that_is_not_in_order_is_left_alone() {
    let cluster = plan().start();
    let before = bundle(&cluster.mesh_certs("proxy-1").join("ca.pem"));
    signal(cluster.member("data-node-1").pid, KILL);
    let said = rotate(&cluster, &SHORT);
    assert_eq!(said.code, Some(1), "{}", said.text());
    assert!(said.err.contains("nothing was changed") && said.err.contains("data-node-1"), "{}", said.text());
    assert!(!under_way(&cluster));
    assert_eq!(bundle(&cluster.mesh_certs("proxy-1").join("ca.pem")), before);
}

/// Every write fails as on a full disk (a limit on the size of files, with the signal for it ignored): first from the
/// beginning, then in the middle of the steps. What is served stays as it is, and with room the same command ends it.
#[test]
fn a_full_disk_stops_the_tool_and_nothing_else() {
    let cluster = plan().start();
    let load = Load::start(cluster.edge());
    let before = signer(&cluster);
    let said = rotate_on_full_disk(&cluster);
    assert!(!said.success && said.text().contains("the disk has room"), "{}", said.text());
    assert!(!under_way(&cluster), "half a roll-over is left");
    begin(&cluster);
    let said = rotate_on_full_disk(&cluster);
    assert!(!said.success && said.text().contains("goes on from here"), "{}", said.text());
    for member in cluster.members() {
        assert_eq!(served(&cluster, &member.node), [before.as_str()]);
    }
    rotated(&cluster);
    is_of(&cluster, &signer(&cluster));
    load.more_calls(20);
    load.stop().assert_no_failure();
}

fn rotate_on_full_disk(cluster: &Cluster) -> Said {
    let script = r#"set -o pipefail; (trap '' XFSZ; ulimit -f 0; exec "$0" ca rotate --dir "$1") 2>&1 | cat"#;
    program("bash").args(["-c", script, MESHCTL, &text(cluster.dir())]).within(2 * LONG).run()
}

/// Every file of the mesh replaced at once by another CA's, as when the set is made again: each process holds that back and
/// names the way out. The tool goes it, killed once on the way, and no call fails.
#[test]
fn a_replaced_set_is_adopted() {
    let cluster = plan().start();
    let load = Load::start(cluster.edge());
    let (old, root) = (signer(&cluster), cluster.dir().join("certs/mesh"));
    let made = cluster.dir().join("made-again");
    let said = cluster.meshctl(&["certs", "init", "--out", &text(&made), "--data-nodes", "1"]).run();
    assert!(said.success, "{}", said.text());
    for member in cluster.members() {
        take_over(
            &made.join("mesh").join(&member.node),
            &root.join(&member.node),
            &["server.key", "ca.pem", "server.pem"],
        );
    }
    take_over(&made.join("mesh"), &root, &["ca.key", "ca.pem"]);
    for member in cluster.members() {
        wait::until(&format!("{} holds the set back", member.node), LONG, || {
            let status = cluster.status(&member.node)?;
            let reason = status["last_reload"]["reason"].as_str().unwrap_or_default();
            let told =
                reason.contains("ca rotate") && reason.contains("--adopt") && status["held"]["force"].is_string();
            if told { Ok(()) } else { Err(status.to_string()) }
        });
        assert_eq!(served(&cluster, &member.node), [old.as_str()]);
    }
    load.more_calls(10);
    let certs = text(&cluster.dir().join("certs"));
    let mut tool = rotate_until(&cluster, &["--adopt", &certs], "[2/6]");
    tool.kill();
    tool.wait(LONG);
    rotated(&cluster);
    assert_ne!(signer(&cluster), old);
    is_of(&cluster, &signer(&cluster));
    load.more_calls(20);
    load.stop().assert_no_failure();
}

fn take_over(from: &Path, to: &Path, names: &[&str]) {
    let files = names.iter().map(|name| {
        let text = fs::read_to_string(from.join(name)).unwrap();
        if name.ends_with(".key") { NewFile::secret(name, &text) } else { NewFile::public(name, &text) }
    });
    folder::replace(to, files.collect(), time::OffsetDateTime::now_utc()).unwrap();
}

/// A CA that is none, and one whose roll-over is not the one under way.
#[test]
fn what_cannot_be_adopted_changes_nothing() {
    let cluster = plan().start();
    let before = signer(&cluster);
    let said = rotate(&cluster, &["--adopt", &text(&cluster.dir().join("config"))]);
    assert!(!said.success && said.err.contains("there is no CA to adopt"), "{}", said.text());
    let said = rotate(&cluster, &["--adopt", &text(&cluster.dir().join("certs"))]);
    assert!(!said.success && said.err.contains("serves no CA but the one to adopt"), "{}", said.text());
    assert!(!under_way(&cluster));
    begin(&cluster);
    let said = rotate(&cluster, &["--adopt", &text(&cluster.dir().join("certs"))]);
    assert!(!said.success && said.err.contains("end it first"), "{}", said.text());
    assert_eq!(signer(&cluster), before);
}

/// Where revocation lists are read, a CA without one vouches for nobody: the new one brings its own.
#[test]
fn a_new_ca_brings_its_revocation_list() {
    let plan = plan();
    let (now, crls) = (time::OffsetDateTime::now_utc(), plan.dir().join("crls"));
    let made = plan.meshctl(&["certs", "init", "--out", "certs", "--data-nodes", "1"]).run();
    assert!(made.success, "{}", made.text());
    let authority = Authority::load(&plan.dir().join("certs/mesh"), now).unwrap();
    fs::create_dir(&crls).unwrap();
    fs::write(crls.join("first.pem"), authority.empty_crl(Duration::from_secs(86_400), now).unwrap()).unwrap();
    let cluster = plan.config(&format!("internaltls:\n  crlPath: {}\n", text(&crls))).start();
    let load = Load::start(cluster.edge());
    for _ in 0..2 {
        rotated(&cluster);
        is_of(&cluster, &signer(&cluster));
    }
    let lists = fs::read_dir(&crls).unwrap().count();
    assert_eq!(lists, 2, "the operator's, and that of the CA of now");
    load.more_calls(20);
    load.stop().assert_no_failure();
}
