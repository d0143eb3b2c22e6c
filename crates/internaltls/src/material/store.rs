//! The material of one mesh or one edge: opened once, followed until it is dropped.
//!
//! 1. Readers load one pointer and never wait.
//! 2. Three turns look at the files, each with a lock, a source and a thread to block of its own: the pair with its CAs
//!    ([`PairTurn`]), the lists ([`ListTurn`]) and the policy ([`PolicyTurn`]). The last two can take trust away, and wait for
//!    nothing but their own files. What they bring meets in [`Published`].
//! 3. An event, the poll and a caller make the lists be looked at first, then the policy, then the pair: a bundle on disk is
//!    judged under the lists that came with it.
//! 4. The tasks that follow hold the store weakly: dropping the store ends them.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::alarm::{self, ListAlarm, LookAlarm, Looker};
use super::announcer::Announcer;
use super::follow::{Bells, Follow, FollowLists};
use super::force::hex;
use super::generation::{Generation, Purpose, Surroundings, provider};
use super::list_turn::{self, FirstLists, ListTurn};
use super::parse::bundle;
use super::peers::Connected;
use super::policy_turn::PolicyTurn;
use super::prepare::{Prepared, prepare};
use super::published::Published;
use super::report::{Report, Subject};
use super::source::Source;
use super::state::StateFolder;
use super::status::{
    CaStatus, CrlStatus, LeafStatus, ListsStatus, MaterialStatus, SharedKeyStatus, WatchState, WatchStatus,
};
use super::turn::PairTurn;
use super::watch::Watch;
use crate::clock::Clock;
use crate::config::{Files, Reload};
use crate::connections::{Connection, Registry};
use crate::error::LoadError;
use crate::policy::Policy;
use crate::telemetry::Telemetry;
use crate::verify::{Crl, KeyRing, Lists, Notices, Origin, SharedKey};

/// What a look at the files brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Disk and served agree.
    Unchanged,
    /// The number of the new generation.
    Published(u64),
}

/// The material of one mesh or one edge.
pub(crate) struct Store {
    published: Arc<Published>,
    pair: PairTurn,
    lists: ListTurn,
    policy: Option<PolicyTurn>,
    report: Report,
    around: Surroundings,
    telemetry: Arc<Telemetry>,
    pair_watch: ArcSwap<WatchStatus>,
    /// `None` where there is nothing to watch.
    lists_watch: ArcSwap<Option<WatchStatus>>,
    list_alarm: ListAlarm,
    looks: LookAlarm,
    _following: DropGuard,
}

/// What the first looks need.
struct Opening {
    around: Surroundings,
    files: Files,
    policy: Option<PathBuf>,
    state: Option<PathBuf>,
    telemetry: Arc<Telemetry>,
    reload: Reload,
    bells: Arc<Bells>,
    guard: DropGuard,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl Store {
    /// As [`Self::open_with_state`], without a state.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) async fn open(
        purpose: Purpose,
        files: Files,
        policy: Option<PathBuf>,
        reload: Reload,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Arc<Self>, LoadError> {
        Self::open_with_state(purpose, files, policy, None, reload, clock, telemetry).await
    }

    /// Reads, checks and publishes the first generation, and follows the files until the store is dropped. What is in force of
    /// what revokes is kept in the folder `state`.
    pub(crate) async fn open_with_state(
        purpose: Purpose,
        files: Files,
        policy: Option<PathBuf>,
        state: Option<PathBuf>,
        reload: Reload,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Arc<Self>, LoadError> {
        let bells = Arc::new(Bells::default());
        let notices = Arc::new(Announcer::new(Arc::clone(&telemetry)));
        let around = Surroundings {
            purpose,
            provider: Arc::new(provider()),
            clock,
            ring: Arc::new(KeyRing::new(reload.previous_key)),
            crl_grace: reload.crl_grace,
            notices: Arc::clone(&notices) as Arc<dyn Notices>,
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let opening = Opening { around, files, policy, state, telemetry, reload, bells: Arc::clone(&bells), guard };
        let store = Arc::new(off_thread(|| Self::first(opening)).await?);
        alarm::expose(&store, &store.telemetry);
        let (weak, poll) = (Arc::downgrade(&store), reload.poll);
        let lists = FollowLists { store: weak.clone(), poll, bells: Arc::clone(&bells), ended: ended.clone() };
        tokio::spawn(lists.run());
        tokio::spawn(Follow { store: weak, poll, bells, notices, ended }.run());
        Ok(store)
    }

    /// The generation of now. Wait-free.
    pub(crate) fn current(&self) -> Arc<Generation> {
        self.published.current()
    }

    /// The policy of the file of now; `None` where no file is configured. Wait-free.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.as_ref().map(PolicyTurn::current)
    }

    /// From now on the peers connected have a say in what is published.
    pub(crate) fn heed(&self, connected: Connected) {
        self.pair.heed(connected);
    }

    /// Follows the number of the newest generation.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Moves with every change of the policy file; `None` where no file is configured.
    pub(crate) fn subscribe_policy(&self) -> Option<watch::Receiver<u64>> {
        self.policy.as_ref().map(PolicyTurn::subscribe)
    }

    /// Reads all files now, and waits until every turn has ended.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, LoadError> {
        let store = Arc::clone(self);
        off_thread(move || store.take_turn()).await
    }

    /// Reads lists and policy now. Waits for no peer.
    pub(super) async fn look_at_lists(self: &Arc<Self>) -> Result<Reloaded, LoadError> {
        let store = Arc::clone(self);
        off_thread(move || store.take_lists_turn()).await
    }

    /// Reads leaf, key and CAs now. Peers may be asked about them.
    pub(super) async fn look_at_pair(self: &Arc<Self>) -> Result<Reloaded, LoadError> {
        let store = Arc::clone(self);
        off_thread(move || store.take_pair_turn()).await
    }

    /// What is served now, and how it fared when it was last read.
    pub(crate) fn status(&self) -> MaterialStatus {
        let (generation, summary, now) = (self.current(), self.report.summary(), self.now());
        let (anchors, lists, held_back) =
            (&generation.trust.anchors, &generation.trust.lists, self.published.held_back());
        let crl = |crl| CrlStatus::of(crl, lists.grace, [anchors, &held_back], now);
        let differs = summary.differs_since.and_then(|since| now.duration_since(since).ok());
        MaterialStatus {
            generation: generation.number,
            loaded_at: generation.loaded_at,
            leaf: LeafStatus::of(&generation.leaf, now),
            client_leaf: generation.client_leaf.as_ref().map(|leaf| LeafStatus::of(leaf, now)),
            cas: anchors.iter().map(|anchor| CaStatus::of(anchor, now)).collect(),
            crls: in_force_first(current(lists).map(crl).collect()),
            lists: ListsStatus::of(&lists.distrust, &self.lists.findings(), self.lists.folder()),
            last_reload: summary.last,
            differs_since: summary.differs_since,
            differs_seconds: differs.unwrap_or_default().as_secs(),
            held: summary.held,
            silent_peers: summary.silent,
            watch: self.watch_status(),
            look: self.looks.status(Instant::now()),
            layout: generation.layout.clone(),
            shared_keys: self.shared_keys(&generation, now),
        }
    }

    /// Of both watches, the one that failed.
    fn watch_status(&self) -> WatchStatus {
        let (pair, lists) = (self.pair_watch.load(), self.lists_watch.load());
        let failed = lists.as_ref().as_ref().filter(|lists| lists.state == WatchState::Failed);
        failed.filter(|_| pair.state != WatchState::Failed).unwrap_or(&pair).clone()
    }

    /// Whose material it is, for metrics and logs.
    pub(super) fn word(&self) -> &'static str {
        self.published.material()
    }

    pub(super) fn now(&self) -> SystemTime {
        self.around.clock.now()
    }

    /// Says in the log what time alone has brought.
    pub(crate) fn look_at_the_clock(&self) {
        self.looks.look(self.word(), Instant::now());
        self.list_alarm.look(self.word(), &self.status().crls, self.around.crl_grace);
    }

    /// Lets go of shared keys whose time is over, and of the connections of peers that show a key of no set that counts.
    pub(crate) fn retire_keys(&self, registry: &Registry) {
        let generation = self.current();
        let Some(ring) = generation.trust.shared_keys() else { return };
        let now = self.now();
        for key in ring.tend(now, &registry.shown_keys()) {
            tracing::info!(spki_sha256 = hex(&key), "the shared key of the set before is accepted no longer");
        }
        for connection in registry.retire(|key| ring.holds(key, now)) {
            let peer = connection.facts.peer_addr;
            tracing::warn!(%peer, "a connected peer shows a shared key that is accepted no longer: its connection drains; bring its files up to date");
        }
    }

    /// The shared keys that peers may show, and the peers that show one that was replaced.
    fn shared_keys(&self, generation: &Generation, now: SystemTime) -> Vec<SharedKeyStatus> {
        let Some(ring) = generation.trust.shared_keys() else { return Vec::new() };
        let connections = self.pair.connections();
        let status = |(key, origin): (SharedKey, Origin)| {
            let shows = |c: &&Arc<Connection>| !c.is_cut() && c.facts.peer_key == Some(key.spki_sha256);
            let shown_by = connections.iter().filter(shows).map(|c| c.facts.peer_addr).collect();
            SharedKeyStatus::of(key, origin, shown_by)
        };
        ring.list(now).into_iter().map(status).collect()
    }

    /// Blocks.
    fn first(opening: Opening) -> Result<Self, LoadError> {
        let Opening { around, files, policy, state, telemetry, reload, bells, guard } = opening;
        let source = Source::of(&files, &around.purpose)?;
        let (pair_source, lists_source) = (source.pair(), source.lists());
        let beside: Vec<_> = policy.iter().cloned().collect();
        let mut pair_watch = Watch::new(&reload, bells.changed());
        pair_watch.arm(&pair_source.paths());
        let mut lists_watch = Watch::new(&reload, bells.changed());
        let lists_paths = list_turn::paths(lists_source.as_ref(), &beside);
        if !lists_paths.is_empty() {
            lists_watch.arm(&lists_paths);
        }
        let snapshot = pair_source.read()?;
        // Without CAs every CRL would seem to be of one that has left: the state waits for a start that asks for certificates.
        let folder = state.filter(|_| around.purpose.ca_counts()).map(StateFolder::new);
        let anchors = bundle(&snapshot)?;
        let first = FirstLists::read(lists_source.as_ref(), folder.as_ref(), Some(&pair_source), &anchors)?;
        let Prepared { kept, .. } = prepare(&snapshot, &first.in_force, &around, None, 1)?;
        let clock = Arc::clone(&around.clock);
        let policy_source = policy.as_deref().map(Source::of_policy);
        let policy = policy_source.map(|source| PolicyTurn::first(source, Arc::clone(&clock))).transpose()?;
        let (served, listed) = (snapshot.content().pair, first.matter(lists_source.as_ref()));
        let subjects: Vec<_> =
            [Some(Subject::Pair), listed.then_some(Subject::Lists), policy.as_ref().map(|_| Subject::Policy)]
                .into_iter()
                .flatten()
                .collect();
        let report = Report::new(
            around.purpose.word(),
            &subjects,
            clock.now(),
            reload.retry,
            Arc::clone(&telemetry),
            Arc::clone(&bells.stirred),
        );
        let in_force = first.in_force.clone();
        let published = Arc::new(Published::first(kept, in_force, around.clone())?);
        let statuses = (pair_watch.status(), (!lists_paths.is_empty()).then(|| lists_watch.status()));
        let patience = reload.poll.saturating_mul(2);
        let pair = PairTurn::new(pair_source, served, Arc::clone(&published), around.clone(), patience, pair_watch);
        pair.announce_first();
        let lists = ListTurn::new(lists_source, first, folder, beside, Arc::clone(&published), clock, lists_watch);
        lists.begin(&report);
        Ok(Self {
            published,
            pair,
            lists,
            policy,
            report,
            around,
            telemetry,
            pair_watch: ArcSwap::from_pointee(statuses.0),
            lists_watch: ArcSwap::from_pointee(statuses.1),
            list_alarm: ListAlarm::default(),
            looks: LookAlarm::new(reload.poll, Instant::now()),
            _following: guard,
        })
    }

    /// Every turn, the lists first. Blocks.
    pub(super) fn take_turn(&self) -> Result<Reloaded, LoadError> {
        let lists = self.take_lists_turn();
        let pair = self.take_pair_turn()?;
        Ok(match (lists?, pair) {
            (lists, Reloaded::Unchanged) => lists,
            (_, pair) => pair,
        })
    }

    /// Blocks, but for no peer.
    fn take_lists_turn(&self) -> Result<Reloaded, LoadError> {
        let (lists, watch) = self.lists.take(&self.report);
        self.lists_watch.store(Arc::new(watch));
        let policy = self.policy.as_ref().map_or(Ok(Reloaded::Unchanged), |policy| policy.take(&self.report));
        self.looks.ended(Looker::Lists, Instant::now());
        lists.and_then(|reloaded| policy.map(|_| reloaded))
    }

    /// Blocks.
    fn take_pair_turn(&self) -> Result<Reloaded, LoadError> {
        let (result, watch) = self.pair.take(&self.report);
        self.pair_watch.store(Arc::new(watch));
        self.looks.ended(Looker::Pair, Instant::now());
        result
    }

    /// How soon the lists and the policy are to be looked at again.
    pub(super) fn wait_for_lists(&self, poll: Duration) -> Duration {
        self.report.wait(&[Subject::Lists, Subject::Policy], poll)
    }

    /// How soon the pair is to be looked at again.
    pub(super) fn wait_for_pair(&self, poll: Duration) -> Duration {
        self.report.wait(&[Subject::Pair], poll)
    }
}

/// Lists of intermediates are kept beside those that take their place, which is nothing to raise an alarm about. What nobody is
/// known to have signed takes no proven one's place.
fn current(lists: &Lists) -> impl Iterator<Item = &Crl> {
    let replaces = |other: &Crl, crl: &Crl| crl.yields_to(other) && (lists.is_proven(other) || !lists.is_proven(crl));
    let yields = move |crl: &Crl| lists.crls.iter().any(|other| replaces(other, crl));
    lists.crls.iter().map(|crl| &**crl).filter(move |crl| !yields(crl))
}

/// Those of CAs in use, then those that wait for theirs, then those of nobody known.
fn in_force_first(mut crls: Vec<CrlStatus>) -> Vec<CrlStatus> {
    crls.sort_by_key(|crl| ["in-use", "held-back"].iter().position(|signer| *signer == crl.signer).unwrap_or(2));
    crls
}

/// On a thread of its own: a runtime that shuts down would wait for one of `spawn_blocking`, however long it blocks.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let (done, outcome) = oneshot::channel();
    let run = move || {
        // Whoever waited may have gone.
        let _ = done.send(work());
    };
    thread::Builder::new().name("material look".to_owned()).spawn(run).map_err(|_| LoadError::Interrupted)?;
    outcome.await.unwrap_or(Err(LoadError::Interrupted))
}
