//! What a shard cannot do, grouped by whose fault it is.

use rpc::columns::ColumnError;
use slatedb::{CloseReason, ErrorKind};

/// Why a shard did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process opened the shard after this one: it owns it now, and this one must let go of it.
    #[error("this process does not own the shard any more: another one has opened it")]
    NotOwner(#[source] slatedb::Error),
    /// The shard was closed.
    #[error("the shard is closed")]
    Closed,
    /// The columns do not fit the schema.
    #[error("the columns do not fit the schema")]
    Columns(#[from] ColumnError),
    /// The caller asked for something that is not there or cannot be.
    #[error("{0}")]
    Invalid(String),
    /// What is stored cannot be read.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
    /// The store failed.
    #[error("the storage of the shard failed")]
    Storage(#[source] slatedb::Error),
    /// The object storage below the store failed.
    #[error("the object storage failed")]
    Objects(#[from] object_store::Error),
    /// A task of this process ended before its time.
    #[error("a task of the shard ended before its time")]
    Task(#[from] tokio::task::JoinError),
}

impl From<slatedb::Error> for Error {
    fn from(error: slatedb::Error) -> Self {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => Self::NotOwner(error),
            ErrorKind::Closed(CloseReason::Clean) => Self::Closed,
            _ => Self::Storage(error),
        }
    }
}
