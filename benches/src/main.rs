//! `mesh-bench`.
use std::process::ExitCode;

fn main() -> ExitCode {
    benches::cli::main()
}
