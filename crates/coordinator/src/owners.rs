//! Telling data-nodes which shards to open and to destroy.
use std::time::Duration;

use internaltls::Channel;
use node::Peers;
use rpc::mesh::data_node_client::DataNodeClient;
use rpc::mesh::{DropShardRequest, OpenShardRequest, ShardSpec};
use tonic::{Request, Status};

/// A shard is new and empty when it is opened here, so this is for the storage.
const OPEN: Duration = Duration::from_secs(15);
/// A node that is down is told again when it asks.
const DROP: Duration = Duration::from_secs(5);

/// Whoever owns shards.
#[tonic::async_trait]
pub trait Owners: Send + Sync + 'static {
    /// Opens a shard at its owner.
    async fn open(&self, node: &str, shard: ShardSpec) -> Result<(), Status>;
    /// Destroys a shard at its owner.
    async fn destroy(&self, node: &str, shard_id: &str) -> Result<(), Status>;
}

/// The data-nodes of the mesh.
#[derive(Debug)]
pub struct MeshOwners(pub Peers);

impl MeshOwners {
    fn client(&self, node: &str) -> Result<DataNodeClient<Channel>, Status> {
        let unknown = || Status::failed_precondition(format!("{node} is not in cluster.dataNodes: add it"));
        self.0.data_node(node).map(DataNodeClient::new).ok_or_else(unknown)
    }
}

#[tonic::async_trait]
impl Owners for MeshOwners {
    async fn open(&self, node: &str, shard: ShardSpec) -> Result<(), Status> {
        let request = within(OPEN, OpenShardRequest { shard: Some(shard) });
        self.client(node)?.open_shard(request).await.map(drop)
    }

    async fn destroy(&self, node: &str, shard_id: &str) -> Result<(), Status> {
        let request = within(DROP, DropShardRequest { shard_id: shard_id.to_owned() });
        self.client(node)?.drop_shard(request).await.map(drop)
    }
}

fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}
