//! mesh.v1.Coordinator over the shell: what to read, what to run.
use internaltls::{Identity, PeerInfo};
use rpc::mesh::coordinator_server::Coordinator;
use rpc::mesh::{
    AssignmentsReply, AssignmentsRequest, CreateCollectionReply, CreateCollectionRequest, CreateIndexReply,
    CreateIndexRequest, DescribeCollectionReply, DescribeCollectionRequest, DropCollectionReply, DropCollectionRequest,
    DropIndexReply, DropIndexRequest, ListCollectionsReply, ListCollectionsRequest, SetLoadedReply, SetLoadedRequest,
    ShardsDroppedReply, ShardsDroppedRequest,
};
use tonic::{Request, Response, Status};

use crate::shell::{Shell, now, refused};

/// The gRPC service.
#[derive(Debug, Clone)]
pub struct Service {
    shell: Shell,
    /// Where the shards of a new collection go.
    nodes: Vec<String>,
}

impl Service {
    /// Places new shards on `nodes`, one each.
    pub fn new(shell: Shell, nodes: Vec<String>) -> Self {
        Self { shell, nodes }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Service {
    async fn create_collection(&self, request: Request<CreateCollectionRequest>) -> Answer<CreateCollectionReply> {
        let (request, nodes) = (request.into_inner(), self.nodes.clone());
        let collection = self.shell.run(move |state| state.create(request, &nodes, now())).await?;
        Ok(Response::new(CreateCollectionReply { collection: Some(collection) }))
    }

    async fn describe_collection(
        &self,
        request: Request<DescribeCollectionRequest>,
    ) -> Answer<DescribeCollectionReply> {
        let which = request.into_inner().collection;
        let collection = self.shell.read(|state| state.describe(which.as_ref()).cloned()).map_err(refused)?;
        Ok(Response::new(DescribeCollectionReply { collection: Some(collection) }))
    }

    async fn list_collections(&self, request: Request<ListCollectionsRequest>) -> Answer<ListCollectionsReply> {
        let collections = self.shell.read(|state| state.list(&request.get_ref().db)).map_err(refused)?;
        Ok(Response::new(ListCollectionsReply { collections }))
    }

    async fn drop_collection(&self, request: Request<DropCollectionRequest>) -> Answer<DropCollectionReply> {
        let which = request.into_inner().collection;
        let dropped = self.shell.run(move |state| state.drop_collection(which.as_ref())).await?;
        Ok(Response::new(DropCollectionReply { dropped }))
    }

    async fn create_index(&self, request: Request<CreateIndexRequest>) -> Answer<CreateIndexReply> {
        let request = request.into_inner();
        let index = self.shell.run(move |state| state.create_index(request)).await?;
        Ok(Response::new(CreateIndexReply { index: Some(index) }))
    }

    async fn drop_index(&self, request: Request<DropIndexRequest>) -> Answer<DropIndexReply> {
        let request = request.into_inner();
        let dropped = self.shell.run(move |state| state.drop_index(&request)).await?;
        Ok(Response::new(DropIndexReply { dropped }))
    }

    async fn set_loaded(&self, request: Request<SetLoadedRequest>) -> Answer<SetLoadedReply> {
        let SetLoadedRequest { collection, loaded } = request.into_inner();
        let collection = self.shell.run(move |state| state.set_loaded(collection.as_ref(), loaded)).await?;
        Ok(Response::new(SetLoadedReply { collection: Some(collection) }))
    }

    async fn assignments(&self, request: Request<AssignmentsRequest>) -> Answer<AssignmentsReply> {
        speaks_for_itself(request.extensions().get(), &request.get_ref().node_id)?;
        Ok(Response::new(self.shell.read(|state| state.assignments(&request.get_ref().node_id))))
    }

    async fn shards_dropped(&self, request: Request<ShardsDroppedRequest>) -> Answer<ShardsDroppedReply> {
        speaks_for_itself(request.extensions().get(), &request.get_ref().node_id)?;
        let ShardsDroppedRequest { node_id, shard_ids } = request.into_inner();
        self.shell.run(move |state| Ok(state.shards_dropped(&node_id, &shard_ids))).await?;
        Ok(Response::new(ShardsDroppedReply {}))
    }
}

/// A node whose leaf names it asks for itself alone. Where links tell no names there is nothing to hold it to.
fn speaks_for_itself(peer: Option<&PeerInfo>, node_id: &str) -> Result<(), Status> {
    match peer.map(PeerInfo::identity) {
        Some(Identity::Node { node, .. }) if node.as_str() != node_id => Err(Status::permission_denied(format!(
            "{node} cannot speak for {node_id}: --node must be the id of its leaf"
        ))),
        _ => Ok(()),
    }
}
