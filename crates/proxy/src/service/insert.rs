//! Rows in: checked, spread over the shards by their keys, acknowledged once every shard has them durable.
use std::time::SystemTime;

use rpc::mesh::{self, Collection, ShardPlacement};
use rpc::milvus as api;
use rpc::schema::FieldData;

use super::{Service, now, schema_of, success};
use crate::error::{Code, Error, Result};
use crate::key::{self, Key};
use crate::rows::{self, Rows};
use crate::{cluster, columns, names, schema};

impl Service {
    pub(crate) async fn insert(&self, request: api::InsertRequest) -> Result<api::MutationResult> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        names::check_partitions([&request.partition_name])?;
        check_age(request.schema_timestamp, &collection)?;
        let schema = schema_of(&collection)?;
        let generate = |count| self.keys.take(count, SystemTime::now());
        let rows = rows::check(schema, request.fields_data, request.num_rows as usize, generate)?;
        self.write(&collection, &rows).await?;
        Ok(acknowledged(&rows.keys, schema::primary(schema)?.data_type()))
    }

    async fn write(&self, collection: &Collection, rows: &Rows) -> Result<()> {
        let call = |(shard, columns): (&ShardPlacement, Vec<FieldData>)| {
            self.cluster.call(shard, |mut client, shard_id| async move {
                client.insert(mesh::InsertRequest { shard_id, columns }).await
            })
        };
        let writes = spread(&collection.shards, rows)?.into_iter().map(call).collect();
        cluster::all(writes).await.map(drop)
    }
}

/// The rows that each shard gets; a shard that gets none is not called.
fn spread<'a>(shards: &'a [ShardPlacement], rows: &Rows) -> Result<Vec<(&'a ShardPlacement, Vec<FieldData>)>> {
    if shards.is_empty() {
        return Err(Error::refused(Code::Unexpected, "the collection has no shards"));
    }
    let spread = rows::by_shard(&rows.keys, shards.len(), shard_of);
    let filled = shards.iter().zip(spread).filter(|(_, rows)| !rows.is_empty());
    filled.map(|(shard, picked)| Ok((shard, columns::select(&rows.columns, &picked)?))).collect()
}

/// The place of a key among so many shards.
pub(crate) fn shard_of(key: &Key, shards: usize) -> usize {
    match key {
        Key::Int(value) => rpc::shard_of(rpc::KeyRef::Int64(*value), shards),
        Key::Text(value) => rpc::shard_of(rpc::KeyRef::VarChar(value), shards),
    }
}

/// A client that still holds the schema of a collection dropped since is told to ask for it again.
fn check_age(seen: u64, collection: &Collection) -> Result<()> {
    if seen == 0 || seen >= collection.created_timestamp {
        return Ok(());
    }
    Err(Error::refused(Code::SchemaMismatch, format!("collection schema mismatch[collection={}]", collection.name)))
}

fn acknowledged(keys: &[Key], kind: rpc::schema::DataType) -> api::MutationResult {
    let count = keys.len() as u32;
    api::MutationResult {
        status: success(),
        i_ds: Some(key::to_ids(keys, kind)),
        succ_index: (0..count).collect(),
        acknowledged: true,
        insert_cnt: i64::from(count),
        timestamp: now(),
        ..Default::default()
    }
}
