//! What each call of the API does. Both edges, gRPC and REST, call these and nothing else.
//!
//! 1. Requests and answers are the Milvus messages: the types both edges translate from and to.
//! 2. No state: a collection's record is asked of the coordinator in every call, so no proxy is ever stale.
//! 3. A refusal is an [`Error`](crate::error::Error); an answer's `status` stays at success here.
use std::time::SystemTime;

use rpc::common::{ServerInfo, Status};
use rpc::mesh::{Collection, DescribeCollectionRequest};
use rpc::milvus as api;

use crate::clock::{self, KeySource};
use crate::cluster::{self, Cluster};
use crate::error::{Code, Error, Result};
use crate::names;

mod collections;
mod databases;
mod indexes;
mod insert;
mod load;
mod query;
mod search;
mod storage;

pub(crate) use collections::level_name;
pub(crate) use indexes::index_not_found;

/// The version of the Milvus API that is spoken, and ours.
pub(crate) const VERSION: &str = concat!("v2.6.0-mesh.", env!("CARGO_PKG_VERSION"));

/// The API, over a cluster.
#[derive(Debug)]
pub(crate) struct Service {
    cluster: Cluster,
    keys: KeySource,
}

impl Service {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, keys: KeySource::new(rand::random()) }
    }

    pub(crate) fn connect(&self, _: api::ConnectRequest) -> Result<api::ConnectResponse> {
        let server_info = ServerInfo {
            build_tags: VERSION.into(),
            deploy_mode: "CLUSTER".into(),
            build_time: String::new(),
            ..Default::default()
        };
        let identifier = i64::try_from(now()).unwrap_or(i64::MAX);
        Ok(api::ConnectResponse { status: success(), server_info: Some(server_info), identifier })
    }

    pub(crate) fn get_version(&self, _: api::GetVersionRequest) -> Result<api::GetVersionResponse> {
        Ok(api::GetVersionResponse { status: success(), version: VERSION.into() })
    }

    pub(crate) async fn check_health(&self, _: api::CheckHealthRequest) -> Result<api::CheckHealthResponse> {
        let absent = self.cluster.probe().await.into_iter();
        let reasons: Vec<String> =
            absent.filter_map(|(name, answer)| answer.err().map(|reason| format!("{name}: {reason}"))).collect();
        let is_healthy = reasons.is_empty();
        Ok(api::CheckHealthResponse { status: success(), is_healthy, reasons })
    }

    pub(crate) fn alloc_timestamp(&self, _: api::AllocTimestampRequest) -> Result<api::AllocTimestampResponse> {
        Ok(api::AllocTimestampResponse { status: success(), timestamp: now() })
    }

    /// The record of a collection, or the refusal that clients know.
    async fn collection(&self, db: &str, name: &str) -> Result<Collection> {
        self.find(db, name).await?.ok_or_else(|| {
            Error::refused(
                Code::CollectionNotFound,
                format!("collection not found[database={}][collection={name}]", names::DEFAULT_DATABASE),
            )
        })
    }

    async fn find(&self, db: &str, name: &str) -> Result<Option<Collection>> {
        names::check_database(db)?;
        names::check_collection(name)?;
        let request = DescribeCollectionRequest { collection: Some(cluster::by_name(name)) };
        match self.cluster.coordinator().describe_collection(request).await {
            Ok(reply) => cluster::present(reply.into_inner().collection).map(Some),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(cluster::of_coordinator(&status, unknown)),
        }
    }

    /// The record of a collection that can be read from.
    async fn loaded(&self, db: &str, name: &str) -> Result<Collection> {
        let collection = self.collection(db, name).await?;
        if collection.loaded { Ok(collection) } else { Err(not_loaded(name)) }
    }
}

fn unknown() -> Error {
    Error::refused(Code::Unexpected, "the coordinator does not know what it was asked for")
}

fn not_loaded(name: &str) -> Error {
    Error::refused(Code::CollectionNotLoaded, format!("collection not loaded[collection={name}]"))
}

fn success() -> Option<Status> {
    Some(Status::default())
}

fn now() -> u64 {
    clock::timestamp(SystemTime::now())
}

fn schema_of(collection: &Collection) -> Result<&rpc::schema::CollectionSchema> {
    let missing = || Error::refused(Code::Unexpected, "the coordinator answered a collection without a schema");
    collection.schema.as_ref().ok_or_else(missing)
}
