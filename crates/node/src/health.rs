//! Whether a process can do its work now, and what stands in the way.
//!
//! 1. A gate is a named condition. It is closed until it is first opened, and may close again.
//! 2. A process is ready while every gate is open. There is no other switch.
//! 3. A process that has begun to end does not become ready again: who waits for a change need not wait any longer.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

type Gates = BTreeMap<String, Result<(), String>>;

/// All gates of one process. Clones see the same gates.
#[derive(Debug, Clone)]
pub struct Health {
    gates: Arc<RwLock<Gates>>,
    ending: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Default for Health {
    fn default() -> Self {
        Self { gates: Arc::default(), ending: Arc::default(), changed: watch::Sender::new(()) }
    }
}

/// One condition. Dropping it leaves the condition as it stands.
#[derive(Debug, Clone)]
pub struct Gate {
    name: String,
    health: Health,
}

impl Health {
    /// Adds a condition, closed.
    #[must_use]
    pub fn require(&self, name: impl Into<String>) -> Gate {
        let gate = Gate { name: name.into(), health: self.clone() };
        gate.set(Err("not yet".to_owned()));
        gate
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// What stands in the way: `name: reason`, sorted by name.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let gates = self.gates.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        gates.iter().filter_map(|(name, state)| Some(format!("{name}: {}", state.as_ref().err()?))).collect()
    }

    /// Whether the process has begun to end.
    #[must_use]
    pub fn ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Notes that the process has begun to end.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.changed.send_replace(());
    }

    /// Marked as changed whenever a gate opens or closes, and when the process begins to end.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until every gate is open.
    pub async fn wait_ready(&self) {
        let mut changes = self.changed.subscribe();
        while !self.ready() {
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }
}

impl Gate {
    /// Opens the gate, or closes it for a reason.
    pub fn set(&self, state: Result<(), String>) {
        let mut gates = self.health.gates.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = gates.insert(self.name.clone(), state.clone());
        drop(gates);
        if before.as_ref() != Some(&state) {
            self.health.changed.send_replace(());
        }
    }

    /// Opens the gate.
    pub fn open(&self) {
        self.set(Ok(()));
    }

    /// Closes the gate for a reason.
    pub fn close(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_until_opened() {
        let health = Health::default();
        assert!(health.ready(), "nothing is required");
        let (a, b) = (health.require("a"), health.require("b"));
        a.open();
        b.close("refused");
        assert_eq!(health.reasons(), ["b: refused"]);
        b.open();
        assert!(health.ready());
        a.close("gone");
        assert_eq!(health.reasons(), ["a: gone"], "a gate may close again");
    }

    #[tokio::test]
    async fn waits_for_the_last_gate() {
        let health = Health::default();
        let gate = health.require("a");
        let (waiting, ()) = tokio::join!(health.wait_ready(), async { gate.open() });
        assert_eq!(waiting, ());
        assert!(health.ready());
    }
}
