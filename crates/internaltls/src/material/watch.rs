//! Noticing that files changed.
//!
//! 1. Events come from the folders of all hops of all files, and the folders are found anew at each turn: a swap moves them.
//! 2. Events are a hint. The poll reads whatever they say, since some mounts never raise one and a watch may be refused.
//! 3. A turn does not know what changed. It reads everything and compares: that cannot miss.
//! 4. Reading a file raises an event of its own; such events are dropped, or reading would never end.
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::Notify;

use super::hops::folders;
use crate::config::Reload;

/// Which folder a name leads to: another one under the same name must be watched anew.
type Inode = (u64, u64);

/// Watches on folders.
pub(super) struct Watch {
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    armed: BTreeMap<PathBuf, Inode>,
    /// One warning for a watch that is refused, not one a turn.
    warned: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Watch {
    /// A watch on nothing yet. `changed` is told after a burst of events has been quiet for a while.
    pub(super) fn new(reload: &Reload, changed: Arc<Notify>) -> Self {
        let mut watch = Self { debouncer: None, armed: BTreeMap::new(), warned: false };
        if reload.watch {
            let heard = move |events: DebounceEventResult| hear(&events, &changed);
            match new_debouncer(reload.debounce, None, heard) {
                Ok(debouncer) => watch.debouncer = Some(debouncer),
                Err(error) => watch.warn(&error),
            }
        }
        watch
    }

    /// Watches the folders of these paths and no others. Tells whether any is new: what changed in it before now was not
    /// heard. Blocks.
    pub(super) fn arm(&mut self, paths: &[PathBuf]) -> bool {
        if self.debouncer.is_none() {
            return false;
        }
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
        new.into_iter().fold(false, |any, (path, inode)| self.add(path, inode) || any)
    }

    fn add(&mut self, path: PathBuf, inode: Inode) -> bool {
        let Some(debouncer) = &mut self.debouncer else {
            return false;
        };
        match debouncer.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.armed.insert(path, inode);
                true
            }
            Err(error) => {
                self.warn(&error);
                false
            }
        }
    }

    fn disarm(&mut self, path: &PathBuf) {
        self.armed.remove(path);
        if let Some(debouncer) = &mut self.debouncer {
            // A folder that is gone took its watch with it.
            let _ = debouncer.unwatch(path);
        }
    }

    fn warn(&mut self, error: &notify::Error) {
        if !self.warned {
            self.warned = true;
            tracing::warn!(
                %error,
                "cannot watch the material's folders, so changes are seen by the poll alone; raise fs.inotify.max_user_watches or max_user_instances"
            );
        }
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
