//! The cluster in containers, by a real engine: `docker/compose.yaml`, and the service of the Milvus documentation.
//!
//! 1. One cluster for all steps, in the order in which an operator meets them: it costs half a minute to start. A step that fails
//!    ends the run; what the containers said is printed, and everything that was made is removed.
//! 2. Where there is no engine nothing runs, and the last line says so: a run that proves nothing must not look like one that does.
//! 3. CONTAINERS_IMAGE names an image that is there already. Else it is built with the profile CONTAINERS_PROFILE (`release`: the
//!    profile `dist` builds three times as long), in BUILD_IMAGE, or in a base that `docker/local-base.sh` makes.
//!
//! Parts: [`engine`] is docker and compose; [`cluster`] what runs in them; [`ledger`] a load that knows what was acknowledged;
//! [`steps`] and [`documented`] are the tests.
#![expect(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

mod cluster;
mod documented;
mod engine;
mod ledger;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use cluster::Cluster;
use engine::Engine;

type Step<T> = (&'static str, fn(&T));

const STEPS: [Step<Cluster>; 9] = [
    ("the image is small, has no shell and no secret", steps::image),
    ("only the edge is published, and each node mounts its own files alone", steps::published),
    ("stock clients are served", steps::clients),
    ("nothing internal travels in the clear", steps::captured),
    ("intruders on the private network are refused", steps::verified),
    ("leaves and CA are replaced under load", steps::renewed),
    ("a killed node and a node that is cut off lose no row", steps::broken),
    ("a rolling restart with a new image loses no row", steps::rolled),
    ("rows and keys outlive down", steps::outlived),
];

const DOCUMENTED: [Step<Engine>; 2] = [
    ("the documented service is served and renewed", documented::served),
    ("an unreadable key says whose it is and what to do", documented::refused),
];

fn main() -> ExitCode {
    // `cargo test NAME`, `-- --list` and their like speak to every test binary: this one has one test.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    if arguments.iter().any(|word| word == "--list") {
        println!("containers: test");
        return ExitCode::SUCCESS;
    }
    if !filters.is_empty() && !filters.iter().any(|filter| "containers".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    match Engine::find() {
        Ok(engine) => run(&engine),
        Err(why) => {
            println!("\ncontainers: NOT RUN, and nothing said of the image, compose.yaml and compose.tls.yaml: {why}");
            ExitCode::SUCCESS
        }
    }
}

fn run(engine: &Engine) -> ExitCode {
    let whole = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let cluster = step("the image is built and the cluster comes up healthy", || Cluster::start(engine));
        for (name, run) in STEPS {
            step(name, || {
                catch_unwind(AssertUnwindSafe(|| run(&cluster))).unwrap_or_else(|failed| {
                    println!("{}", cluster.logs());
                    std::panic::resume_unwind(failed)
                });
            });
        }
        drop(cluster);
        for (name, run) in DOCUMENTED {
            step(name, || run(engine));
        }
    }));
    println!("\ncontainers: {} in {:.0?}", if ended.is_ok() { "ok" } else { "FAILED" }, whole.elapsed());
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn step<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    println!("containers: {name} …");
    let done = run();
    println!("containers: {name} ok, {:.1?}", start.elapsed());
    done
}
