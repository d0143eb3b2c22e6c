//! Callers that wait for each answer before they ask again.
use std::time::Instant;

use anyhow::Result;
use tonic::Status;

use super::Job;
use super::tally::{Seen, Tally, Tasks};
use crate::echo::{Ask, Wire};

pub(super) async fn run(wire: impl Wire, ask: Ask, callers: usize, job: &Job) -> Result<Seen> {
    wire.ask(ask.clone()).await?;
    let mut tasks = Tasks::new(job);
    for _ in 0..callers {
        let tally = tasks.tally();
        tasks.spawn(caller(wire.clone(), ask.clone(), tally, tasks.span));
    }
    tasks.finish().await
}

pub(super) async fn caller(
    wire: impl Wire,
    ask: Ask,
    mut tally: Tally,
    span: super::tally::Span,
) -> Result<(), Status> {
    while !span.is_over() {
        let began = Instant::now();
        wire.ask(ask.clone()).await?;
        tally.add(began, Instant::now());
    }
    Ok(())
}
