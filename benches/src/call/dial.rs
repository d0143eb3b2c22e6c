//! A new connection for each call.
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tonic::Status;

use super::Job;
use super::tally::{Seen, Span, Tally, Tasks};
use crate::echo::{Ask, Wire as _};
use crate::ends::Dialler;

pub(super) async fn run(dialler: impl Dialler, ask: Ask, callers: usize, job: &Job) -> Result<Seen> {
    let dialler = Arc::new(dialler);
    let mut tasks = Tasks::new(job);
    for _ in 0..callers {
        let tally = tasks.tally();
        tasks.spawn(caller(Arc::clone(&dialler), ask.clone(), tally, tasks.span));
    }
    tasks.finish().await
}

async fn caller(dialler: Arc<impl Dialler>, ask: Ask, mut tally: Tally, span: Span) -> Result<(), Status> {
    while !span.is_over() {
        let began = Instant::now();
        let wire = dialler.dial().await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
        wire.ask(ask.clone()).await?;
        tally.add(began, Instant::now());
    }
    Ok(())
}
