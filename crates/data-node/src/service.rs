//! mesh.v1.DataNode: calls to shards and back.

use std::sync::Arc;

use bytes::Bytes;
use node::log;
use rpc::columns::{self, Column};
use rpc::fields::Fields;
use rpc::mesh::data_node_server::{DataNode, DataNodeServer};
use rpc::mesh::{
    CountReply, CountRequest, DropShardReply, DropShardRequest, FlushReply, FlushRequest, GetReply, GetRequest,
    InsertReply, InsertRequest, Metric as WireMetric, OpenShardReply, OpenShardRequest, SearchReply, SearchRequest,
};
use rpc::schema::FieldData;
use tonic::{Request, Response, Status};
use vector_store::{Error, Hits, Metric, Shard};

use crate::assignments::Assignments;
use crate::shards::{ShardError, Shards};

/// The service over the shards that are open here.
#[derive(Clone, Debug)]
pub struct Service {
    shards: Arc<Shards>,
    assignments: Assignments,
}

impl Service {
    /// Serves `shards`, and asks `assignments` about those that are not open.
    pub fn new(shards: Arc<Shards>, assignments: Assignments) -> Self {
        Self { shards, assignments }
    }

    /// As a gRPC service that takes messages of the mesh's size.
    pub fn server(self) -> DataNodeServer<Self> {
        DataNodeServer::new(self)
            .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES)
    }

    /// The open shard. One that is not open may have become ours since we last asked: the coordinator knows.
    async fn shard(&self, id: &str) -> Result<Shard, Status> {
        if let Some(shard) = self.shards.get(id).await {
            return Ok(shard);
        }
        match self.assignments.find(id).await {
            Ok(Some(spec)) => self.shards.open(&spec).await.map_err(|error| refused(&error)),
            Ok(None) => Err(Status::not_found(format!("shard {id}: is not on this data-node"))),
            Err(status) => Err(Status::unavailable(format!(
                "shard {id}: is not open, and the coordinator does not say whose it is: {}",
                status.message()
            ))),
        }
    }

    /// What to answer for an error of a shard. One that another process has taken over is let go first.
    async fn failed(&self, id: &str, error: Error) -> Status {
        if matches!(error, Error::NotOwner(_)) {
            self.shards.let_go(id).await;
        }
        status(id, &error)
    }
}

fn status(id: &str, error: &Error) -> Status {
    let message = format!("shard {id}: {}", log::chain(error));
    match error {
        Error::NotOwner(_) => Status::failed_precondition(message),
        Error::Columns(_) | Error::Invalid(_) => Status::invalid_argument(message),
        Error::Corrupt(_) => Status::data_loss(message),
        _ => Status::unavailable(message),
    }
}

fn refused(error: &ShardError) -> Status {
    let message = log::chain(error);
    match error {
        ShardError::Id(_) | ShardError::Schema { .. } | ShardError::Fields { .. } => Status::invalid_argument(message),
        ShardError::Open { source: Error::Corrupt(_), .. } => Status::data_loss(message),
        _ => Status::unavailable(message),
    }
}

#[tonic::async_trait]
impl DataNode for Service {
    async fn open_shard(&self, request: Request<OpenShardRequest>) -> Result<Response<OpenShardReply>, Status> {
        let spec = request.into_inner().shard.ok_or_else(|| Status::invalid_argument("no shard is named"))?;
        self.shards.open(&spec).await.map_err(|error| refused(&error))?;
        Ok(Response::new(OpenShardReply {}))
    }

    async fn drop_shard(&self, request: Request<DropShardRequest>) -> Result<Response<DropShardReply>, Status> {
        self.shards.drop_shard(&request.into_inner().shard_id).await.map_err(|error| refused(&error))?;
        Ok(Response::new(DropShardReply {}))
    }

    async fn insert(&self, request: Request<InsertRequest>) -> Result<Response<InsertReply>, Status> {
        let InsertRequest { shard_id, columns } = request.into_inner();
        let shard = self.shard(&shard_id).await?;
        let inserted = match columns::from_messages(columns) {
            Ok(columns) => shard.insert(columns).await,
            Err(error) => Err(error.into()),
        };
        match inserted {
            Ok(rows) => Ok(Response::new(InsertReply { rows: rows as u64 })),
            Err(error) => Err(self.failed(&shard_id, error).await),
        }
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let GetRequest { shard_id, ids, output_fields } = request.into_inner();
        let shard = self.shard(&shard_id).await?;
        let output = key_first(shard.fields(), output_fields);
        match shard.get(columns::keys(ids.unwrap_or_default()), &output).await {
            Ok(found) => Ok(Response::new(GetReply { columns: messages(shard.fields(), found) })),
            Err(error) => Err(self.failed(&shard_id, error).await),
        }
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchReply>, Status> {
        let SearchRequest { shard_id, field, metric, limit, queries, output_fields } = request.into_inner();
        let metric = read_metric(metric)?;
        let queries = queries.iter().map(read_query).collect::<Result<_, _>>()?;
        let shard = self.shard(&shard_id).await?;
        match shard.search(&field, metric, queries, limit as usize, &output_fields).await {
            Ok(hits) => Ok(Response::new(found(shard.fields(), hits))),
            Err(error) => Err(self.failed(&shard_id, error).await),
        }
    }

    async fn count(&self, request: Request<CountRequest>) -> Result<Response<CountReply>, Status> {
        let rows = self.shard(&request.into_inner().shard_id).await?.count();
        Ok(Response::new(CountReply { rows: rows as u64 }))
    }

    async fn flush(&self, request: Request<FlushRequest>) -> Result<Response<FlushReply>, Status> {
        let id = request.into_inner().shard_id;
        match self.shard(&id).await?.flush().await {
            Ok(()) => Ok(Response::new(FlushReply {})),
            Err(error) => Err(self.failed(&id, error).await),
        }
    }
}

/// The key, then the fields asked for, each once.
fn key_first(fields: &Fields, output: Vec<String>) -> Vec<String> {
    let mut names = vec![fields.key().name.clone()];
    for name in output {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn messages(fields: &Fields, columns: Vec<Column>) -> Vec<FieldData> {
    columns.into_iter().filter_map(|column| message(fields, column)).collect()
}

fn message(fields: &Fields, column: Column) -> Option<FieldData> {
    let kind = fields.get(&column.name)?.kind;
    Some(column.into_message(kind.data_type()))
}

fn found(fields: &Fields, hits: Hits) -> SearchReply {
    SearchReply {
        hits: hits.counts.iter().map(|count| *count as u32).collect(),
        ids: columns::ids(hits.keys.values),
        scores: hits.scores,
        columns: messages(fields, hits.columns),
    }
}

fn read_metric(metric: i32) -> Result<Metric, Status> {
    match WireMetric::try_from(metric) {
        Ok(WireMetric::L2) => Ok(Metric::L2),
        Ok(WireMetric::Ip) => Ok(Metric::Ip),
        Ok(WireMetric::Cosine) => Ok(Metric::Cosine),
        _ => Err(Status::invalid_argument(format!("metric {metric} is not known"))),
    }
}

fn read_query(query: &Bytes) -> Result<Vec<f32>, Status> {
    match query.as_chunks() {
        (numbers, []) => Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        _ => Err(Status::invalid_argument("a query vector's bytes are no whole number of float32")),
    }
}
