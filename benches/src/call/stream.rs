//! Streams from the server, alone and beside small calls.
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use tonic::Status;

use super::Job;
use super::closed::caller;
use super::tally::{Seen, Span, Tally, Tasks};
use crate::echo::{Ask, Wire};

/// One message of the stream beside small calls.
const BULK: Ask = Ask { body: Bytes::new(), reply: 64 * 1024, count: u32::MAX };

pub(super) async fn run(wire: impl Wire, ask: Ask, job: &Job) -> Result<Seen> {
    let mut tasks = Tasks::new(job);
    let tally = tasks.tally();
    tasks.spawn(reader(wire, ask, Some(tally), tasks.span));
    tasks.finish().await
}

/// A message is timed from the one before it.
async fn reader(wire: impl Wire, ask: Ask, mut tally: Option<Tally>, span: Span) -> Result<(), Status> {
    let wanted = ask.reply as usize;
    let mut messages = wire.follow(ask).await?;
    let mut before = Instant::now();
    while !span.is_over() {
        let Some(message) = messages.message().await? else { return Err(Status::data_loss("the stream ended")) };
        if message.body.len() != wanted {
            return Err(Status::data_loss(format!("{} bytes of {wanted} came", message.body.len())));
        }
        let now = Instant::now();
        if let Some(tally) = &mut tally {
            tally.add(before, now);
        }
        before = now;
    }
    Ok(())
}

/// The stream goes through `bulk`, which may be the same as `small`.
pub(super) async fn beside<W: Wire>(small: W, bulk: W, ask: Ask, job: &Job) -> Result<Seen> {
    small.ask(ask.clone()).await?;
    let mut tasks = Tasks::new(job);
    let tally = tasks.tally();
    tasks.spawn(reader(bulk, BULK, None, tasks.span));
    tasks.spawn(caller(small, ask, tally, tasks.span));
    tasks.finish().await
}
