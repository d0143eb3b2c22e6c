//! The turn of leaf, key and CAs: read, judged, tried, asked about, and then served.
//!
//! 1. One at a time, on a thread that may block. It may take as long as peers take to answer; nothing that takes trust away
//!    waits for it.
//! 2. A set is told from the one served by a hash of its content, so that the same bytes are never a new generation. When the
//!    lists have changed it is judged again all the same: they may name our own leaf.
//! 3. It is published with the lists in force at that moment. If these are not the ones that it was judged under, it is judged
//!    again first.
//! 4. What a look found on disk counts among the shared keys only while it passes every check of its own. A set that was
//!    refused, is torn or has gone leaves nothing behind.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::decision::{Case, Decision, Objection, adds, decide};
use super::force::hex;
use super::generation::{Generation, Surroundings};
use super::peers::{self, Connected};
use super::prepare::{Prepared, prepare, tried};
use super::published::{Kept, ListsInForce, Published, Replaced};
use super::report::{Report, Subject};
use super::source::{Content, Snapshot, Source};
use super::status::{HeldStatus, WatchStatus};
use super::store::Reloaded;
use super::watch::{Watch, watched};
use crate::connections::Connection;
use crate::error::{LoadError, Part};
use crate::foreign::chain;
use crate::verify::{Anchor, Lists, PeerSide, Trust, sha256};

/// The files of the pair, and their turn.
pub(super) struct PairTurn {
    source: Source,
    published: Arc<Published>,
    around: Surroundings,
    /// Who is connected, once that can be told: peers have a say in what is published.
    connected: OnceLock<Connected>,
    /// How long a leaf waits for peers that cannot be asked.
    patience: Duration,
    state: Mutex<State>,
}

/// What only the one who takes the turn touches.
struct State {
    turn: Turn,
    watch: Watch,
}

/// What one look leaves for the next.
struct Turn {
    /// The hash of the set that is served.
    served: [u8; 32],
    /// The number of the lists that it was judged under last.
    judged_under: u64,
    /// The CAs that came while the process ran, and when, for as long as peers may not have them yet.
    young: Vec<(Anchor, Instant)>,
    /// The set on disk that is held back for the sake of peers.
    held: Option<HeldStatus>,
    /// The peers that did not answer when they were last asked.
    silent: Vec<String>,
}

/// A set on disk that passed every check of its own, and the lists that it was judged under.
struct Candidate {
    snapshot: Snapshot,
    content: [u8; 32],
    lists: ListsInForce,
    generation: Arc<Generation>,
    kept: Kept,
}

impl Turn {
    /// The CAs in use that peers have had the time to follow.
    fn settled(&self, in_use: &[Anchor], patience: Duration) -> Vec<Anchor> {
        let young = |anchor: &&Anchor| {
            self.young.iter().any(|(one, since)| one.der == anchor.der && since.elapsed() < patience)
        };
        in_use.iter().filter(|anchor| !young(anchor)).cloned().collect()
    }

    /// Takes down which of `next` were not there before.
    fn age(&mut self, in_use: &[Anchor], next: &[Anchor], patience: Duration) {
        self.young.retain(|(_, since)| since.elapsed() < patience);
        let new = next.iter().filter(|anchor| in_use.iter().all(|old| old.der != anchor.der));
        self.young.extend(new.map(|anchor| (anchor.clone(), Instant::now())));
    }
}

impl PairTurn {
    /// `served` is the hash of the set that is served already.
    pub(super) fn new(
        source: Source,
        served: [u8; 32],
        published: Arc<Published>,
        around: Surroundings,
        patience: Duration,
        watch: Watch,
    ) -> Self {
        let judged_under = published.lists().number;
        let turn = Turn { served, judged_under, young: Vec::new(), held: None, silent: Vec::new() };
        let state = Mutex::new(State { turn, watch });
        Self { source, published, around, connected: OnceLock::new(), patience, state }
    }

    /// From now on the peers connected have a say in what is published.
    pub(super) fn heed(&self, connected: Connected) {
        let _ = self.connected.set(connected);
    }

    /// The peers connected now; none before they can be told.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.connected.get().map_or_else(Vec::new, |connected| connected.registry.connections())
    }

    /// Takes the turn, and gives the state of the watch. Blocks while it reads and while peers are asked.
    pub(super) fn take(&self, report: &Report) -> (Result<Reloaded, LoadError>, WatchStatus) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { turn, watch } = &mut *state;
        let result = watched(watch, || self.paths(), || self.read_and_publish(turn));
        report.tell(Subject::Pair, &result, turn.held.clone(), self.around.clock.now());
        report.silent(&turn.silent);
        (result, watch.status())
    }

    fn read_and_publish(&self, turn: &mut Turn) -> Result<Reloaded, LoadError> {
        turn.held = None;
        let served = self.published.current();
        let looked = self.look(turn, &served);
        let keys = looked.as_ref().ok().and_then(Option::as_ref).map_or_else(Vec::new, |found| found.kept.keys());
        self.around.ring.offer(&keys);
        let held_back = looked.as_ref().ok().and_then(Option::as_ref).map(|found| found.kept.anchors.clone());
        self.published.hold_back(held_back.unwrap_or_default());
        let Some(candidate) = looked? else { return Ok(Reloaded::Unchanged) };
        let objection = self.objection(turn, &served, &candidate);
        match (self.decide(turn, &candidate, objection.as_ref()), objection) {
            (Decision::Publish | Decision::PublishByForce, _) | (_, None) => {
                let published = self.publish(turn, candidate);
                if published.is_err() {
                    self.around.ring.offer(&[]);
                }
                published
            }
            (Decision::PublishBundle, Some(objection)) => {
                self.publish_bundle(turn, &candidate);
                Err(objection)
            }
            (Decision::Hold, Some(objection)) => Err(objection),
        }
    }

    /// The set on disk, where it is another one than is served.
    fn look(&self, turn: &mut Turn, served: &Generation) -> Result<Option<Candidate>, LoadError> {
        let lists = self.published.lists();
        let is_judged = |content: Content| content.pair == turn.served && lists.number == turn.judged_under;
        let Some(snapshot) = self.source.read_unless(is_judged)? else { return Ok(None) };
        let content = snapshot.content().pair;
        let candidate = self.judge(snapshot, lists, served)?;
        if content == turn.served {
            turn.judged_under = candidate.lists.number;
            return Ok(None);
        }
        Ok(Some(candidate))
    }

    fn judge(&self, snapshot: Snapshot, lists: ListsInForce, served: &Generation) -> Result<Candidate, LoadError> {
        let number = served.number + 1;
        let Prepared { generation, kept } =
            prepare(&snapshot, &lists.in_force, &self.around, served.layout.as_ref(), number)?;
        Ok(Candidate { content: snapshot.content().pair, generation: Arc::new(generation), kept, snapshot, lists })
    }

    /// What peers have against a candidate.
    fn objection(&self, turn: &mut Turn, served: &Generation, candidate: &Candidate) -> Option<LoadError> {
        let peers = self.heeded(served)?;
        let generation = &candidate.generation;
        if let Err(orphan) = self.heed_peers(peers, served, generation) {
            return Some(orphan);
        }
        if candidate.content == turn.served {
            return None;
        }
        let (chain, file) = (candidate.kept.chain(), &candidate.kept.server.certificate);
        let asked = peers.ask(peers.targets(generation), generation, chain, file);
        turn.silent = asked.silent;
        asked.refused.or_else(|| self.unheard(turn, peers, candidate))
    }

    /// A leaf that has expired is good for nobody: whatever takes its place is better, and nobody is asked.
    fn heeded(&self, served: &Generation) -> Option<&Connected> {
        self.connected.get().filter(|_| self.around.clock.now() <= served.leaf.not_after)
    }

    fn heed_peers(&self, connected: &Connected, served: &Generation, candidate: &Generation) -> Result<(), LoadError> {
        let ca = self.source.get(Part::Ca).cloned().unwrap_or_else(|| self.source.first());
        peers::keeps_all(&connected.registry, &served.trust, &candidate.trust, ca, self.around.clock.now())
    }

    /// Whether a peer that cannot be asked may not know the CA of the new leaf yet.
    fn unheard(&self, turn: &Turn, connected: &Connected, candidate: &Candidate) -> Option<LoadError> {
        let (trust, now) = (&candidate.generation.trust, self.around.clock.now());
        let of = |anchors| Trust::new(anchors, Lists::default(), trust.rules.clone());
        let vouches = |anchors| of(anchors).vouch(candidate.kept.chain(), PeerSide::Server, None, now).is_ok();
        if !trust.knows_nodes() || vouches(turn.settled(&self.published.pair().anchors, self.patience)) {
            return None;
        }
        let ours = trust.anchors.iter().filter(|anchor| vouches(vec![(*anchor).clone()])).cloned().collect();
        let peer = peers::unheard(&connected.registry, trust, &of(ours), now)?;
        Some(LoadError::Unheard { file: candidate.kept.server.certificate.clone(), peer, patience: self.patience })
    }

    fn decide(&self, turn: &mut Turn, candidate: &Candidate, objection: Option<&LoadError>) -> Decision {
        let forced = objection.is_some_and(|objection| self.forced(turn, candidate, objection));
        let kind = |error: &LoadError| match error {
            LoadError::Orphan { .. } => Objection::Orphan,
            LoadError::Unheard { .. } => Objection::Unheard,
            _ => Objection::Trial,
        };
        let in_use = self.published.pair().anchors;
        let adds_cas = adds(&certificates(&in_use), &certificates(&candidate.kept.anchors));
        decide(Case { objection: objection.map(kind), forced, adds_cas })
    }

    /// Whether an operator's word goes above this objection. Using it up is told at once, for it leaves no other trace.
    fn forced(&self, turn: &mut Turn, candidate: &Candidate, objection: &LoadError) -> bool {
        let Some(force) = self.connected.get().map(|connected| &connected.force) else { return false };
        let content = &candidate.content;
        let sha256 = hex(content);
        let taken = force.take(content);
        if matches!(taken, Ok(true)) {
            let file = force.path().display();
            tracing::warn!(%file, content = sha256, overruled = %chain(objection), "published by force, whatever peers say; the file is used up");
        }
        let unheeded = taken.as_ref().err().map(|error| chain(error));
        turn.held = Some(HeldStatus { sha256, force: force.command(content), unheeded });
        taken.unwrap_or(false)
    }

    /// Serves the candidate with the lists in force. While peers were asked these may have changed.
    fn publish(&self, turn: &mut Turn, mut candidate: Candidate) -> Result<Reloaded, LoadError> {
        loop {
            let (kept, judged_under) = (candidate.kept.clone(), candidate.lists.number);
            if let Some(Replaced { generation, cas_before }) = self.published.publish_pair(kept, judged_under)? {
                turn.age(&cas_before, &candidate.kept.anchors, self.patience);
                (turn.served, turn.judged_under, turn.held) = (candidate.content, judged_under, None);
                self.published.hold_back(Vec::new());
                self.announce(&generation);
                return Ok(Reloaded::Published(generation.number));
            }
            candidate = self.judge(candidate.snapshot, self.published.lists(), &self.published.current())?;
        }
    }

    /// The CAs of the candidate over the pair in use, so that peers whose own new leaves wait for ours can go on.
    fn publish_bundle(&self, turn: &mut Turn, candidate: &Candidate) {
        match self.over_pair_in_use(candidate) {
            Ok(Some(Replaced { generation, cas_before })) => {
                // What is served is no set that was on disk: whatever is there next is another one.
                turn.served = sha256(&[turn.served, candidate.content].concat());
                turn.judged_under = candidate.lists.number;
                turn.age(&cas_before, &candidate.kept.anchors, self.patience);
                tracing::info!("the new CAs are trusted from now on; the new leaf waits until peers accept it");
                self.announce(&generation);
            }
            Ok(None) => tracing::debug!("the lists changed meanwhile: the new CAs are judged again at the next look"),
            Err(error) => tracing::debug!(reason = %chain(&error), "the new CAs cannot be published by themselves"),
        }
    }

    fn over_pair_in_use(&self, candidate: &Candidate) -> Result<Option<Replaced>, LoadError> {
        let kept = Kept { anchors: candidate.kept.anchors.clone(), ..self.published.pair() };
        candidate.lists.in_force.covers(self.source.get(Part::Ca), &kept.anchors)?;
        let lists = candidate.lists.in_force.lists(self.around.crl_grace);
        tried(kept.with(lists), &kept, candidate.generation.number, &self.around)?;
        self.published.publish_pair(kept, candidate.lists.number)
    }

    /// In the log.
    fn announce(&self, generation: &Generation) {
        generation.announce(self.published.material());
    }

    /// The first generation was published.
    pub(super) fn announce_first(&self) {
        self.announce(&self.published.current());
    }

    /// Every path whose change matters to the turn.
    fn paths(&self) -> Vec<PathBuf> {
        let force = self.connected.get().map(|connected| connected.force.path().to_owned());
        self.source.paths().into_iter().chain(force).collect()
    }
}

fn certificates(anchors: &[Anchor]) -> Vec<&[u8]> {
    anchors.iter().map(|anchor| anchor.der.as_ref()).collect()
}
