//! A coordinator that says what a test tells it to, and data-nodes beside it, on free ports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_node::assignments::Assignments;
use data_node::service::Service;
use data_node::shards::Shards;
use futures_util::TryStreamExt;
use internaltls::identity::{NodeId, Role};
use internaltls::{Channel, Endpoint, Files, Mesh, MeshConfig, Policy, Security};
use node::Health;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use prost::Message;
use rpc::columns::{Column, Values};
use rpc::common::KeyValuePair;
use rpc::mesh::coordinator_server::{self, CoordinatorServer};
use rpc::mesh::data_node_client::DataNodeClient;
use rpc::mesh::{self, ShardSpec};
use rpc::schema::{CollectionSchema, DataType, FieldData, FieldSchema};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub(crate) const COORDINATOR_AWAY: &str = "out for lunch";

#[derive(Default)]
struct State {
    away: bool,
    open: Vec<ShardSpec>,
    drop: Vec<String>,
    confirmed: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Coordinator {
    state: Arc<Mutex<State>>,
}

impl Coordinator {
    pub(crate) fn assigning(shards: &[&str]) -> Self {
        let coordinator = Self::default();
        coordinator.assign(shards);
        coordinator
    }

    pub(crate) fn assigning_wide(shard: &str, dim: usize) -> Self {
        let coordinator = Self::default();
        coordinator.state.lock().unwrap().open = vec![wide_spec(shard, dim)];
        coordinator
    }

    pub(crate) fn assign(&self, shards: &[&str]) {
        self.state.lock().unwrap().open = shards.iter().map(|shard| spec(shard)).collect();
    }

    pub(crate) fn drop_shard(&self, shard: &str) {
        let mut state = self.state.lock().unwrap();
        state.open.retain(|spec| spec.shard_id != shard);
        state.drop.push(shard.to_owned());
    }

    pub(crate) fn confirmed(&self) -> Vec<String> {
        self.state.lock().unwrap().confirmed.clone()
    }

    pub(crate) fn leave(&self) {
        self.state.lock().unwrap().away = true;
    }

    pub(crate) fn come_back(&self) {
        self.state.lock().unwrap().away = false;
    }
}

#[tonic::async_trait]
impl coordinator_server::Coordinator for Coordinator {
    async fn assignments(
        &self,
        _: Request<mesh::AssignmentsRequest>,
    ) -> Result<Response<mesh::AssignmentsReply>, Status> {
        let state = self.state.lock().unwrap();
        if state.away {
            return Err(Status::unavailable(COORDINATOR_AWAY));
        }
        Ok(Response::new(mesh::AssignmentsReply { open: state.open.clone(), drop: state.drop.clone() }))
    }

    async fn shards_dropped(
        &self,
        request: Request<mesh::ShardsDroppedRequest>,
    ) -> Result<Response<mesh::ShardsDroppedReply>, Status> {
        self.state.lock().unwrap().confirmed.extend(request.into_inner().shard_ids);
        Ok(Response::new(mesh::ShardsDroppedReply {}))
    }

    async fn create_collection(
        &self,
        _: Request<mesh::CreateCollectionRequest>,
    ) -> Result<Response<mesh::CreateCollectionReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn describe_collection(
        &self,
        _: Request<mesh::DescribeCollectionRequest>,
    ) -> Result<Response<mesh::DescribeCollectionReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn list_collections(
        &self,
        _: Request<mesh::ListCollectionsRequest>,
    ) -> Result<Response<mesh::ListCollectionsReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn drop_collection(
        &self,
        _: Request<mesh::DropCollectionRequest>,
    ) -> Result<Response<mesh::DropCollectionReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn create_index(
        &self,
        _: Request<mesh::CreateIndexRequest>,
    ) -> Result<Response<mesh::CreateIndexReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn drop_index(&self, _: Request<mesh::DropIndexRequest>) -> Result<Response<mesh::DropIndexReply>, Status> {
        Err(not_for_data_nodes())
    }

    async fn set_loaded(&self, _: Request<mesh::SetLoadedRequest>) -> Result<Response<mesh::SetLoadedReply>, Status> {
        Err(not_for_data_nodes())
    }
}

fn not_for_data_nodes() -> Status {
    Status::permission_denied("a data-node does not call this")
}

pub(crate) struct DataNode {
    pub(crate) shards: Arc<Shards>,
    pub(crate) health: Health,
    pub(crate) objects: Arc<dyn ObjectStore>,
    assignments: Assignments,
    channel: Channel,
}

impl DataNode {
    pub(crate) async fn start(coordinator: &Coordinator) -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Self::over(coordinator, &objects).await
    }

    pub(crate) async fn over(coordinator: &Coordinator, objects: &Arc<dyn ObjectStore>) -> Self {
        let mesh = plaintext_mesh("data-node").await;
        let coordinator = serve("coordinator", Routes::new(CoordinatorServer::new(coordinator.clone()))).await;
        let assignments = Assignments::new(mesh.channel(Role::new("coordinator").unwrap(), coordinator), "data-node-1");
        let shards = Arc::new(Shards::new(Arc::clone(objects)));
        let service = Service::new(Arc::clone(&shards), assignments.clone());
        let endpoint = serve("data-node", Routes::new(service.server())).await;
        let channel = plaintext_mesh("proxy").await.channel(Role::new("data-node").unwrap(), endpoint);
        Self { shards, health: Health::default(), objects: Arc::clone(objects), assignments, channel }
    }

    pub(crate) fn client(&self) -> DataNodeClient<Channel> {
        DataNodeClient::new(self.channel.clone())
            .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES)
    }

    pub(crate) fn coming_up(&self) -> tokio::task::JoinHandle<()> {
        let gate = self.health.require("shards");
        let (assignments, shards) = (self.assignments.clone(), Arc::clone(&self.shards));
        tokio::spawn(async move { assignments.bring_up(&shards, &gate).await })
    }

    pub(crate) async fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let seen = tokio::time::timeout(Duration::from_secs(30), async {
            while !holds(&self.health.reasons().join("; ")) {
                tokio::task::yield_now().await;
            }
        });
        assert!(seen.await.is_ok(), "{what}: {:?}", self.health.reasons());
    }

    pub(crate) async fn objects_left(&self) -> usize {
        self.objects.list(None).try_collect::<Vec<_>>().await.unwrap().len()
    }
}

async fn plaintext_mesh(role: &str) -> Mesh {
    let (role, node) = (Role::new(role).unwrap(), NodeId::new(&format!("{role}-1")).unwrap());
    let mut config = MeshConfig::new(role, node, Files::new("", "", ""));
    config.security = Security::Plaintext;
    Mesh::open(config).await.unwrap()
}

async fn serve(role: &str, routes: Routes) -> Endpoint {
    let policy = Policy::from_rules(rpc::policy::RULES).unwrap();
    let server =
        plaintext_mesh(role).await.server(routes).policy(policy).bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(std::future::pending()));
    Endpoint::new(address.ip().to_string(), address.port())
}

pub(crate) fn spec(shard: &str) -> ShardSpec {
    wide_spec(shard, 2)
}

fn wide_spec(shard: &str, dim: usize) -> ShardSpec {
    let field = |name: &str, data_type: DataType| FieldSchema {
        name: name.to_owned(),
        data_type: data_type.into(),
        ..FieldSchema::default()
    };
    let key = FieldSchema { is_primary_key: true, ..field("id", DataType::Int64) };
    let dim = KeyValuePair { key: "dim".to_owned(), value: dim.to_string() };
    let vector = FieldSchema { type_params: vec![dim], ..field("vector", DataType::FloatVector) };
    let schema = CollectionSchema { fields: vec![key, vector], ..CollectionSchema::default() };
    ShardSpec { shard_id: shard.to_owned(), collection_id: 1, schema: schema.encode_to_vec().into() }
}

pub(crate) fn rows(keys: &[i64], vectors: &[f32]) -> Vec<FieldData> {
    let dim = vectors.len() / keys.len();
    vec![
        Column::new("id", Values::Int64(keys.to_vec())).into_message(DataType::Int64),
        Column::new("vector", Values::FloatVector { dim, data: vectors.to_vec() }).into_message(DataType::FloatVector),
    ]
}
