//! The data-node: owns shards and answers for their rows.
//!
//! 1. It owns what the coordinator assigns to it, and asks at its start and whenever it is called for a shard that it
//!    does not have open.
//! 2. It listens before its shards are open, so that the coordinator can reach it; it is ready once they all are.
//! 3. At the end calls drain first, then shards are closed.
//!
//! The parts: [`service`] (the calls), [`shards`] (what is open), [`assignments`] (what should be).

pub mod assignments;
pub mod service;
pub mod shards;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use node::{Node, NodeArgs};
use tonic::service::Routes;

use crate::assignments::Assignments;
use crate::service::Service;
use crate::shards::Shards;

/// The role, as certificates name it.
pub const ROLE: &str = "data-node";

/// Flags of a data-node.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Runs as the process's only role, until it ends or a signal ends it.
pub fn main_with(args: &Args) -> ExitCode {
    node::main(ROLE, &args.node, run)
}

/// Runs until the node's shutdown.
///
/// # Errors
/// The storage, or the internal port, cannot be had.
pub async fn run(node: Node) -> anyhow::Result<()> {
    let gate = node.health.require("shards");
    let objects = vector_store::storage::open(&node.settings.storage).context("the storage cannot be opened")?;
    let coordinator = node.peers.coordinator().context("a data-node needs a coordinator: set cluster.coordinator")?;
    let shards = Arc::new(Shards::new(objects));
    let assignments = Assignments::new(coordinator, &node.id);
    let service = Service::new(Arc::clone(&shards), assignments.clone());
    let internal = node.serve_internal(Routes::new(service.server())).await?;
    tokio::select! {
        () = assignments.bring_up(&shards, &gate) => {}
        () = node.shutdown.cancelled() => {}
    }
    let served = internal.finished().await;
    shards.close().await;
    served
}
