//! The tasks that follow the files: one for the lists and the policy, one for the pair.
//!
//! 1. Every event goes to the task of the lists. It looks at them, which waits for no peer, and then wakes the task of the
//!    pair: a bundle on disk is judged under the lists that came with it.
//! 2. Each has its own poll and its own retry, so that neither depends on the other to go on.
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::announcer::Announcer;
use super::report::Stirred;
use super::store::Store;

/// What wakes the tasks.
#[derive(Debug, Default)]
pub(super) struct Bells {
    /// Files changed.
    changed: Arc<Notify>,
    /// The pair is to be looked at.
    pair: Notify,
    /// A subject begins to differ.
    pub(super) stirred: Arc<Stirred>,
}

impl Bells {
    /// To be rung when files changed.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// The task that follows the lists and the policy.
pub(super) struct FollowLists {
    pub(super) store: Weak<Store>,
    pub(super) poll: Duration,
    pub(super) bells: Arc<Bells>,
    pub(super) ended: CancellationToken,
}

impl FollowLists {
    pub(super) async fn run(self) {
        loop {
            let event = tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.bells.changed.notified() => true,
                () = self.bells.stirred.lists.notified() => continue,
                () = tokio::time::sleep(self.wait()) => false,
            };
            let Some(store) = self.store.upgrade() else { return };
            // The turn has told status and log.
            let before = store.current().number;
            let _ = store.look_at_lists().await;
            // New lists may name our own leaf, or be what a new bundle waited for.
            if event || store.current().number != before {
                self.bells.pair.notify_one();
            }
        }
    }

    fn wait(&self) -> Duration {
        self.store.upgrade().map_or(self.poll, |store| store.wait_for_lists(self.poll))
    }
}

/// The task that follows the pair.
pub(super) struct Follow {
    pub(super) store: Weak<Store>,
    pub(super) poll: Duration,
    pub(super) bells: Arc<Bells>,
    pub(super) notices: Arc<Announcer>,
    pub(super) ended: CancellationToken,
}

impl Follow {
    pub(super) async fn run(self) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.bells.pair.notified() => {}
                () = self.bells.stirred.pair.notified() => continue,
                () = self.notices.unknown.notified() => self.notices.rest(),
                () = tokio::time::sleep(self.wait()) => {}
            }
            let Some(store) = self.store.upgrade() else {
                return;
            };
            // The turn has told status and log.
            let _ = store.look_at_pair().await;
        }
    }

    /// To the retry while disk and served differ, else to the poll.
    fn wait(&self) -> Duration {
        self.store.upgrade().map_or(self.poll, |store| store.wait_for_pair(self.poll))
    }
}
