//! Certificates: made, renewed and checked.
//!
//! 1. Two authorities that never sign for each other: the edge's, which clients are given, and the mesh's, which they are not.
//! 2. Every node has a leaf and a key of its own; its names say what it is (`<role>.<trust domain>`) and which one it is
//!    (`spiffe://<trust domain>/<role>/<node>`).
//! 3. A reader sees an old pair or a new one: a versioned folder is replaced by one rename of one symlink.
//! 4. Nothing is overwritten by `init`; everything is on disk (files and folders synced) before it is named.
//!
//! Parts: [`authority`] signs; [`successor`] (pure) repeats what a leaf said; `proof` (pure) judges whether it may; [`folder`] writes, by `dir`, which sees to whose files they are; [`mod@init`] and [`renew`] are the commands on both; [`check`] and [`show`] read.
pub mod authority;
pub mod check;
pub(crate) mod der;
pub(crate) mod dir;
pub mod folder;
pub mod init;
mod proof;
pub mod renew;
pub mod show;
pub mod successor;

use clap::Subcommand;

/// `meshctl certs …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make certificates: for the edge, and for every node of the mesh
    Init(init::Args),
    /// Replace every leaf and key, under the same names, by the same authorities
    Renew(renew::Args),
    /// Say what is wrong with certificates, and what to do
    Check(check::Args),
    /// Print names, validity, key and hashes of certificates, the hashes as a distrust list takes them
    Show(show::Args),
}

impl Command {
    /// Does it and prints what was done.
    ///
    /// # Errors
    /// What could not be done, and what to do about it.
    pub fn run(self) -> anyhow::Result<std::process::ExitCode> {
        match self {
            Self::Init(args) => args.run(),
            Self::Renew(args) => args.run(),
            Self::Check(args) => args.run(),
            Self::Show(args) => args.run(),
        }
    }
}
