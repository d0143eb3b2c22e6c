//! Noticing that files changed.
//!
//! 1. Events come from the folders of all hops of all files, and the folders are found anew at each turn: a swap moves them.
//! 2. Events are a hint. The poll reads whatever they say, since some mounts never raise one and a watch may be refused: then
//!    log, status and a metric say so, and each turn asks the kernel again.
//! 3. A turn does not know what changed. It reads everything and compares: that cannot miss.
//! 4. Reading a file raises an event of its own; such events are dropped, or reading would never end.
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::Notify;

use super::hops::folders;
use super::status::{WatchState, WatchStatus};
use super::store::Reloaded;
use crate::config::Reload;
use crate::error::LoadError;

/// Which folder a name leads to: another one under the same name must be watched anew.
type Inode = (u64, u64);

/// Watches on folders.
pub(super) struct Watch {
    debounce: Duration,
    changed: Arc<Notify>,
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    armed: BTreeMap<PathBuf, Inode>,
    status: WatchStatus,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Watch {
    /// A watch on nothing yet. `changed` is told after a burst of events has been quiet for a while.
    pub(super) fn new(reload: &Reload, changed: Arc<Notify>) -> Self {
        let state = if reload.watch { WatchState::On } else { WatchState::Off };
        let status = WatchStatus { state, reason: None };
        Self { debounce: reload.debounce, changed, debouncer: None, armed: BTreeMap::new(), status }
    }

    /// Whether changes are heard of.
    pub(super) fn status(&self) -> WatchStatus {
        self.status.clone()
    }

    /// Watches the folders of these paths and no others. Tells whether any is new: what changed in it before now was not
    /// heard. Blocks.
    pub(super) fn arm(&mut self, paths: &[PathBuf]) -> bool {
        if self.status.state == WatchState::Off {
            return false;
        }
        let (any, refused) = match self.open() {
            Ok(()) => self.follow(paths),
            Err(error) => (false, Some(error)),
        };
        self.tell(refused);
        any
    }

    /// What was refused once may be granted now.
    fn open(&mut self) -> notify::Result<()> {
        if self.debouncer.is_none() {
            let changed = Arc::clone(&self.changed);
            let heard = move |events: DebounceEventResult| hear(&events, &changed);
            self.debouncer = Some(new_debouncer(self.debounce, None, heard)?);
        }
        Ok(())
    }

    fn follow(&mut self, paths: &[PathBuf]) -> (bool, Option<notify::Error>) {
        let wanted: BTreeMap<_, _> = paths.iter().flat_map(|path| folders(path)).filter_map(with_inode).collect();
        let gone: Vec<_> = self
            .armed
            .iter()
            .filter(|(path, inode)| wanted.get(*path) != Some(inode))
            .map(|(p, _)| p.clone())
            .collect();
        for path in gone {
            self.disarm(&path);
        }
        let new: Vec<_> = wanted.into_iter().filter(|(path, _)| !self.armed.contains_key(path)).collect();
        let added: Vec<_> = new.into_iter().map(|(path, inode)| self.add(path, inode)).collect();
        (added.iter().any(Result::is_ok), added.into_iter().find_map(Result::err))
    }

    fn add(&mut self, path: PathBuf, inode: Inode) -> notify::Result<()> {
        if let Some(debouncer) = &mut self.debouncer {
            debouncer.watch(&path, RecursiveMode::NonRecursive)?;
            self.armed.insert(path, inode);
        }
        Ok(())
    }

    fn disarm(&mut self, path: &PathBuf) {
        self.armed.remove(path);
        if let Some(debouncer) = &mut self.debouncer {
            // A folder that is gone took its watch with it.
            let _ = debouncer.unwatch(path);
        }
    }

    /// In the log once for each change, not once a turn.
    fn tell(&mut self, refused: Option<notify::Error>) {
        let reason = refused.map(|error| {
            format!("{error}; until it is readable, or fs.inotify.max_user_watches or max_user_instances is raised, the poll alone sees changes")
        });
        match (&reason, self.status.state) {
            (Some(reason), WatchState::On) => tracing::warn!(%reason, "cannot watch all folders of the material"),
            (None, WatchState::Failed) => tracing::info!("all folders of the material are watched again"),
            _ => {}
        }
        let state = if reason.is_some() { WatchState::Failed } else { WatchState::On };
        self.status = WatchStatus { state, reason };
    }
}

/// Reads while the folders of `paths` are watched; once more where some were not watched before: they may have changed before
/// the watch was there.
pub(super) fn watched(
    watch: &mut Watch,
    paths: impl Fn() -> Vec<PathBuf>,
    mut read: impl FnMut() -> Result<Reloaded, LoadError>,
) -> Result<Reloaded, LoadError> {
    watch.arm(&paths());
    let result = read();
    if !watch.arm(&paths()) {
        return result;
    }
    match (result, read()) {
        (Ok(published @ Reloaded::Published(_)), Ok(Reloaded::Unchanged)) => Ok(published),
        (_, again) => again,
    }
}

fn hear(events: &DebounceEventResult, changed: &Notify) {
    match events {
        Ok(events) if events.iter().all(|event| is_reading(event.kind)) => {}
        // Events that were lost are a reason to look.
        _ => changed.notify_one(),
    }
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn with_inode(path: PathBuf) -> Option<(PathBuf, Inode)> {
    let meta = std::fs::metadata(&path).ok()?;
    Some((path, (meta.dev(), meta.ino())))
}
