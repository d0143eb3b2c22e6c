//! A random walk of `meshctl` on a running cluster: it is killed at any moment, finds its disk full, and its renewals are
//! heard of by nobody. A short one of a fixed seed by default; a long one:
//!
//! ```sh
//! TOOL_STEPS=100 ROTATION_SEED=7 cargo test --release -p tests --test rotation tool -- --nocapture
//! ```
//! Checked after every step: no call failed; each folder of certificates holds a whole set; each process serves the one on its
//! disk, over every connection. At the end no roll-over is under way, and each CA is the one that signs.
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use test_util::authority::serial_of_file;
use test_util::cluster::Cluster;
use test_util::command::{Run, Said, program};
use test_util::load::Load;
use test_util::process::Process;
use test_util::wait;

use crate::fixtures::{
    LONG, MESHCTL, Seed, is_of, number, plan, rotate, rotate_until, rotated, signer, text, under_way,
};
use crate::namespace::{Ballast, Inotify, Place, enter, mount};

/// Steps of the walk that every run of the tests takes.
const SHORT_WALK: usize = 9;
/// No walk takes longer.
const HOURS: Duration = Duration::from_secs(4 * 3_600);
/// Soon enough where nothing is heard of.
const CONFIG: &str = "internaltls:\n  reload:\n    pollSeconds: 2\n";
/// What the disk of the certificates holds.
const DISK: &str = "4m";

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Renew,
    /// SIGKILL to `certs renew`, at so many hundredths of the time that it takes.
    RenewKilled(u32),
    /// A whole roll-over of the CA, or the rest of one.
    Rotate,
    /// SIGKILL to `ca rotate` once it has told of this step, or so long after it.
    RotateKilled(u8, u32),
    /// No byte more goes to the disk of the certificates, whatever the tool tries; then there is room again.
    Full,
    /// The same where the disk runs full in the middle of what the tool writes: so many KiB are left.
    NearlyFull(u64),
    /// No new folder is watched.
    Unwatched,
}

impl Step {
    fn is_inside(self) -> bool {
        matches!(self, Self::Full | Self::NearlyFull(_) | Self::Unwatched)
    }
}

fn draw(random: &mut StdRng) -> Step {
    match random.random_range(0..100) {
        0..15 => Step::Renew,
        15..45 => Step::RenewKilled(random.random_range(0..120)),
        45..50 => Step::Rotate,
        50..70 => Step::RotateKilled(random.random_range(1..=6), random.random_range(0..100)),
        70..78 => Step::Full,
        78..90 => Step::NearlyFull(random.random_range(4..100)),
        _ => Step::Unwatched,
    }
}

/// The walk of a seed. Every kind of step is in it, however short it is.
fn steps(count: usize, seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = [
        Step::Renew,
        Step::RenewKilled(30),
        Step::RenewKilled(70),
        Step::RotateKilled(3, 0),
        Step::Full,
        Step::NearlyFull(40),
        Step::Unwatched,
    ];
    let mut steps: Vec<_> = kinds.into_iter().chain((kinds.len()..count).map(|_| draw(&mut random))).collect();
    for nth in (1..steps.len()).rev() {
        steps.swap(nth, random.random_range(0..=nth));
    }
    steps
}

struct Walk {
    cluster: Cluster,
    load: Load,
    /// How long `certs renew` takes here.
    renewal: Duration,
    killed: usize,
}

impl Walk {
    fn start(place: Place) -> Self {
        let plan = plan();
        let made = plan.meshctl(&["certs", "init", "--out", "certs", "--data-nodes", "1"]).run();
        assert!(made.success, "{}", made.text());
        if place == Place::Inside {
            small_disk(&plan.dir().join("certs"));
        }
        let cluster = plan.config(CONFIG).start();
        let load = Load::start(cluster.edge());
        let began = Instant::now();
        let mut walk = Self { cluster, load, renewal: Duration::ZERO, killed: 0 };
        walk.renewed();
        walk.renewal = began.elapsed();
        walk
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Renew => self.renewed(),
            Step::RenewKilled(hundredths) => self.kill_renewal(hundredths),
            Step::Rotate => drop(rotated(&self.cluster)),
            Step::RotateKilled(nth, later) => self.kill_roll_over(nth, later),
            Step::Full => self.on_full_disk(),
            Step::NearlyFull(room) => self.on_nearly_full_disk(room),
            Step::Unwatched => self.unwatched(),
        }
    }

    fn renew(&self) -> Run {
        self.cluster.meshctl(&["certs", "renew", "--dir", &text(self.cluster.dir())])
    }

    fn renewed(&self) {
        let said = self.renew().run();
        assert!(said.success, "{}", said.text());
    }

    fn kill_renewal(&mut self, hundredths: u32) {
        let mut command = std::process::Command::new(MESHCTL);
        command.args(["certs", "renew", "--dir"]).arg(self.cluster.dir());
        let mut tool = Process::spawn("meshctl certs renew", command, &self.cluster.dir().join("renew.log"));
        until(Instant::now() + self.renewal * hundredths / 100);
        self.kill(&mut tool);
    }

    fn kill_roll_over(&mut self, nth: u8, later: u32) {
        let mut tool = rotate_until(&self.cluster, &[], &format!("[{nth}/6]"));
        until(Instant::now() + Duration::from_millis(5) * later);
        self.kill(&mut tool);
    }

    fn kill(&mut self, tool: &mut Process) {
        tool.kill();
        self.killed += usize::from(tool.wait(LONG).code().is_none());
    }

    fn leaves(&self) -> Vec<String> {
        let leaf = |member: &test_util::cluster::Member| {
            serial_of_file(&self.cluster.mesh_certs(&member.node).join("server.pem"))
        };
        self.cluster.members().iter().map(leaf).collect()
    }

    fn on_full_disk(&self) {
        let before = self.leaves();
        let full = Ballast::fill(&self.cluster.dir().join("certs"));
        complains(&self.renew().run());
        complains(&rotate(&self.cluster, &[]));
        assert_eq!(self.leaves(), before);
        self.check(Step::Full);
        drop(full);
        self.renewed();
    }

    /// Some folders may have been renewed before the disk was full: each is whole all the same.
    fn on_nearly_full_disk(&self, room: u64) {
        let full = Ballast::fill(&self.cluster.dir().join("certs"));
        full.give_back(room * 1024);
        let said = self.renew().run();
        if !said.success {
            complains(&said);
        }
        self.check(Step::NearlyFull(room));
        drop(full);
        self.renewed();
    }

    fn unwatched(&self) {
        let exhausted = Inotify::without_watches();
        self.renewed();
        self.follows();
        self.renewed();
        self.follows();
        let told = || self.cluster.meshctl(&["status", "--dir", &text(self.cluster.dir())]).run().text();
        wait::until("meshctl status tells of it", LONG, || match told() {
            text if text.contains("folders are not watched") => Ok(()),
            text => Err(text),
        });
        drop(exhausted);
        wait::until("folders are watched again", LONG, || match told() {
            text if text.contains("are not watched") => Err(text),
            _ => Ok(()),
        });
    }

    fn follows(&self) {
        wait::until("every process serves what is on its disk", LONG, || self.cluster.follows_disk());
    }

    fn check(&self, step: Step) {
        for member in self.cluster.members() {
            let leaf = text(&self.cluster.mesh_certs(&member.node).join("server.pem"));
            let said = self.cluster.meshctl(&["certs", "check", &leaf]).run();
            assert!(said.success, "{step:?}: {}", said.text());
        }
        self.follows();
        self.load.more_calls(5);
        let failures = self.load.seen().failures;
        assert!(failures.is_empty(), "{step:?}: {failures:#?}\n{}", self.cluster.tails());
    }

    fn end(self) {
        if under_way(&self.cluster) {
            rotated(&self.cluster);
        }
        is_of(&self.cluster, &signer(&self.cluster));
        let report = self.load.stop();
        report.assert_no_failure();
        println!("{} calls, 0 failed; the tool was killed {} times", report.calls, self.killed);
    }
}

/// Moves what is there to a disk of its own.
fn small_disk(certs: &std::path::Path) {
    let aside = certs.with_extension("made");
    std::fs::rename(certs, &aside).unwrap();
    std::fs::create_dir(certs).unwrap();
    mount(certs, DISK);
    let said = program("cp").args(["-a".as_ref(), aside.join(".").as_path(), certs]).run();
    assert!(said.success, "{}", said.text());
}

/// One sentence, with the file and what to do.
fn complains(said: &Said) {
    assert!(
        !said.success && said.text().contains("could not write") && said.text().contains("the disk has room"),
        "{}",
        said.text()
    );
}

/// A moment that nothing tells of.
fn until(moment: Instant) {
    while Instant::now() < moment {
        std::thread::yield_now();
    }
}

#[test]
fn tool_that_is_killed_and_finds_no_room_costs_no_call() {
    let place = enter(
        "tool::tool_that_is_killed_and_finds_no_room_costs_no_call",
        "the tool on a full disk and without inotify",
        HOURS,
    );
    if place == Place::Done {
        return;
    }
    let seed = Seed(number("ROTATION_SEED").unwrap_or(1), number("TOOL_STEPS").unwrap_or(SHORT_WALK), "TOOL_STEPS");
    let mut walk = Walk::start(place);
    for step in steps(seed.1, seed.0).into_iter().filter(|step| place == Place::Inside || !step.is_inside()) {
        let began = Instant::now();
        walk.take(step);
        walk.check(step);
        println!("{step:?} in {:.1?}", began.elapsed());
    }
    assert!(walk.killed > 0, "nothing was killed");
    walk.end();
}
