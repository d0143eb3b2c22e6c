//! Indexes: recorded with their parameters; finished as soon as they are, for searches are exact.
use rpc::common::{IndexState, Status};
use rpc::mesh::{self, Collection, Index};
use rpc::milvus as api;
use rpc::schema::FieldSchema;

use super::{Service, schema_of, success, unknown};
use crate::error::{Code, Error, Result};
use crate::{cluster, metric, names, schema};

impl Service {
    pub(crate) async fn create_index(&self, request: api::CreateIndexRequest) -> Result<Status> {
        names::check_if_named(names::check_index, &request.index_name)?;
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        names::check_field(&request.field_name)?;
        let field = indexed_field(&collection, &request.field_name)?;
        let params = metric::index_params(field, &request.extra_params)?;
        let name = if request.index_name.is_empty() { field.name.clone() } else { request.index_name };
        if already(&collection, &name, &field.name, &params)? {
            return Ok(Status::default());
        }
        let collection = Some(cluster::by_name(&request.collection_name));
        let ask = mesh::CreateIndexRequest { collection, name, field: field.name.clone(), params };
        match self.cluster.coordinator().create_index(ask).await {
            Err(status) => Err(cluster::of_coordinator(&status, unknown)),
            Ok(_) => Ok(Status::default()),
        }
    }

    pub(crate) async fn describe_index(
        &self,
        request: api::DescribeIndexRequest,
    ) -> Result<api::DescribeIndexResponse> {
        names::check_if_named(names::check_index, &request.index_name)?;
        names::check_if_named(names::check_field, &request.field_name)?;
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        let asked: Vec<&Index> = collection.indexes.iter().filter(|index| is_asked(index, &request)).collect();
        if asked.is_empty() {
            return Err(index_not_found(&collection.name));
        }
        let rows = self.count_rows(&collection).await?;
        let index_descriptions = asked.into_iter().map(|index| description(index, rows)).collect();
        Ok(api::DescribeIndexResponse { status: success(), index_descriptions })
    }

    /// To drop what is not there succeeds.
    pub(crate) async fn drop_index(&self, request: api::DropIndexRequest) -> Result<Status> {
        names::check_if_named(names::check_index, &request.index_name)?;
        names::check_if_named(names::check_field, &request.field_name)?;
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        let there = collection.indexes.iter().find(|index| {
            index.name == request.index_name || (request.index_name.is_empty() && index.field == request.field_name)
        });
        let Some(index) = there else { return Ok(Status::default()) };
        if collection.loaded && is_vector(&collection, &index.field) {
            let reason = format!("vector index cannot be dropped on loaded collection: {}", collection.name);
            return Err(Error::refused(Code::Unexpected, reason));
        }
        let (name, field) = (index.name.clone(), index.field.clone());
        let ask = mesh::DropIndexRequest { collection: Some(cluster::by_name(&collection.name)), name, field };
        match self.cluster.coordinator().drop_index(ask).await {
            Err(status) => Err(cluster::of_coordinator(&status, unknown)),
            Ok(_) => Ok(Status::default()),
        }
    }
}

/// What clients know a missing index by.
pub(crate) fn index_not_found(collection: &str) -> Error {
    Error::refused(Code::IndexNotFound, format!("index not found[collection={collection}]"))
}

/// Whether some vector field has an index.
pub(crate) fn has_vector_index(collection: &Collection) -> bool {
    collection.indexes.iter().any(|index| is_vector(collection, &index.field))
}

fn is_vector(collection: &Collection, field: &str) -> bool {
    let schema = collection.schema.as_ref();
    schema.and_then(|schema| schema::field(schema, field)).is_some_and(schema::is_vector)
}

fn indexed_field<'a>(collection: &'a Collection, name: &str) -> Result<&'a FieldSchema> {
    let missing = || {
        let reason = format!("cannot create index on non-exist field: {name}");
        Error::refused(Code::InvalidParameter, reason)
    };
    schema::field(schema_of(collection)?, name).ok_or_else(missing)
}

/// Whether exactly this index is there; an error when another is in its way.
fn already(collection: &Collection, name: &str, field: &str, params: &[rpc::common::KeyValuePair]) -> Result<bool> {
    let duplicate = |reason: &str| Err(Error::refused(Code::IndexDuplicate, format!("{reason}[index={name}]")));
    match collection.indexes.iter().find(|index| index.name == name || index.field == field) {
        None => Ok(false),
        Some(index) if index.name == name && index.field == field && same(&index.params, params) => Ok(true),
        Some(index) if index.field == field => duplicate("at most one distinct index is allowed per field"),
        Some(_) => duplicate("an index of this name is on another field"),
    }
}

fn same(left: &[rpc::common::KeyValuePair], right: &[rpc::common::KeyValuePair]) -> bool {
    left.len() == right.len() && left.iter().all(|pair| right.contains(pair))
}

fn is_asked(index: &Index, request: &api::DescribeIndexRequest) -> bool {
    (request.index_name.is_empty() || index.name == request.index_name)
        && (request.field_name.is_empty() || index.field == request.field_name)
}

fn description(index: &Index, rows: i64) -> api::IndexDescription {
    api::IndexDescription {
        index_name: index.name.clone(),
        index_id: index.id,
        params: index.params.clone(),
        field_name: index.field.clone(),
        indexed_rows: rows,
        total_rows: rows,
        state: IndexState::Finished.into(),
        ..Default::default()
    }
}
