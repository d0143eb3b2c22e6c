//! A data-node as a process of its own.

use std::process::ExitCode;

use clap::Parser as _;

/// Owns shards of collections and answers for their rows.
#[derive(clap::Parser)]
#[command(version, after_help = node::signals::SIGNALS)]
struct CommandLine {
    #[command(flatten)]
    args: data_node::Args,
}

fn main() -> ExitCode {
    node::signals::outlive_hangup();
    data_node::main_with(&CommandLine::parse().args)
}
