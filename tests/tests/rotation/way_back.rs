//! All leaves have expired and no node reaches another: new files are enough.
use std::time::{Duration, Instant};

use test_util::cluster::Cluster;
use test_util::process::is_running;
use test_util::wait;

use crate::fixtures::{LONG, plan, text};

/// Nothing but the poll sees new files, as on a file system that tells of no change.
const CONFIG: &str = "internaltls:\n  drain:\n    graceSeconds: 1\n  reload:\n    watch: false\n    pollSeconds: 1\n";
/// How long the short leaves live, and how soon they are made again where a slow machine did not serve them in time.
const LIFE: &str = "20s";
const AGAIN: Duration = Duration::from_secs(12);

#[test]
fn renewed_files_alone_bring_every_link_back() {
    let cluster = plan().tls_mode(0).config(CONFIG).start();
    let pids: Vec<_> = cluster.members().iter().map(|member| member.pid).collect();
    serve_leaves_that_end_soon(&cluster);
    wait::until("no node has any link, because all leaves have expired", LONG, || isolated(&cluster));
    renew(&cluster, &[]);
    wait::until("every link is back, of the new leaves", LONG, || cluster.follows_disk());
    for member in cluster.members() {
        wait::until(&format!("{} is ready", member.node), LONG, || ready(&cluster, &member.node));
    }
    assert!(pids.into_iter().all(is_running), "a process was replaced\n{}", cluster.tails());
}

fn serve_leaves_that_end_soon(cluster: &Cluster) {
    let mut made: Option<Instant> = None;
    wait::until("every node serves a leaf that ends soon", LONG, || {
        if made.is_none_or(|made| made.elapsed() > AGAIN) {
            renew(cluster, &["--valid-for", LIFE]);
            made = Some(Instant::now());
        }
        cluster.follows_disk()
    });
}

fn renew(cluster: &Cluster, more: &[&str]) {
    let said = cluster.meshctl(&["certs", "renew", "--dir", &text(cluster.dir())]).args(more).run();
    assert!(said.success, "{}", said.text());
}

fn isolated(cluster: &Cluster) -> Result<(), String> {
    cluster.members().iter().try_for_each(|member| {
        let connections = cluster.status(&member.node)?["connections"].clone();
        if connections.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(connections.to_string()) }
    })
}

fn ready(cluster: &Cluster, node: &str) -> Result<(), String> {
    let status = cluster.status(node)?;
    if status["ready"] == true { Ok(()) } else { Err(status["not_ready"].to_string()) }
}
