//! Publishes generations, and keeps the last good one.
//!
//! 1. Readers load one pointer and never wait. Turns (start, event, poll, call) come one at a time, off the async threads.
//! 2. A set is told from the one served by a hash of its content, so that the same bytes are never a new generation.
//! 3. A turn that fails says why at once, in the status and as a warning with all causes, each reason once. It is logged as an
//!    error only when the same difference has outlived a retry: a writer half done is no one's fault.
//! 4. The task that watches holds the store weakly: dropping the store ends it.
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::alarm::{self, ListAlarm};
use super::announcer::Announcer;
use super::check::{Checked, check, same_layout};
use super::decision::{Case, Decision, Objection, adds, decide};
use super::follow::Follow;
use super::force::hex;
use super::generation::{Generation, Purpose, Surroundings, build, provider};
use super::lists;
use super::parse::{Pair, parse};
use super::peers::{self, Connected};
use super::source::{Content, Snapshot, Source};
use super::status::{CaStatus, CrlStatus, HeldStatus, Layout, LeafStatus, MaterialStatus, ReloadStatus, WatchStatus};
use super::trial;
use super::watch::Watch;
use crate::clock::Clock;
use crate::config::{Files, Reload};
use crate::error::{LoadError, MaterialFile, Part, chain};
use crate::policy::Policy;
use crate::telemetry::Telemetry;
use crate::verify::{Anchor, KeyRing, Lists, Notices, PeerSide, Trust, sha256};

/// How often the time to the next retry doubles while peers hold a set back.
const MOST_DOUBLINGS: u32 = 3;

/// What a turn brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Disk and served agree.
    Unchanged,
    /// The number of the new generation.
    Published(u64),
}

/// The material of one mesh or one edge.
pub(crate) struct Store {
    current: ArcSwap<Generation>,
    policy: ArcSwapOption<Policy>,
    newest: watch::Sender<u64>,
    /// Moves when a changed policy is in force.
    policies: watch::Sender<u64>,
    around: Surroundings,
    telemetry: Arc<Telemetry>,
    source: Source,
    policy_source: Option<Source>,
    /// Who is connected, once that can be told: peers have a say in what is published.
    connected: OnceLock<Connected>,
    turn: Mutex<Turn>,
    told: Mutex<Told>,
    watching: ArcSwap<WatchStatus>,
    retry: Duration,
    /// How long a leaf waits for peers that cannot be asked.
    patience: Duration,
    /// Told when disk and served begin to differ: the retry comes before the poll.
    stirred: Arc<Notify>,
    list_alarm: ListAlarm,
    _watching: DropGuard,
}

/// What the first turn needs.
struct Opening {
    around: Surroundings,
    files: Files,
    policy: Option<PathBuf>,
    telemetry: Arc<Telemetry>,
    watch: Watch,
    retry: Duration,
    patience: Duration,
    stirred: Arc<Notify>,
    guard: DropGuard,
}

/// What only the one who takes a turn touches.
struct Turn {
    served: Content,
    kept: Kept,
    served_policy: Option<[u8; 32]>,
    /// The CAs that came while the process ran, and when, for as long as peers may not have them yet.
    young: Vec<(Anchor, Instant)>,
    /// The set on disk that is held back for the sake of peers.
    held: Option<HeldStatus>,
    watch: Watch,
}

impl Turn {
    /// The CAs in use that peers have had the time to follow.
    fn settled(&self, patience: Duration) -> Vec<Anchor> {
        let young = |anchor: &&Anchor| {
            self.young.iter().any(|(one, since)| one.der == anchor.der && since.elapsed() < patience)
        };
        self.kept.anchors.iter().filter(|anchor| !young(anchor)).cloned().collect()
    }

    /// Takes down which of `next` were not there before.
    fn age(&mut self, next: &[Anchor], patience: Duration) {
        self.young.retain(|(_, since)| since.elapsed() < patience);
        let new = next.iter().filter(|anchor| self.kept.anchors.iter().all(|old| old.der != anchor.der));
        self.young.extend(new.map(|anchor| (anchor.clone(), Instant::now())));
    }
}

/// What is served but for its lists: new lists can be published over it.
struct Kept {
    server: Pair,
    client: Option<Pair>,
    layout: Option<Layout>,
    anchors: Vec<Anchor>,
}

impl Kept {
    fn of(checked: &Checked) -> Self {
        Self {
            server: checked.server.clone(),
            client: checked.client.clone(),
            layout: checked.layout.clone(),
            anchors: checked.anchors.clone(),
        }
    }

    fn with(&self, lists: Lists) -> Checked {
        Checked {
            server: self.server.clone(),
            client: self.client.clone(),
            layout: self.layout.clone(),
            anchors: self.anchors.clone(),
            lists,
        }
    }
}

/// A set that passed what can be asked of it here.
struct Prepared {
    generation: Generation,
    keys: Vec<[u8; 32]>,
    kept: Kept,
}

/// What the status tells of the last turns.
#[derive(Debug, Clone)]
struct Told {
    last: ReloadStatus,
    differs_since: Option<SystemTime>,
    /// The same moment for measuring: no clock that can be set.
    differs_from: Option<Instant>,
    /// The reason that has been logged as an error.
    logged: Option<String>,
    /// How many turns in a row only peers stood against the set.
    held: u32,
    /// The set that they stand against.
    back: Option<HeldStatus>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("current", &self.current.load()).finish_non_exhaustive()
    }
}

impl Store {
    /// Reads, checks and publishes the first generation, and follows the files until the store is dropped.
    pub(crate) async fn open(
        purpose: Purpose,
        files: Files,
        policy: Option<PathBuf>,
        reload: Reload,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Arc<Self>, LoadError> {
        let changed = Arc::new(Notify::new());
        let notices = Arc::new(Announcer::new(Arc::clone(&telemetry)));
        let around = Surroundings {
            purpose,
            provider: Arc::new(provider()),
            clock,
            ring: Arc::new(KeyRing::default()),
            crl_grace: reload.crl_grace,
            notices: Arc::clone(&notices) as Arc<dyn Notices>,
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let watch = Watch::new(&reload, Arc::clone(&changed));
        let stirred = Arc::new(Notify::new());
        let opening = Opening {
            around,
            files,
            policy,
            telemetry,
            watch,
            retry: reload.retry,
            patience: reload.poll.saturating_mul(2),
            stirred: Arc::clone(&stirred),
            guard,
        };
        let store = Arc::new(off_thread(|| Self::first(opening)).await?);
        alarm::expose(&store, &store.telemetry);
        let follow = Follow { store: Arc::downgrade(&store), reload, changed, stirred, notices, ended };
        tokio::spawn(follow.run());
        Ok(store)
    }

    /// The generation of now. Wait-free.
    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The policy of the file of now; `None` where no file is configured. Wait-free.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    /// From now on the peers connected have a say in what is published.
    pub(crate) fn heed(&self, connected: Connected) {
        let _ = self.connected.set(connected);
    }

    /// Follows the number of the newest generation.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Moves with every change of the policy file.
    pub(crate) fn subscribe_policy(&self) -> watch::Receiver<u64> {
        self.policies.subscribe()
    }

    /// Reads the files now.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, LoadError> {
        let store = Arc::clone(self);
        off_thread(move || store.take_turn()).await
    }

    /// What is served now, and how it fared when it was last read.
    pub(crate) fn status(&self) -> MaterialStatus {
        let generation = self.current();
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.now();
        let (anchors, lists) = (generation.trust.anchors.iter(), &generation.trust.lists);
        let differs = told.differs_since.and_then(|since| now.duration_since(since).ok());
        MaterialStatus {
            generation: generation.number,
            loaded_at: generation.loaded_at,
            leaf: LeafStatus::of(&generation.leaf, now),
            client_leaf: generation.client_leaf.as_ref().map(|leaf| LeafStatus::of(leaf, now)),
            cas: anchors.map(|anchor| CaStatus::of(anchor, now)).collect(),
            crls: lists.crls.iter().flatten().map(|crl| CrlStatus::of(crl, lists.grace, now)).collect(),
            last_reload: told.last,
            differs_since: told.differs_since,
            differs_seconds: differs.unwrap_or_default().as_secs(),
            held: told.back,
            watch: WatchStatus::clone(&self.watching.load()),
            layout: generation.layout.clone(),
        }
    }

    /// Whose material it is, for metrics and logs.
    pub(super) fn word(&self) -> &'static str {
        self.around.purpose.word()
    }

    pub(super) fn now(&self) -> SystemTime {
        self.around.clock.now()
    }

    /// Says in the log what time alone has brought.
    pub(crate) fn look_at_the_clock(&self) {
        self.list_alarm.look(self.word(), &self.status().crls, self.around.crl_grace);
    }

    fn first(opening: Opening) -> Result<Self, LoadError> {
        let Opening { around, files, policy, telemetry, mut watch, retry, patience, stirred, guard } = opening;
        let source = Source::of(&files, &around.purpose)?;
        let policy_source = policy.as_deref().map(Source::of_policy);
        watch.arm(&paths(&source, policy_source.as_ref()));
        let snapshot = source.read()?;
        let Prepared { generation, keys, kept } = prepare(&snapshot, &around, None, 1)?;
        let first_policy = policy_source.as_ref().map(read_policy).transpose()?;
        around.ring.publish(keys);
        let now = around.clock.now();
        let (policy, served_policy) = first_policy.map_or((None, None), |(policy, hash)| (Some(policy), Some(hash)));
        let watching = ArcSwap::from_pointee(watch.status());
        let store = Self {
            current: ArcSwap::from_pointee(generation),
            policy: ArcSwapOption::new(policy.map(Arc::new)),
            newest: watch::Sender::new(1),
            policies: watch::Sender::new(1),
            around,
            telemetry,
            source,
            policy_source,
            connected: OnceLock::new(),
            turn: Mutex::new(Turn {
                served: snapshot.content(),
                kept,
                served_policy,
                young: Vec::new(),
                held: None,
                watch,
            }),
            told: Mutex::new(Told {
                last: ReloadStatus { at: now, result: "ok", reason: None },
                differs_since: None,
                differs_from: None,
                logged: None,
                held: 0,
                back: None,
            }),
            watching,
            retry,
            patience,
            stirred,
            list_alarm: ListAlarm::default(),
            _watching: guard,
        };
        store.announce(&store.current());
        Ok(store)
    }

    /// One turn. Blocks.
    pub(super) fn take_turn(&self) -> Result<Reloaded, LoadError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.look(&mut turn);
        self.watching.store(Arc::new(turn.watch.status()));
        self.tell(&result, turn.held.clone());
        result
    }

    fn look(&self, turn: &mut Turn) -> Result<Reloaded, LoadError> {
        turn.watch.arm(&self.paths());
        let mut result = self.read_and_publish(turn);
        // Folders that the watch did not know before may have changed before it did.
        if turn.watch.arm(&self.paths()) {
            let again = self.read_and_publish(turn);
            result = if matches!((&result, &again), (Ok(Reloaded::Published(_)), Ok(Reloaded::Unchanged))) {
                result
            } else {
                again
            };
        }
        let policy = self.look_at_policy(turn);
        result.and_then(|reloaded| policy.map(|()| reloaded))
    }

    /// What cannot be published whole must not keep its lists back: to distrust is never an accident.
    fn read_and_publish(&self, turn: &mut Turn) -> Result<Reloaded, LoadError> {
        let whole = self.publish_whole(turn);
        if whole.is_err() {
            self.publish_lists(turn);
        }
        whole
    }

    fn publish_whole(&self, turn: &mut Turn) -> Result<Reloaded, LoadError> {
        turn.held = None;
        let snapshot = self.source.read()?;
        let content = snapshot.content();
        if content == turn.served {
            return Ok(Reloaded::Unchanged);
        }
        let served = self.current();
        let Prepared { mut generation, keys, kept } =
            prepare(&snapshot, &self.around, Some(&served), served.number + 1)?;
        let heeded = self.heeded(&served);
        let orphan = heeded.and_then(|connected| self.heed_peers(connected, &served, &generation).err());
        let about_us = orphan.is_none() && content.pair != turn.served.pair;
        let asked = heeded.filter(|_| about_us).map_or_else(Vec::new, |connected| connected.targets(&generation));
        if !asked.is_empty() {
            // Asking takes time, which nobody listed is given.
            self.publish_lists(turn);
            generation.number = self.current().number + 1;
        }
        let candidate = Arc::new(generation);
        let (chain, file) = (&kept.server.certified.cert, &kept.server.certificate);
        let objection = orphan
            .or_else(|| heeded.and_then(|peers| peers.ask(asked, &candidate, chain, file).err()))
            .or_else(|| heeded.filter(|_| about_us).and_then(|peers| self.unheard(turn, peers, &candidate, &kept)));
        match (self.decide(turn, &content, &candidate, objection.as_ref()), objection) {
            (Decision::Publish | Decision::PublishByForce, _) | (_, None) => {
                self.around.ring.publish(keys);
                turn.age(&kept.anchors, self.patience);
                (turn.served, turn.kept, turn.held) = (content, kept, None);
                Ok(self.publish(candidate))
            }
            (Decision::PublishBundle, Some(objection)) => {
                self.publish_bundle(turn, &candidate, &snapshot);
                Err(objection)
            }
            (Decision::Hold, Some(objection)) => Err(objection),
        }
    }

    /// Whether a peer that cannot be asked may not know the CA of the new leaf yet.
    fn unheard(&self, turn: &Turn, connected: &Connected, candidate: &Generation, kept: &Kept) -> Option<LoadError> {
        let (trust, now, chain) = (&candidate.trust, self.around.clock.now(), &kept.server.certified.cert);
        let of = |anchors| Trust::new(anchors, Lists::default(), trust.rules.clone());
        let vouches = |anchors| of(anchors).vouch(chain, PeerSide::Server, None, now).is_ok();
        if !trust.knows_nodes() || vouches(turn.settled(self.patience)) {
            return None;
        }
        let ours = trust.anchors.iter().filter(|anchor| vouches(vec![(*anchor).clone()])).cloned().collect();
        let peer = peers::unheard(&connected.registry, trust, &of(ours), now)?;
        Some(LoadError::Unheard { file: kept.server.certificate.clone(), peer, patience: self.patience })
    }

    fn decide(
        &self,
        turn: &mut Turn,
        content: &Content,
        candidate: &Generation,
        objection: Option<&LoadError>,
    ) -> Decision {
        let forced = objection.is_some_and(|objection| self.forced(turn, content, objection));
        let kind = |error: &LoadError| match error {
            LoadError::Orphan { .. } => Objection::Orphan,
            LoadError::Unheard { .. } => Objection::Unheard,
            _ => Objection::Trial,
        };
        let adds_cas = adds(&certificates(&turn.kept.anchors), &certificates(&candidate.trust.anchors));
        decide(Case { objection: objection.map(kind), forced, adds_cas })
    }

    /// Whether an operator's word goes above this objection. Using it up is told at once, for it leaves no other trace.
    fn forced(&self, turn: &mut Turn, content: &Content, objection: &LoadError) -> bool {
        let Some(force) = self.connected.get().map(|connected| &connected.force) else { return false };
        let sha256 = hex(&content.pair);
        let taken = force.take(&content.pair);
        if matches!(taken, Ok(true)) {
            let file = force.path().display();
            tracing::warn!(%file, content = sha256, overruled = %chain(objection), "published by force, whatever peers say; the file is used up");
        }
        let unheeded = taken.as_ref().err().map(|error| chain(error));
        turn.held = Some(HeldStatus { sha256, force: force.command(&content.pair), unheeded });
        taken.unwrap_or(false)
    }

    /// The CAs of the candidate over the pair in use, so that peers whose own new leaves wait for ours can go on.
    fn publish_bundle(&self, turn: &mut Turn, candidate: &Generation, snapshot: &Snapshot) {
        let anchors = candidate.trust.anchors.clone();
        match self.over_pair_in_use(turn, &anchors, snapshot) {
            Ok(generation) => {
                let Content { pair, lists } = snapshot.content();
                // What is served is no set that was on disk: whatever is there next is another one.
                turn.served = Content { pair: sha256(&[turn.served.pair, pair].concat()), lists };
                turn.age(&anchors, self.patience);
                turn.kept.anchors = anchors;
                tracing::info!("the new CAs are trusted from now on; the new leaf waits until peers accept it");
                self.publish(Arc::new(generation));
            }
            Err(error) => tracing::debug!(reason = %chain(&error), "the new CAs cannot be published by themselves"),
        }
    }

    fn over_pair_in_use(&self, turn: &Turn, anchors: &[Anchor], on_disk: &Snapshot) -> Result<Generation, LoadError> {
        let lists = lists::lists(on_disk, self.source.get(Part::Ca), anchors, self.around.crl_grace)?;
        let (server, number) = (&turn.kept.server, self.current().number + 1);
        let checked = Checked { anchors: anchors.to_vec(), ..turn.kept.with(lists) };
        let generation = build(checked, number, &self.around)?;
        let failed = |source| LoadError::Trial { file: server.certificate.clone(), source };
        tried(&generation, server.certified.cert.clone(), &self.around).map_err(failed)?;
        Ok(generation)
    }

    /// A leaf that has expired is good for nobody: whatever takes its place is better, and nobody is asked.
    fn heeded(&self, served: &Generation) -> Option<&Connected> {
        self.connected.get().filter(|_| self.around.clock.now() <= served.leaf.not_after)
    }

    fn publish(&self, generation: Arc<Generation>) -> Reloaded {
        let number = generation.number;
        self.current.store(generation);
        self.newest.send_replace(number);
        self.announce(&self.current());
        Reloaded::Published(number)
    }

    fn heed_peers(&self, connected: &Connected, served: &Generation, candidate: &Generation) -> Result<(), LoadError> {
        let ca = self.source.get(Part::Ca).cloned().unwrap_or_else(|| self.source.first());
        peers::keeps_all(&connected.registry, &served.trust, &candidate.trust, ca, self.around.clock.now())
    }

    /// Puts the CRLs and the distrust list of the disk over the pair that is served. What is wrong with them has been told
    /// with the set as a whole.
    fn publish_lists(&self, turn: &mut Turn) {
        let Some(Ok(snapshot)) = self.source.lists().map(|lists| lists.read()) else { return };
        let lists = snapshot.content().lists;
        if lists == turn.served.lists {
            return;
        }
        let built = lists::lists(&snapshot, self.source.get(Part::Ca), &turn.kept.anchors, self.around.crl_grace)
            .and_then(|parsed| build(turn.kept.with(parsed), self.current().number + 1, &self.around));
        match built {
            Ok(generation) => {
                turn.served.lists = lists;
                self.publish(Arc::new(generation));
            }
            Err(error) => tracing::debug!(reason = %chain(&error), "the lists cannot be published by themselves"),
        }
    }

    fn look_at_policy(&self, turn: &mut Turn) -> Result<(), LoadError> {
        let Some(source) = &self.policy_source else {
            return Ok(());
        };
        let (policy, hash) = read_policy(source)?;
        if turn.served_policy != Some(hash) {
            self.policy.store(Some(Arc::new(policy)));
            self.policies.send_modify(|number| *number += 1);
            turn.served_policy = Some(hash);
            self.telemetry.reload("policy", "ok");
            tracing::info!("policy changed");
        }
        Ok(())
    }

    fn paths(&self) -> Vec<PathBuf> {
        let force = self.connected.get().map(|connected| connected.force.path().to_owned());
        paths(&self.source, self.policy_source.as_ref()).into_iter().chain(force).collect()
    }

    fn announce(&self, generation: &Generation) {
        tracing::info!(
            material = self.word(),
            generation = generation.number,
            leaf = %generation.leaf.names(),
            not_after = %crate::clock::rfc3339(generation.leaf.not_after),
            "material loaded"
        );
        for (file, mode) in self.source.readable_keys() {
            tracing::warn!(%file, mode = %format!("{:04o}", mode & 0o7777), "the key can be read by others than its owner; chmod 0600");
        }
    }

    /// To status, metrics and log.
    fn tell(&self, result: &Result<Reloaded, LoadError>, held: Option<HeldStatus>) {
        let now = self.around.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, back) = (told.differs_since, told.back.clone());
        *told = match result {
            Ok(reloaded) => agreed(*reloaded, now),
            Err(error) => Told { back: held, ..self.differing(&told, error, now) },
        };
        self.tell_way_out(told.back.as_ref(), back.as_ref());
        let word = self.around.purpose.word();
        self.telemetry.reload(word, told.last.result);
        if before.is_none() && told.differs_since.is_some() {
            self.stirred.notify_one();
        }
        if before.is_some() && told.differs_since.is_none() {
            tracing::info!(material = word, "disk and served agree again");
        }
    }

    /// Once for each set that is held back.
    fn tell_way_out(&self, held: Option<&HeldStatus>, before: Option<&HeldStatus>) {
        if let Some(HeldStatus { sha256, force, unheeded }) = held.filter(|held| Some(*held) != before) {
            let material = self.around.purpose.word();
            tracing::warn!(
                material,
                content = sha256,
                force,
                unheeded,
                "a set is held back for the sake of peers; the reason tells the way out, and `force` is the command that publishes it all the same"
            );
        }
    }

    fn differing(&self, before: &Told, error: &LoadError, now: SystemTime) -> Told {
        let reason = chain(error);
        // One that cannot be asked gives no notice either, and it is cheap to look.
        let backs_off = error.is_about_peers() && !matches!(error, LoadError::Unheard { .. });
        let held = if backs_off { before.held.saturating_add(1) } else { 0 };
        let material = self.around.purpose.word();
        let from = before.differs_from.unwrap_or_else(Instant::now);
        let outlived_a_retry = from.elapsed() >= self.retry;
        let mut logged = before.logged.clone();
        if outlived_a_retry && logged.as_ref() != Some(&reason) {
            tracing::error!(material, %reason, "the files on disk are not fit to be served; the last good generation stays in use");
            logged = Some(reason.clone());
        } else if !outlived_a_retry && before.last.reason.as_ref() != Some(&reason) {
            tracing::warn!(material, %reason, "files changed and are not fit; they will be tried again, and the last good generation stays in use");
        }
        Told {
            last: ReloadStatus { at: now, result: "failed", reason: Some(reason) },
            differs_since: before.differs_since.or(Some(now)),
            differs_from: Some(from),
            logged,
            held,
            back: None,
        }
    }

    /// How soon the files are to be read again: after the retry while disk and served differ, less and less often while only
    /// peers stand against it.
    pub(super) fn wait(&self, poll: Duration) -> Duration {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let retry = self.retry.saturating_mul(1 << told.held.saturating_sub(1).min(MOST_DOUBLINGS));
        if told.differs_since.is_some() { retry.min(poll) } else { poll }
    }
}

fn agreed(reloaded: Reloaded, now: SystemTime) -> Told {
    let result = match reloaded {
        Reloaded::Unchanged => "unchanged",
        Reloaded::Published(_) => "ok",
    };
    Told {
        last: ReloadStatus { at: now, result, reason: None },
        differs_since: None,
        differs_from: None,
        logged: None,
        held: 0,
        back: None,
    }
}

fn certificates(anchors: &[Anchor]) -> Vec<&[u8]> {
    anchors.iter().map(|anchor| anchor.der.as_ref()).collect()
}

fn paths(source: &Source, policy: Option<&Source>) -> Vec<PathBuf> {
    source.paths().into_iter().chain(policy.into_iter().flat_map(Source::paths)).collect()
}

/// From bytes to a generation that has been tried, and the keys that it shows.
fn prepare(
    snapshot: &Snapshot,
    around: &Surroundings,
    served: Option<&Generation>,
    number: u64,
) -> Result<Prepared, LoadError> {
    let parsed = parse(snapshot, &around.provider, around.crl_grace)?;
    let checked = check(parsed, &around.purpose, around.clock.now())?;
    let keys = checked.keys();
    let leaf = checked.server.certificate.clone();
    // Nodes that renew before us show this key: it is fit, whatever we make of the rest.
    around.ring.offer(keys.clone());
    same_layout(served.and_then(|served| served.layout.as_ref()), &checked)?;
    let chain = checked.server.certified.cert.clone();
    let kept = Kept::of(&checked);
    let generation = build(checked, number, around)?;
    tried(&generation, chain, around).map_err(|source| LoadError::Trial { file: leaf, source })?;
    Ok(Prepared { generation, keys, kept })
}

fn tried(
    generation: &Generation,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    around: &Surroundings,
) -> Result<(), rustls::Error> {
    match (&generation.client, &around.purpose) {
        (Some(client), Purpose::Mesh { role, .. }) => {
            trial::handshake(client, &generation.server, generation.server_name(role)).map(drop)
        }
        _ => {
            let leaf = chain.into_iter().next().ok_or(rustls::Error::NoCertificatesPresented)?;
            trial::edge(leaf, Arc::clone(&generation.server.cert_resolver), around)
        }
    }
}

fn read_policy(source: &Source) -> Result<(Policy, [u8; 32]), LoadError> {
    let snapshot = source.read()?;
    let file = source.first();
    let bytes = snapshot.one(Part::Policy).map(|(_, bytes)| bytes).unwrap_or_default();
    let policy = parse_policy(&file, bytes)?;
    Ok((policy, snapshot.content().pair))
}

fn parse_policy(file: &MaterialFile, bytes: &[u8]) -> Result<Policy, LoadError> {
    let text = String::from_utf8_lossy(bytes);
    Policy::parse(&text).map_err(|source| LoadError::Policy { file: file.clone(), source })
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(LoadError::Interrupted))
}
