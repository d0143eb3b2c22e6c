//! What verifiers find, passed on to log, metrics and whoever reads the files.
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::telemetry::Telemetry;
use crate::verify::{Notices, Vouched};

/// Leaves warned of, at most: after that they are only counted.
const WARNED_LEAVES: usize = 1024;
/// Between two readings that peers with unknown keys ask for.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_millis(500);

/// Hears of what verifiers find.
pub(super) struct Announcer {
    telemetry: Arc<Telemetry>,
    warned: Mutex<HashSet<String>>,
    pub(super) unknown: Notify,
    resting: Arc<AtomicBool>,
}

impl Announcer {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            warned: Mutex::new(HashSet::new()),
            unknown: Notify::new(),
            resting: Arc::new(AtomicBool::new(false)),
        }
    }

    /// A peer with an unknown key makes us read; a thousand of them must not make us read all the time.
    pub(super) fn rest(&self) {
        let resting = Arc::clone(&self.resting);
        resting.store(true, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(UNKNOWN_KEY_PAUSE).await;
            resting.store(false, Ordering::Relaxed);
        });
    }
}

impl Notices for Announcer {
    fn lax_client(&self, vouched: &Vouched) {
        self.telemetry.client_without_client_auth();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNED_LEAVES && warned.insert(vouched.serial.clone()) {
            tracing::warn!(
                leaf = %vouched.names,
                "a client's leaf does not name clientAuth in its extended key usage; accepted for now, issue it with clientAuth and set tls.requireClientAuthEku: true"
            );
        }
    }

    fn unknown_key(&self) {
        if !self.resting.load(Ordering::Relaxed) {
            self.unknown.notify_one();
        }
    }
}
