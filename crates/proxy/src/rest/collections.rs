//! `collections/…`, but for `create`.
use rpc::common::LoadState;
use rpc::milvus as api;
use rpc::schema::{CollectionSchema, FieldSchema};
use serde_json::{Value, json};

use super::Call;
use super::failure::{Failure, Outcome};
use crate::error::{Code, Error};
use crate::metric::param;
use crate::service::level_name;

impl Call<'_> {
    /// The collection that a call is about.
    pub(super) fn collection(&self) -> Outcome<String> {
        self.fields.required("collectionName").map(str::to_owned)
    }

    pub(super) async fn described(&self) -> Outcome<api::DescribeCollectionResponse> {
        let collection_name = self.collection()?;
        let request =
            api::DescribeCollectionRequest { db_name: self.db.clone(), collection_name, ..Default::default() };
        Ok(self.service.describe_collection(request).await?)
    }

    /// The indexes of a collection; none is no failure here.
    pub(super) async fn indexes(&self, index_name: &str) -> Outcome<Vec<api::IndexDescription>> {
        let (db_name, collection_name) = (self.db.clone(), self.collection()?);
        let index_name = index_name.to_owned();
        let request = api::DescribeIndexRequest { db_name, collection_name, index_name, ..Default::default() };
        match self.service.describe_index(request).await {
            Ok(answer) => Ok(answer.index_descriptions),
            Err(Error::Refused(refusal)) if refusal.code == Code::IndexNotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn load_state(&self) -> Outcome<LoadState> {
        let partition_names = self.fields.texts("partitionNames")?.unwrap_or_default();
        let (db_name, collection_name) = (self.db.clone(), self.collection()?);
        let request = api::GetLoadStateRequest { db_name, collection_name, partition_names, ..Default::default() };
        Ok(self.service.get_load_state(request).await?.state())
    }
}

pub(super) async fn list(call: &Call<'_>) -> Outcome<Value> {
    let request = api::ShowCollectionsRequest { db_name: call.db.clone(), ..Default::default() };
    Ok(json!(call.service.show_collections(request).await?.collection_names))
}

pub(super) async fn has(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_name) = (call.db.clone(), call.collection()?);
    let request = api::HasCollectionRequest { db_name, collection_name, ..Default::default() };
    Ok(json!({"has": call.service.has_collection(request).await?.value}))
}

pub(super) async fn get_stats(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_name) = (call.db.clone(), call.collection()?);
    let request = api::GetCollectionStatisticsRequest { db_name, collection_name, ..Default::default() };
    let stats = call.service.get_collection_statistics(request).await?.stats;
    let rows: i64 = param(&stats, "row_count").and_then(|rows| rows.parse().ok()).unwrap_or_default();
    Ok(json!({"rowCount": rows}))
}

pub(super) async fn get_load_state(call: &Call<'_>) -> Outcome<Value> {
    let state = call.load_state().await?;
    let name = state.as_str_name();
    Ok(if state == LoadState::Loaded {
        json!({"loadState": name, "loadProgress": 100})
    } else {
        json!({"loadState": name})
    })
}

pub(super) async fn drop(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_name) = (call.db.clone(), call.collection()?);
    done(
        call.service
            .drop_collection(api::DropCollectionRequest { db_name, collection_name, ..Default::default() })
            .await,
    )
}

pub(super) async fn load(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_name) = (call.db.clone(), call.collection()?);
    done(
        call.service
            .load_collection(api::LoadCollectionRequest { db_name, collection_name, ..Default::default() })
            .await,
    )
}

pub(super) async fn release(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_name) = (call.db.clone(), call.collection()?);
    let request = api::ReleaseCollectionRequest { db_name, collection_name, ..Default::default() };
    done(call.service.release_collection(request).await)
}

pub(super) async fn flush(call: &Call<'_>) -> Outcome<Value> {
    let (db_name, collection_names) = (call.db.clone(), vec![call.collection()?]);
    done(call.service.flush(api::FlushRequest { db_name, collection_names, ..Default::default() }).await)
}

/// The one database's name.
pub(super) fn databases(call: &Call<'_>) -> Outcome<Value> {
    Ok(json!(call.service.list_databases(api::ListDatabasesRequest::default())?.db_names))
}

/// An answer with nothing to say.
pub(super) fn done<T>(outcome: Result<T, Error>) -> Outcome<Value> {
    outcome.map(|_| json!({})).map_err(Failure::Api)
}

pub(super) async fn describe(call: &Call<'_>) -> Outcome<Value> {
    let described = call.described().await?;
    let indexes = call.indexes("").await?;
    let load = call.load_state().await?;
    let schema = described.schema.unwrap_or_default();
    Ok(json!({
        "collectionName": described.collection_name,
        "collectionID": described.collection_id,
        "description": schema.description,
        "autoId": schema.auto_id,
        "fields": fields(&schema),
        "structFields": [],
        "functions": [],
        "aliases": described.aliases,
        "indexes": indexes.iter().map(index).collect::<Vec<_>>(),
        "load": load.as_str_name(),
        "shardsNum": described.shards_num,
        "partitionsNum": described.num_partitions,
        "consistencyLevel": level_name(described.consistency_level),
        "enableDynamicField": schema.enable_dynamic_field,
        "properties": pairs(&described.properties),
    }))
}

fn fields(schema: &CollectionSchema) -> Vec<Value> {
    schema.fields.iter().map(field).collect()
}

fn field(field: &FieldSchema) -> Value {
    json!({
        "name": field.name,
        "id": field.field_id,
        "type": field.data_type().as_str_name(),
        "primaryKey": field.is_primary_key,
        "partitionKey": field.is_partition_key,
        "clusteringKey": field.is_clustering_key,
        "autoId": field.auto_id,
        "nullable": field.nullable,
        "description": field.description,
        "params": pairs(&field.type_params),
    })
}

fn index(index: &api::IndexDescription) -> Value {
    json!({
        "indexName": index.index_name,
        "fieldName": index.field_name,
        "metricType": param(&index.params, "metric_type").unwrap_or_default(),
    })
}

/// Pairs as a list of objects.
pub(super) fn pairs(pairs: &[rpc::common::KeyValuePair]) -> Value {
    pairs.iter().map(|pair| json!({"key": pair.key, "value": pair.value})).collect()
}
