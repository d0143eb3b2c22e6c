//! Calls at a fixed rate. A slow server does not make its clients ask less, so the rate does not wait for answers, and each
//! call is timed from when it was due: what waited behind others has waited (this is called coordinated omission where it
//! is left out).
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tonic::Status;

use super::Job;
use super::tally::{Seen, Span, Tasks};
use crate::echo::{Ask, Wire};

pub(super) async fn run(wire: impl Wire, ask: Ask, per_second: u32, job: &Job) -> Result<Seen> {
    wire.ask(ask.clone()).await?;
    let mut tasks = Tasks::new(job);
    let (tell, due) = mpsc::unbounded_channel();
    let span = tasks.span;
    std::thread::spawn(move || pace(span, Duration::from_secs(1) / per_second, &tell));
    // As many as can be under way before a server must be called stuck.
    let due = std::sync::Arc::new(tokio::sync::Mutex::new(due));
    for _ in 0..CALLERS {
        let tally = tasks.tally();
        tasks.spawn(caller(wire.clone(), ask.clone(), tally, std::sync::Arc::clone(&due)));
    }
    tasks.finish().await
}

/// Calls that can be under way at once; the next ones wait, and their wait counts.
const CALLERS: usize = 256;

/// From a thread of its own: the runtime's timers have a grain of a millisecond.
fn pace(span: Span, every: Duration, tell: &UnboundedSender<Instant>) {
    let mut due = Instant::now();
    while due < span.until {
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        if tell.send(due).is_err() {
            return;
        }
        due += every;
    }
}

async fn caller(
    wire: impl Wire,
    ask: Ask,
    mut tally: super::tally::Tally,
    due: std::sync::Arc<tokio::sync::Mutex<UnboundedReceiver<Instant>>>,
) -> Result<(), Status> {
    loop {
        let next = due.lock().await.recv().await;
        let Some(due) = next else { return Ok(()) };
        wire.ask(ask.clone()).await?;
        tally.add(due, Instant::now());
    }
}
