//! Where the state is durable: a store of its own beside the shards, fenced the same way.
//!
//! 1. A change is one key: `collection/<id>`, `doomed/<shard>`, `reserved`. Changes of one plan are one batch.
//! 2. [`Journal::append`] returns after the batch is durable, not before.
//! 3. Opening the store fences whoever had it open: the other coordinator's next append says [`JournalError::Fenced`].
use std::sync::Arc;

use object_store::ObjectStore;
use prost::Message as _;
use rpc::mesh::{Collection, ShardPlacement};
use slatedb::config::Settings;
use slatedb::{CloseReason, Db, ErrorKind, WriteBatch};

use crate::core::{Change, State};

/// The folder of the store.
const PATH: &str = "coordinator";

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another coordinator opened the store.
    #[error("another coordinator has taken over: this one must end; run one coordinator for a storage")]
    Fenced,
    /// The storage failed.
    #[error("the coordinator's state cannot be stored: check the storage that localStorage.path or minio.* name")]
    Storage(#[source] slatedb::Error),
    /// What is stored cannot be read.
    #[error("the coordinator's state holds a record `{key}` that cannot be read: restore the storage from a backup")]
    Record {
        /// The key.
        key: String,
    },
}

impl From<slatedb::Error> for JournalError {
    fn from(error: slatedb::Error) -> Self {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => Self::Fenced,
            _ => Self::Storage(error),
        }
    }
}

/// The open store.
pub struct Journal {
    db: Db,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the store and reads all of it.
    ///
    /// # Errors
    /// [`JournalError`]: the storage, or a record that cannot be read.
    pub async fn open(objects: Arc<dyn ObjectStore>) -> Result<(Self, State), JournalError> {
        // Every append asks for its flush itself: changes are rare, and a timer would wake an idle process for nothing.
        let settings = Settings { flush_interval: None, ..Settings::default() };
        let db = Db::builder(PATH, objects).with_settings(settings).build().await?;
        let mut changes = Vec::new();
        let mut rows = db.scan::<std::ops::RangeFull>(..).await?;
        while let Some(row) = rows.next().await? {
            changes.push(decode(&row.key, &row.value)?);
        }
        Ok((Self { db }, State::restored(changes)))
    }

    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// [`JournalError`]: none of them counts, or it is not known; a restart tells.
    pub async fn append(&self, changes: &[Change]) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        changes.iter().for_each(|change| encode(change, &mut batch));
        let written = self.db.write(batch).await?;
        self.db.flush().await?;
        Ok(written.await_durable().await?)
    }

    /// Closes the store.
    ///
    /// # Errors
    /// [`JournalError`]: what the storage says; every change that was appended is durable all the same.
    pub async fn close(&self) -> Result<(), JournalError> {
        Ok(self.db.close().await?)
    }
}

fn encode(change: &Change, batch: &mut WriteBatch) {
    match change {
        Change::Reserve(end) => batch.put("reserved", end.to_string()),
        Change::Put(collection) => batch.put(collection_key(collection.id), collection.encode_to_vec()),
        Change::Remove(id) => batch.delete(collection_key(*id)),
        Change::Doom(shard) => batch.put(doomed_key(&shard.shard_id), &shard.node_id),
        Change::Forget(shard) => batch.delete(doomed_key(shard)),
    }
}

fn collection_key(id: i64) -> String {
    format!("collection/{id:020}")
}

fn doomed_key(shard: &str) -> String {
    format!("doomed/{shard}")
}

fn decode(key: &[u8], value: &[u8]) -> Result<Change, JournalError> {
    let key = String::from_utf8_lossy(key);
    let text = || std::str::from_utf8(value).ok();
    let change = match key.split_once('/') {
        None if key == "reserved" => text().and_then(|end| end.parse().ok()).map(Change::Reserve),
        Some(("collection", _)) => Collection::decode(value).ok().map(|record| Change::Put(Box::new(record))),
        Some(("doomed", shard)) => text().map(|node| doom(shard, node)),
        _ => None,
    };
    change.ok_or_else(|| JournalError::Record { key: key.into_owned() })
}

fn doom(shard: &str, node: &str) -> Change {
    Change::Doom(ShardPlacement { shard_id: shard.to_owned(), node_id: node.to_owned() })
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn collection(id: i64) -> Change {
        Change::Put(Box::new(Collection { id, name: format!("c{id}"), ..Collection::default() }))
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_a_restart() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (journal, state) = Journal::open(Arc::clone(&objects)).await.unwrap();
        assert_eq!(state, State::default());
        let changes = [
            Change::Reserve(2_000),
            collection(7),
            collection(8),
            Change::Remove(8),
            doom("7-0", "n"),
            doom("7-1", "n"),
            Change::Forget("7-1".to_owned()),
        ];
        journal.append(&changes).await.unwrap();
        drop(journal);
        let (_, state) = Journal::open(objects).await.unwrap();
        assert_eq!(state, State::restored([Change::Reserve(2_000), collection(7), doom("7-0", "n")]));
    }

    #[tokio::test]
    async fn second_coordinator_fences_the_first() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (first, _) = Journal::open(Arc::clone(&objects)).await.unwrap();
        let (second, _) = Journal::open(objects).await.unwrap();
        assert!(matches!(first.append(&[collection(1)]).await, Err(JournalError::Fenced)));
        second.append(&[collection(2)]).await.unwrap();
    }

    #[test]
    fn record_that_cannot_be_read_is_named() {
        let error = decode(b"collection/1", b"\xff\xff").unwrap_err();
        assert!(error.to_string().contains("`collection/1`"), "{error}");
        assert!(decode(b"something", b"").is_err());
    }
}
