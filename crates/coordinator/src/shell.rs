//! Carries out what the core plans: the journal, the owners, and the state in memory.
//!
//! 1. One command that changes something runs at a time. Reading waits for none of them.
//! 2. A change counts in memory, and is answered, only after it is durable.
//! 3. When the journal fails the state in memory may be behind it, so this coordinator ends: [`Shell::broken`].
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use futures_util::future::join_all;
use rpc::mesh::{ShardPlacement, ShardSpec};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::core::{Change, Plan, Refused, State};
use crate::journal::{Journal, JournalError};
use crate::owners::Owners;

/// The coordinator without its network side.
#[derive(Clone)]
pub struct Shell {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    /// Held for as long as a command runs.
    journal: tokio::sync::Mutex<Journal>,
    owners: Box<dyn Owners>,
    broken: CancellationToken,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").finish_non_exhaustive()
    }
}

impl Shell {
    /// A coordinator that goes on from `state`.
    pub fn new(journal: Journal, state: State, owners: impl Owners) -> Self {
        let inner = Inner {
            state: RwLock::new(state),
            journal: tokio::sync::Mutex::new(journal),
            owners: Box::new(owners),
            broken: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when the journal has failed and nothing can be changed any more.
    pub async fn broken(&self) {
        self.inner.broken.cancelled().await;
    }

    /// Closes the journal.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.inner.journal.lock().await.close().await
    }

    /// Plans and carries out one command. It runs to its end even when its caller goes away.
    ///
    /// # Errors
    /// What the core refuses, the owner that cannot be reached, or the storage.
    pub async fn run<T, C>(&self, command: C) -> Result<T, Status>
    where
        C: FnOnce(&mut State) -> Result<Plan<T>, Refused> + Send + 'static,
        T: Send + 'static,
    {
        let shell = self.clone();
        let run = tokio::spawn(async move { shell.carry_out(command).await });
        run.await.map_err(|_| Status::internal("the command ended before its answer"))?
    }

    async fn carry_out<T>(&self, command: impl FnOnce(&mut State) -> Result<Plan<T>, Refused>) -> Result<T, Status> {
        let journal = self.inner.journal.lock().await;
        let plan = self.plan(command)?;
        self.persist(&journal, plan.reserve.into_iter().collect()).await?;
        if let Err(status) = self.open(&plan.open).await {
            self.abandon(&journal, plan.open).await;
            return Err(status);
        }
        self.persist(&journal, plan.changes).await?;
        self.destroy(&journal, plan.drop).await;
        Ok(plan.answer)
    }

    fn plan<T>(&self, command: impl FnOnce(&mut State) -> Result<Plan<T>, Refused>) -> Result<Plan<T>, Status> {
        let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
        command(&mut state).map_err(status)
    }

    async fn persist(&self, journal: &Journal, changes: Vec<Change>) -> Result<(), Status> {
        if let Err(error) = journal.append(&changes).await {
            self.inner.broken.cancel();
            tracing::error!(error = node::log::chain(&error), "a change could not be made durable");
            return Err(Status::unavailable(error.to_string()));
        }
        let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| state.apply(change));
        Ok(())
    }

    async fn open(&self, shards: &[(String, ShardSpec)]) -> Result<(), Status> {
        let open = shards.iter().map(async |(node, shard)| {
            let opened = self.inner.owners.open(node, shard.clone()).await;
            opened.map_err(|status| owner_failed(node, &status))
        });
        join_all(open).await.into_iter().collect()
    }

    /// Some owners may have opened their shard, even those that gave no answer.
    async fn abandon(&self, journal: &Journal, opened: Vec<(String, ShardSpec)>) {
        let plan = State::abandon(opened);
        if self.persist(journal, plan.changes).await.is_ok() {
            self.destroy(journal, plan.drop).await;
        }
    }

    /// What an owner does not hear now it is told when it asks for its assignments.
    async fn destroy(&self, journal: &Journal, shards: Vec<ShardPlacement>) {
        let destroyed = join_all(shards.iter().map(async |shard| {
            let told = self.inner.owners.destroy(&shard.node_id, &shard.shard_id).await;
            told.inspect_err(|status| put_off(shard, status)).is_ok()
        }))
        .await;
        let gone = shards.into_iter().zip(destroyed).filter(|(_, destroyed)| *destroyed);
        let forget = gone.map(|(shard, _)| Change::Forget(shard.shard_id)).collect();
        // A failure is logged and ends the process; what is doomed stays doomed.
        let _ = self.persist(journal, forget).await;
    }
}

fn put_off(shard: &ShardPlacement, status: &Status) {
    tracing::warn!(
        node = shard.node_id,
        shard = shard.shard_id,
        reason = status.message(),
        "a shard is destroyed later"
    );
}

fn owner_failed(node: &str, status: &Status) -> Status {
    let text = format!("{node} cannot open its shard: {}", status.message());
    Status::new(
        if status.code() == tonic::Code::FailedPrecondition { status.code() } else { tonic::Code::Unavailable },
        text,
    )
}

fn status(refused: Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::NotFound(_) => Status::not_found(text),
        Refused::AlreadyExists(_) => Status::already_exists(text),
        Refused::InvalidArgument(_) => Status::invalid_argument(text),
        Refused::FailedPrecondition(_) => Status::failed_precondition(text),
    }
}

/// A refusal of something that only reads.
pub(crate) fn refused(refused: Refused) -> Status {
    status(refused)
}

/// The time that the core is given.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
