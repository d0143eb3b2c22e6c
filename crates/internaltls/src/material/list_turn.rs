//! The turn of what revokes: CRLs and the distrust list are read and put into force.
//!
//! 1. It has its own files, lock and watch. It waits for no peer, no trial and no other material: the pair and its key may be
//!    torn, held back or on a file system that hangs.
//! 2. What is in force is decided in one place, [`in_force`](super::in_force). What can be read comes into force, whatever
//!    cannot: that is a finding, told in status and log, and counts as a difference between disk and served.
//! 3. What is in force is published first and kept for the next start after that ([`state`](super::state)): a disk that
//!    hangs must not let the distrusted in. At each look what was kept is compared, and written again where it is lost.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::in_force::InForce;
use super::lists::Seen;
use super::published::Published;
use super::report::{Report, Subject};
use super::source::{Snapshot, Source};
use super::state::{Kept, StateFolder};
use super::status::WatchStatus;
use super::store::Reloaded;
use super::watch::{Watch, watched};
use crate::clock::Clock;
use crate::error::{LoadError, Part};
use crate::foreign::chain;
use crate::verify::{Anchor, sha256};

/// The most findings that are named; what is beyond is counted.
const NAMED_FINDINGS: usize = 32;

/// The files of the lists, and their turn.
pub(super) struct ListTurn {
    /// `None` where no list is configured.
    source: Option<Source>,
    /// Followed by the same watch: the policy is looked at in the same breath.
    beside: Vec<PathBuf>,
    published: Arc<Published>,
    clock: Arc<dyn Clock>,
    /// Where what is in force is kept, where it is.
    folder: Option<StateFolder>,
    findings: ArcSwap<Findings>,
    state: Mutex<State>,
}

/// What only the one who takes the turn touches.
struct State {
    /// What the last look went by: the lists on disk, and the CAs in use.
    looked_at: [u8; 32],
    /// What was found by it.
    found: Vec<String>,
    /// What the state folder holds.
    kept: Option<Kept>,
    watch: Watch,
}

/// What is not as it should be with the lists: file, line and remedy each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) named: Vec<String>,
    /// How many there are beyond these.
    pub(super) more: usize,
}

impl Findings {
    fn of(mut texts: Vec<String>) -> Self {
        let more = texts.len().saturating_sub(NAMED_FINDINGS);
        texts.truncate(NAMED_FINDINGS);
        Self { named: texts, more }
    }

    /// As one error, if there are any.
    fn error(&self) -> Option<LoadError> {
        let first = self.named.first()?.clone();
        Some(LoadError::Lists { first, more: self.named.len() - 1 + self.more })
    }
}

/// The lists at start.
pub(super) struct FirstLists {
    pub(super) in_force: InForce,
    found: Vec<String>,
    looked_at: [u8; 32],
    /// What the state folder held.
    kept: Option<InForce>,
}

impl FirstLists {
    /// Reads the lists, and what was in force before. Without the latter nothing stands in for what cannot be read, so that
    /// any entry of the distrust list that cannot be used is an error, and a CA without a CRL is one in any case.
    pub(super) fn read(
        source: Option<&Source>,
        folder: Option<&StateFolder>,
        ca: Option<&Source>,
        anchors: &[Anchor],
    ) -> Result<Self, LoadError> {
        let kept = folder.map(StateFolder::load).transpose()?.flatten();
        let before = kept.clone().unwrap_or_default();
        let read = source.map(Source::read_each);
        let looked_at = read.as_ref().map_or([0; 32], |(snapshot, errors)| hash(snapshot, errors, anchors));
        let mut seen = Seen::of(source, read.unwrap_or_default(), &before.known(), anchors);
        let of_distrust = seen.findings.iter().position(|finding| finding.part() == Some(Part::Distrust));
        if let (None, Some(at)) = (&kept, of_distrust) {
            return Err(seen.findings.swap_remove(at));
        }
        let (in_force, findings) = before.after(&seen, anchors, &[]);
        let ca = ca.and_then(|ca| ca.get(Part::Ca));
        if let Err(bare) = in_force.covers(ca, anchors) {
            // Why there is none says more than that there is none.
            let of_crls = seen.findings.iter().position(|finding| finding.part() == Some(Part::Crl));
            return Err(of_crls.map_or(bare, |at| seen.findings.swap_remove(at)));
        }
        let found = seen.findings.iter().chain(&findings).map(|finding| chain(finding)).collect();
        Ok(Self { in_force, found, looked_at, kept })
    }

    /// What is not as it should be.
    pub(super) fn findings(&self) -> &[String] {
        &self.found
    }

    /// Whether anything is known of lists, from files or from before.
    pub(super) fn matter(&self, source: Option<&Source>) -> bool {
        source.is_some() || self.kept.is_some()
    }
}

impl ListTurn {
    pub(super) fn new(
        source: Option<Source>,
        first: FirstLists,
        folder: Option<StateFolder>,
        beside: Vec<PathBuf>,
        published: Arc<Published>,
        clock: Arc<dyn Clock>,
        watch: Watch,
    ) -> Self {
        let FirstLists { found, looked_at, kept, .. } = first;
        let findings = ArcSwap::default();
        let state = Mutex::new(State { looked_at, found, kept: kept.map(Kept::new), watch });
        Self { source, beside, published, clock, folder, findings, state }
    }

    /// Keeps and tells what the start found.
    pub(super) fn begin(&self, report: &Report) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.tell(&mut state, Ok(Reloaded::Published(1)), report);
    }

    /// What is not as it should be. Waits for no look.
    pub(super) fn findings(&self) -> Arc<Findings> {
        self.findings.load_full()
    }

    /// Where what is in force is kept.
    pub(super) fn folder(&self) -> Option<&StateFolder> {
        self.folder.as_ref()
    }

    /// Whether there is anything to follow.
    fn is_empty(&self) -> bool {
        self.source.is_none() && self.beside.is_empty()
    }

    /// Takes the turn, and gives the state of the watch where there is one. Blocks while it reads.
    pub(super) fn take(&self, report: &Report) -> (Result<Reloaded, LoadError>, Option<WatchStatus>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_empty() {
            // Lists whose setting is gone are in force all the same.
            if state.kept.is_some() {
                return (self.tell(&mut state, Ok(Reloaded::Unchanged), report), None);
            }
            return (Ok(Reloaded::Unchanged), None);
        }
        let State { looked_at, found, watch, .. } = &mut *state;
        let result = watched(watch, || self.paths(), || self.read_and_publish(looked_at, found));
        let status = state.watch.status();
        (self.tell(&mut state, result, report), Some(status))
    }

    fn read_and_publish(&self, looked_at: &mut [u8; 32], found: &mut Vec<String>) -> Result<Reloaded, LoadError> {
        let Some(source) = &self.source else { return Ok(Reloaded::Unchanged) };
        let (snapshot, errors) = source.read_each();
        let (anchors, former) = (self.published.pair().anchors, self.published.former());
        let now = hash(&snapshot, &errors, &anchors);
        if *looked_at == now {
            return Ok(Reloaded::Unchanged);
        }
        let known = self.published.lists().in_force.known();
        let seen = Seen::of(Some(source), (snapshot, errors), &known, &anchors);
        // Signatures over megabytes are verified here, not under the lock of what is published.
        let cas: Vec<_> = anchors.iter().chain(&*former).collect();
        for (crl, ca) in seen.crls.iter().flat_map(|seen| cas.iter().map(|ca| (&seen.crl, ca))) {
            crl.is_signed_by(&ca.facts);
        }
        let (generation, findings) = self.published.publish_lists(&seen)?;
        *looked_at = now;
        *found = seen.findings.iter().chain(&findings).map(|finding| chain(finding)).collect();
        Ok(generation.map_or(Reloaded::Unchanged, |generation| {
            generation.announce(self.published.material());
            Reloaded::Published(generation.number)
        }))
    }

    /// Keeps what is in force, and tells what was found: an error, whatever came into force.
    fn tell(
        &self,
        state: &mut State,
        result: Result<Reloaded, LoadError>,
        report: &Report,
    ) -> Result<Reloaded, LoadError> {
        let not_kept = self.keep(state).err().map(|error| chain(&error));
        let findings = Findings::of(state.found.iter().cloned().chain(not_kept).collect());
        let before = self.findings.swap(Arc::new(findings.clone()));
        let material = self.published.material();
        for finding in findings.named.iter().filter(|finding| !before.named.contains(finding)) {
            tracing::warn!(material, %finding, "a list of the distrusted is not as it should be; what can be used of it is in force");
        }
        let result = result.and_then(|reloaded| findings.error().map_or(Ok(reloaded), Err));
        report.tell(Subject::Lists, &result, None, self.clock.now());
        result
    }

    /// Writes what is in force to the state folder, where it holds something else. That it does so by another's hand is an error,
    /// though it is written again.
    fn keep(&self, state: &mut State) -> Result<(), LoadError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let in_force = self.published.lists().in_force.now_known();
        let nothing_to_keep = self.source.is_none() && state.kept.is_none();
        if nothing_to_keep {
            return Ok(());
        }
        let lost = state.kept.as_mut().map_or(Ok(()), |kept| kept.compare(folder));
        let same = |kept: &Kept| kept.state == in_force && kept.state.provers().eq(in_force.provers());
        if lost.is_ok() && state.kept.as_ref().is_some_and(same) {
            return Ok(());
        }
        folder.save(&in_force)?;
        state.kept = Some(Kept::new(in_force));
        lost
    }

    fn paths(&self) -> Vec<PathBuf> {
        paths(self.source.as_ref(), &self.beside)
    }
}

/// What tells one look from another: what is on disk, and which CAs are in use.
fn hash(lists: &Snapshot, errors: &[LoadError], anchors: &[Anchor]) -> [u8; 32] {
    let mut of = lists.content().lists.to_vec();
    errors.iter().for_each(|error| of.extend(sha256(chain(error).as_bytes())));
    anchors.iter().for_each(|anchor| of.extend(anchor.facts.sha256));
    sha256(&of)
}

/// Every path whose change matters to the turn.
pub(super) fn paths(source: Option<&Source>, beside: &[PathBuf]) -> Vec<PathBuf> {
    source.into_iter().flat_map(Source::paths).chain(beside.iter().cloned()).collect()
}
