//! The one database.
use rpc::milvus as api;

use super::{Service, success};
use crate::error::Result;
use crate::names;

impl Service {
    pub(crate) fn list_databases(&self, _: api::ListDatabasesRequest) -> Result<api::ListDatabasesResponse> {
        let db_names = vec![names::DEFAULT_DATABASE.to_owned()];
        Ok(api::ListDatabasesResponse { status: success(), db_names, created_timestamp: vec![0], db_ids: vec![1] })
    }

    pub(crate) fn describe_database(
        &self,
        request: api::DescribeDatabaseRequest,
    ) -> Result<api::DescribeDatabaseResponse> {
        names::check_database(&request.db_name)?;
        let db_name = names::DEFAULT_DATABASE.to_owned();
        Ok(api::DescribeDatabaseResponse { status: success(), db_name, db_id: 1, ..Default::default() })
    }
}
