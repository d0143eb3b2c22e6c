//! The proxy's process.
use std::process::ExitCode;

use clap::Parser;

/// The Milvus API at the edge, fanned out over a mutual-TLS mesh.
#[derive(Parser)]
#[command(name = "proxy", version, after_help = node::signals::SIGNALS)]
struct Cli {
    #[command(flatten)]
    args: proxy::Args,
}

fn main() -> ExitCode {
    node::signals::outlive_hangup();
    proxy::main_with(Cli::parse().args)
}
