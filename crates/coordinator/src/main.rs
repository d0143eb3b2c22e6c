//! The coordinator as a process.
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    coordinator::main_with(&coordinator::Args::parse())
}
