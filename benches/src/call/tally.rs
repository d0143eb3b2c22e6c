//! What all tasks of a client see, and when it counts.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tonic::Status;

use super::Job;
use crate::cpu;
use crate::sample::{Latencies, Sample};

/// The window, once its beginning is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Span {
    /// The window of a job that begins to work now.
    pub(super) fn of(job: &Job) -> Self {
        let from = Instant::now() + job.window.warm_up;
        Self { from, until: from + job.window.counted }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Whether a call that ended now counts.
    pub(super) fn counts(&self, ended: Instant) -> bool {
        (self.from..self.until).contains(&ended)
    }
}

/// The latencies of one task; put together when the task ends.
#[derive(Debug)]
pub(super) struct Tally {
    own: Latencies,
    all: Arc<Mutex<Latencies>>,
    span: Span,
}

impl Tally {
    pub(super) fn add(&mut self, began: Instant, ended: Instant) {
        if self.span.counts(ended) {
            self.own.add(ended - began);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).merge(&self.own);
    }
}

/// The tasks of a client.
pub(super) struct Tasks {
    tasks: JoinSet<Result<(), Status>>,
    all: Arc<Mutex<Latencies>>,
    pub(super) span: Span,
    pids: Vec<u32>,
}

/// What was seen in a window.
pub(super) struct Seen {
    latencies: Latencies,
    took: Duration,
    cpu: Duration,
}

impl Seen {
    pub(super) fn sample(&self, bytes_a_call: usize) -> Sample {
        Sample::new(&self.latencies, self.took, self.cpu, bytes_a_call)
    }
}

impl Tasks {
    pub(super) fn new(job: &Job) -> Self {
        let mut pids = job.pids.clone();
        pids.push(std::process::id());
        Self { tasks: JoinSet::new(), all: Arc::default(), span: Span::of(job), pids }
    }

    pub(super) fn tally(&self) -> Tally {
        Tally { own: Latencies::default(), all: Arc::clone(&self.all), span: self.span }
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = Result<(), Status>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for the window and then for the tasks.
    pub(super) async fn finish(mut self) -> Result<Seen> {
        let span = self.span;
        self.until(span.from).await?;
        let (began, before) = (Instant::now(), cpu::of(&self.pids));
        self.until(span.until).await?;
        let (took, cpu) = (began.elapsed(), cpu::of(&self.pids).saturating_sub(before));
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let latencies = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        anyhow::ensure!(latencies.count() > 0, "no call ended within {took:.1?}");
        Ok(Seen { latencies, took, cpu })
    }

    /// Until then, unless a task fails before.
    async fn until(&mut self, then: Instant) -> Result<()> {
        let over = tokio::time::sleep_until(then.into());
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                Some(ended) = self.tasks.join_next() => ended??,
            }
        }
    }
}
