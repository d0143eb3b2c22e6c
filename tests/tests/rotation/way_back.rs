//! All leaves have expired and no node reaches another: new files are enough.
//!
//! 1. By leaves of seconds, and the clock of this machine.
//! 2. By leaves as `meshctl` makes them, and a clock that leaps while the processes run: libfaketime's, found where Debian and
//!    Fedora put it, or where LIBFAKETIME says. Without it this half does not run, and says so.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_util::authority::write_public;
use test_util::cluster::Cluster;
use test_util::command::Run;
use test_util::process::is_running;
use test_util::wait;

use crate::fixtures::{LONG, not_run, plan, text};

/// Nothing but the poll sees new files, as on a file system that tells of no change.
const CONFIG: &str = "internaltls:\n  drain:\n    graceSeconds: 1\n  reload:\n    watch: false\n    pollSeconds: 1\n";
/// The poll, a dialer's longest rest after failures, and as much again for a slow machine.
const SOON: Duration = Duration::from_secs(15);
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
    is_back(&cluster);
    assert!(pids.into_iter().all(is_running), "a process was replaced\n{}", cluster.tails());
}

/// Thirteen months on, in one leap, as when machines were off: by the system's clock, which real processes read.
#[test]
fn a_clock_that_leaps_past_all_leaves_is_met_by_renewed_files_alone() {
    let Some(library) = libfaketime() else {
        return not_run(
            "the way back after a clock that leaps",
            "libfaketime is not there; apt-get install libfaketime",
        );
    };
    let clock = Leaping::new(library);
    let plan = clock.environment().into_iter().fold(plan(), |plan, (name, value)| plan.env(name, &value));
    let cluster = plan.tls_mode(0).config(CONFIG).start();
    let pids: Vec<_> = cluster.members().iter().map(|member| member.pid).collect();
    wait::until("every node has its links", LONG, || cluster.follows_disk());
    clock.set("+400d");
    wait::until("no node has any link, because all leaves have expired", LONG, || isolated(&cluster));
    for member in cluster.members() {
        wait::until(&format!("{} tells that leaves have expired", member.node), LONG, || {
            let told = cluster.status(&member.node)?;
            let over = told["leaf"]["days_left"].as_i64().is_some_and(|left| left < -300);
            let refused = told["not_ready"].to_string().contains("expired at");
            if over && refused { Ok(()) } else { Err(told.to_string()) }
        });
    }
    let renewed = Instant::now();
    let said = clock.environment().into_iter().fold(renewal(&cluster), |run, (name, value)| run.env(name, value)).run();
    assert!(said.success, "{}", said.text());
    is_back(&cluster);
    let took = renewed.elapsed();
    println!("every link was back {took:.1?} after the renewal began, with a poll of 1 s");
    assert!(took < SOON, "{took:?}");
    assert!(pids.into_iter().all(is_running), "a process was replaced\n{}", cluster.tails());
}

/// A clock for real processes that goes as the machine's does, as far ahead as it is told.
struct Leaping {
    library: PathBuf,
    folder: TempDir,
}

impl Leaping {
    fn new(library: PathBuf) -> Self {
        let clock = Self { library, folder: TempDir::with_prefix("clock-").unwrap() };
        clock.set("+0");
        clock
    }

    fn set(&self, ahead: &str) {
        let aside = self.folder.path().join("new");
        write_public(&aside, ahead);
        std::fs::rename(&aside, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }

    /// The wall clock alone: timers go by the monotonic one, and so do the times of files by the real one.
    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

/// The one for programs of many threads.
fn libfaketime() -> Option<PathBuf> {
    let named = std::env::var_os("LIBFAKETIME").map(PathBuf::from);
    let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [debian.as_str(), "/usr/lib", "/usr/lib64"].map(Path::new);
    let found = folders.into_iter().map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    named.into_iter().chain(found).find(|path| path.is_file())
}

/// Every link of the new leaves, and every process ready.
fn is_back(cluster: &Cluster) {
    wait::until("every link is back, of the new leaves", LONG, || cluster.follows_disk());
    for member in cluster.members() {
        wait::until(&format!("{} is ready", member.node), LONG, || ready(cluster, &member.node));
    }
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

fn renewal(cluster: &Cluster) -> Run {
    cluster.meshctl(&["certs", "renew", "--dir", &text(cluster.dir())])
}

fn renew(cluster: &Cluster, more: &[&str]) {
    let said = renewal(cluster).args(more).run();
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
