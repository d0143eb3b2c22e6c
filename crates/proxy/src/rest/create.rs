//! `collections/create`: the quick form, and the form with a schema.
use prost::Message;
use rpc::common::{ConsistencyLevel, KeyValuePair};
use rpc::milvus as api;
use rpc::schema::{CollectionSchema, DataType, FieldSchema};
use serde_json::{Value, json};

use super::failure::{Failure, Outcome};
use super::fields::Fields;
use super::{Call, collections, indexes};
use crate::error::Error;
use crate::metric::{self, pair};

pub(super) async fn create(call: &Call<'_>) -> Outcome<Value> {
    let schema = call.fields.object("schema")?;
    if schema.objects("fields")?.is_empty() { quick(call).await } else { by_schema(call, &schema).await }
}

async fn quick(call: &Call<'_>) -> Outcome<Value> {
    let fields = &call.fields;
    let vector = fields.text("vectorFieldName")?.unwrap_or("vector").to_owned();
    let metric = fields.text("metricType")?.filter(|name| !name.is_empty()).unwrap_or("COSINE").to_owned();
    make(call, quick_schema(fields, &vector)?).await?;
    indexes::make(
        call,
        indexes::Wanted { field: vector, name: String::new(), params: vec![pair("metric_type", metric)] },
    )
    .await?;
    collections::load(call).await
}

fn quick_schema(fields: &Fields, vector: &str) -> Outcome<CollectionSchema> {
    let params = fields.object("params")?;
    let dimension = fields.number("dimension")?.filter(|dimension| *dimension != 0);
    let dimension = dimension.ok_or_else(|| Error::invalid("dimension is required for quickly create collection"))?;
    let vector = FieldSchema {
        name: vector.to_owned(),
        data_type: kind(fields.text("vectorFieldType")?.unwrap_or("FloatVector"))?.into(),
        type_params: vec![pair("dim", dimension.to_string())],
        ..Default::default()
    };
    Ok(CollectionSchema {
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        fields: vec![quick_key(fields, &params)?, vector],
        enable_dynamic_field: params.get("enableDynamicField").is_none() || params.flag("enableDynamicField")?,
        ..Default::default()
    })
}

fn quick_key(fields: &Fields, params: &Fields) -> Outcome<FieldSchema> {
    let name = fields.text("primaryFieldName")?.filter(|name| !name.is_empty()).unwrap_or("id");
    let length = params.number("max_length")?.map(|length| pair("max_length", length.to_string()));
    Ok(FieldSchema {
        name: name.to_owned(),
        data_type: kind(fields.text("idType")?.filter(|kind| !kind.is_empty()).unwrap_or("Int64"))?.into(),
        is_primary_key: true,
        auto_id: fields.flag("autoID")?,
        type_params: length.into_iter().collect(),
        ..Default::default()
    })
}

async fn by_schema(call: &Call<'_>, sent: &Fields) -> Outcome<Value> {
    let schema = declared(sent)?;
    let wanted = indexes::wanted(&call.fields)?;
    if let Some(stray) = wanted.iter().find(|index| schema.fields.iter().all(|field| field.name != index.field)) {
        return Err(Failure::Missing(format!("{} of indexParams, which is no field of the schema,", stray.field)));
    }
    make(call, schema).await?;
    if wanted.is_empty() {
        return Ok(json!({}));
    }
    for index in wanted {
        indexes::make(call, index).await?;
    }
    collections::load(call).await
}

fn declared(sent: &Fields) -> Outcome<CollectionSchema> {
    for feature in ["functions", "structFields"] {
        if !sent.objects(feature)?.is_empty() {
            return Err(Error::unbuilt(format_args!("a schema with {feature}")).into());
        }
    }
    let auto_id = sent.flag("autoID")?;
    let mut fields: Vec<FieldSchema> = sent.objects("fields")?.iter().map(field).collect::<Outcome<_>>()?;
    fields.iter_mut().for_each(|field| field.auto_id = auto_id && field.is_primary_key);
    Ok(CollectionSchema {
        description: sent.text("description")?.unwrap_or_default().to_owned(),
        auto_id,
        fields,
        enable_dynamic_field: sent.flag("enableDynamicField")?,
        ..Default::default()
    })
}

fn field(sent: &Fields) -> Outcome<FieldSchema> {
    if sent.get("defaultValue").is_some() {
        return Err(Error::unbuilt("a default value").into());
    }
    let params = sent.object("elementTypeParams")?.into_map();
    let type_params: Vec<KeyValuePair> =
        params.into_iter().map(|(key, value)| pair(&key, metric::text(value))).collect();
    Ok(FieldSchema {
        name: sent.required("fieldName")?.to_owned(),
        data_type: kind(sent.required("dataType")?)?.into(),
        description: sent.text("description")?.unwrap_or_default().to_owned(),
        is_primary_key: sent.flag("isPrimary")?,
        is_partition_key: sent.flag("isPartitionKey")?,
        is_clustering_key: sent.flag("isClusteringKey")?,
        nullable: sent.flag("nullable")?,
        type_params,
        ..Default::default()
    })
}

fn kind(name: &str) -> Outcome<DataType> {
    let unknown = || Error::invalid(format!("data type {name} is invalid (case sensitive)"));
    Ok(DataType::from_str_name(name).ok_or_else(unknown)?)
}

async fn make(call: &Call<'_>, schema: CollectionSchema) -> Outcome<()> {
    let params = call.fields.object("params")?;
    let request = api::CreateCollectionRequest {
        db_name: call.db.clone(),
        collection_name: call.collection()?,
        schema: schema.encode_to_vec().into(),
        shards_num: i32::try_from(params.number("shardsNum")?.unwrap_or(0)).unwrap_or(i32::MAX),
        num_partitions: params.number("partitionsNum")?.unwrap_or(0),
        consistency_level: level(&call.fields, &params)?.into(),
        ..Default::default()
    };
    call.service.create_collection(request).await?;
    Ok(())
}

fn level(fields: &Fields, params: &Fields) -> Outcome<ConsistencyLevel> {
    let name = fields.text("consistencyLevel")?.or(params.text("consistencyLevel")?).filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(ConsistencyLevel::Bounded) };
    let unknown =
        || Error::invalid(format!("consistencyLevel {name} is invalid: Strong, Session, Bounded or Eventually"));
    Ok(ConsistencyLevel::from_str_name(name).ok_or_else(unknown)?)
}
