use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rpc::schema::DataType;

use super::*;

const NODES: [&str; 2] = ["data-node-1", "data-node-2"];

fn nodes() -> Vec<String> {
    NODES.map(str::to_owned).to_vec()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn field(name: &str, kind: DataType) -> FieldSchema {
    FieldSchema { name: name.to_owned(), data_type: kind.into(), ..FieldSchema::default() }
}

fn request(name: &str) -> CreateCollectionRequest {
    let fields = vec![field("id", DataType::Int64), field("vector", DataType::FloatVector)];
    let schema = CollectionSchema { fields, ..CollectionSchema::default() };
    CreateCollectionRequest { name: name.to_owned(), schema: Some(schema), ..CreateCollectionRequest::default() }
}

fn by_name(name: &str) -> Option<CollectionRef> {
    Some(CollectionRef { db: String::new(), by: Some(By::Name(name.to_owned())) })
}

fn index_on(field: &str) -> CreateIndexRequest {
    CreateIndexRequest { collection: by_name("a"), field: field.to_owned(), ..CreateIndexRequest::default() }
}

/// Does what the shell does when nothing fails.
fn done<T>(state: &mut State, plan: Plan<T>) -> T {
    plan.reserve.into_iter().chain(plan.changes).for_each(|change| state.apply(change));
    plan.answer
}

fn with_collection() -> State {
    let mut state = State::default();
    let plan = state.create(request("a"), &nodes(), now()).unwrap();
    done(&mut state, plan);
    state
}

#[test]
fn creates_a_shard_on_each_node() {
    let mut state = State::default();
    let plan = state.create(request("a"), &nodes(), now()).unwrap();
    assert_eq!(plan.open.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), NODES);
    let collection = done(&mut state, plan);
    let schema = collection.schema.as_ref().unwrap();
    assert_eq!(schema.fields.iter().map(|field| field.field_id).collect::<Vec<_>>(), [100, 101]);
    assert_eq!(collection.created_timestamp >> 18, 1_700_000_000_000);
    assert_eq!(state.describe(by_name("a").as_ref()).unwrap(), &collection);
    let open = state.assignments("data-node-2").open;
    assert_eq!(open.len(), 1);
    assert_eq!(CollectionSchema::decode(&*open[0].schema).unwrap(), *schema);
}

#[test]
fn same_parameters_succeed_and_others_fail() {
    let mut state = with_collection();
    let again = state.create(request("a"), &nodes(), now() + Duration::from_secs(9)).unwrap();
    assert!(again.open.is_empty() && again.changes.is_empty(), "{again:?}");
    assert_eq!(&again.answer, state.describe(by_name("a").as_ref()).unwrap());
    let other = CreateCollectionRequest { shards_num: 7, ..request("a") };
    let refused = state.create(other, &nodes(), now()).unwrap_err();
    assert_eq!(refused.to_string(), "create duplicate collection with different parameters, collection: a");
}

#[test]
fn refuses_what_makes_no_sense() {
    let mut state = State::default();
    let mut refused = |request| state.create(request, &nodes(), now()).unwrap_err();
    assert!(matches!(refused(CreateCollectionRequest::default()), Refused::InvalidArgument(_)));
    assert!(matches!(refused(CreateCollectionRequest { schema: None, ..request("a") }), Refused::InvalidArgument(_)));
    let elsewhere = CreateCollectionRequest { db: "other".to_owned(), ..request("a") };
    assert_eq!(refused(elsewhere).to_string(), "database not found[database=other]");
    let nowhere = State::default().create(request("a"), &[], now()).unwrap_err();
    assert!(matches!(nowhere, Refused::FailedPrecondition(_)));
}

#[test]
fn missing_collection_is_named() {
    let refused = State::default().describe(by_name("gone").as_ref()).unwrap_err();
    assert_eq!(refused, Refused::NotFound("collection not found[database=default][collection=gone]".to_owned()));
}

#[test]
fn drop_leaves_tombstones_until_confirmed() {
    let mut state = with_collection();
    let plan = state.drop_collection(by_name("a").as_ref()).unwrap();
    assert_eq!(plan.drop.len(), 2);
    assert!(done(&mut state, plan));
    let doomed = state.assignments("data-node-1").drop;
    assert_eq!(doomed.len(), 1);
    let not_its_own = state.shards_dropped("data-node-2", &doomed);
    assert!(not_its_own.changes.is_empty(), "another node cannot confirm");
    let plan = state.shards_dropped("data-node-1", &doomed);
    done(&mut state, plan);
    assert!(state.assignments("data-node-1").drop.is_empty());
    let again = state.drop_collection(by_name("a").as_ref()).unwrap();
    assert!(!again.answer && again.changes.is_empty(), "dropping what is gone succeeds");
}

#[test]
fn load_needs_an_index_on_every_vector() {
    let mut state = with_collection();
    let refused = state.set_loaded(by_name("a").as_ref(), true).unwrap_err();
    assert_eq!(refused, Refused::FailedPrecondition("index not found[collection=a]".to_owned()));
    let plan = state.create_index(index_on("vector")).unwrap();
    assert_eq!(done(&mut state, plan).name, "vector", "named after its field");
    let plan = state.set_loaded(by_name("a").as_ref(), true).unwrap();
    assert!(done(&mut state, plan).loaded);
    assert!(state.set_loaded(by_name("a").as_ref(), true).unwrap().changes.is_empty());
    let drop = DropIndexRequest { collection: by_name("a"), name: "vector".to_owned(), field: String::new() };
    assert!(matches!(state.drop_index(&drop).unwrap_err(), Refused::FailedPrecondition(_)));
    let plan = state.set_loaded(by_name("a").as_ref(), false).unwrap();
    done(&mut state, plan);
    let plan = state.drop_index(&drop).unwrap();
    assert!(done(&mut state, plan));
    assert!(!state.drop_index(&drop).unwrap().answer, "dropping what is gone succeeds");
}

#[test]
fn one_distinct_index_a_field() {
    let mut state = with_collection();
    let plan = state.create_index(index_on("vector")).unwrap();
    let index = done(&mut state, plan);
    assert_eq!(state.create_index(index_on("vector")).unwrap().answer, index, "the same again succeeds");
    let named = |name: &str, field: &str| CreateIndexRequest { name: name.to_owned(), ..index_on(field) };
    assert!(matches!(state.create_index(named("other", "vector")), Err(Refused::AlreadyExists(_))));
    assert!(matches!(state.create_index(named("vector", "id")), Err(Refused::AlreadyExists(_))));
    assert!(matches!(state.create_index(index_on("nothing")), Err(Refused::InvalidArgument(_))));
}

/// One thing that may happen to a coordinator.
#[derive(Debug, Clone)]
enum Happening {
    Create {
        name: u8,
        fails: bool,
    },
    Drop {
        name: u8,
        owners_hear: bool,
    },
    Index {
        name: u8,
    },
    Load {
        name: u8,
        loaded: bool,
    },
    /// A node asks what it has to do, does it, and confirms.
    NodeCatchesUp {
        node: bool,
    },
    /// All that is not durable is lost.
    Restart,
    /// The process dies between opening the shards and making the collection durable.
    DiesWhileCreating {
        name: u8,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let name = 0..4_u8;
    prop_oneof![
        3 => (name.clone(), any::<bool>()).prop_map(|(name, fails)| Happening::Create { name, fails }),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, owners_hear)| Happening::Drop { name, owners_hear }),
        1 => name.clone().prop_map(|name| Happening::Index { name }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, loaded)| Happening::Load { name, loaded }),
        2 => any::<bool>().prop_map(|node| Happening::NodeCatchesUp { node }),
        1 => Just(Happening::Restart),
        1 => name.prop_map(|name| Happening::DiesWhileCreating { name }),
    ]
}

/// A coordinator, its durable store and its data-nodes, without any of their code.
#[derive(Default)]
struct World {
    state: State,
    durable: BTreeMap<String, Change>,
    /// What the data-nodes have, and whose it is.
    open: BTreeMap<String, String>,
    ids: BTreeSet<i64>,
    /// Shards of creations that nobody lived to abandon.
    lost: BTreeSet<String>,
}

impl World {
    fn persist(&mut self, change: Change) {
        match &change {
            Change::Reserve(_) => drop(self.durable.insert("reserved".to_owned(), change.clone())),
            Change::Put(c) => drop(self.durable.insert(format!("collection/{}", c.id), change.clone())),
            Change::Remove(id) => drop(self.durable.remove(&format!("collection/{id}"))),
            Change::Doom(shard) => drop(self.durable.insert(format!("doomed/{}", shard.shard_id), change.clone())),
            Change::Forget(shard) => drop(self.durable.remove(&format!("doomed/{shard}"))),
        }
        self.state.apply(change);
    }

    fn reserve_and_open<T>(&mut self, plan: &Plan<T>) {
        plan.reserve.clone().into_iter().for_each(|change| self.persist(change));
        for (node, spec) in &plan.open {
            assert!(self.open.insert(spec.shard_id.clone(), node.clone()).is_none(), "a shard's name came back");
        }
    }

    fn finish<T>(&mut self, plan: Plan<T>, owners_hear: bool) {
        plan.changes.into_iter().for_each(|change| self.persist(change));
        for shard in plan.drop.into_iter().filter(|_| owners_hear) {
            self.open.remove(&shard.shard_id);
            let plan = self.state.shards_dropped(&shard.node_id, std::slice::from_ref(&shard.shard_id));
            plan.changes.into_iter().for_each(|change| self.persist(change));
        }
    }

    fn create(&mut self, name: u8) -> Plan<Collection> {
        let plan = self.state.create(request(&name.to_string()), &nodes(), now()).unwrap();
        if !plan.open.is_empty() {
            assert!(self.ids.insert(plan.answer.id), "id {} came back", plan.answer.id);
        }
        self.reserve_and_open(&plan);
        plan
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Create { name, fails: false } => {
                let plan = self.create(name);
                self.finish(plan, true);
            }
            Happening::Create { name, fails: true } => {
                let plan = self.create(name);
                self.finish(State::abandon(plan.open), false);
            }
            Happening::Drop { name, owners_hear } => {
                let plan = self.state.drop_collection(by_name(&name.to_string()).as_ref()).unwrap();
                self.finish(plan, owners_hear);
            }
            Happening::Index { name } => self.index(name),
            Happening::Load { name, loaded } => {
                if let Ok(plan) = self.state.set_loaded(by_name(&name.to_string()).as_ref(), loaded) {
                    self.finish(plan, true);
                }
            }
            Happening::NodeCatchesUp { node } => self.catch_up(NODES[usize::from(node)]),
            Happening::Restart => self.restart(),
            Happening::DiesWhileCreating { name } => {
                let plan = self.create(name);
                self.lost.extend(plan.open.into_iter().map(|(_, spec)| spec.shard_id));
                self.restart();
            }
        }
    }

    fn index(&mut self, name: u8) {
        let request = CreateIndexRequest { collection: by_name(&name.to_string()), ..index_on("vector") };
        let Ok(plan) = self.state.create_index(request) else { return };
        if !plan.changes.is_empty() {
            assert!(self.ids.insert(plan.answer.id), "id {} came back", plan.answer.id);
        }
        self.reserve_and_open(&plan);
        self.finish(plan, true);
    }

    fn catch_up(&mut self, node: &str) {
        let doomed = self.state.assignments(node).drop;
        doomed.iter().for_each(|shard| drop(self.open.remove(shard)));
        let plan = self.state.shards_dropped(node, &doomed);
        self.finish(plan, true);
    }

    fn restart(&mut self) {
        self.state = State::restored(self.durable.values().cloned());
    }

    fn check(&self) {
        let mut names: Vec<_> = self.state.collections.values().map(|c| &c.name).collect();
        names.dedup();
        assert_eq!(names.len(), self.state.collections.len(), "two collections of one name");
        let live: BTreeSet<_> = self.state.collections.values().flat_map(|c| &c.shards).map(|s| &s.shard_id).collect();
        assert!(live.iter().all(|shard| self.open.contains_key(*shard)), "a live shard was never opened");
        assert!(live.iter().all(|shard| !self.state.doomed.contains_key(*shard)), "a live shard is doomed");
        for shard in self.open.keys().filter(|shard| !self.lost.contains(*shard)) {
            assert!(live.contains(shard) || self.state.doomed.contains_key(shard), "shard {shard} has no owner");
        }
        let durable = State::restored(self.durable.values().cloned());
        assert_eq!((&durable.collections, &durable.doomed), (&self.state.collections, &self.state.doomed));
    }
}

proptest! {
    #[test]
    fn holds_its_promises_whatever_happens(story in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::default();
        for what in story {
            world.happen(what);
            world.check();
        }
    }
}
