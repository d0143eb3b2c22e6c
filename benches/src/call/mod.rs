//! The client: does the work of one scenario over one variant, for one window, and tells a [`Sample`].
//!
//! 1. The same tasks call through every variant; only the dialler differs.
//! 2. What happens before the window is not counted, neither in calls nor in processor time.
//! 3. A call that fails ends the process with what the call said.
mod closed;
mod dial;
mod idle;
mod open;
mod stream;
mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ends::{BareDialler, Dialler, MeshDialler, StockDialler, runtime};
use crate::material::End;
use crate::sample::Sample;
use crate::scenario::{Scenario, Window, Work, named};
use crate::variant::Variant;

/// All that a client needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Name of the scenario.
    pub scenario: String,
    /// Through what.
    pub variant: Variant,
    /// Where to: the server, or the sidecar in front of it.
    pub address: SocketAddr,
    /// The folder of the certificates.
    pub folder: PathBuf,
    /// How long.
    pub window: Window,
    /// The server.
    pub server: u32,
    /// Processes whose time counts besides our own: the server, and sidecars.
    pub pids: Vec<u32>,
}

/// Does the job.
///
/// # Errors
/// The first call that failed, or what kept the client from calling.
pub fn run(job: &Job) -> Result<Sample> {
    let scenario = named(&job.scenario).with_context(|| format!("there is no scenario {}", job.scenario))?;
    runtime(job.variant, End::Client)?.block_on(through(scenario, job))
}

async fn through(scenario: &Scenario, job: &Job) -> Result<Sample> {
    let (address, folder) = (job.address, job.folder.as_path());
    match job.variant.ends() {
        Variant::Tonic => work(scenario, job, StockDialler::new(address, None)?).await,
        Variant::TonicTls => work(scenario, job, StockDialler::new(address, Some(folder))?).await,
        Variant::Plain => work(scenario, job, MeshDialler::open(address, None).await?).await,
        Variant::Mesh | Variant::MeshShared | Variant::MeshLanes => {
            work(scenario, job, MeshDialler::open(address, Some(folder)).await?).await
        }
        other => work(scenario, job, BareDialler::new(other, address, folder)?).await,
    }
}

async fn work<D: Dialler>(scenario: &Scenario, job: &Job, dialler: D) -> Result<Sample> {
    let ask = scenario.ask();
    let seen = match scenario.work {
        Work::Closed { callers } | Work::Rotating { callers } => {
            closed::run(dialler.dial().await?, ask, callers, job).await?
        }
        Work::Open { per_second } => open::run(dialler.dial().await?, ask, per_second, job).await?,
        Work::Stream => stream::run(dialler.dial().await?, ask, job).await?,
        Work::Beside => {
            let small = dialler.dial().await?;
            let bulk = if job.variant == Variant::MeshLanes { dialler.dial().await? } else { small.clone() };
            stream::beside(small, bulk, ask, job).await?
        }
        Work::Dial { callers } => dial::run(dialler, ask, callers, job).await?,
        Work::Idle { connections } => return idle::run(&dialler, ask, connections, job).await,
        Work::Insert | Work::Search { .. } => anyhow::bail!("a whole database has clients of its own"),
    };
    Ok(seen.sample(scenario.bytes()))
}
