//! A shard: the store and the index as one.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rpc::columns::{Column, Key};
use rpc::fields::{Fields, Kind};
use slatedb::{Db, WriteBatch};

use crate::commit::Commits;
use crate::error::Error;
use crate::index::{Hit, Index};
use crate::kernels::Metric;
use crate::{row, tuning};

/// One shard, open for reading and writing. Clones are the same shard.
#[derive(Clone)]
pub struct Shard {
    open: Arc<Open>,
}

struct Open {
    db: Db,
    commits: Commits,
    objects: Arc<dyn ObjectStore>,
    path: Path,
    fields: Arc<Fields>,
    index: RwLock<Index>,
    /// The index's rows, to be read without its lock.
    rows: AtomicUsize,
}

/// Reads of so many numbers at most, less than a tenth of a millisecond, are done where they were asked for: to hand them
/// to another thread and back would cost as much.
const SHORT: usize = 2 << 20;

/// What was found for the queries of a search: the hits of all queries in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Hits {
    /// Hits of each query.
    pub counts: Vec<usize>,
    /// The key column.
    pub keys: Column,
    pub scores: Vec<f32>,
    /// The fields asked for, in the order asked for.
    pub columns: Vec<Column>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("path", &self.open.path).field("rows", &self.count()).finish_non_exhaustive()
    }
}

impl Shard {
    /// Opens the shard kept at `path`, or makes it. Fences the process that had it open before, and reads all rows.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a row does not fit the schema, [`Error::Storage`] if the store cannot be opened.
    pub async fn open(objects: Arc<dyn ObjectStore>, path: &str, fields: Fields) -> Result<Self, Error> {
        let (path, fields) = (Path::from(path), Arc::new(fields));
        let db = Db::builder(path.clone(), Arc::clone(&objects))
            .with_settings(tuning::settings())
            // Rows are read once, here: nothing would be found in a cache of blocks.
            .with_db_cache_disabled()
            .build()
            .await?;
        match read_all(&db, Arc::clone(&fields)).await {
            Ok(index) => Ok(Self::over(db, objects, path, fields, index)),
            Err(error) => {
                let _ = db.close().await;
                Err(error)
            }
        }
    }

    fn over(db: Db, objects: Arc<dyn ObjectStore>, path: Path, fields: Arc<Fields>, index: Index) -> Self {
        let rows = AtomicUsize::new(index.len());
        Self {
            open: Arc::new(Open {
                db,
                commits: Commits::default(),
                objects,
                path,
                fields,
                index: RwLock::new(index),
                rows,
            }),
        }
    }

    /// The fields of its rows.
    pub fn fields(&self) -> &Fields {
        &self.open.fields
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.open.rows.load(Ordering::Acquire)
    }

    /// Stores rows, one column a field, and returns once they are durable: all of them or, on an error, none that
    /// was not there. A row whose key exists replaces it; of two rows with one key the later counts. Returns how many.
    ///
    /// Goes on to its end if the caller goes away, so that the index never falls behind the store.
    ///
    /// # Errors
    /// [`Error::Columns`] if the columns do not fit the schema; [`Error::NotOwner`] if another process has opened the
    /// shard; [`Error::Storage`] if storing failed, and then it is not known whether the rows are stored.
    pub async fn insert(&self, columns: Vec<Column>) -> Result<usize, Error> {
        let open = Arc::clone(&self.open);
        tokio::spawn(async move { open.insert(columns).await }).await?
    }

    /// The given fields of the rows of `keys`, in the order asked for, each row once; keys without a row are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such field.
    pub async fn get(&self, keys: Vec<Key>, output: &[String]) -> Result<Vec<Column>, Error> {
        let output = self.positions(output)?;
        self.read(usize::MAX, move |index| {
            let rows = index.find(&keys);
            Ok(output.iter().map(|field| index.rows(*field, &rows)).collect())
        })
        .await
    }

    /// The `limit` nearest rows of each query, nearest first, equal scores by key.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such field, or a query is not of its dimension.
    pub async fn search(
        &self,
        field: &str,
        metric: Metric,
        queries: Vec<Vec<f32>>,
        limit: usize,
        output: &[String],
    ) -> Result<Hits, Error> {
        let (field, output) = (self.vector_field(field, &queries)?, self.positions(output)?);
        let key = self.open.fields.key_index();
        let work = self.count().saturating_mul(queries.iter().map(Vec::len).sum());
        self.read(work, move |index| {
            let hits = index.search(field, metric, &queries, limit);
            Ok(gather(index, key, &output, &hits))
        })
        .await
    }

    /// Writes what is only in the log to tables of its own. Rows are durable without it.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn flush(&self) -> Result<(), Error> {
        Ok(self.open.db.flush().await?)
    }

    /// Closes the shard; its inserts fail with [`Error::Closed`] from now on.
    ///
    /// # Errors
    /// [`Error::NotOwner`] if another process has opened it; [`Error::Storage`] if what was under way failed.
    pub async fn close(&self) -> Result<(), Error> {
        match self.open.db.close().await.map_err(Error::from) {
            Err(Error::Closed) => Ok(()),
            other => other,
        }
    }

    /// Closes the shard and deletes its rows for good.
    ///
    /// # Errors
    /// [`Error::Objects`] if not everything could be deleted; [`destroy`] finishes it.
    pub async fn destroy(self) -> Result<(), Error> {
        if let Err(error) = self.close().await {
            tracing::debug!(%error, path = %self.open.path, "closing a shard to destroy it");
        }
        delete_all(&self.open.objects, &self.open.path).await
    }

    fn positions(&self, output: &[String]) -> Result<Vec<usize>, Error> {
        output.iter().map(|name| self.position(name)).collect()
    }

    fn position(&self, name: &str) -> Result<usize, Error> {
        self.open.fields.position(name).ok_or_else(|| Error::Invalid(format!("field {name}: is not in the schema")))
    }

    fn vector_field(&self, name: &str, queries: &[Vec<f32>]) -> Result<usize, Error> {
        let position = self.position(name)?;
        match self.open.fields.get(name).map(|field| field.kind) {
            Some(Kind::FloatVector { dim }) => check_queries(name, dim, queries).map(|()| position),
            _ => Err(Error::Invalid(format!("field {name}: is no vector field"))),
        }
    }

    /// `work` is how many numbers are read; who changes the index is waited for by another thread in any case.
    async fn read<T: Send + 'static>(
        &self,
        work: usize,
        read: impl FnOnce(&Index) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if work <= SHORT
            && let Ok(index) = self.open.index.try_read()
        {
            return read(&index);
        }
        let open = Arc::clone(&self.open);
        tokio::task::spawn_blocking(move || read(&*open.index.read().map_err(|_| broken())?)).await?
    }
}

impl Open {
    async fn insert(self: Arc<Self>, columns: Vec<Column>) -> Result<usize, Error> {
        let columns = self.fields.arrange(columns)?;
        let (key, rows) = (self.fields.key_index(), columns[self.fields.key_index()].len());
        if rows == 0 {
            return Ok(0);
        }
        let (columns, batch) = tokio::task::spawn_blocking(move || encode(columns, key)).await?;
        let sequence = self.commits.write(&self.db, batch).await?;
        tokio::task::spawn_blocking(move || self.apply(columns, sequence)).await??;
        Ok(rows)
    }

    fn apply(&self, columns: Vec<Column>, sequence: u64) -> Result<(), Error> {
        let mut index = self.index.write().map_err(|_| broken())?;
        index.apply(columns, sequence)?;
        self.rows.store(index.len(), Ordering::Release);
        Ok(())
    }
}

fn encode(columns: Vec<Column>, key: usize) -> (Vec<Column>, WriteBatch) {
    let mut batch = WriteBatch::new();
    for row in 0..columns[key].len() {
        if let Some(stored) = columns[key].key(row) {
            batch.put_bytes(row::encode_key(stored), row::encode_row(&columns, key, row));
        }
    }
    (columns, batch)
}

/// The lock is poisoned: a thread panicked while it changed the index.
fn broken() -> Error {
    Error::Corrupt("the index in memory is broken; the shard must be opened again".to_owned())
}

fn check_queries(name: &str, dim: usize, queries: &[Vec<f32>]) -> Result<(), Error> {
    match queries.iter().find(|query| query.len() != dim || query.iter().any(|number| !number.is_finite())) {
        Some(query) if query.len() == dim => Err(Error::Invalid(format!("field {name}: a query is not finite"))),
        Some(query) => Err(Error::Invalid(format!("field {name}: query of dimension {}, expected {dim}", query.len()))),
        None => Ok(()),
    }
}

fn gather(index: &Index, key: usize, output: &[usize], hits: &[Vec<Hit>]) -> Hits {
    let rows: Vec<usize> = hits.iter().flatten().map(|hit| hit.position).collect();
    Hits {
        counts: hits.iter().map(Vec::len).collect(),
        keys: index.rows(key, &rows),
        scores: hits.iter().flatten().map(|hit| hit.score).collect(),
        columns: output.iter().map(|field| index.rows(*field, &rows)).collect(),
    }
}

async fn read_all(db: &Db, fields: Arc<Fields>) -> Result<Index, Error> {
    let mut index = Index::new(fields);
    let mut rows = db.scan_prefix(row::PREFIX, ..).await?;
    while let Some(row) = rows.next().await? {
        index.load(&row.key, row.value)?;
        // Rows that lie in memory come without a pause.
        tokio::task::coop::consume_budget().await;
    }
    Ok(index)
}

/// Deletes the rows of a shard that is not open, for good. There may be none.
///
/// # Errors
/// [`Error::Objects`] if not everything could be deleted.
pub async fn destroy(objects: &Arc<dyn ObjectStore>, path: &str) -> Result<(), Error> {
    delete_all(objects, &Path::from(path)).await
}

async fn delete_all(objects: &Arc<dyn ObjectStore>, path: &Path) -> Result<(), Error> {
    let found: Vec<Path> = objects.list(Some(path)).map_ok(|object| object.location).try_collect().await?;
    for location in found {
        match objects.delete(&location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use rpc::common::KeyValuePair;
    use rpc::schema::{CollectionSchema, DataType, FieldSchema};

    use super::*;

    fn schema() -> Fields {
        let vector = FieldSchema {
            name: "vector".to_owned(),
            data_type: DataType::FloatVector.into(),
            type_params: vec![KeyValuePair { key: "dim".to_owned(), value: "2".to_owned() }],
            ..FieldSchema::default()
        };
        let key = FieldSchema {
            name: "id".to_owned(),
            data_type: DataType::Int64.into(),
            is_primary_key: true,
            ..FieldSchema::default()
        };
        Fields::parse(&CollectionSchema { fields: vec![key, vector], ..CollectionSchema::default() }).unwrap()
    }

    /// Were it not so, one insert could hold up every call of the node.
    #[tokio::test]
    async fn short_search_does_not_hold_its_thread_while_rows_are_written() {
        let objects: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let shard = Shard::open(objects, "shards/one", schema()).await.unwrap();
        let rows = vec![
            Column::new("id", rpc::columns::Values::Int64(vec![1])),
            Column::new("vector", rpc::columns::Values::FloatVector { dim: 2, data: vec![1.0, 0.0] }),
        ];
        shard.insert(rows).await.unwrap();
        let mut search = pin!(shard.search("vector", Metric::L2, vec![vec![1.0, 0.0]], 1, &[]));
        let mut poll = || search.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        {
            let _writing = shard.open.index.write().unwrap();
            assert!(poll().is_pending());
        }
        let found = search.await.unwrap();
        assert_eq!(found.counts, [1]);
        let mut again = pin!(shard.search("vector", Metric::L2, vec![vec![1.0, 0.0]], 1, &[]));
        let at_once = again.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(at_once, Poll::Ready(Ok(hits)) if hits == found));
    }
}
