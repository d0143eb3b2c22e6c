//! A random walk over everything that is replaced, and everything that goes wrong meanwhile, under a steady mixed load.
//!
//! By default a short walk of a fixed seed. A long one, of another seed, with its figures:
//!
//! ```sh
//! ROTATIONS=1000 ROTATION_SEED=7 cargo test --release -p tests --test rotation suite -- --nocapture
//! ```
//! It runs in namespaces of its own, where the disk is small and the kernel's watches can be taken away; where the kernel allows
//! none it walks without these steps, and says so.
//!
//! Checked after every step: no call shorter than the grace failed, except at a server that the step meant to cut; no
//! connection is alive beyond its bound. At the end, and around each CA: disk and served agree everywhere.
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use test_util::process::resident;
use test_util::relay::Mode;
use test_util::wait;

use crate::fixtures::{LONG, Seed, number};
use crate::namespace::{Place, enter};
use crate::scene::{GRACE, NODES, SERVERS, Scene};
use crate::traffic::{Kind, Traffic};

/// Rotations of the walk that every run of the tests takes.
const SHORT_WALK: usize = 40;
/// A whole roll-over of the CA comes once in so many rotations.
const ROTATIONS_A_CA: usize = 20;
/// A link that stalls for this long costs nothing: pings wait for ten seconds, and a dial that was under way, because the
/// listener had just ended the connection before, for five.
const STALL: Duration = Duration::from_secs(4);
/// How long the load runs without and with nothing else, where figures are asked for.
const QUIET: Duration = Duration::from_secs(20);
/// How far the memory of the process that calls may grow in a walk, its bookkeeping included, in KiB.
const MOST_GROWTH: u64 = 256 * 1024;
/// Calls a second that a walk with figures must have.
const LEAST_PACE: f64 = 200.0;
/// No walk takes longer.
const HOURS: Duration = Duration::from_secs(4 * 3_600);
/// Rotations without any load, to tell what one costs.
const COUNTED: u32 = 200;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A new leaf, served before the next step.
    Leaf(usize),
    /// New leaves one after the other, faster than they are read.
    Burst(usize),
    /// A torn certificate file, refused; then a new leaf.
    Torn(usize),
    /// A leaf that is no longer in use is revoked.
    RevokeOld(usize),
    /// A server's leaf of now is revoked: its connections are cut; then it gets a new one.
    Revoke(usize),
    /// The same by the list of distrusted keys.
    Distrust(usize),
    /// SIGKILL to a server, which starts again with what is on disk.
    Kill(usize),
    /// A server behind a link that stalls, while both ends rotate.
    Stall,
    /// A new leaf in a folder that the kernel refuses to watch.
    Unwatched(usize),
    /// SIGKILL to a server, which starts again when no watcher is to be had.
    Deaf(usize),
    /// The disk runs full while a certificate is written.
    Full(usize),
    /// A new CA, and the old one out.
    Ca(usize),
}

impl Step {
    /// Needs what only a namespace has.
    fn is_inside(self) -> bool {
        matches!(self, Self::Unwatched(_) | Self::Deaf(_) | Self::Full(_))
    }
}

fn draw(random: &mut StdRng) -> Step {
    let (node, server) = (random.random_range(0..NODES), random.random_range(0..SERVERS));
    match random.random_range(0..100) {
        0..48 => Step::Leaf(node),
        48..52 => Step::Unwatched(server),
        52..56 => Step::Deaf(server),
        56..60 => Step::Full(node),
        60..68 => Step::Burst(node),
        68..76 => Step::Torn(node),
        76..82 => Step::RevokeOld(node),
        82..87 => Step::Revoke(server),
        87..92 => Step::Distrust(server),
        92..96 => Step::Kill(server),
        _ => Step::Stall,
    }
}

/// The walk of a seed. Every kind of step is in it, however short it is.
fn plan(rotations: usize, seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = [
        Step::Burst(0),
        Step::Torn(1),
        Step::RevokeOld(2),
        Step::Revoke(0),
        Step::Distrust(1),
        Step::Kill(0),
        Step::Stall,
        Step::Unwatched(0),
        Step::Deaf(1),
        Step::Full(2),
    ];
    let mut steps: Vec<_> = kinds.into_iter().chain((kinds.len()..rotations).map(|_| draw(&mut random))).collect();
    for nth in (1..steps.len()).rev() {
        steps.swap(nth, random.random_range(0..=nth));
    }
    let roll_overs = (1..=rotations / ROTATIONS_A_CA).map(|nth| (nth * ROTATIONS_A_CA, Step::Ca(nth)));
    for (at, step) in roll_overs.collect::<Vec<_>>().into_iter().rev() {
        steps.insert(at, step);
    }
    steps
}

struct Walk {
    scene: Scene,
    traffic: Traffic,
}

impl Walk {
    fn start(place: Place) -> Self {
        let scene = Scene::start(place);
        let traffic = Traffic::start(scene.runtime.handle(), &scene.channels, GRACE);
        let mut walk = Self { scene, traffic };
        walk.more_calls(20);
        walk.scene.until_settled();
        walk
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Leaf(node) => self.renew(node),
            Step::Burst(node) => {
                (0..5).for_each(|_| self.scene.renew(node));
                self.scene.until_served(node);
            }
            Step::Torn(node) => {
                self.scene.tear(node);
                self.scene.until_refused(node);
                self.renew(node);
            }
            Step::RevokeOld(node) => self.revoke_old(node),
            Step::Revoke(server) => self.cut(server, |scene| scene.revoke(scene.leaf(server))),
            Step::Distrust(server) => self.cut(server, |scene| scene.distrust(&scene.leaf(server))),
            Step::Kill(server) => {
                self.traffic.cut_begins(server, Instant::now());
                self.scene.kill(server);
                self.recover();
            }
            Step::Stall => self.stall(),
            Step::Unwatched(node) => self.scene.renew_unwatched(node),
            Step::Deaf(server) => {
                self.traffic.cut_begins(server, Instant::now());
                self.scene.restart_unwatched(server);
                self.recover();
            }
            Step::Full(node) => {
                self.scene.write_on_full_disk(node);
                self.renew(node);
            }
            Step::Ca(nth) => self.scene.roll_over(nth),
        }
    }

    fn renew(&mut self, node: usize) {
        self.scene.renew(node);
        self.scene.until_served(node);
    }

    /// Connections of the leaf have ended first, so that nobody is cut.
    fn revoke_old(&mut self, node: usize) {
        let old = self.scene.leaf(node);
        self.renew(node);
        self.scene.until_settled();
        self.scene.revoke(old);
    }

    /// Distrust is meant, and never held back.
    fn cut(&mut self, server: usize, distrust: impl FnOnce(&mut Scene)) {
        let leaf = self.scene.leaf(server).serial();
        self.traffic.cut_begins(server, Instant::now());
        distrust(&mut self.scene);
        wait::until("connections of the distrusted leaf are cut", LONG, || {
            let client = self.scene.status(NODES - 1)?;
            let alive = client["connections"].to_string().contains(&leaf);
            if alive { Err(client["connections"].to_string()) } else { Ok(()) }
        });
        self.renew(server);
        self.recover();
    }

    /// Calls to every server are answered again; from then on none may fail.
    fn recover(&mut self) {
        self.scene.until_settled();
        self.more_calls(5);
        self.traffic.cut_ends();
    }

    /// Both ends rotate while no byte passes between them. What lasts too long is a cut.
    fn stall(&mut self) {
        let began = Instant::now();
        self.scene.relay.set(Mode::Stall);
        self.renew(1);
        self.scene.renew(2);
        // A peer that accepts connections and says nothing holds the new leaf back until its connection is given up.
        self.scene.uncounted(|scene| scene.until_served(2));
        self.scene.relay.set(Mode::Forward);
        if began.elapsed() > STALL {
            self.traffic.cut_begins(1, began);
            self.recover();
        }
    }

    /// From every server.
    fn more_calls(&self, count: usize) {
        for server in 0..SERVERS {
            let until = self.traffic.answered_by(server) + count;
            wait::until(&format!("more calls to server {server}"), LONG, || match self.traffic.answered_by(server) {
                answered if answered >= until => Ok(()),
                answered => Err(format!("{answered} of {until}; {:?}", self.traffic.losses().first())),
            });
        }
    }

    /// Everything agrees, and every kind of call is answered again.
    fn end(&mut self) {
        self.scene.until_settled();
        for kind in [Kind::Small, Kind::Large, Kind::Short, Kind::Long] {
            let before = self.traffic.answered(kind);
            wait::until_true(&format!("{kind:?} calls are answered"), LONG, || self.traffic.answered(kind) > before);
        }
        self.check(Step::Leaf(0));
    }

    /// The load alone.
    fn quiet(&self) -> Vec<Duration> {
        let began = Instant::now();
        wait::throughout("the load alone", QUIET, || Ok::<_, String>(()));
        self.latencies(began)
    }

    fn latencies(&self, from: Instant) -> Vec<Duration> {
        self.traffic.latencies(from, Instant::now())
    }

    fn check(&self, step: Step) {
        let losses = self.traffic.losses();
        assert!(losses.is_empty(), "{step:?}: calls were lost: {losses:#?}\n{}", self.scene.told());
        let overdue = self.scene.overdue();
        assert!(overdue.is_empty(), "{step:?}: connections of {overdue:?} are still there\n{}", self.scene.told());
    }
}

#[test]
fn suite_of_everything_that_is_replaced() {
    let place =
        enter("suite::suite_of_everything_that_is_replaced", "the walk on a full disk and without inotify", HOURS);
    if place == Place::Done {
        return;
    }
    let long = number("ROTATIONS");
    let seed = Seed(number("ROTATION_SEED").unwrap_or(1), long.unwrap_or(SHORT_WALK), "ROTATIONS");
    let mut walk = Walk::start(place);
    let quiet = long.map(|_| [walk.quiet(), walk.quiet()]);
    let began = Instant::now();
    let memory = resident(std::process::id());
    for step in plan(seed.1, seed.0).into_iter().filter(|step| place == Place::Inside || !step.is_inside()) {
        let at = Instant::now();
        walk.take(step);
        walk.check(step);
        if at.elapsed() > 4 * GRACE {
            println!("{step:?} took {:.1?}", at.elapsed());
        }
    }
    walk.end();
    let grown = resident(std::process::id()).saturating_sub(memory);
    assert!(grown < MOST_GROWTH, "the client's memory grew by {grown} KiB");
    let (took, mut rotating) = (began.elapsed(), walk.latencies(began));
    let runtime = walk.scene.runtime.handle().clone();
    let report = walk.traffic.stop(&runtime);
    assert!(report.losses.is_empty(), "{:#?}\n{}", report.losses, walk.scene.told());
    let calls: usize = report.answered.iter().sum();
    let pace = calls as f64 / took.as_secs_f64();
    println!(
        "{calls} calls in {took:.0?}, {pace:.0} a second ({:?} small, large, short streams, long streams), {} cut as they were meant to be, 0 lost",
        report.answered, report.allowed
    );
    println!("the client's memory grew by {grown} KiB");
    tell("written to served", &mut walk.scene.served_within);
    tell("a small call while all of this went on", &mut rotating);
    if let Some(mut quiet) = quiet {
        assert!(pace >= LEAST_PACE, "{pace:.0} calls a second are no load");
        quiet.iter_mut().for_each(|one| tell("a small call without rotation", one));
        let [first, again] = quiet.each_ref().map(|one| percentile(one, 99).as_secs_f64());
        let floor = (first / again).max(again / first);
        let ratio = percentile(&rotating, 99).as_secs_f64() / first.max(again);
        println!("p99 with over p99 without: {ratio:.2}; without over without: {floor:.2}");
        println!("processor time of a rotation on a server: {:?}", walk.scene.cost(COUNTED));
    }
}

fn tell(what: &str, all: &mut [Duration]) {
    all.sort();
    println!("{what}: p50 {:.1?}, p99 {:.1?}, of {}", percentile(all, 50), percentile(all, 99), all.len());
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[test]
fn a_walk_is_its_seeds_alone() {
    assert_eq!(plan(100, 3), plan(100, 3));
    assert_ne!(plan(100, 3), plan(100, 4));
    let cas = plan(100, 3).iter().filter(|step| matches!(step, Step::Ca(_))).count();
    assert_eq!(cas, 5);
}
