//! `indexes/…`
use rpc::common::KeyValuePair;
use rpc::milvus as api;
use serde_json::{Value, json};

use super::Call;
use super::collections::{done, pairs};
use super::failure::{Failure, Outcome};
use super::fields::Fields;
use crate::metric::{self, pair, param};
use crate::service::index_not_found;

/// An index that a caller asks for.
pub(super) struct Wanted {
    pub(super) field: String,
    pub(super) name: String,
    pub(super) params: Vec<KeyValuePair>,
}

/// The indexes of `indexParams`.
pub(super) fn wanted(fields: &Fields) -> Outcome<Vec<Wanted>> {
    fields.objects("indexParams")?.iter().map(one).collect()
}

fn one(sent: &Fields) -> Outcome<Wanted> {
    let mut params: Vec<KeyValuePair> = Vec::new();
    for (key, name) in [("index_type", "indexType"), ("metric_type", "metricType")] {
        params.extend(sent.text(name)?.filter(|text| !text.is_empty()).map(|text| pair(key, text)));
    }
    for (key, value) in sent.object("params")?.into_map() {
        if param(&params, &key).is_none() {
            params.push(pair(&key, metric::text(value)));
        }
    }
    let name = sent.text("indexName")?.unwrap_or_default().to_owned();
    Ok(Wanted { field: sent.required("fieldName")?.to_owned(), name, params })
}

pub(super) async fn make(call: &Call<'_>, wanted: Wanted) -> Outcome<()> {
    let request = api::CreateIndexRequest {
        db_name: call.db.clone(),
        collection_name: call.collection()?,
        field_name: wanted.field,
        index_name: wanted.name,
        extra_params: wanted.params,
        ..Default::default()
    };
    call.service.create_index(request).await?;
    Ok(())
}

pub(super) async fn list(call: &Call<'_>) -> Outcome<Value> {
    let indexes = call.indexes("").await?;
    Ok(indexes.into_iter().map(|index| Value::from(index.index_name)).collect())
}

pub(super) async fn describe(call: &Call<'_>) -> Outcome<Value> {
    let indexes = call.indexes(call.fields.required("indexName")?).await?;
    if indexes.is_empty() {
        return Err(index_not_found(&call.collection()?).into());
    }
    Ok(indexes.iter().map(description).collect())
}

fn description(index: &api::IndexDescription) -> Value {
    json!({
        "indexName": index.index_name,
        "fieldName": index.field_name,
        "indexType": param(&index.params, "index_type").unwrap_or_default(),
        "metricType": param(&index.params, "metric_type").unwrap_or_default(),
        "indexState": index.state().as_str_name(),
        "totalRows": index.total_rows,
        "indexedRows": index.indexed_rows,
        "pendingRows": index.pending_index_rows,
        "failReason": index.index_state_fail_reason,
        "indexParams": pairs(&index.params),
    })
}

pub(super) async fn create(call: &Call<'_>) -> Outcome<Value> {
    let wanted = wanted(&call.fields)?;
    if wanted.is_empty() {
        return Err(Failure::Missing("indexParams".into()));
    }
    for index in wanted {
        make(call, index).await?;
    }
    Ok(json!({}))
}

pub(super) async fn drop(call: &Call<'_>) -> Outcome<Value> {
    let request = api::DropIndexRequest {
        db_name: call.db.clone(),
        collection_name: call.collection()?,
        index_name: call.fields.required("indexName")?.to_owned(),
        ..Default::default()
    };
    done(call.service.drop_index(request).await)
}
