//! Connections that do nothing.
use std::time::Instant;

use anyhow::Result;
use test_util::process::resident;

use super::Job;
use crate::cpu;
use crate::echo::{Ask, Wire as _};
use crate::ends::Dialler;
use crate::sample::{Latencies, Sample};

/// Each has made one call, so that it is whole at both ends; what the server's first connection cost it is not counted.
pub(super) async fn run(dialler: &impl Dialler, ask: Ask, connections: usize, job: &Job) -> Result<Sample> {
    let first = dialler.dial().await?;
    first.ask(ask.clone()).await?;
    let (began, time, memory) = (Instant::now(), cpu::of(&job.pids), resident(job.server));
    let (mut latencies, mut wires) = (Latencies::default(), Vec::new());
    for _ in 0..connections {
        let began = Instant::now();
        let wire = dialler.dial().await?;
        wire.ask(ask.clone()).await?;
        latencies.add(began.elapsed());
        wires.push(wire);
    }
    let grown = 1024 * resident(job.server).saturating_sub(memory);
    let spent = cpu::of(&job.pids).saturating_sub(time);
    let sample = Sample::new(&latencies, began.elapsed(), spent, 0);
    Ok(Sample { bytes_per_connection: Some(grown as f64 / connections as f64), ..sample })
}
