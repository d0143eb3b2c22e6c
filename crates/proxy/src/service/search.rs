//! Search: every shard, exactly, at once; merged here.
use rpc::mesh::{self, Collection, SearchReply, ShardPlacement};
use rpc::milvus as api;
use rpc::schema::{CollectionSchema, DataType, FieldData, SearchResultData};

use super::query::gather_named;
use super::{Service, now, schema_of, success};
use crate::error::{Error, Result};
use crate::key;
use crate::merge::{self, Merged, ShardHits};
use crate::output::{self, Output};
use crate::plan::{self, Plan, Window};
use crate::{cluster, metric, names, schema};

impl Service {
    pub(crate) async fn search(&self, request: api::SearchRequest) -> Result<api::SearchResults> {
        let collection = self.loaded(&request.db_name, &request.collection_name).await?;
        names::check_partitions(&request.partition_names)?;
        let schema = schema_of(&collection)?;
        let plan = plan::read(&request, schema, &collection.indexes)?;
        let output = output::of_search(schema, &request.output_fields)?;
        let replies = self.ask(&collection, &plan, &output).await?;
        let results = answer(replies, &plan, &output, schema)?;
        Ok(api::SearchResults {
            status: success(),
            results: Some(results),
            collection_name: collection.name,
            session_ts: now(),
        })
    }

    async fn ask(&self, collection: &Collection, plan: &Plan, output: &Output) -> Result<Vec<SearchReply>> {
        let limit = u32::try_from(plan.offset + plan.limit).map_err(|_| Error::invalid("topk is too large"))?;
        let call = |shard: &ShardPlacement| {
            let mut request = asked(plan, output, limit);
            self.cluster.call(shard, |mut client, shard_id| async move {
                request.shard_id = shard_id;
                client.search(request).await
            })
        };
        cluster::all(collection.shards.iter().map(call).collect()).await
    }
}

fn asked(plan: &Plan, output: &Output, limit: u32) -> mesh::SearchRequest {
    mesh::SearchRequest {
        shard_id: String::new(),
        field: plan.field.clone(),
        metric: plan.metric.into(),
        limit,
        queries: plan.queries.clone(),
        output_fields: output.columns(),
    }
}

fn answer(
    replies: Vec<SearchReply>,
    plan: &Plan,
    output: &Output,
    schema: &CollectionSchema,
) -> Result<SearchResultData> {
    let (shards, columns): (Vec<ShardHits>, Vec<Vec<FieldData>>) = replies.into_iter().map(split).unzip();
    let window = Window { offset: plan.offset, limit: plan.limit };
    let merged = merge::merge(&shards, plan.queries.len(), metric::larger_is_nearer(plan.metric), window)?;
    let fields_data = fetched(&columns, output, &merged)?;
    let primary = schema::primary(schema)?;
    Ok(results(merged, plan, primary.name.clone(), primary.data_type(), fields_data, output.names.clone()))
}

fn split(reply: SearchReply) -> (ShardHits, Vec<FieldData>) {
    let hits = ShardHits { hits: reply.hits, keys: key::from_ids(reply.ids), scores: reply.scores };
    (hits, reply.columns)
}

fn fetched(columns: &[Vec<FieldData>], output: &Output, merged: &Merged) -> Result<Vec<FieldData>> {
    if merged.picks.is_empty() {
        return Ok(output.empty());
    }
    output.columns().iter().map(|name| gather_named(columns, name, &merged.picks)).collect()
}

fn results(
    merged: Merged,
    plan: &Plan,
    primary_field_name: String,
    kind: DataType,
    fields_data: Vec<FieldData>,
    output_fields: Vec<String>,
) -> SearchResultData {
    SearchResultData {
        num_queries: plan.queries.len() as i64,
        top_k: merged.topks.iter().copied().max().unwrap_or(0),
        fields_data,
        scores: merged.scores.iter().map(|&score| merge::rounded(score, plan.round_decimal)).collect(),
        ids: Some(key::to_ids(&merged.keys, kind)),
        topks: merged.topks,
        output_fields,
        primary_field_name,
        ..Default::default()
    }
}
