//! The shards that are open here.
//!
//! 1. Opening and dropping a shard wait for one another; shards do not wait for other shards.
//! 2. A call for a shard that is being opened waits until it is open.
//! 3. A shard that turns out to be another process's is let go: nothing is read from it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::ObjectStore;
use prost::Message;
use rpc::fields::{Fields, FieldsError};
use rpc::mesh::ShardSpec;
use rpc::schema::CollectionSchema;
use tokio::sync::RwLock;
use vector_store::Shard;

/// Why a shard cannot be opened or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    #[error("shard id {0:?}: must be a plain name of letters, digits, `-`, `_` and `.`")]
    Id(String),
    #[error("shard {id}: the schema cannot be read")]
    Schema { id: String, source: prost::DecodeError },
    #[error("shard {id}: the schema is not supported")]
    Fields { id: String, source: FieldsError },
    #[error("shard {id}: cannot be opened")]
    Open { id: String, source: vector_store::Error },
    #[error("shard {id}: cannot be destroyed")]
    Destroy { id: String, source: vector_store::Error },
}

/// A place for one shard: empty until it is opened, and again once it is dropped.
type Slot = Arc<RwLock<Option<Shard>>>;

/// All shards of this data-node.
pub struct Shards {
    objects: Arc<dyn ObjectStore>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("known", &self.slots().len()).finish_non_exhaustive()
    }
}

impl Shards {
    /// None open yet.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, slots: Mutex::default() }
    }

    /// The shard, if it is open.
    pub async fn get(&self, id: &str) -> Option<Shard> {
        let slot = self.slots().get(id).cloned()?;
        slot.read().await.clone()
    }

    /// Opens a shard, unless it is open.
    pub async fn open(&self, spec: &ShardSpec) -> Result<Shard, ShardError> {
        let id = &spec.shard_id;
        let path = path(id)?;
        let slot = self.slot(id);
        let mut place = slot.write().await;
        if let Some(shard) = &*place {
            return Ok(shard.clone());
        }
        let opened = Shard::open(Arc::clone(&self.objects), &path, fields(spec)?).await;
        let shard = opened.map_err(|source| ShardError::Open { id: id.clone(), source })?;
        tracing::info!(shard = id, rows = shard.count(), "shard open");
        Ok(place.insert(shard).clone())
    }

    /// Destroys a shard's rows, whether it is open or not. Once it is gone this does nothing.
    pub async fn drop_shard(&self, id: &str) -> Result<(), ShardError> {
        let path = path(id)?;
        let slot = self.slot(id);
        let mut place = slot.write().await;
        let destroyed = match place.take() {
            Some(shard) => shard.destroy().await,
            None => vector_store::destroy(&self.objects, &path).await,
        };
        destroyed.map_err(|source| ShardError::Destroy { id: id.to_owned(), source })?;
        tracing::info!(shard = id, "shard destroyed");
        Ok(())
    }

    /// Closes a shard without touching its rows.
    pub async fn let_go(&self, id: &str) {
        let Some(slot) = self.slots().get(id).cloned() else { return };
        let shard = slot.write().await.take();
        if let Some(shard) = shard {
            close(id, &shard).await;
        }
    }

    /// Closes all shards: the last thing a data-node does.
    pub async fn close(&self) {
        let ids: Vec<String> = self.slots().keys().cloned().collect();
        futures_util::future::join_all(ids.iter().map(|id| self.let_go(id))).await;
    }

    fn slot(&self, id: &str) -> Slot {
        Arc::clone(self.slots().entry(id.to_owned()).or_default())
    }

    /// A map of places is whole whatever panicked while it was locked.
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close(id: &str, shard: &Shard) {
    match shard.close().await {
        Ok(()) => tracing::info!(shard = id, "shard closed"),
        Err(error) => tracing::warn!(shard = id, %error, "shard closed with an error; acknowledged rows are durable"),
    }
}

fn fields(spec: &ShardSpec) -> Result<Fields, ShardError> {
    let id = || spec.shard_id.clone();
    let schema =
        CollectionSchema::decode(spec.schema.clone()).map_err(|source| ShardError::Schema { id: id(), source })?;
    Fields::parse(&schema).map_err(|source| ShardError::Fields { id: id(), source })
}

/// Where a shard is kept. An id that is not a plain name could lead out of the folder of shards.
fn path(id: &str) -> Result<String, ShardError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.starts_with('.') || !id.chars().all(plain) {
        return Err(ShardError::Id(id.to_owned()));
    }
    Ok(format!("shards/{id}"))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn shard_ids_are_plain_names() {
        assert_eq!(path("449-shard_0.b").ok().as_deref(), Some("shards/449-shard_0.b"));
        for id in ["", ".", "..", "../x", "a/b", "a b", "ä"] {
            assert!(path(id).is_err(), "{id:?}");
        }
    }
}
