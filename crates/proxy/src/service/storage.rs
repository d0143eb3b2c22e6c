//! Flush and statistics. An acknowledged row is durable already: a flush has nothing to wait for afterwards.
use rpc::mesh;
use rpc::milvus as api;
use rpc::schema::LongArray;

use super::{Service, now, success};
use crate::cluster;
use crate::error::Result;
use crate::metric;
use crate::names;

impl Service {
    pub(crate) async fn flush(&self, request: api::FlushRequest) -> Result<api::FlushResponse> {
        for name in &request.collection_names {
            self.flush_one(&request.db_name, name).await?;
        }
        let flushed = request.collection_names.into_iter();
        let at = now();
        Ok(api::FlushResponse {
            status: success(),
            db_name: names::DEFAULT_DATABASE.into(),
            coll_seg_i_ds: flushed.clone().map(|name| (name, LongArray::default())).collect(),
            flush_coll_seg_i_ds: flushed.clone().map(|name| (name, LongArray::default())).collect(),
            coll_flush_ts: flushed.map(|name| (name, at)).collect(),
            ..Default::default()
        })
    }

    async fn flush_one(&self, db: &str, name: &str) -> Result<()> {
        let collection = self.collection(db, name).await?;
        let call = |shard| {
            self.cluster
                .call(shard, |mut client, shard_id| async move { client.flush(mesh::FlushRequest { shard_id }).await })
        };
        cluster::all(collection.shards.iter().map(call).collect()).await.map(drop)
    }

    pub(crate) fn get_flush_state(&self, request: api::GetFlushStateRequest) -> Result<api::GetFlushStateResponse> {
        names::check_database(&request.db_name)?;
        Ok(api::GetFlushStateResponse { status: success(), flushed: true })
    }

    pub(crate) async fn get_collection_statistics(
        &self,
        request: api::GetCollectionStatisticsRequest,
    ) -> Result<api::GetCollectionStatisticsResponse> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        let rows = self.count_rows(&collection).await?;
        let stats = vec![metric::pair("row_count", rows.to_string())];
        Ok(api::GetCollectionStatisticsResponse { status: success(), stats })
    }
}
