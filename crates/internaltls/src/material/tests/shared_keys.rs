//! The ring of shared keys while files change at random: after each look it holds what a model says, and nothing else.
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::issue::*;
use crate::clock::{Clock as _, TestClock};
use crate::config::{Files, Reload};
use crate::identity::{NodeId, Role, TrustDomain};
use crate::material::{Purpose, Store};
use crate::telemetry::Telemetry;
use crate::verify::{CertificateFacts, PeerSide};

const RETENTION: u64 = 600;
/// Leaves that fit, by their places in [`Leaves::all`]; the last of them ends early.
const FIT: usize = 4;
const ENDS_EARLY: usize = 3;
const EARLY: u64 = 900;

/// A CA and leaves of it: some that fit, then one for each way not to.
struct Leaves {
    ca: Authority,
    all: Vec<Leaf>,
    hashes: Vec<[u8; 32]>,
    start: SystemTime,
}

static LEAVES: LazyLock<Leaves> = LazyLock::new(|| {
    let (ca, start) = (authority("mesh ca"), SystemTime::now());
    let mut all: Vec<_> = (0..FIT).map(|_| ca.leaf(shape_shared)).collect();
    all[ENDS_EARLY] = ca.leaf(|params| {
        shape_shared(params);
        params.not_after = (start + Duration::from_secs(EARLY)).into();
    });
    all.extend([
        // Another name, and so another layout; a node's own leaf; nobody's leaf; one that is over.
        ca.leaf(|params| params.subject_alt_names = vec![dns("elsewhere")]),
        ca.node("coordinator", "c"),
        authority("another").leaf(shape_shared),
        ca.leaf(|params| {
            shape_shared(params);
            params.not_after = (start - Duration::from_secs(60)).into();
        }),
    ]);
    let hashes = all.iter().map(|leaf| CertificateFacts::read(&leaf.der).unwrap().spki_sha256).collect();
    Leaves { ca, all, hashes, start }
});

impl Leaves {
    /// Whole seconds, as certificates have them.
    fn not_after(&self, leaf: usize) -> SystemTime {
        CertificateFacts::read(&self.all[leaf].der).unwrap().not_after
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// This leaf with its key.
    Put(usize),
    /// This leaf with the key of another.
    Torn(usize),
    Gone,
    /// What is served, once more.
    PutBack,
    Distrust(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..FIT + 4).prop_map(Step::Put),
        1 => (0..FIT).prop_map(Step::Torn),
        1 => Just(Step::Gone),
        2 => Just(Step::PutBack),
        1 => (0..FIT).prop_map(Step::Distrust),
        2 => (0..500_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..14)
}

/// What should be so.
#[derive(Debug)]
struct Model {
    now: SystemTime,
    /// The leaf on disk; `None` where there is none that is whole.
    disk: Option<usize>,
    served: usize,
    /// The set before, and when it was replaced.
    before: Option<(usize, SystemTime)>,
    distrusted: BTreeSet<usize>,
}

impl Model {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(leaf) => self.disk = Some(*leaf),
            Step::Torn(_) | Step::Gone => self.disk = None,
            Step::PutBack => self.disk = Some(self.served),
            Step::Distrust(leaf) => drop(self.distrusted.insert(*leaf)),
            Step::Wait(seconds) => self.now += Duration::from_secs(*seconds),
        }
        // Lists are in force first, and what ends does not come back.
        self.before = self.before.filter(|before| self.counts(*before));
        let passes =
            |leaf: &usize| *leaf < FIT && !self.distrusted.contains(leaf) && self.now <= LEAVES.not_after(*leaf);
        if let Some(next) = self.disk.filter(passes).filter(|next| *next != self.served) {
            self.before = Some((self.served, self.now)).filter(|before| self.counts(*before));
            self.served = next;
        }
    }

    fn counts(&self, (leaf, replaced): (usize, SystemTime)) -> bool {
        !self.distrusted.contains(&leaf)
            && self.now <= LEAVES.not_after(leaf)
            && self.now < replaced + Duration::from_secs(RETENTION)
    }

    fn keys(&self) -> BTreeSet<usize> {
        [Some(self.served), self.before.map(|(leaf, _)| leaf)].into_iter().flatten().collect()
    }
}

struct Walk {
    folder: Folder,
    clock: Arc<TestClock>,
    store: Arc<Store>,
    model: Model,
}

impl Walk {
    async fn begin(named: bool) -> Self {
        let folder = Folder::of(&LEAVES.ca.pem, &LEAVES.all[0]);
        folder.put("distrust", "");
        let clock = Arc::new(TestClock::at(LEAVES.start));
        let purpose = Purpose::Mesh {
            trust_domain: TrustDomain::new(DOMAIN).unwrap(),
            role: Role::new("coordinator").unwrap(),
            node: NodeId::new("c").unwrap(),
            shared_name: named.then(|| "localhost".to_owned()),
        };
        let files = Files { distrust: Some(folder.path("distrust")), ..folder.files() };
        let hour = Duration::from_secs(3_600);
        let previous_key = Duration::from_secs(RETENTION);
        let reload = Reload { watch: false, poll: hour, retry: hour, previous_key, ..Reload::default() };
        let telemetry = Arc::new(Telemetry::new());
        let store = Store::open(purpose, files, None, reload, clock.clone(), telemetry).await.unwrap();
        let model = Model { now: LEAVES.start, disk: Some(0), served: 0, before: None, distrusted: BTreeSet::new() };
        Self { folder, clock, store, model }
    }

    fn put(&self, leaf: usize, key: usize) {
        self.folder.put("server.pem", &LEAVES.all[leaf].pem);
        self.folder.put("server.key", &LEAVES.all[key].key);
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Put(leaf) => self.put(*leaf, *leaf),
            Step::Torn(leaf) => self.put(*leaf, (leaf + 1) % FIT),
            Step::Gone => drop(std::fs::remove_file(self.folder.path("server.pem"))),
            Step::PutBack => self.put(self.model.served, self.model.served),
            Step::Distrust(leaf) => {
                let listed = self.model.distrusted.iter().chain([leaf]);
                let hex =
                    |leaf: &usize| LEAVES.hashes[*leaf].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                self.folder.put("distrust", listed.map(|leaf| hex(leaf) + "\n").collect::<String>());
            }
            Step::Wait(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
        }
        // Whether it is fit does not matter here.
        let _ = self.store.reload().await;
        self.model.step(step);
    }

    /// The leaves whose keys are in the ring, as the status names them.
    fn ring(&self) -> BTreeSet<usize> {
        let name = |hash: &String| {
            let hex = |leaf: &[u8; 32]| leaf.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            LEAVES.hashes.iter().position(|leaf| hex(leaf) == *hash).expect("a key of these leaves")
        };
        self.store.status().shared_keys.iter().map(|key| name(&key.spki_sha256)).collect()
    }

    /// Those that a handshake would take, of the CA's leaves that are neither over nor listed.
    fn accepted(&self) -> BTreeSet<usize> {
        let generation = self.store.current();
        let vouched = |leaf: &usize| {
            let chain = std::slice::from_ref(&LEAVES.all[*leaf].der);
            generation.vouch(chain, PeerSide::Client, None).is_ok()
        };
        (0..LEAVES.all.len()).filter(vouched).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_3_the_ring_is_what_is_served_before_and_fit_on_disk(named in any::<bool>(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut walk = Walk::begin(named).await;
            for step in &steps {
                walk.step(step).await;
                prop_assert_eq!(walk.ring(), walk.model.keys(), "after {:?}: {:?}", step, walk.model);
                let fit = |leaf: &usize| !walk.model.distrusted.contains(leaf) && walk.clock.now() <= LEAVES.not_after(*leaf);
                let expected: BTreeSet<_> = walk.model.keys().into_iter().filter(fit).collect();
                prop_assert_eq!(walk.accepted(), expected, "after {:?}: {:?}", step, walk.model);
            }
            Ok(())
        })?;
    }
}
