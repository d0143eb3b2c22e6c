//! The coordinator: collections, shards and who owns them.
//!
//! 1. `core` decides, without I/O: `(state, command, now) → plan`.
//! 2. `shell` carries plans out: `journal` makes changes durable in object storage, `owners` tells the data-nodes.
//! 3. `service` is mesh.v1.Coordinator over them. Object storage is all there is to back up.
//! 4. Two coordinators of one storage: the later one fences the earlier, which ends.

pub mod core;
pub mod journal;
pub mod owners;
pub mod service;
pub mod shell;

use std::process::ExitCode;

use anyhow::Context as _;
use node::{Internal, Node, NodeArgs};
use rpc::mesh::coordinator_server::CoordinatorServer;
use tonic::service::Routes;

use journal::Journal;
use owners::MeshOwners;
use service::Service;
use shell::Shell;

/// The name of the role.
pub const ROLE: &str = "coordinator";

/// The coordinator: which collections there are, and which data-node owns which shard.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "coordinator", version, after_help = node::signals::SIGNALS)]
pub struct Args {
    /// Flags of every role.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// A process of this role alone.
pub fn main_with(args: &Args) -> ExitCode {
    node::main(ROLE, &args.node, run)
}

/// Serves until the node's shutdown.
///
/// # Errors
/// The storage or the internal port; later, that another coordinator has taken over.
pub async fn run(node: Node) -> anyhow::Result<()> {
    let objects = vector_store::storage::open(&node.settings.storage).context("the storage cannot be used")?;
    let stored = node.health.require("storage");
    let (journal, state) = Journal::open(objects).await.context("the coordinator cannot start")?;
    stored.open();
    let shell = Shell::new(journal, state, MeshOwners(node.peers.clone()));
    let internal = node.serve_internal(routes(&node, shell.clone())).await?;
    tracing::info!(collections = shell.read(core::State::len), address = %internal.address, "coordinating");
    until_the_end(&node, internal, shell).await
}

fn routes(node: &Node, shell: Shell) -> Routes {
    let nodes = node.settings.cluster.data_nodes.iter().map(|(id, _)| id.to_string()).collect();
    let service = CoordinatorServer::new(Service::new(shell, nodes))
        .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES);
    Routes::new(service)
}

async fn until_the_end(node: &Node, internal: Internal, shell: Shell) -> anyhow::Result<()> {
    tokio::select! {
        finished = internal.finished() => finished?,
        () = shell.broken() => {
            node.shutdown.cancel();
            anyhow::bail!("the coordinator's state can no longer be stored: start it again");
        }
    }
    shell.close().await.context("the coordinator's storage was not closed in order")
}
