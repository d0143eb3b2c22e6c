//! Loading: a switch in the record. Shards are open whether it is on or off; what is not loaded is not read.
use rpc::common::{LoadState, Status};
use rpc::mesh::SetLoadedRequest;
use rpc::milvus as api;

use super::{Service, indexes, not_loaded, success, unknown};
use crate::cluster;
use crate::error::Result;
use crate::names;

impl Service {
    pub(crate) async fn load_collection(&self, request: api::LoadCollectionRequest) -> Result<Status> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        if !indexes::has_vector_index(&collection) {
            return Err(indexes::index_not_found(&collection.name));
        }
        self.set_loaded(&collection.name, true).await
    }

    pub(crate) async fn release_collection(&self, request: api::ReleaseCollectionRequest) -> Result<Status> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        self.set_loaded(&collection.name, false).await
    }

    pub(crate) async fn get_load_state(&self, request: api::GetLoadStateRequest) -> Result<api::GetLoadStateResponse> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        names::check_partitions(&request.partition_names)?;
        let state = if collection.loaded { LoadState::Loaded } else { LoadState::NotLoad };
        Ok(api::GetLoadStateResponse { status: success(), state: state.into() })
    }

    /// A client asks until it reads 100, so what will not come is an error.
    pub(crate) async fn get_loading_progress(
        &self,
        request: api::GetLoadingProgressRequest,
    ) -> Result<api::GetLoadingProgressResponse> {
        let collection = self.collection(&request.db_name, &request.collection_name).await?;
        names::check_partitions(&request.partition_names)?;
        if !collection.loaded {
            return Err(not_loaded(&collection.name));
        }
        Ok(api::GetLoadingProgressResponse { status: success(), progress: 100, refresh_progress: 100 })
    }

    async fn set_loaded(&self, name: &str, loaded: bool) -> Result<Status> {
        let ask = SetLoadedRequest { collection: Some(cluster::by_name(name)), loaded };
        match self.cluster.coordinator().set_loaded(ask).await {
            Err(status) => Err(cluster::of_coordinator(&status, unknown)),
            Ok(_) => Ok(Status::default()),
        }
    }
}
