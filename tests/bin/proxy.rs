//! `proxy`, as the tests run it.
use clap::Parser;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: proxy::Args,
}

fn main() -> std::process::ExitCode {
    proxy::main_with(CommandLine::parse().args)
}
