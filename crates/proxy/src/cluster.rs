//! The rest of the cluster, as the proxy calls it: one coordinator, some data-nodes.
//!
//! 1. A call to a node that fails names that node. What a retry may cure is [`Error::Unavailable`]; what it cannot is a
//!    refusal, for clients would retry it for minutes.
//! 2. A fan-out answers when all have answered, and fails with the first that fails: never a part for the whole.
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, try_join_all};
use internaltls::foreign;
use rpc::mesh::coordinator_client::CoordinatorClient;
use rpc::mesh::data_node_client::DataNodeClient;
use rpc::mesh::identity_client::IdentityClient;
use rpc::mesh::{self, Collection, ShardPlacement};
use tonic::body::Body;
use tonic::{Code as GrpcCode, Response, Status};
use tower::util::BoxCloneSyncService;

use crate::error::{Code, Error, Result};

/// A channel to one node, whatever carries it.
pub type Wire = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// A client of one data-node.
pub(crate) type Client = DataNodeClient<Wire>;

/// A call to one shard.
pub(crate) type Pending<R> = BoxFuture<'static, Result<R>>;

/// How long a node may take to say who it is before it counts as absent.
const PROBE: Duration = Duration::from_secs(2);

/// Every node the proxy may call.
#[derive(Clone)]
pub struct Cluster {
    coordinator: Wire,
    data_nodes: Arc<BTreeMap<String, Wire>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("data_nodes", &self.data_nodes.keys()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A coordinator, and the data-nodes by their ids.
    pub fn new(coordinator: Wire, data_nodes: impl IntoIterator<Item = (String, Wire)>) -> Self {
        Self { coordinator, data_nodes: Arc::new(data_nodes.into_iter().collect()) }
    }

    pub(crate) fn coordinator(&self) -> CoordinatorClient<Wire> {
        CoordinatorClient::new(self.coordinator.clone()).max_decoding_message_size(usize::MAX)
    }

    fn data_node(&self, id: &str) -> Result<Client> {
        let unknown = || Error::unavailable(format!("data-node {id} owns a shard and is not among cluster.dataNodes"));
        let wire = self.data_nodes.get(id).ok_or_else(unknown)?;
        Ok(DataNodeClient::new(wire.clone()).max_decoding_message_size(usize::MAX))
    }

    /// The nodes that do not answer now, as `(name, reason)`; the reason is none for one that does.
    pub(crate) async fn probe(&self) -> Vec<(String, std::result::Result<(), String>)> {
        let coordinator = std::iter::once(("coordinator".to_owned(), self.coordinator.clone()));
        let nodes = self.data_nodes.iter().map(|(id, wire)| (id.clone(), wire.clone()));
        join_all(coordinator.chain(nodes).map(|(name, wire)| async { (name, who(wire).await) })).await
    }

    /// A call to the owner of a shard, not begun yet.
    pub(crate) fn call<R, F>(&self, shard: &ShardPlacement, call: impl FnOnce(Client, String) -> F) -> Pending<R>
    where
        R: Send + 'static,
        F: Future<Output = std::result::Result<Response<R>, Status>> + Send + 'static,
    {
        let node = shard.node_id.clone();
        let answer = self.data_node(&node).map(|client| call(client, shard.shard_id.clone()));
        Box::pin(async move { answer?.await.map(Response::into_inner).map_err(|status| of_data_node(&node, &status)) })
    }
}

/// All answers, in the order of the calls.
pub(crate) async fn all<R>(calls: Vec<Pending<R>>) -> Result<Vec<R>> {
    try_join_all(calls).await
}

async fn who(wire: Wire) -> std::result::Result<(), String> {
    let mut client = IdentityClient::new(wire);
    match tokio::time::timeout(PROBE, client.who_am_i(mesh::WhoAmIRequest {})).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer in {} s", PROBE.as_secs())),
    }
}

/// How to refer to a collection of the default database.
pub(crate) fn by_name(name: &str) -> mesh::CollectionRef {
    mesh::CollectionRef { db: String::new(), by: Some(mesh::collection_ref::By::Name(name.to_owned())) }
}

/// A reply's collection, which is never absent.
pub(crate) fn present(collection: Option<Collection>) -> Result<Collection> {
    collection.ok_or_else(|| Error::refused(Code::Unexpected, "the coordinator answered without a collection"))
}

/// What a failed call to the coordinator means; `missing` is what NOT_FOUND means there.
pub(crate) fn of_coordinator(status: &Status, missing: impl FnOnce() -> Error) -> Error {
    match status.code() {
        GrpcCode::NotFound => missing(),
        _ => told("coordinator", status),
    }
}

fn of_data_node(node: &str, status: &Status) -> Error {
    match status.code() {
        // The record named a shard that its owner does not have (yet, or any more): asking again asks a new record.
        GrpcCode::NotFound => Error::unavailable(format!("data-node {node}: {}", status.message())),
        _ => told(&format!("data-node {node}"), status),
    }
}

fn told(node: &str, status: &Status) -> Error {
    let text = format!("{node}: {}", status.message());
    match status.code() {
        GrpcCode::Unavailable
        | GrpcCode::FailedPrecondition
        | GrpcCode::Aborted
        | GrpcCode::Cancelled
        | GrpcCode::DeadlineExceeded
        | GrpcCode::ResourceExhausted => Error::unavailable(text),
        GrpcCode::InvalidArgument => Error::invalid(text),
        GrpcCode::Unimplemented => Error::Unbuilt(foreign::sentence(&text)),
        code => Error::refused(Code::Unexpected, format!("{text} ({code:?})")),
    }
}
