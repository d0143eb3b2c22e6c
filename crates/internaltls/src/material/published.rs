//! What is served, and the one way to replace it.
//!
//! 1. A generation is made of two halves: the pair (leaf, key, CAs), and the lists in force. Each half has a turn of its own
//!    that reads and judges it, and gives it here.
//! 2. Each half is published with the other as it is at that moment. So no turn waits for the other, and neither can bring
//!    back what the other has replaced meanwhile.
//! 3. The lock is held for as long as a build takes. No file is read and no peer is asked under it. Readers take no lock:
//!    they load one pointer.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::check::Checked;
use super::generation::{Generation, Surroundings, build};
use super::in_force::InForce;
use super::lists::Seen;
use super::parse::Pair;
use super::status::Layout;
use crate::error::LoadError;
use crate::verify::{Anchor, KeyHash, Lists, PeerSide, SharedKey};

/// Number of the first generation.
const FIRST: u64 = 1;

/// The pair and the CAs of a set, without the lists.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) server: Pair,
    pub(super) client: Option<Pair>,
    pub(super) layout: Option<Layout>,
    pub(super) anchors: Vec<Anchor>,
}

impl Kept {
    pub(super) fn of(checked: &Checked) -> Self {
        Self {
            server: checked.server.clone(),
            client: checked.client.clone(),
            layout: checked.layout.clone(),
            anchors: checked.anchors.clone(),
        }
    }

    pub(super) fn with(&self, lists: Lists) -> Checked {
        Checked {
            server: self.server.clone(),
            client: self.client.clone(),
            layout: self.layout.clone(),
            anchors: self.anchors.clone(),
            lists,
        }
    }

    /// The certificates that it serves, leaf first.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.server.certified.cert
    }

    /// The public keys that nodes with this set show.
    pub(super) fn keys(&self) -> Vec<SharedKey> {
        self.pairs().map(Pair::shared_key).collect()
    }

    fn hashes(&self) -> Vec<KeyHash> {
        self.pairs().map(|pair| pair.facts.spki_sha256).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.server).chain(&self.client)
    }
}

/// The lists in force, and how often they have changed.
#[derive(Debug, Clone)]
pub(super) struct ListsInForce {
    pub(super) in_force: Arc<InForce>,
    pub(super) number: u64,
}

/// What came of publishing a pair.
pub(super) struct Replaced {
    pub(super) generation: Arc<Generation>,
    /// The CAs that were in use before.
    pub(super) cas_before: Vec<Anchor>,
}

/// Both halves of the generation in use.
struct Halves {
    pair: Kept,
    lists: ListsInForce,
    /// The set before, whose shared keys may still be accepted.
    before: Option<Kept>,
    /// The CAs that the last new pair took out of use.
    former: Arc<Vec<Anchor>>,
}

/// The generation in use, and its halves.
pub(super) struct Published {
    current: ArcSwap<Generation>,
    newest: watch::Sender<u64>,
    halves: Mutex<Halves>,
    /// The CAs of the set on disk that passed every check of its own and is not served.
    held_back: ArcSwap<Vec<Anchor>>,
    around: Surroundings,
}

impl Published {
    /// Publishes the first generation, of a pair that was judged under `lists`. It is built anew: a candidate knows no shared
    /// key but its own.
    pub(super) fn first(pair: Kept, lists: InForce, around: Surroundings) -> Result<Self, LoadError> {
        let checked = pair.with(lists.lists(around.crl_grace));
        around.ring.publish(&pair.keys(), around.clock.now());
        let generation = build(checked, FIRST, &around)?;
        let lists = ListsInForce { in_force: Arc::new(lists), number: 1 };
        Ok(Self {
            current: ArcSwap::from_pointee(generation),
            newest: watch::Sender::new(FIRST),
            halves: Mutex::new(Halves { pair, lists, before: None, former: Arc::default() }),
            held_back: ArcSwap::default(),
            around,
        })
    }

    /// The generation of now. Wait-free.
    pub(super) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Whose material it is, for metrics and logs.
    pub(super) fn material(&self) -> &'static str {
        self.around.purpose.word()
    }

    /// Follows the number of the newest generation.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The lists in force.
    pub(super) fn lists(&self) -> ListsInForce {
        self.halves().lists.clone()
    }

    /// The pair and the CAs in use.
    pub(super) fn pair(&self) -> Kept {
        self.halves().pair.clone()
    }

    /// The CAs that the last new pair took out of use.
    pub(super) fn former(&self) -> Arc<Vec<Anchor>> {
        Arc::clone(&self.halves().former)
    }

    /// Serves `pair` with the lists in force. `None`: these are no longer the ones, by their number, that the pair was judged
    /// under; judge it again.
    pub(super) fn publish_pair(&self, pair: Kept, judged_under: u64) -> Result<Option<Replaced>, LoadError> {
        let mut halves = self.halves();
        if halves.lists.number != judged_under {
            return Ok(None);
        }
        let generation = self.build(&pair, &halves.lists.in_force)?;
        self.around.ring.publish(&pair.keys(), self.around.clock.now());
        let same_keys = halves.pair.hashes() == pair.hashes();
        let replaced = std::mem::replace(&mut halves.pair, pair);
        let cas_before = replaced.anchors.clone();
        halves.former = Arc::new(cas_before.clone());
        if !same_keys {
            halves.before = Some(replaced);
        }
        self.distrust_before(&halves, &generation);
        Ok(Some(Replaced { generation: self.swap(generation), cas_before }))
    }

    /// Puts lists that were read into force, over the pair in use, and gives what is to be told of them. No generation, where
    /// nothing changes by it.
    pub(super) fn publish_lists(&self, seen: &Seen) -> Result<(Option<Arc<Generation>>, Vec<LoadError>), LoadError> {
        let mut halves = self.halves();
        let (in_force, findings) = halves.lists.in_force.after(seen, &halves.pair.anchors, &halves.former);
        if in_force == *halves.lists.in_force {
            return Ok((None, findings));
        }
        let generation = self.build(&halves.pair, &in_force)?;
        halves.lists = ListsInForce { in_force: Arc::new(in_force), number: halves.lists.number + 1 };
        self.distrust_before(&halves, &generation);
        Ok((Some(self.swap(generation)), findings))
    }

    /// Takes down the CAs of a set that is not served; none where there is no such set.
    pub(super) fn hold_back(&self, anchors: Vec<Anchor>) {
        self.held_back.store(Arc::new(anchors));
    }

    /// The CAs of the set on disk that is not served.
    pub(super) fn held_back(&self) -> Arc<Vec<Anchor>> {
        self.held_back.load_full()
    }

    fn build(&self, pair: &Kept, lists: &InForce) -> Result<Generation, LoadError> {
        build(pair.with(lists.lists(self.around.crl_grace)), self.current.load().number + 1, &self.around)
    }

    /// A shared key that was replaced is accepted no longer once what is in force distrusts its certificate, or what vouched
    /// for it.
    fn distrust_before(&self, halves: &Halves, generation: &Generation) {
        let now = self.around.clock.now();
        let distrusted = |pair: &&Pair| {
            let judged = generation.trust.vouch(&pair.certified.cert, PeerSide::Server, None, now);
            judged.is_err_and(|error| error.is_distrust())
        };
        let before = halves.before.iter().flat_map(Kept::pairs);
        let keys: Vec<_> = before.filter(distrusted).map(|pair| pair.facts.spki_sha256).collect();
        if !keys.is_empty() {
            self.around.ring.distrust(&keys);
        }
    }

    /// To be called with the lock held: numbers follow one another.
    fn swap(&self, generation: Generation) -> Arc<Generation> {
        let generation = Arc::new(generation);
        self.current.store(Arc::clone(&generation));
        self.newest.send_replace(generation.number);
        generation
    }

    /// What changes both halves is a plain assignment: a panic leaves them whole.
    fn halves(&self) -> MutexGuard<'_, Halves> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
