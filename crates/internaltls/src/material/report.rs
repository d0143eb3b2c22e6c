//! How the looks at the files fared, for status, metrics and log.
//!
//! 1. Each subject (pair, lists, policy) is looked at by a turn of its own, and reported by itself. The status shows all of
//!    them as one: failed if one failed, with every reason; else `ok` if one published; and since when the first of them
//!    differs from what is on disk.
//! 2. A look that fails is reported at once as a warning with all causes, each reason once, and as an error only when the
//!    same difference has outlived a retry: a writer half done is no one's fault.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::status::{HeldStatus, ReloadStatus};
use super::store::Reloaded;
use crate::error::LoadError;
use crate::foreign::chain;
use crate::telemetry::Telemetry;

/// How often the time to the next retry doubles while peers hold a set back.
const MOST_DOUBLINGS: u32 = 3;

/// What a look is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Leaf, key and CAs.
    Pair,
    /// CRLs and the distrust list.
    Lists,
    /// The policy file.
    Policy,
}

impl Subject {
    /// For the log.
    fn word(self) -> &'static str {
        match self {
            Self::Pair => "leaf, key and CAs",
            Self::Lists => "CRLs and distrust list",
            Self::Policy => "policy",
        }
    }

    /// For the metric of looks.
    fn metric(self, material: &'static str) -> &'static str {
        match (self, material) {
            (Self::Pair, _) => material,
            (Self::Lists, "mesh") => "mesh-lists",
            (Self::Lists, _) => "edge-lists",
            (Self::Policy, _) => "policy",
        }
    }
}

/// What is known of one subject's last looks.
#[derive(Debug, Clone)]
struct Told {
    last: ReloadStatus,
    differs_since: Option<SystemTime>,
    /// The same moment for measuring: no clock that can be set.
    differs_from: Option<Instant>,
    /// The reason that has been logged as an error.
    logged: Option<String>,
    /// How many looks in a row only peers stood against the set.
    held: u32,
    /// The set that they stand against.
    back: Option<HeldStatus>,
}

impl Told {
    fn agreed(result: &'static str, at: SystemTime) -> Self {
        Self {
            last: ReloadStatus { at, result, reason: None },
            differs_since: None,
            differs_from: None,
            logged: None,
            held: 0,
            back: None,
        }
    }
}

/// All subjects as one.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) last: ReloadStatus,
    pub(super) differs_since: Option<SystemTime>,
    pub(super) held: Option<HeldStatus>,
    pub(super) silent: Vec<String>,
}

/// Whom to wake when a subject begins to differ: its retry comes before its poll.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    pub(super) pair: Notify,
    pub(super) lists: Notify,
}

/// The last looks at all files of one mesh or one edge.
pub(super) struct Report {
    material: &'static str,
    retry: Duration,
    telemetry: Arc<Telemetry>,
    stirred: Arc<Stirred>,
    subjects: Mutex<Vec<(Subject, Told)>>,
    /// The peers that did not answer when they were last asked.
    silent: Mutex<Vec<String>>,
}

impl Report {
    /// All of `subjects` were just read and found good.
    pub(super) fn new(
        material: &'static str,
        subjects: &[Subject],
        now: SystemTime,
        retry: Duration,
        telemetry: Arc<Telemetry>,
        stirred: Arc<Stirred>,
    ) -> Self {
        let subjects = subjects.iter().map(|subject| (*subject, Told::agreed("ok", now))).collect();
        Self { material, retry, telemetry, stirred, subjects: Mutex::new(subjects), silent: Mutex::default() }
    }

    /// Takes down how a look ended. `held` is the set that is held back, if one is.
    pub(super) fn tell(
        &self,
        subject: Subject,
        result: &Result<Reloaded, LoadError>,
        held: Option<HeldStatus>,
        now: SystemTime,
    ) {
        let mut subjects = self.subjects();
        let Some((_, told)) = subjects.iter_mut().find(|(of, _)| *of == subject) else { return };
        let (before, back) = (told.differs_since, told.back.clone());
        *told = match result {
            Ok(Reloaded::Unchanged) => Told::agreed("unchanged", now),
            Ok(Reloaded::Published(_)) => Told::agreed("ok", now),
            Err(error) => Told { back: held, ..self.differing(subject, told, error, now) },
        };
        self.tell_way_out(told.back.as_ref(), back.as_ref());
        // A policy that stays the same is looked at too often to be counted.
        if subject != Subject::Policy || told.last.result != "unchanged" {
            self.telemetry.reload(subject.metric(self.material), told.last.result);
        }
        match (before, told.differs_since) {
            (None, Some(_)) if subject == Subject::Pair => self.stirred.pair.notify_one(),
            (None, Some(_)) => self.stirred.lists.notify_one(),
            (Some(_), None) => {
                tracing::info!(material = self.material, what = subject.word(), "disk and served agree again");
            }
            _ => {}
        }
    }

    /// Takes down who did not answer when peers were last asked.
    pub(super) fn silent(&self, peers: &[String]) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = peers.to_vec();
    }

    /// All subjects as one.
    pub(super) fn summary(&self) -> Summary {
        let subjects = self.subjects();
        let told = || subjects.iter().map(|(_, told)| told);
        let reasons: Vec<_> = told().filter_map(|told| told.last.reason.clone()).collect();
        let result = match (reasons.is_empty(), told().any(|told| told.last.result == "ok")) {
            (false, _) => "failed",
            (true, true) => "ok",
            (true, false) => "unchanged",
        };
        let at = told().map(|told| told.last.at).max().unwrap_or(SystemTime::UNIX_EPOCH);
        Summary {
            last: ReloadStatus { at, result, reason: (!reasons.is_empty()).then(|| reasons.join("; ")) },
            differs_since: told().filter_map(|told| told.differs_since).min(),
            held: told().find_map(|told| told.back.clone()),
            silent: self.silent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// How soon a subject is to be looked at again: after the retry while it differs, less and less often while only peers
    /// stand against it.
    pub(super) fn wait(&self, subjects: &[Subject], poll: Duration) -> Duration {
        let told = self.subjects();
        let differing =
            told.iter().filter(|(subject, told)| subjects.contains(subject) && told.differs_since.is_some());
        let retry = |told: &Told| self.retry.saturating_mul(1 << told.held.saturating_sub(1).min(MOST_DOUBLINGS));
        differing.map(|(_, told)| retry(told)).fold(poll, Duration::min)
    }

    fn subjects(&self) -> MutexGuard<'_, Vec<(Subject, Told)>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once for each set that is held back.
    fn tell_way_out(&self, held: Option<&HeldStatus>, before: Option<&HeldStatus>) {
        if let Some(HeldStatus { sha256, force, unheeded }) = held.filter(|held| Some(*held) != before) {
            tracing::warn!(
                material = self.material,
                content = sha256,
                force,
                unheeded,
                "a set is held back for the sake of peers; the reason tells the way out, and `force` is the command that publishes it all the same"
            );
        }
    }

    fn differing(&self, subject: Subject, before: &Told, error: &LoadError, now: SystemTime) -> Told {
        let reason = chain(error);
        // One that cannot be asked gives no notice either, and it is cheap to look.
        let backs_off = error.is_about_peers() && !matches!(error, LoadError::Unheard { .. });
        let held = if backs_off { before.held.saturating_add(1) } else { 0 };
        let (material, what) = (self.material, subject.word());
        let from = before.differs_from.unwrap_or_else(Instant::now);
        let outlived_a_retry = from.elapsed() >= self.retry;
        let mut logged = before.logged.clone();
        if subject == Subject::Lists {
            // What can be used of them is in force; the turn has warned of each finding.
            if outlived_a_retry && logged.as_ref() != Some(&reason) {
                tracing::error!(material, what, %reason, "the lists on disk and those in force differ; nothing that was refused is accepted");
                logged = Some(reason.clone());
            }
        } else if outlived_a_retry && logged.as_ref() != Some(&reason) {
            tracing::error!(material, what, %reason, "the files on disk are not fit to be served; the last good generation stays in use");
            logged = Some(reason.clone());
        } else if !outlived_a_retry && before.last.reason.as_ref() != Some(&reason) {
            tracing::warn!(material, what, %reason, "files changed and are not fit; they will be tried again, and the last good generation stays in use");
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
}
