//! `meshctl bench`: builds the benchmarks from the source tree, as fast as they can be built, and runs them.
//!
//! They are a program of their own: what they are compared with has no place in the binary that runs a cluster.
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::bail;

/// `meshctl bench`
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// What the benchmarks are told; `--help` tells of it
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(workspace) = workspace(&std::env::current_dir()?) else {
            bail!("the benchmarks are built from source: run `cargo mesh bench` in a checkout of the repository");
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["run", "--quiet", "--profile", "dist", "--package", "benches", "--bin", "mesh-bench"]);
        command.arg("--manifest-path").arg(workspace.join("Cargo.toml")).arg("--").args(self.arguments);
        eprintln!("building with the profile `dist`; the first time it takes some minutes");
        // In our place, so that signals and the exit code are its own.
        Err(anyhow::Error::new(command.exec()).context("cargo does not start: install Rust, or put cargo on the PATH"))
    }
}

/// The folder here or above that has the benchmarks.
fn workspace(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|folder| folder.join("benches/src/main.rs").exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_within() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(workspace(&package.join("src")).as_deref(), package.parent().and_then(Path::parent));
        assert_eq!(workspace(Path::new("/")), None);
    }
}
