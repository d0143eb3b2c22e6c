//! `data-node`, as the tests run it.
use clap::Parser;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: data_node::Args,
}

fn main() -> std::process::ExitCode {
    data_node::main_with(&CommandLine::parse().args)
}
