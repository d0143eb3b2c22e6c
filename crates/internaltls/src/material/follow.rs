//! The task that follows the files.
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::announcer::Announcer;
use super::store::Store;
use crate::config::Reload;

/// The task that follows the files.
pub(super) struct Follow {
    pub(super) store: Weak<Store>,
    pub(super) reload: Reload,
    pub(super) changed: Arc<Notify>,
    pub(super) stirred: Arc<Notify>,
    pub(super) notices: Arc<Announcer>,
    pub(super) ended: CancellationToken,
}

impl Follow {
    pub(super) async fn run(self) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.changed.notified() => {}
                () = self.stirred.notified() => continue,
                () = self.notices.unknown.notified() => self.notices.rest(),
                () = tokio::time::sleep(self.wait()) => {}
            }
            let Some(store) = self.store.upgrade() else {
                return;
            };
            // The turn has told status and log.
            let _ = store.reload().await;
        }
    }

    /// To the retry while disk and served differ, else to the poll.
    fn wait(&self) -> Duration {
        self.store.upgrade().map_or(self.reload.poll, |store| store.wait(self.reload.poll))
    }
}
