//! `entities/…`
use prost::Message;
use rpc::common::{KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue};
use rpc::milvus as api;
use rpc::milvus::search_request::SearchInput;
use rpc::schema::{CollectionSchema, DataType, FieldSchema, SearchResultData};
use serde_json::{Map, Value, json};

use super::Call;
use super::failure::{Failure, Outcome};
use super::fields::Fields;
use super::rows;
use crate::error::Error;
use crate::filter;
use crate::key::{self, Key};
use crate::metric::pair;
use crate::schema;

const COUNT: &str = "count(*)";
const LIMIT: i64 = 100;

impl Call<'_> {
    async fn schema(&self) -> Outcome<CollectionSchema> {
        Ok(self.described().await?.schema.unwrap_or_default())
    }

    fn output_fields(&self, default: &[&str]) -> Outcome<Vec<String>> {
        let default = || default.iter().map(|name| (*name).to_owned()).collect();
        Ok(self.fields.texts("outputFields")?.unwrap_or_else(default))
    }

    fn partitions(&self) -> Outcome<Vec<String>> {
        Ok(self.fields.texts("partitionNames")?.unwrap_or_default())
    }

    fn key(&self, key: &Key) -> Value {
        match key {
            Key::Int(value) => rows::number(*value, self.longs_as_text),
            Key::Text(text) => text.as_str().into(),
        }
    }
}

pub(super) async fn insert(call: &Call<'_>) -> Outcome<Value> {
    let collection_name = call.collection()?;
    let rows = sent_rows(&call.fields)?;
    let num_rows = u32::try_from(rows.len()).map_err(|_| Failure::BadRows("too many rows".into()))?;
    let request = api::InsertRequest {
        db_name: call.db.clone(),
        collection_name,
        partition_name: call.fields.text("partitionName")?.unwrap_or_default().to_owned(),
        fields_data: rows::to_columns(&call.schema().await?, rows)?,
        num_rows,
        ..Default::default()
    };
    let inserted = call.service.insert(request).await?;
    let ids: Vec<Value> = key::from_ids(inserted.i_ds).iter().map(|key| call.key(key)).collect();
    Ok(json!({"insertCount": inserted.insert_cnt, "insertIds": ids}))
}

/// `data`: a list of row objects, or one row.
fn sent_rows(fields: &Fields) -> Outcome<Vec<Map<String, Value>>> {
    let row = |value: &Value| value.as_object().cloned();
    let rows = match fields.get("data") {
        None => return Err(Failure::Missing("data".into())),
        Some(Value::Array(rows)) if rows.is_empty() => return Err(Failure::Missing("data".into())),
        Some(Value::Array(rows)) => rows.iter().map(row).collect::<Option<Vec<_>>>(),
        Some(one) => row(one).map(|row| vec![row]),
    };
    rows.ok_or_else(|| Failure::bad_json("`data` must be a list of objects"))
}

pub(super) async fn get(call: &Call<'_>) -> Outcome<Value> {
    let collection_name = call.collection()?;
    let sent = call.fields.get("id").ok_or_else(|| Failure::Missing("id".into()))?.clone();
    let schema = call.schema().await?;
    let primary = schema::primary(&schema)?;
    let request = api::QueryRequest {
        db_name: call.db.clone(),
        collection_name,
        expr: filter::naming(&primary.name, &keys(&sent, primary)?),
        output_fields: call.output_fields(&["*"])?,
        partition_names: call.partitions()?,
        ..Default::default()
    };
    found(call, request).await
}

fn keys(sent: &Value, primary: &FieldSchema) -> Outcome<Vec<Key>> {
    let one = |value: &Value| match primary.data_type() {
        DataType::VarChar => value.as_str().map(|text| Key::Text(text.to_owned())),
        _ => rows::long(value).map(Key::Int),
    };
    let wrong = || Failure::BadKey(format!("`{}` is {}", primary.name, primary.data_type().as_str_name()));
    match sent {
        Value::Array(list) => list.iter().map(one).collect::<Option<_>>(),
        value => one(value).map(|key| vec![key]),
    }
    .ok_or_else(wrong)
}

pub(super) async fn query(call: &Call<'_>) -> Outcome<Value> {
    let output_fields = call.output_fields(&["*"])?;
    let counts = output_fields.iter().any(|name| name == COUNT);
    let request = api::QueryRequest {
        db_name: call.db.clone(),
        collection_name: call.collection()?,
        expr: call.fields.text("filter")?.unwrap_or_default().to_owned(),
        output_fields,
        partition_names: call.partitions()?,
        query_params: if counts { Vec::new() } else { window(&call.fields, "limit")? },
        ..Default::default()
    };
    refuse(&call.fields, &["exprParams", "orderByFields"])?;
    found(call, request).await
}

async fn found(call: &Call<'_>, request: api::QueryRequest) -> Outcome<Value> {
    let answer = call.service.query(request).await?;
    Ok(rows::from_columns(&answer.fields_data, &answer.output_fields, call.longs_as_text)
        .into_iter()
        .map(Value::from)
        .collect())
}

fn window(fields: &Fields, limit: &str) -> Outcome<Vec<KeyValuePair>> {
    let size = fields.number("limit")?.filter(|limit| *limit != 0).unwrap_or(LIMIT);
    let offset = fields.number("offset")?.unwrap_or(0);
    Ok(vec![pair(limit, size.to_string()), pair("offset", offset.to_string())])
}

/// Fields that would change the answer and are not built.
fn refuse(fields: &Fields, names: &[&str]) -> Outcome<()> {
    let asks = |value: &Value| {
        !matches!(value, Value::Object(map) if map.is_empty()) && value != &json!([]) && value != &json!("")
    };
    match names.iter().find(|name| fields.get(name).is_some_and(asks)) {
        Some(name) => Err(Error::unbuilt(format_args!("`{name}`")).into()),
        None => Ok(()),
    }
}

pub(super) async fn search(call: &Call<'_>) -> Outcome<Map<String, Value>> {
    let collection_name = call.collection()?;
    refuse(&call.fields, &["exprParams", "groupingField", "functionScore", "searchAggregation"])?;
    let request = api::SearchRequest {
        db_name: call.db.clone(),
        collection_name,
        partition_names: call.partitions()?,
        dsl: call.fields.text("filter")?.unwrap_or_default().to_owned(),
        output_fields: call.output_fields(&[])?,
        search_params: search_params(&call.fields)?,
        search_input: Some(input(&call.fields)?),
        ..Default::default()
    };
    let results = call.service.search(request).await?.results.unwrap_or_default();
    Ok(hits(call, results))
}

fn search_params(fields: &Fields) -> Outcome<Vec<KeyValuePair>> {
    let mut params = window(fields, "topk")?;
    let sent = fields.object("searchParams")?;
    let metric = sent.text("metricType")?.or(sent.text("metric_type")?).unwrap_or_default().to_owned();
    let mut all = sent.object("params")?.into_map();
    all.extend(sent.into_map().into_iter().filter(|(key, _)| !key.eq_ignore_ascii_case("params")));
    params.push(pair("metric_type", metric));
    params.push(pair("params", Value::Object(all).to_string()));
    params.extend(fields.text("annsField")?.map(|name| pair("anns_field", name)));
    Ok(params)
}

fn input(fields: &Fields) -> Outcome<SearchInput> {
    match (fields.list("data")?, fields.get("ids")) {
        (Some(_), Some(_)) => Err(Error::invalid("data and ids cannot both be given").into()),
        (None, Some(_)) => Err(Error::unbuilt("a search by keys (`ids`)").into()),
        (None, None) => Err(Failure::Missing("data".into())),
        (Some(vectors), None) => placeholders(vectors),
    }
}

fn placeholders(vectors: &[Value]) -> Outcome<SearchInput> {
    let wrong = || Failure::bad_json("`data` must be a list of vectors, each a list of numbers");
    let vectors: Vec<Vec<f32>> = vectors.iter().map(rows::vector).collect::<Option<_>>().ok_or_else(wrong)?;
    let bytes = |vector: Vec<f32>| vector.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into();
    let value = PlaceholderValue {
        tag: "$0".into(),
        r#type: PlaceholderType::FloatVector.into(),
        values: vectors.into_iter().map(bytes).collect(),
        ..Default::default()
    };
    Ok(SearchInput::PlaceholderGroup(PlaceholderGroup { placeholders: vec![value] }.encode_to_vec().into()))
}

fn hits(call: &Call<'_>, results: SearchResultData) -> Map<String, Value> {
    let mut rows = rows::from_columns(&results.fields_data, &results.output_fields, call.longs_as_text);
    let keys = key::from_ids(results.ids);
    rows.resize_with(keys.len(), Map::new);
    for ((row, key), score) in rows.iter_mut().zip(&keys).zip(&results.scores) {
        row.insert(results.primary_field_name.clone(), call.key(key));
        row.insert("distance".into(), rows::float(*score));
    }
    Map::from_iter([("data".to_owned(), rows.into()), ("topks".to_owned(), json!(results.topks))])
}
