//! What the coordinator says this node owns.

use std::fmt;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use internaltls::Channel;
use node::{Gate, log};
use rpc::mesh::coordinator_client::CoordinatorClient;
use rpc::mesh::{AssignmentsReply, AssignmentsRequest, ShardSpec, ShardsDroppedRequest};
use tonic::Status;

use crate::shards::{ShardError, Shards};

/// Shards opened at once: opening reads all rows, which is as much as a small machine can do several times over.
const AT_ONCE: usize = 4;
/// Between the first attempts to come up; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For the coordinator's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The coordinator, as this node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Assignments {
    coordinator: CoordinatorClient<Channel>,
    node: String,
}

/// Why this node is not up yet.
#[derive(Debug, thiserror::Error)]
enum NotUp {
    /// A status is no source here: its own text repeats its message and its causes.
    #[error("the coordinator does not say which shards are ours: {}", .0.message())]
    Coordinator(Status),
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl Assignments {
    /// Asks over `coordinator`, for the node called `node`.
    pub fn new(coordinator: Channel, node: impl fmt::Display) -> Self {
        let coordinator = CoordinatorClient::new(coordinator).max_decoding_message_size(rpc::MAX_MESSAGE_BYTES);
        Self { coordinator, node: node.to_string() }
    }

    /// The shard called `id`, if it is this node's.
    pub async fn find(&self, id: &str) -> Result<Option<ShardSpec>, Status> {
        Ok(self.ask().await?.open.into_iter().find(|spec| spec.shard_id == id))
    }

    async fn ask(&self) -> Result<AssignmentsReply, Status> {
        let mut request = tonic::Request::new(AssignmentsRequest { node_id: self.node.clone() });
        request.set_timeout(PATIENCE);
        Ok(self.coordinator.clone().assignments(request).await?.into_inner())
    }

    async fn confirm(&self, shard_ids: Vec<String>) -> Result<(), Status> {
        let mut request = tonic::Request::new(ShardsDroppedRequest { node_id: self.node.clone(), shard_ids });
        request.set_timeout(PATIENCE);
        self.coordinator.clone().shards_dropped(request).await.map(drop)
    }

    /// Opens all shards of this node and destroys those dropped meanwhile; tries until it is done. `gate` says how far
    /// it is, and opens at the end.
    pub async fn bring_up(&self, shards: &Shards, gate: &Gate) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.try_bring_up(shards, gate).await {
            let reason = log::chain(&error);
            tracing::warn!(reason, "shards are not open yet");
            gate.close(reason);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        gate.open();
    }

    async fn try_bring_up(&self, shards: &Shards, gate: &Gate) -> Result<(), NotUp> {
        let assigned = self.ask().await.map_err(NotUp::Coordinator)?;
        self.destroy(shards, assigned.drop).await?;
        open_all(shards, &assigned.open, gate).await?;
        Ok(())
    }

    async fn destroy(&self, shards: &Shards, ids: Vec<String>) -> Result<(), NotUp> {
        if ids.is_empty() {
            return Ok(());
        }
        for id in &ids {
            shards.drop_shard(id).await?;
        }
        self.confirm(ids).await.map_err(NotUp::Coordinator)
    }
}

async fn open_all(shards: &Shards, specs: &[ShardSpec], gate: &Gate) -> Result<(), ShardError> {
    let (mut opened, all) = (0, specs.len());
    gate.close(format!("shards opening 0 of {all}"));
    let each: Vec<_> = specs.iter().map(|spec| shards.open(spec)).collect();
    let mut opening = stream::iter(each).buffer_unordered(AT_ONCE);
    while opening.try_next().await?.is_some() {
        opened += 1;
        gate.close(format!("shards opening {opened} of {all}"));
    }
    Ok(())
}
