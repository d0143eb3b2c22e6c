//! Collections: made, told of, dropped.
use prost::Message;
use rpc::common::{ConsistencyLevel, Status};
use rpc::mesh::{self, Collection, CreateCollectionRequest};
use rpc::milvus as api;
use rpc::schema::CollectionSchema;

use super::{Service, success, unknown};
use crate::clock::utc_millis;
use crate::cluster;
use crate::error::{Code, Error, Result};
use crate::{names, schema};

const MOST_SHARDS: i32 = 16;

impl Service {
    pub(crate) async fn create_collection(&self, request: api::CreateCollectionRequest) -> Result<Status> {
        names::check_database(&request.db_name)?;
        let wanted = wanted(request)?;
        match self.cluster.coordinator().create_collection(wanted.clone()).await {
            Ok(_) => Ok(Status::default()),
            Err(status) if status.code() == tonic::Code::AlreadyExists => self.same_again(&wanted).await,
            Err(status) => Err(cluster::of_coordinator(&status, unknown)),
        }
    }

    /// To make a collection again exactly as it is succeeds.
    async fn same_again(&self, wanted: &CreateCollectionRequest) -> Result<Status> {
        let there = self.collection("", &wanted.name).await?;
        if there.schema == wanted.schema && there.consistency_level == wanted.consistency_level {
            return Ok(Status::default());
        }
        let reason = format!("create duplicate collection with different parameters, collection: {}", wanted.name);
        Err(Error::refused(Code::Unexpected, reason))
    }

    pub(crate) async fn describe_collection(
        &self,
        request: api::DescribeCollectionRequest,
    ) -> Result<api::DescribeCollectionResponse> {
        let (db, name) = (&request.db_name, &request.collection_name);
        match self.find(db, name).await? {
            Some(collection) => Ok(description(collection)),
            None => Err(Error::refused(
                Code::CollectionNotFound,
                format!("can't find collection[database={}][collection={name}]", names::DEFAULT_DATABASE),
            )),
        }
    }

    pub(crate) async fn has_collection(&self, request: api::HasCollectionRequest) -> Result<api::BoolResponse> {
        let value = self.find(&request.db_name, &request.collection_name).await?.is_some();
        Ok(api::BoolResponse { status: success(), value })
    }

    pub(crate) async fn show_collections(
        &self,
        request: api::ShowCollectionsRequest,
    ) -> Result<api::ShowCollectionsResponse> {
        names::check_database(&request.db_name)?;
        let ask = mesh::ListCollectionsRequest { db: String::new() };
        let reply = self.cluster.coordinator().list_collections(ask).await;
        let collections = reply.map_err(|status| cluster::of_coordinator(&status, unknown))?.into_inner().collections;
        Ok(listing(&collections))
    }

    /// To drop what is not there succeeds.
    pub(crate) async fn drop_collection(&self, request: api::DropCollectionRequest) -> Result<Status> {
        names::check_database(&request.db_name)?;
        names::check_collection(&request.collection_name)?;
        let ask = mesh::DropCollectionRequest { collection: Some(cluster::by_name(&request.collection_name)) };
        match self.cluster.coordinator().drop_collection(ask).await {
            Err(status) if status.code() != tonic::Code::NotFound => Err(cluster::of_coordinator(&status, unknown)),
            _ => Ok(Status::default()),
        }
    }
}

fn wanted(request: api::CreateCollectionRequest) -> Result<CreateCollectionRequest> {
    let sent = CollectionSchema::decode(request.schema)
        .map_err(|error| Error::invalid(format!("collection schema cannot be decoded: {error}")))?;
    if request.shards_num > MOST_SHARDS {
        return Err(Error::invalid(format!("maximum shards's number should be limited to {MOST_SHARDS}")));
    }
    if request.num_partitions > 1 {
        return Err(Error::unbuilt("a collection of several partitions"));
    }
    Ok(CreateCollectionRequest {
        db: String::new(),
        schema: Some(schema::declare(&request.collection_name, sent)?),
        name: request.collection_name,
        consistency_level: request.consistency_level,
        properties: request.properties,
        shards_num: request.shards_num.max(1),
        num_partitions: 1,
    })
}

fn description(collection: Collection) -> api::DescribeCollectionResponse {
    api::DescribeCollectionResponse {
        status: success(),
        collection_id: collection.id,
        shards_num: collection.shards_num.max(1),
        num_partitions: 1,
        db_id: 1,
        db_name: names::DEFAULT_DATABASE.into(),
        collection_name: collection.name,
        schema: collection.schema,
        consistency_level: collection.consistency_level,
        properties: collection.properties,
        created_timestamp: collection.created_timestamp,
        created_utc_timestamp: utc_millis(collection.created_timestamp),
        update_timestamp: collection.created_timestamp,
        update_timestamp_str: collection.created_timestamp.to_string(),
        ..Default::default()
    }
}

fn listing(collections: &[Collection]) -> api::ShowCollectionsResponse {
    api::ShowCollectionsResponse {
        status: success(),
        collection_names: collections.iter().map(|one| one.name.clone()).collect(),
        collection_ids: collections.iter().map(|one| one.id).collect(),
        created_timestamps: collections.iter().map(|one| one.created_timestamp).collect(),
        created_utc_timestamps: collections.iter().map(|one| utc_millis(one.created_timestamp)).collect(),
        in_memory_percentages: collections.iter().map(|one| if one.loaded { 100 } else { 0 }).collect(),
        query_service_available: collections.iter().map(|one| one.loaded).collect(),
        shards_num: collections.iter().map(|one| one.shards_num.max(1)).collect(),
    }
}

/// The consistency level of a record, as its name.
pub(crate) fn level_name(level: i32) -> &'static str {
    ConsistencyLevel::try_from(level).unwrap_or(ConsistencyLevel::Bounded).as_str_name()
}
