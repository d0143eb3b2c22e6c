//! The turn of what revokes: CRLs and the distrust list are read and put into force.
//!
//! 1. It has its own files, lock and watch. It waits for no peer, no trial and no other material: the pair and its key may be
//!    torn, held back or on a file system that hangs.
//! 2. What is in force is decided in one place, [`in_force`](super::lists::in_force).
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::lists::Seen;
use super::published::Published;
use super::report::{Report, Subject};
use super::source::Source;
use super::status::WatchStatus;
use super::store::Reloaded;
use super::watch::{Watch, watched};
use crate::clock::Clock;
use crate::error::LoadError;

/// The files of the lists, and their turn.
pub(super) struct ListTurn {
    /// `None` where no list is configured.
    source: Option<Source>,
    /// Followed by the same watch: the policy is looked at in the same breath.
    beside: Vec<PathBuf>,
    published: Arc<Published>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// What only the one who takes the turn touches.
struct State {
    /// The hash of the lists on disk that came into force last.
    taken: Option<[u8; 32]>,
    watch: Watch,
}

impl ListTurn {
    pub(super) fn new(
        source: Option<Source>,
        taken: Option<[u8; 32]>,
        beside: Vec<PathBuf>,
        published: Arc<Published>,
        clock: Arc<dyn Clock>,
        watch: Watch,
    ) -> Self {
        Self { source, beside, published, clock, state: Mutex::new(State { taken, watch }) }
    }

    /// Whether there is anything to follow.
    fn is_empty(&self) -> bool {
        self.source.is_none() && self.beside.is_empty()
    }

    /// Takes the turn, and gives the state of the watch where there is one. Blocks while it reads.
    pub(super) fn take(&self, report: &Report) -> (Result<Reloaded, LoadError>, Option<WatchStatus>) {
        if self.is_empty() {
            return (Ok(Reloaded::Unchanged), None);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { taken, watch } = &mut *state;
        let result = watched(watch, || self.paths(), || self.read_and_publish(taken));
        report.tell(Subject::Lists, &result, None, self.clock.now());
        (result, Some(watch.status()))
    }

    fn read_and_publish(&self, taken: &mut Option<[u8; 32]>) -> Result<Reloaded, LoadError> {
        let Some(source) = &self.source else { return Ok(Reloaded::Unchanged) };
        let snapshot = source.read()?;
        let hash = snapshot.content().lists;
        if *taken == Some(hash) {
            return Ok(Reloaded::Unchanged);
        }
        let generation = self.published.publish_lists(Seen::read(&snapshot)?)?;
        *taken = Some(hash);
        generation.announce(self.published.material());
        Ok(Reloaded::Published(generation.number))
    }

    fn paths(&self) -> Vec<PathBuf> {
        paths(self.source.as_ref(), &self.beside)
    }
}

/// Every path whose change matters to the turn.
pub(super) fn paths(source: Option<&Source>, beside: &[PathBuf]) -> Vec<PathBuf> {
    source.into_iter().flat_map(Source::paths).chain(beside.iter().cloned()).collect()
}
