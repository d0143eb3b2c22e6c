//! The turn of the policy file. Like the lists it can take rights away, and waits for nothing but its own file.
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::report::{Report, Subject};
use super::source::Source;
use super::store::Reloaded;
use crate::clock::Clock;
use crate::error::{LoadError, MaterialFile, Part};
use crate::policy::Policy;

/// The policy of the file, and the turn that follows it.
pub(super) struct PolicyTurn {
    source: Source,
    current: ArcSwap<Policy>,
    /// Moves when a changed policy is in force.
    changes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    /// The hash of the policy in force.
    served: Mutex<[u8; 32]>,
}

impl PolicyTurn {
    /// Reads the first policy. Blocks.
    pub(super) fn first(source: Source, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let (policy, hash) = read(&source)?;
        Ok(Self {
            source,
            current: ArcSwap::from_pointee(policy),
            changes: watch::Sender::new(1),
            clock,
            served: Mutex::new(hash),
        })
    }

    /// The policy of now. Wait-free.
    pub(super) fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// Moves with every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes the turn. Blocks while it reads.
    pub(super) fn take(&self, report: &Report) -> Result<Reloaded, LoadError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.look(&mut served);
        report.tell(Subject::Policy, &result, None, self.clock.now());
        result.map(|_| Reloaded::Unchanged)
    }

    fn look(&self, served: &mut [u8; 32]) -> Result<Reloaded, LoadError> {
        let (policy, hash) = read(&self.source)?;
        if *served == hash {
            return Ok(Reloaded::Unchanged);
        }
        self.current.store(Arc::new(policy));
        self.changes.send_modify(|number| *number += 1);
        *served = hash;
        tracing::info!("policy changed");
        Ok(Reloaded::Published(*self.changes.borrow()))
    }
}

pub(super) fn read(source: &Source) -> Result<(Policy, [u8; 32]), LoadError> {
    let snapshot = source.read()?;
    let file = source.first();
    let bytes = snapshot.one(Part::Policy).map(|(_, bytes)| bytes).unwrap_or_default();
    let policy = parse(&file, bytes)?;
    Ok((policy, snapshot.content().pair))
}

fn parse(file: &MaterialFile, bytes: &[u8]) -> Result<Policy, LoadError> {
    let text = String::from_utf8_lossy(bytes);
    Policy::parse(&text).map_err(|source| LoadError::Policy { file: file.clone(), source })
}
