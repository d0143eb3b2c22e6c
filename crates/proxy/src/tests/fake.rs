//! A cluster in memory: the mesh's services, as plain as they can be, reached without a network.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rpc::mesh::coordinator_server::{Coordinator, CoordinatorServer};
use rpc::mesh::data_node_server::{DataNode, DataNodeServer};
use rpc::mesh::identity_server::{Identity, IdentityServer};
use rpc::mesh::*;
use rpc::schema::{FieldData, field_data::Field, vector_field};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::columns::{self, Pick};
use crate::key::{self, Key};
use crate::{Cluster, Wire};

type Answer<T> = Result<Response<T>, Status>;

/// A cluster of two data-nodes that can be taken away.
pub(super) struct Fake {
    pub(super) cluster: Cluster,
    pub(super) nodes: Vec<Arc<Node>>,
}

pub(super) fn cluster() -> Fake {
    let nodes: Vec<Arc<Node>> = (1..=2).map(|n| Arc::new(Node::new(format!("data-node-{n}")))).collect();
    let memory = Memory { collections: Mutex::default(), nodes: nodes.iter().map(|node| node.name.clone()).collect() };
    let coordinator = wire(Routes::new(CoordinatorServer::new(memory)).add_service(IdentityServer::new(Me)));
    let wires = nodes.iter().map(|node| {
        let server = DataNodeServer::from_arc(node.clone()).max_decoding_message_size(usize::MAX);
        (node.name.clone(), wire(Routes::new(server).add_service(IdentityServer::new(Me))))
    });
    Fake { cluster: Cluster::new(coordinator, wires.collect::<Vec<_>>()), nodes }
}

/// A cluster whose every call panics in the middle of the handler.
pub(super) fn broken() -> Cluster {
    let service = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
        tokio::task::yield_now().await;
        panic!("a secret of the handler")
    });
    Cluster::new(BoxCloneSyncService::new(service), [])
}

fn wire(routes: Routes) -> Wire {
    let router = routes.prepare();
    let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let router = router.clone();
        async move { router.oneshot(request).await.map(|reply| reply.map(tonic::body::Body::new)).map_err(|e| match e {}) }
    });
    BoxCloneSyncService::new(service)
}

struct Me;

#[tonic::async_trait]
impl Identity for Me {
    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Answer<WhoAmIReply> {
        Ok(Response::new(WhoAmIReply::default()))
    }
}

struct Memory {
    collections: Mutex<BTreeMap<String, Collection>>,
    nodes: Vec<String>,
}

impl Memory {
    fn with<T>(&self, at: Option<CollectionRef>, change: impl FnOnce(&mut Collection) -> T) -> Result<T, Status> {
        let mut collections = self.collections.lock().unwrap();
        collections.get_mut(&name(at)).map(change).ok_or_else(|| Status::not_found("no such collection"))
    }

    fn place(&self, request: CreateCollectionRequest, id: i64) -> Collection {
        let shards = self.nodes.iter().enumerate();
        Collection {
            id,
            name: request.name,
            schema: request.schema,
            consistency_level: request.consistency_level,
            created_timestamp: crate::clock::timestamp(std::time::SystemTime::now()),
            shards: shards
                .map(|(n, node_id)| ShardPlacement { shard_id: format!("{id}-{n}"), node_id: node_id.clone() })
                .collect(),
            shards_num: request.shards_num,
            ..Default::default()
        }
    }
}

fn name(at: Option<CollectionRef>) -> String {
    match at.and_then(|at| at.by) {
        Some(collection_ref::By::Name(name)) => name,
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl Coordinator for Memory {
    async fn create_collection(&self, request: Request<CreateCollectionRequest>) -> Answer<CreateCollectionReply> {
        let request = request.into_inner();
        let mut collections = self.collections.lock().unwrap();
        if collections.contains_key(&request.name) {
            return Err(Status::already_exists("collection exists"));
        }
        let collection = self.place(request, 1 + collections.len() as i64);
        collections.insert(collection.name.clone(), collection.clone());
        Ok(Response::new(CreateCollectionReply { collection: Some(collection) }))
    }

    async fn describe_collection(
        &self,
        request: Request<DescribeCollectionRequest>,
    ) -> Answer<DescribeCollectionReply> {
        let collection = self.with(request.into_inner().collection, |collection| collection.clone())?;
        Ok(Response::new(DescribeCollectionReply { collection: Some(collection) }))
    }

    async fn list_collections(&self, _: Request<ListCollectionsRequest>) -> Answer<ListCollectionsReply> {
        let collections = self.collections.lock().unwrap().values().cloned().collect();
        Ok(Response::new(ListCollectionsReply { collections }))
    }

    async fn drop_collection(&self, request: Request<DropCollectionRequest>) -> Answer<DropCollectionReply> {
        let dropped = self.collections.lock().unwrap().remove(&name(request.into_inner().collection)).is_some();
        Ok(Response::new(DropCollectionReply { dropped }))
    }

    async fn create_index(&self, request: Request<CreateIndexRequest>) -> Answer<CreateIndexReply> {
        let CreateIndexRequest { collection, name, field, params } = request.into_inner();
        let index = Index { name, id: 1, field, params };
        self.with(collection, |collection| collection.indexes.push(index.clone()))?;
        Ok(Response::new(CreateIndexReply { index: Some(index) }))
    }

    async fn drop_index(&self, request: Request<DropIndexRequest>) -> Answer<DropIndexReply> {
        let DropIndexRequest { collection, name, .. } = request.into_inner();
        self.with(collection, |collection| collection.indexes.retain(|index| index.name != name))?;
        Ok(Response::new(DropIndexReply { dropped: true }))
    }

    async fn set_loaded(&self, request: Request<SetLoadedRequest>) -> Answer<SetLoadedReply> {
        let SetLoadedRequest { collection, loaded } = request.into_inner();
        self.with(collection, |collection| collection.loaded = loaded)?;
        Ok(Response::new(SetLoadedReply::default()))
    }

    async fn assignments(&self, _: Request<AssignmentsRequest>) -> Answer<AssignmentsReply> {
        Err(Status::permission_denied("not for a proxy"))
    }

    async fn shards_dropped(&self, _: Request<ShardsDroppedRequest>) -> Answer<ShardsDroppedReply> {
        Err(Status::permission_denied("not for a proxy"))
    }
}

/// A data-node whose shards open as they are written to.
pub(super) struct Node {
    name: String,
    shards: Mutex<BTreeMap<String, Vec<FieldData>>>,
    gone: AtomicBool,
}

impl Node {
    fn new(name: String) -> Self {
        Self { name, shards: Mutex::default(), gone: AtomicBool::new(false) }
    }

    pub(super) fn go(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    fn shard(&self, id: &str) -> Result<Vec<FieldData>, Status> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(Status::unavailable("connection refused"));
        }
        Ok(self.shards.lock().unwrap().get(id).cloned().unwrap_or_default())
    }
}

fn count(columns: &[FieldData]) -> usize {
    columns.first().and_then(columns::rows).unwrap_or(0)
}

fn named<'a>(columns: &'a [FieldData], name: &str) -> Option<&'a FieldData> {
    columns.iter().find(|column| column.field_name == name)
}

fn project(columns: &[FieldData], names: &[String], rows: &[usize]) -> Vec<FieldData> {
    let wanted: Vec<FieldData> = names.iter().filter_map(|name| named(columns, name)).cloned().collect();
    columns::select(&wanted, rows).unwrap()
}

fn joined(old: &[FieldData], new: Vec<FieldData>) -> Vec<FieldData> {
    if old.is_empty() {
        return new;
    }
    let (before, after) = (count(old), count(&new));
    let picks: Vec<Pick> =
        (0..before).map(|row| Pick { source: 0, row }).chain((0..after).map(|row| Pick { source: 1, row })).collect();
    old.iter()
        .map(|column| columns::gather(&[column, named(&new, &column.field_name).unwrap()], &picks).unwrap())
        .collect()
}

#[tonic::async_trait]
impl DataNode for Node {
    async fn open_shard(&self, _: Request<OpenShardRequest>) -> Answer<OpenShardReply> {
        Err(Status::permission_denied("not for a proxy"))
    }

    async fn drop_shard(&self, _: Request<DropShardRequest>) -> Answer<DropShardReply> {
        Err(Status::permission_denied("not for a proxy"))
    }

    async fn insert(&self, request: Request<InsertRequest>) -> Answer<InsertReply> {
        let InsertRequest { shard_id, columns } = request.into_inner();
        let (old, rows) = (self.shard(&shard_id)?, count(&columns));
        self.shards.lock().unwrap().insert(shard_id, joined(&old, columns));
        Ok(Response::new(InsertReply { rows: rows as u64 }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetReply> {
        let GetRequest { shard_id, ids, output_fields } = request.into_inner();
        let shard = self.shard(&shard_id)?;
        let wanted = key::from_ids(ids);
        let keys = shard.first().map(key::of_column).unwrap_or_default();
        let rows: Vec<usize> = wanted.iter().filter_map(|key| keys.iter().rposition(|known| known == key)).collect();
        Ok(Response::new(GetReply { columns: project(&shard, &output_fields, &rows) }))
    }

    async fn search(&self, request: Request<SearchRequest>) -> Answer<SearchReply> {
        let request = request.into_inner();
        let shard = self.shard(&request.shard_id)?;
        let keys = shard.first().map(key::of_column).unwrap_or_default();
        let (mut hits, mut rows, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for query in &request.queries {
            let nearest = nearest(&shard, &request, query);
            hits.push(nearest.len() as u32);
            rows.extend(nearest.iter().map(|hit| hit.1));
            scores.extend(nearest.iter().map(|hit| hit.0));
        }
        let found: Vec<Key> = rows.iter().map(|&row| keys[row].clone()).collect();
        let kind = shard.first().map(FieldData::r#type).unwrap_or_default();
        let columns = project(&shard, &request.output_fields, &rows);
        Ok(Response::new(SearchReply { hits, ids: Some(key::to_ids(&found, kind)), scores, columns }))
    }

    async fn count(&self, request: Request<CountRequest>) -> Answer<CountReply> {
        let rows = count(&self.shard(&request.into_inner().shard_id)?) as u64;
        Ok(Response::new(CountReply { rows }))
    }

    async fn flush(&self, request: Request<FlushRequest>) -> Answer<FlushReply> {
        self.shard(&request.into_inner().shard_id)?;
        Ok(Response::new(FlushReply {}))
    }
}

fn nearest(shard: &[FieldData], request: &SearchRequest, query: &[u8]) -> Vec<(f32, usize)> {
    let query: Vec<f32> = query.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    let vectors = named(shard, &request.field).map(floats).unwrap_or_default();
    let scored = vectors.chunks(query.len()).map(|vector| score(request.metric(), vector, &query));
    let mut hits: Vec<(f32, usize)> = scored.zip(0..).collect();
    hits.sort_by(|l, r| if request.metric() == Metric::L2 { l.0.total_cmp(&r.0) } else { r.0.total_cmp(&l.0) });
    hits.truncate(request.limit as usize);
    hits
}

fn floats(column: &FieldData) -> Vec<f32> {
    match &column.field {
        Some(Field::Vectors(vectors)) => match &vectors.data {
            Some(vector_field::Data::FloatVector(list)) => list.data.clone(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn score(metric: Metric, left: &[f32], right: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    match metric {
        Metric::L2 => left.iter().zip(right).map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::Cosine => dot(left, right) / (dot(left, left) * dot(right, right)).sqrt(),
        _ => dot(left, right),
    }
}
