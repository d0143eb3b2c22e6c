//! The coordinator as a process.
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    node::signals::outlive_hangup();
    coordinator::main_with(&coordinator::Args::parse())
}
