//! What the coordinator decides: `(state, command, now) → plan`. No I/O, no clock.
//!
//! 1. A [`Plan`] has an order: first its `reserve` is made durable, then every shard in `open` is opened at its owner, then
//!    its `changes` are made durable, then its `drop` is told to the owners, then its answer is given. A step that fails
//!    ends it.
//! 2. Ids are never given twice, not even those of a creation that failed: a block of them is reserved durably before the
//!    first of it is used, and a start goes on after the block.
//! 3. A shard that was opened anywhere belongs to a collection or is doomed. A doomed shard is remembered until its owner
//!    confirms that it is gone.
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;
use rpc::common::KeyValuePair;
use rpc::mesh::collection_ref::By;
use rpc::mesh::{
    AssignmentsReply, Collection, CollectionRef, CreateCollectionRequest, CreateIndexRequest, DropIndexRequest, Index,
    ShardPlacement, ShardSpec,
};
use rpc::schema::{CollectionSchema, FieldSchema};

/// The one database there is so far.
const DATABASE: &str = "default";
/// The first id of a field that a user defines.
const FIRST_FIELD: i64 = 100;
/// The first id of a collection or index.
const FIRST_ID: i64 = 1_000;
/// Ids reserved at once; what is left of a block when the process ends is lost.
const BLOCK: i64 = 1_000;
/// Data types from here on are vectors.
const FIRST_VECTOR_TYPE: i32 = 100;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such database, collection, index or field.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken by something else.
    #[error("{0}")]
    AlreadyExists(String),
    /// The command makes no sense, whatever the state.
    #[error("{0}")]
    InvalidArgument(String),
    /// The command does not fit the state.
    #[error("{0}")]
    FailedPrecondition(String),
}

/// A change of the state. Applied in memory after it is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Ids below this one may be in use.
    Reserve(i64),
    /// A collection is new, or not as it was.
    Put(Box<Collection>),
    /// A collection is gone.
    Remove(i64),
    /// A shard must be destroyed by its owner.
    Doom(ShardPlacement),
    /// A shard was destroyed.
    Forget(String),
}

/// What is to be done, in the order of its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<T> {
    /// Made durable before anything else.
    pub reserve: Option<Change>,
    /// Opened at their owners.
    pub open: Vec<(String, ShardSpec)>,
    /// Made durable together.
    pub changes: Vec<Change>,
    /// Told to their owners, who are asked again later where that fails.
    pub drop: Vec<ShardPlacement>,
    /// What the caller hears.
    pub answer: T,
}

impl<T> Plan<T> {
    fn answer(answer: T) -> Self {
        Self { reserve: None, open: Vec::new(), changes: Vec::new(), drop: Vec::new(), answer }
    }

    fn change(change: Change, answer: T) -> Self {
        Self { changes: vec![change], ..Self::answer(answer) }
    }
}

/// Everything the coordinator knows.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    collections: BTreeMap<i64, Collection>,
    /// Shard → owner.
    doomed: BTreeMap<String, String>,
    next_id: i64,
    reserved: i64,
}

impl Default for State {
    fn default() -> Self {
        Self { collections: BTreeMap::new(), doomed: BTreeMap::new(), next_id: FIRST_ID, reserved: FIRST_ID }
    }
}

impl State {
    /// The state after changes that are durable. Ids of the last reserved block count as used.
    pub fn restored(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut state = Self::default();
        changes.into_iter().for_each(|change| state.apply(change));
        state.next_id = state.reserved;
        state
    }

    /// Makes a durable change count.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Reserve(end) => self.reserved = self.reserved.max(end),
            Change::Put(collection) => drop(self.collections.insert(collection.id, *collection)),
            Change::Remove(id) => drop(self.collections.remove(&id)),
            Change::Doom(shard) => drop(self.doomed.insert(shard.shard_id, shard.node_id)),
            Change::Forget(shard) => drop(self.doomed.remove(&shard)),
        }
    }

    /// How many collections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.collections.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    /// All collections of a database, by id.
    ///
    /// # Errors
    /// [`Refused::NotFound`]: no such database.
    pub fn list(&self, db: &str) -> Result<Vec<Collection>, Refused> {
        database(db)?;
        Ok(self.collections.values().cloned().collect())
    }

    /// One collection.
    ///
    /// # Errors
    /// [`Refused`]: no such database or collection.
    pub fn describe(&self, which: Option<&CollectionRef>) -> Result<&Collection, Refused> {
        let which = which.ok_or_else(|| Refused::InvalidArgument("no collection is named".to_owned()))?;
        let db = database(&which.db)?;
        let (found, name) = match &which.by {
            Some(By::Name(name)) => (self.named(name), name.clone()),
            Some(By::Id(id)) => (self.collections.get(id), id.to_string()),
            None => return Err(Refused::InvalidArgument("a collection is named by name or id".to_owned())),
        };
        found.ok_or_else(|| Refused::NotFound(format!("collection not found[database={db}][collection={name}]")))
    }

    /// What a data-node has to open and to destroy.
    #[must_use]
    pub fn assignments(&self, node: &str) -> AssignmentsReply {
        let owned = |collection: &Collection| {
            let mine = collection.shards.iter().filter(|shard| shard.node_id == node);
            mine.map(|shard| spec(collection, shard)).collect::<Vec<_>>()
        };
        AssignmentsReply {
            open: self.collections.values().flat_map(owned).collect(),
            drop: self.doomed.iter().filter(|(_, owner)| *owner == node).map(|(shard, _)| shard.clone()).collect(),
        }
    }

    /// Creates a collection with one shard on each of `nodes`.
    ///
    /// # Errors
    /// [`Refused`]: a schema without fields, or the name is taken by a collection with other parameters.
    pub fn create(
        &mut self,
        request: CreateCollectionRequest,
        nodes: &[String],
        now: SystemTime,
    ) -> Result<Plan<Collection>, Refused> {
        let wanted = wanted(request, now)?;
        if let Some(there) = self.named(&wanted.name) {
            return same_or_taken(there, &wanted).map(Plan::answer);
        }
        if nodes.is_empty() {
            return Err(Refused::FailedPrecondition(
                "there is no data-node: name them in cluster.dataNodes".to_owned(),
            ));
        }
        let (id, reserve) = self.take_id();
        let collection = Collection { id, shards: placed(id, nodes), ..wanted };
        Ok(Plan {
            reserve,
            open: collection.shards.iter().map(|shard| (shard.node_id.clone(), spec(&collection, shard))).collect(),
            changes: vec![Change::Put(Box::new(collection.clone()))],
            drop: Vec::new(),
            answer: collection,
        })
    }

    /// A creation failed after some owners may have opened their shard: all of them are doomed.
    #[must_use]
    pub fn abandon(opened: Vec<(String, ShardSpec)>) -> Plan<()> {
        let placement = |(node_id, spec): (String, ShardSpec)| ShardPlacement { shard_id: spec.shard_id, node_id };
        doom(opened.into_iter().map(placement).collect())
    }

    /// Drops a collection. One that is not there is dropped.
    ///
    /// # Errors
    /// [`Refused`]: no such database.
    pub fn drop_collection(&self, which: Option<&CollectionRef>) -> Result<Plan<bool>, Refused> {
        match self.describe(which) {
            Ok(collection) => {
                let mut plan = doom(collection.shards.clone());
                plan.changes.push(Change::Remove(collection.id));
                Ok(Plan { reserve: None, open: Vec::new(), changes: plan.changes, drop: plan.drop, answer: true })
            }
            Err(Refused::NotFound(text)) if text.starts_with("collection") => Ok(Plan::answer(false)),
            Err(refused) => Err(refused),
        }
    }

    /// Creates an index. The same one again succeeds.
    ///
    /// # Errors
    /// [`Refused`]: no such collection or field, or there is another index by that name or on that field.
    pub fn create_index(&mut self, request: CreateIndexRequest) -> Result<Plan<Index>, Refused> {
        let collection = self.describe(request.collection.as_ref())?.clone();
        let wanted = wanted_index(&collection, request)?;
        if let Some(there) =
            collection.indexes.iter().find(|index| index.name == wanted.name || index.field == wanted.field)
        {
            return same_index(there, &wanted).map(Plan::answer);
        }
        let (id, reserve) = self.take_id();
        let index = Index { id, ..wanted };
        let mut collection = collection;
        collection.indexes.push(index.clone());
        Ok(Plan { reserve, ..Plan::change(Change::Put(Box::new(collection)), index) })
    }

    /// Drops an index, by name or by field. One that is not there is dropped.
    ///
    /// # Errors
    /// [`Refused`]: no such collection, or it is loaded and cannot be searched without the index.
    pub fn drop_index(&self, request: &DropIndexRequest) -> Result<Plan<bool>, Refused> {
        let mut collection = self.describe(request.collection.as_ref())?.clone();
        let meant = |index: &Index| {
            if request.name.is_empty() { index.field == request.field } else { index.name == request.name }
        };
        let Some(at) = collection.indexes.iter().position(meant) else { return Ok(Plan::answer(false)) };
        if collection.loaded && is_vector(&collection, &collection.indexes[at].field) {
            let text = format!("vector index cannot be dropped on loaded collection: {}", collection.name);
            return Err(Refused::FailedPrecondition(text));
        }
        collection.indexes.remove(at);
        Ok(Plan::change(Change::Put(Box::new(collection)), true))
    }

    /// Loads or releases a collection. As it is already, it stays.
    ///
    /// # Errors
    /// [`Refused`]: no such collection, or it has a vector field without index.
    pub fn set_loaded(&self, which: Option<&CollectionRef>, loaded: bool) -> Result<Plan<Collection>, Refused> {
        let mut collection = self.describe(which)?.clone();
        if collection.loaded == loaded {
            return Ok(Plan::answer(collection));
        }
        if loaded && !vectors_indexed(&collection) {
            return Err(Refused::FailedPrecondition(format!("index not found[collection={}]", collection.name)));
        }
        collection.loaded = loaded;
        Ok(Plan::change(Change::Put(Box::new(collection.clone())), collection))
    }

    /// A data-node has destroyed shards. Shards that are not doomed, or not its own, stay.
    #[must_use]
    pub fn shards_dropped(&self, node: &str, shards: &[String]) -> Plan<()> {
        let its = |shard: &&String| self.doomed.get(*shard).is_some_and(|owner| owner == node);
        let changes = shards.iter().filter(its).cloned().map(Change::Forget).collect();
        Plan { changes, ..Plan::answer(()) }
    }

    fn named(&self, name: &str) -> Option<&Collection> {
        self.collections.values().find(|collection| collection.name == name)
    }

    /// The next id, and what must be durable before it is used.
    fn take_id(&mut self) -> (i64, Option<Change>) {
        let id = self.next_id;
        self.next_id += 1;
        (id, (self.next_id > self.reserved).then_some(Change::Reserve(id + BLOCK)))
    }
}

fn doom(shards: Vec<ShardPlacement>) -> Plan<()> {
    Plan { changes: shards.iter().cloned().map(Change::Doom).collect(), drop: shards, ..Plan::answer(()) }
}

fn database(db: &str) -> Result<&str, Refused> {
    match db {
        "" | DATABASE => Ok(DATABASE),
        other => Err(Refused::NotFound(format!("database not found[database={other}]"))),
    }
}

/// The record of a request, without id and shards.
fn wanted(request: CreateCollectionRequest, now: SystemTime) -> Result<Collection, Refused> {
    let db = database(&request.db)?.to_owned();
    if request.name.is_empty() {
        return Err(Refused::InvalidArgument("a collection needs a name".to_owned()));
    }
    Ok(Collection {
        schema: Some(numbered(request.schema, &request.name, &db)?),
        db,
        name: request.name,
        consistency_level: request.consistency_level,
        properties: request.properties,
        created_timestamp: hybrid(now),
        shards_num: request.shards_num,
        num_partitions: request.num_partitions,
        ..Collection::default()
    })
}

/// The schema with its fields numbered in their order.
fn numbered(schema: Option<CollectionSchema>, name: &str, db: &str) -> Result<CollectionSchema, Refused> {
    let mut schema = schema.unwrap_or_default();
    if schema.fields.is_empty() {
        return Err(Refused::InvalidArgument(format!("collection {name} needs a schema with fields")));
    }
    name.clone_into(&mut schema.name);
    db.clone_into(&mut schema.db_name);
    for (id, field) in (FIRST_FIELD..).zip(&mut schema.fields) {
        field.field_id = id;
    }
    Ok(schema)
}

fn hybrid(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX) << 18
}

fn same_or_taken(there: &Collection, wanted: &Collection) -> Result<Collection, Refused> {
    let asked_for = |collection: &Collection| Collection {
        id: 0,
        created_timestamp: 0,
        indexes: Vec::new(),
        loaded: false,
        shards: Vec::new(),
        properties: sorted(&collection.properties),
        ..collection.clone()
    };
    if asked_for(there) == asked_for(wanted) {
        return Ok(there.clone());
    }
    let text = format!("create duplicate collection with different parameters, collection: {}", wanted.name);
    Err(Refused::AlreadyExists(text))
}

fn wanted_index(collection: &Collection, request: CreateIndexRequest) -> Result<Index, Refused> {
    if !fields(collection).any(|field| field.name == request.field) {
        let text = format!("cannot create index on non-exist field: {}", request.field);
        return Err(Refused::InvalidArgument(text));
    }
    let name = if request.name.is_empty() { request.field.clone() } else { request.name };
    Ok(Index { id: 0, name, field: request.field, params: request.params })
}

fn same_index(there: &Index, wanted: &Index) -> Result<Index, Refused> {
    if there.field != wanted.field {
        return Err(Refused::AlreadyExists(format!("index already exists on another field: {}", there.name)));
    }
    if there.name == wanted.name && sorted(&there.params) == sorted(&wanted.params) {
        return Ok(there.clone());
    }
    Err(Refused::AlreadyExists(format!("at most one distinct index is allowed per field: {}", there.field)))
}

fn sorted(pairs: &[KeyValuePair]) -> Vec<KeyValuePair> {
    let mut pairs = pairs.to_vec();
    pairs.sort_by(|a, b| (&a.key, &a.value).cmp(&(&b.key, &b.value)));
    pairs
}

fn fields(collection: &Collection) -> impl Iterator<Item = &FieldSchema> {
    collection.schema.iter().flat_map(|schema| &schema.fields)
}

fn is_vector(collection: &Collection, field: &str) -> bool {
    fields(collection).any(|known| known.name == field && known.data_type >= FIRST_VECTOR_TYPE)
}

fn vectors_indexed(collection: &Collection) -> bool {
    let indexed = |field: &FieldSchema| collection.indexes.iter().any(|index| index.field == field.name);
    fields(collection).filter(|field| field.data_type >= FIRST_VECTOR_TYPE).all(indexed)
}

fn placed(id: i64, nodes: &[String]) -> Vec<ShardPlacement> {
    let shard = |(at, node): (usize, &String)| ShardPlacement { shard_id: format!("{id}-{at}"), node_id: node.clone() };
    nodes.iter().enumerate().map(shard).collect()
}

fn spec(collection: &Collection, shard: &ShardPlacement) -> ShardSpec {
    let schema = collection.schema.as_ref().map(|schema| schema.encode_to_vec()).unwrap_or_default();
    ShardSpec { shard_id: shard.shard_id.clone(), collection_id: collection.id, schema: schema.into() }
}

#[cfg(test)]
mod tests;
