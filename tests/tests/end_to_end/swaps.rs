//! Certificates replaced on disk while calls go on.
//!
//! No call may fail, in whatever way and at whatever pace files are replaced; what is served is in the end what is on disk.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use test_util::authority::{Authority, Leaf, plain_serial, serial_of_file, write_public, write_secret};
use test_util::cluster::{Cluster, Plan, follow};
use test_util::disk::{Chain, Set, Volume, plain};
use test_util::load::Load;
use test_util::{tls, wait};

use crate::fixtures::{argument, plan, python, text};
use crate::hand::{Hand, NODES};

/// How soon a new leaf must be served.
const SERVED: Duration = Duration::from_secs(2);
/// How soon every connection must be a new one. Running calls may hold an old one for a while.
const DRAINED: Duration = Duration::from_secs(20);
const SWAPS: usize = 20;

#[test]
fn a_hundred_renewals_cost_no_call() {
    let cluster = plan().start();
    let load = Load::start(cluster.edge());
    for _ in 0..100 {
        renew(&cluster);
        serves_new_leaves(&cluster);
        wait::until("every connection under the new leaves", DRAINED, || cluster.follows_disk());
        assert!(load.seen().failures.is_empty(), "{:#?}\n{}", load.seen(), cluster.tails());
    }
    load.more_calls(20);
    let report = load.stop();
    report.assert_no_failure();
    assert!(report.dials > report.calls / 3, "too few calls dialled anew: {report:?}");
}

fn renew(cluster: &Cluster) {
    let said = cluster.meshctl(&["certs", "renew", "--dir", &text(cluster.dir())]).run();
    assert!(said.success, "{}", said.text());
}

/// From the moment the files lie there, at every node and at the edge.
fn serves_new_leaves(cluster: &Cluster) {
    let start = Instant::now();
    let left = || SERVED.saturating_sub(start.elapsed());
    for member in cluster.members() {
        let wanted = serial_of_file(&cluster.mesh_certs(&member.node).join("server.pem"));
        wait::until(&format!("the new leaf of {}", member.node), left(), || {
            let status = cluster.status(&member.node)?;
            let served = plain_serial(status["leaf"]["serial"].as_str().unwrap_or_default());
            if served == wanted { Ok(()) } else { Err(format!("{served}, wanted {wanted}; {}", status["last_reload"])) }
        });
    }
    let wanted = serial_of_file(&cluster.edge_certs().join("server.pem"));
    let credentials = cluster.edge().credentials().unwrap();
    wait::until("the new leaf of the edge", left(), || {
        let served = tls::served_serial(&cluster.edge().grpc, &credentials)?;
        if served == wanted { Ok(()) } else { Err(format!("{served}, wanted {wanted}")) }
    });
}

#[test]
fn pymilvus_notices_no_renewal() {
    let cluster = plan().tls_mode(2).start();
    let (started, until) = (cluster.dir().join("started"), cluster.dir().join("stop"));
    let argument = argument(cluster.edge(), json!({"collection": "steady", "started": started, "until": until}));
    let seen = std::thread::scope(|scope| {
        let client = scope.spawn(|| python().run("steady.py", &argument));
        wait::until_true("pymilvus calls", Duration::from_secs(120), || started.exists() || client.is_finished());
        for _ in 0..5 {
            renew(&cluster);
            wait::until("every connection under the new leaves", DRAINED, || cluster.follows_disk());
        }
        std::fs::write(&until, "").unwrap();
        client.join().unwrap()
    });
    assert_eq!(seen["errors"], json!([]));
    assert!(seen["calls"].as_u64().unwrap() > 5, "{seen}");
}

#[test]
fn kubernetes_volumes_swap_under_load() {
    let (plan, issuers) = (plan(), Issuers::new());
    let create = |(folder, leaf): (PathBuf, Leaf)| (Volume::create(&folder, &issuers.set(&leaf)), leaf);
    let mut volumes: Vec<_> = issuers.lay_out(plan.dir()).into_iter().map(create).collect();
    under_load(plan, |_| volumes.iter_mut().for_each(|(volume, leaf)| volume.swap(&issuers.set(leaf))));
}

#[test]
fn chained_symlinks_swap_under_load() {
    let (plan, issuers) = (plan(), Issuers::new());
    let create = |(folder, leaf): (PathBuf, Leaf)| (Chain::create(&folder, &issuers.set(&leaf)), leaf);
    let mut chains: Vec<_> = issuers.lay_out(plan.dir()).into_iter().map(create).collect();
    under_load(plan, |_| chains.iter_mut().for_each(|(chain, leaf)| chain.swap(&issuers.set(leaf))));
}

#[test]
fn certificates_are_copied_before_keys() {
    let (plan, issuers) = (plan(), Issuers::new());
    let folders = issuers.lay_out(plan.dir());
    folders.iter().for_each(|(folder, leaf)| plain::create(folder, &issuers.set(leaf)));
    under_load(plan, |_| {
        for (folder, leaf) in &folders {
            let set = issuers.set(leaf);
            plain::certificate(folder, &set);
            plain::key(folder, &set);
        }
    });
}

/// As `openssl` does it when the documented renewal runs: the key is there, half a second later the certificate is emptied,
/// then written. In between the old pair is served.
#[test]
fn keys_are_written_before_certificates() {
    let (plan, issuers) = (plan(), Issuers::new());
    let folders = issuers.lay_out(plan.dir());
    folders.iter().for_each(|(folder, leaf)| plain::create(folder, &issuers.set(leaf)));
    under_load(plan, |cluster| {
        let sets: Vec<_> = folders.iter().map(|(folder, leaf)| (folder, issuers.set(leaf))).collect();
        sets.iter().for_each(|(folder, set)| plain::key(folder, set));
        let credentials = cluster.edge().credentials().unwrap();
        wait::throughout("the edge serves", Duration::from_millis(500), || {
            tls::served_serial(&cluster.edge().grpc, &credentials).map(drop)
        });
        sets.iter().for_each(|(folder, _)| plain::truncate(folder));
        sets.iter().for_each(|(folder, set)| plain::certificate(folder, set));
    });
}

#[test]
fn broken_files_change_nothing() {
    let (plan, issuers) = (plan(), Issuers::new());
    let folders = issuers.lay_out(plan.dir());
    folders.iter().for_each(|(folder, leaf)| plain::create(folder, &issuers.set(leaf)));
    let cluster = plan.start();
    let load = Load::start(cluster.edge());
    let before = generations(&cluster);
    for (folder, _) in &folders {
        write_public(&folder.join("server.pem"), "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    }
    for member in cluster.members() {
        let path = text(&cluster.mesh_certs(&member.node).join("server.pem"));
        wait::until(&format!("{} tells of the broken file", member.node), Duration::from_secs(10), || {
            let last = cluster.status(&member.node)?["last_reload"].clone();
            let told = last["result"] == "failed" && last["reason"].as_str().is_some_and(|text| text.contains(&path));
            if told { Ok(()) } else { Err(last.to_string()) }
        });
    }
    load.more_calls(40);
    assert_eq!(generations(&cluster), before, "a broken set was published");
    for (folder, leaf) in &folders {
        let set = issuers.set(leaf);
        plain::key(folder, &set);
        plain::certificate(folder, &set);
    }
    wait::until("every connection under the mended set", DRAINED, || cluster.follows_disk());
    load.stop().assert_no_failure();
}

fn generations(cluster: &Cluster) -> Vec<u64> {
    let of = |node: &str| cluster.status(node).unwrap()["generation"].as_u64().unwrap();
    cluster.members().iter().map(|member| of(&member.node)).collect()
}

#[test]
fn poll_alone_sees_a_swap() {
    let config = "internaltls:\n  reload:\n    watch: false\n    pollSeconds: 1\n";
    let cluster = plan().config(config).start();
    let load = Load::start(cluster.edge());
    for _ in 0..3 {
        renew(&cluster);
        wait::until("every connection under the new leaves", DRAINED, || cluster.follows_disk());
    }
    load.stop().assert_no_failure();
}

/// All nodes share one pair; the files of one of them come later than those of the others.
#[test]
fn one_node_of_a_shared_layout_is_late() {
    let late = Duration::from_secs(30);
    let hand = Hand::new().internaltls(&["sni: localhost"]);
    let authority = Authority::new("shared CA");
    let leaf = Leaf::nameless("localhost").dns("localhost");
    let new_set = || Set { pair: authority.sign(&leaf), ca: authority.cert().into() };
    let first = new_set();
    for (_, node) in NODES {
        std::fs::remove_dir_all(hand.certs(node)).unwrap();
        plain::create(&hand.certs(node), &first);
    }
    let running = hand.start();
    let hand = &running.hand;
    let load = Load::start(&hand.edge());
    let second = new_set();
    let write = |node| {
        plain::key(&hand.certs(node), &second);
        plain::certificate(&hand.certs(node), &second);
    };
    ["coordinator-1", "data-node-1", "proxy-1"].into_iter().for_each(write);
    wait::throughout("calls go on while one node is late", late, || match load.seen().failures.first() {
        None => Ok(()),
        Some(failure) => Err(failure.clone()),
    });
    write("data-node-2");
    let leaf = |node: &str| hand.certs(node).join("server.pem");
    let edge_leaf = hand.dir().join("certs/edge/server.pem");
    wait::until("every connection under the new pair", DRAINED, || {
        follow(hand.members(), &hand.edge(), &leaf, &edge_leaf)
    });
    load.stop().assert_no_failure();
}

/// Starts `plan`, swaps without waiting in between, and wants everything served in the end and no call lost.
fn under_load(plan: Plan, mut swap: impl FnMut(&Cluster)) {
    let cluster = plan.start();
    let load = Load::start(cluster.edge());
    for _ in 0..SWAPS {
        swap(&cluster);
        assert!(load.seen().failures.is_empty(), "{:#?}\n{}", load.seen(), cluster.tails());
    }
    wait::until("every connection under the last leaves", DRAINED, || cluster.follows_disk());
    load.more_calls(20);
    load.stop().assert_no_failure();
}

/// The two authorities of a cluster whose files the test lays out itself.
struct Issuers {
    mesh: Authority,
    edge: Authority,
}

impl Issuers {
    fn new() -> Self {
        Self { mesh: Authority::new("mesh CA"), edge: Authority::new("edge CA") }
    }

    /// Writes what is not swapped, and gives each folder to be swapped with what its leaf says.
    fn lay_out(&self, dir: &Path) -> Vec<(PathBuf, Leaf)> {
        let (mesh, edge) = (dir.join("certs/mesh"), dir.join("certs/edge"));
        write_public(&mesh.join("ca.pem"), self.mesh.cert());
        write_secret(&mesh.join("ca.key"), &self.mesh.key());
        self.edge.sign(&Leaf::edge_client()).write(&edge, "client");
        let nodes = NODES.iter().map(|(role, node)| (mesh.join(node), Leaf::node(role, node)));
        nodes.chain([(edge, Leaf::edge_server())]).collect()
    }

    fn set(&self, leaf: &Leaf) -> Set {
        let issuer = if leaf.is_of_edge() { &self.edge } else { &self.mesh };
        Set { pair: issuer.sign(leaf), ca: issuer.cert().into() }
    }
}
