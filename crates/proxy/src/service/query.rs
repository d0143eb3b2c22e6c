//! Rows by key, and counting.
use rpc::mesh::{self, Collection, ShardPlacement};
use rpc::milvus as api;
use rpc::schema::{CollectionSchema, FieldData};

use super::insert::shard_of;
use super::{Service, now, schema_of, success};
use crate::columns::{self, Pick};
use crate::error::{Error, Result};
use crate::filter::{self, Filter};
use crate::key::{self, Key};
use crate::output::{self, Output};
use crate::plan::{self, Window};
use crate::{cluster, metric, names, rows, schema};

const COUNT: &str = "count(*)";

impl Service {
    pub(crate) async fn query(&self, request: api::QueryRequest) -> Result<api::QueryResults> {
        let collection = self.loaded(&request.db_name, &request.collection_name).await?;
        names::check_partitions(&request.partition_names)?;
        check_features(&request)?;
        let schema = schema_of(&collection)?;
        let filter = filter::parse(&request.expr, schema::primary(schema)?)?;
        if request.output_fields.iter().any(|name| name == COUNT) {
            return self.count(&request, &collection, filter).await;
        }
        let window = window(&request)?;
        let output = output::of_query(schema, &request.output_fields)?;
        let rows = match filter {
            Filter::Keys(keys) => self.get(&collection, &keys, &output).await?,
            Filter::All if window.is_none() => {
                return Err(Error::invalid("empty expression should be used with limit"));
            }
            Filter::All => return Err(Error::unbuilt("a query without a filter")),
        };
        let fields_data = in_order(rows, schema, &output, window)?;
        Ok(results(&collection, schema_key(schema)?, fields_data, output.names))
    }

    /// How many rows a collection has.
    pub(crate) async fn count_rows(&self, collection: &Collection) -> Result<i64> {
        let call = |shard| {
            self.cluster
                .call(shard, |mut client, shard_id| async move { client.count(mesh::CountRequest { shard_id }).await })
        };
        let counts = cluster::all(collection.shards.iter().map(call).collect()).await?;
        Ok(counts.iter().map(|count| i64::try_from(count.rows).unwrap_or(i64::MAX)).sum())
    }

    async fn count(
        &self,
        request: &api::QueryRequest,
        collection: &Collection,
        filter: Filter,
    ) -> Result<api::QueryResults> {
        if window(request)?.is_some() {
            return Err(Error::invalid("count entities with pagination is not allowed"));
        }
        let schema = schema_of(collection)?;
        let count = match filter {
            Filter::All => self.count_rows(collection).await?,
            Filter::Keys(keys) => self.count_found(collection, schema, &keys).await?,
        };
        let name = schema_key(schema)?;
        Ok(results(collection, name, vec![columns::longs(COUNT, vec![count])], vec![COUNT.into()]))
    }

    async fn count_found(&self, collection: &Collection, schema: &CollectionSchema, keys: &[Key]) -> Result<i64> {
        let output = output::of_query(schema, &[])?;
        let found = self.get(collection, keys, &output).await?;
        Ok(found.iter().filter_map(|columns| columns.first().and_then(columns::rows)).sum::<usize>() as i64)
    }

    /// The rows of these keys, from the shards they live in.
    async fn get(&self, collection: &Collection, keys: &[Key], output: &Output) -> Result<Vec<Vec<FieldData>>> {
        let kind = schema::primary(schema_of(collection)?)?.data_type();
        let call = |(shard, keys): (&ShardPlacement, Vec<Key>)| {
            let (ids, output_fields) = (Some(key::to_ids(&keys, kind)), output.columns());
            self.cluster.call(shard, |mut client, shard_id| async move {
                client.get(mesh::GetRequest { shard_id, ids, output_fields }).await
            })
        };
        let replies = cluster::all(asked(&collection.shards, keys).into_iter().map(call).collect()).await?;
        Ok(replies.into_iter().map(|reply| reply.columns).collect())
    }
}

/// The keys that each shard is asked for.
fn asked<'a>(shards: &'a [ShardPlacement], keys: &[Key]) -> Vec<(&'a ShardPlacement, Vec<Key>)> {
    if shards.is_empty() {
        return Vec::new();
    }
    let spread = rows::by_shard(keys, shards.len(), shard_of);
    let filled = shards.iter().zip(spread).filter(|(_, rows)| !rows.is_empty());
    filled.map(|(shard, rows)| (shard, rows.into_iter().map(|row| keys[row].clone()).collect())).collect()
}

fn check_features(request: &api::QueryRequest) -> Result<()> {
    for key in ["order_by_fields", "group_by_fields", "iterator"] {
        let asked = metric::param(&request.query_params, key).unwrap_or_default();
        if !matches!(asked, "" | "False" | "false" | "None") {
            return Err(Error::unbuilt(format_args!("query parameter `{key}`")));
        }
    }
    Ok(())
}

/// Limit and offset, when a limit was given.
fn window(request: &api::QueryRequest) -> Result<Option<Window>> {
    let (limit, offset) =
        (plan::number(&request.query_params, "limit")?, plan::number(&request.query_params, "offset")?);
    match limit.filter(|limit| *limit != -1) {
        Some(limit) => plan::window(offset.unwrap_or(0), limit).map(Some),
        None => Ok(None),
    }
}

/// The rows ordered by key, each key once, within the window; typed columns even without rows.
fn in_order(
    sources: Vec<Vec<FieldData>>,
    schema: &CollectionSchema,
    output: &Output,
    window: Option<Window>,
) -> Result<Vec<FieldData>> {
    let picks = ordered_picks(&sources, &schema::primary(schema)?.name, window);
    if picks.is_empty() {
        return Ok(output.empty());
    }
    output.columns().iter().map(|name| gather_named(&sources, name, &picks)).collect()
}

fn ordered_picks(sources: &[Vec<FieldData>], primary: &str, window: Option<Window>) -> Vec<Pick> {
    let mut rows: Vec<(Key, Pick)> = sources
        .iter()
        .enumerate()
        .flat_map(|(source, columns)| {
            let keys = named(columns, primary).map(key::of_column).unwrap_or_default();
            keys.into_iter().enumerate().map(move |(row, key)| (key, Pick { source, row }))
        })
        .collect();
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    rows.dedup_by(|left, right| left.0 == right.0);
    let Window { offset, limit } = window.unwrap_or(Window { offset: 0, limit: usize::MAX });
    rows.into_iter().skip(offset).take(limit).map(|(_, pick)| pick).collect()
}

/// One column over all sources.
pub(super) fn gather_named(sources: &[Vec<FieldData>], name: &str, picks: &[Pick]) -> Result<FieldData> {
    let absent =
        || Error::refused(crate::error::Code::Unexpected, format!("a data-node answered without column `{name}`"));
    let columns: Option<Vec<&FieldData>> = sources.iter().map(|columns| named(columns, name)).collect();
    columns::gather(&columns.ok_or_else(absent)?, picks)
}

fn named<'a>(columns: &'a [FieldData], name: &str) -> Option<&'a FieldData> {
    columns.iter().find(|column| column.field_name == name)
}

fn schema_key(schema: &CollectionSchema) -> Result<String> {
    Ok(schema::primary(schema)?.name.clone())
}

fn results(collection: &Collection, key: String, fields_data: Vec<FieldData>, names: Vec<String>) -> api::QueryResults {
    api::QueryResults {
        status: success(),
        fields_data,
        collection_name: collection.name.clone(),
        output_fields: names,
        session_ts: now(),
        primary_field_name: key,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::simple;
    use rpc::schema::DataType;

    fn output() -> Output {
        output::of_query(&simple(DataType::Int64), &[]).unwrap()
    }

    fn answered(sources: Vec<Vec<i64>>, window: Option<Window>) -> Vec<Key> {
        let sources = sources.into_iter().map(|ids| vec![columns::longs("id", ids)]).collect();
        let columns = in_order(sources, &simple(DataType::Int64), &output(), window).unwrap();
        key::of_column(&columns[0])
    }

    fn ints(keys: &[i64]) -> Vec<Key> {
        keys.iter().copied().map(Key::Int).collect()
    }

    #[test]
    fn rows_come_in_the_order_of_keys_once() {
        assert_eq!(answered(vec![vec![9, 2], vec![5, 2]], None), ints(&[2, 5, 9]));
    }

    #[test]
    fn windows_cut_after_ordering() {
        assert_eq!(answered(vec![vec![9, 2], vec![5]], Some(Window { offset: 1, limit: 1 })), ints(&[5]));
    }

    #[test]
    fn no_rows_still_have_typed_columns() {
        let columns = in_order(vec![], &simple(DataType::Int64), &output(), None).unwrap();
        assert_eq!(columns.iter().map(columns::rows).collect::<Vec<_>>(), [Some(0)]);
    }
}
