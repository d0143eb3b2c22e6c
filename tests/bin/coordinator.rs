//! `coordinator`, as the tests run it.
use clap::Parser;

fn main() -> std::process::ExitCode {
    coordinator::main_with(&coordinator::Args::parse())
}
