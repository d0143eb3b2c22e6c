//! The mesh's own CA: taken from one to the next under a running cluster.
//!
//! 1. `ca rotate` is six steps: the new CA into every bundle; wait until every process serves that bundle; new leaves;
//!    wait until every live connection is of them; the old CA out; verify. Nobody ever meets a leaf of a CA that it does not
//!    know, so no call fails.
//! 2. Each step that writes can be done twice, and what it needs is waited for again before it begins. So the tool may be
//!    killed at any point: run again, it goes on with the step that its [`journal`] names.
//! 3. It never goes on past a process that is behind: it says which, why, and what to do.
//! 4. The edge's CA is another one, whose clients trust it by files of their own; it is not touched here.
//!
//! Parts: [`rotate`] is the command and the order of steps; [`journal`] is what outlives a crash; [`site`] is the files;
//! [`bundle`] (pure) is a `ca.pem`; [`adopt`] finds both CAs where the new one is there already; [`lag`] (pure) is who is behind; [`crl`] brings the new CA's revocation list.
pub mod adopt;
pub mod bundle;
pub mod crl;
pub mod journal;
pub mod lag;
pub mod rotate;
pub mod site;

use clap::Subcommand;

/// `meshctl ca …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a running cluster from its CA to a new one, without a failed call
    Rotate(rotate::Args),
}

impl Command {
    /// Does it and tells each step.
    ///
    /// # Errors
    /// What could not be done, and what to do about it.
    pub fn run(self) -> anyhow::Result<std::process::ExitCode> {
        match self {
            Self::Rotate(args) => args.run(),
        }
    }
}
