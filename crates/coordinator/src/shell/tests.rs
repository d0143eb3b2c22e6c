use std::collections::BTreeSet;
use std::sync::Mutex;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use rpc::mesh::collection_ref::By;
use rpc::mesh::{Collection, CollectionRef, CreateCollectionRequest};
use rpc::schema::{CollectionSchema, FieldSchema};
use tonic::Code;

use super::*;

/// Data-nodes that remember what they have, and can be down.
#[derive(Clone, Default)]
struct Nodes {
    open: Arc<Mutex<BTreeSet<String>>>,
    down: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Nodes {
    fn reach(&self, node: &str) -> Result<(), Status> {
        let down = self.down.lock().unwrap().contains(node);
        if down { Err(Status::unavailable("connection refused")) } else { Ok(()) }
    }

    fn open(&self) -> usize {
        self.open.lock().unwrap().len()
    }
}

#[tonic::async_trait]
impl Owners for Nodes {
    async fn open(&self, node: &str, shard: ShardSpec) -> Result<(), Status> {
        self.reach(node)?;
        self.open.lock().unwrap().insert(shard.shard_id);
        Ok(())
    }

    async fn destroy(&self, node: &str, shard_id: &str) -> Result<(), Status> {
        self.reach(node)?;
        self.open.lock().unwrap().remove(shard_id);
        Ok(())
    }
}

async fn shell(objects: &Arc<dyn ObjectStore>, nodes: &Nodes) -> Shell {
    let (journal, state) = Journal::open(Arc::clone(objects)).await.unwrap();
    Shell::new(journal, state, nodes.clone())
}

fn request(name: &str) -> CreateCollectionRequest {
    let fields = vec![FieldSchema { name: "id".to_owned(), ..FieldSchema::default() }];
    let schema = CollectionSchema { fields, ..CollectionSchema::default() };
    CreateCollectionRequest { name: name.to_owned(), schema: Some(schema), ..CreateCollectionRequest::default() }
}

async fn create(shell: &Shell, name: &str) -> Result<Collection, Status> {
    let request = request(name);
    shell.run(move |state| state.create(request, &["n1".to_owned(), "n2".to_owned()], now())).await
}

async fn remove(shell: &Shell, name: &str) -> Result<bool, Status> {
    let which = CollectionRef { db: String::new(), by: Some(By::Name(name.to_owned())) };
    shell.run(move |state| state.drop_collection(Some(&which))).await
}

#[tokio::test]
async fn created_collection_survives_a_restart() {
    let (objects, nodes): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Nodes::default());
    let first = shell(&objects, &nodes).await;
    let collection = create(&first, "a").await.unwrap();
    assert_eq!(nodes.open(), 2);
    drop(first);
    let second = shell(&objects, &nodes).await;
    assert_eq!(second.read(|state| state.list("")).unwrap(), std::slice::from_ref(&collection));
    assert!(create(&second, "b").await.unwrap().id > collection.id, "an id came back");
}

#[tokio::test]
async fn owner_that_is_down_is_named_and_nothing_stays() {
    let (objects, nodes): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Nodes::default());
    let shell = shell(&objects, &nodes).await;
    nodes.down.lock().unwrap().insert("n2");
    let status = create(&shell, "a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "n2 cannot open its shard: connection refused");
    assert!(shell.read(|state| state.list("")).unwrap().is_empty());
    assert_eq!(nodes.open(), 0, "the other owner's shard was destroyed");
    let told_later = shell.read(|state| state.assignments("n2")).drop;
    assert_eq!(told_later.len(), 1, "it may have opened its shard before it went down");
    assert!(shell.read(|state| state.assignments("n1")).drop.is_empty());
}

#[tokio::test]
async fn drop_reaches_owners_that_were_down() {
    let (objects, nodes): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Nodes::default());
    let first = shell(&objects, &nodes).await;
    create(&first, "a").await.unwrap();
    nodes.down.lock().unwrap().insert("n1");
    assert!(remove(&first, "a").await.unwrap());
    assert!(!remove(&first, "a").await.unwrap(), "again is no error");
    drop(first);
    let second = shell(&objects, &nodes).await;
    let doomed = second.read(|state| state.assignments("n1")).drop;
    assert_eq!(doomed.len(), 1, "a restart does not forget");
    second.run(move |state| Ok(state.shards_dropped("n1", &doomed))).await.unwrap();
    assert!(second.read(|state| state.assignments("n1")).drop.is_empty());
}

#[tokio::test]
async fn refusals_have_codes() {
    let (objects, nodes): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Nodes::default());
    let shell = shell(&objects, &nodes).await;
    create(&shell, "a").await.unwrap();
    let other = CreateCollectionRequest { num_partitions: 9, ..request("a") };
    let taken = shell.run(move |state| state.create(other, &["n1".to_owned()], now())).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(create(&shell, "").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn fenced_coordinator_stops() {
    let (objects, nodes): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Nodes::default());
    let first = shell(&objects, &nodes).await;
    let _second = shell(&objects, &nodes).await;
    let status = create(&first, "a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("another coordinator"), "{}", status.message());
    first.broken().await;
    assert!(first.read(|state| state.list("")).unwrap().is_empty(), "it never counted");
}
