//! The command line: `up`, `run`, `certs`, `ca`, `status`, `health`, `verify`, `bench`.
//!
//! 1. A command that fails says in one sentence what to do, prints the causes once, a line each, and exits 1; a command that
//!    was called wrongly exits 2.
//! 2. `.mesh` is the cluster's folder unless `--dir` names another.
//! 3. Called `milvus` or `curl`, as in the image, it does what compose files of Milvus want of those.
//! 4. The binary is a few lines, so that the tests' package can build its own from [`main`].
pub mod bench;
pub mod ca;
pub mod certs;
pub mod cluster;
pub mod health;
mod http;
mod image;
pub mod lifetime;
mod operator;
mod roles;
pub mod run;
pub mod status;
pub mod up;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A vector database cluster with mutual TLS on every internal hop.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    after_help = "Example:\n  meshctl up            start a cluster here, and say how to reach it\n  meshctl verify        prove that nothing internal travels in the clear"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this host and say how to reach it
    #[command(after_help = up::EXAMPLE)]
    Up(up::Args),
    /// Run one role, or all of them, in this process
    Run(run::Args),
    /// Make, renew and check certificates
    #[command(subcommand)]
    Certs(certs::Command),
    /// Replace the mesh's CA under a running cluster
    #[command(subcommand)]
    Ca(ca::Command),
    /// Tell what each process serves, and every internal connection
    Status(status::Args),
    /// Ask one process whether it is ready
    Health(health::Args),
    /// Prove from outside that internal ports refuse everyone but the mesh
    Verify(verify::Args),
    /// Measure encrypted internal RPC beside plaintext and others; builds from the source tree
    Bench(bench::Args),
}

/// Runs what the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = image::arguments();
    if image::serves(&arguments) {
        node::signals::outlive_hangup();
    }
    match image::run(&arguments) {
        Ok(code) => code,
        Err(error) => node::failed(&error),
    }
}

/// Text for people on stdout. A reader that went away is not an error of ours.
fn note(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Cli {
    fn run(self) -> anyhow::Result<ExitCode> {
        self.command.run()
    }
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(args) => args.run(),
            Self::Run(args) => args.run(),
            Self::Certs(command) => command.run(),
            Self::Ca(command) => command.run(),
            Self::Status(args) => args.run(),
            Self::Health(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Bench(args) => args.run(),
        }
    }
}
