//! `status`: what each process serves, and every live connection of the mesh, as both ends tell it.
//!
//! 1. Read from the status document of each process named in `cluster.json`, on loopback in plaintext, elsewhere as the operator. One that does not answer is listed with the
//!    reason, and makes the exit code 1.
//! 2. A connection stands in the list once for each end that told of it (`told_by`): `peer` and `peer_serial` are what that
//!    end verified, so that a leaf that one end has and the other does not know is seen.
//!
//! Parts: [`document`] is the JSON, [`table`] the text.
pub mod document;
pub mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use internaltls::foreign;
use time::OffsetDateTime;

use crate::cluster::{Cluster, Process};
use crate::operator::Operator;
use document::{Answer, Document, ProcessStatus, Told};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl status\n  meshctl status --json | jq '.connections[] | {from, to, peer_serial}'"
)]
pub struct Args {
    /// The cluster's folder
    #[arg(long, default_value = ".mesh", value_name = "DIR")]
    pub dir: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Asks every process and prints what they tell.
    ///
    /// # Errors
    /// When no cluster is up in the folder.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let cluster = Cluster::read(&self.dir)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let document = runtime.block_on(collect(&cluster));
        if self.json {
            println!("{}", serde_json::to_string_pretty(&document)?);
        } else {
            print!("{}", table::render(&document, OffsetDateTime::now_utc()));
        }
        Ok(if document.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What all processes of a cluster tell, asked at once.
pub async fn collect(cluster: &Cluster) -> Document {
    let operator = Operator::of(cluster).await.map_err(|error| format!("{error:#}"));
    let asked: Vec<_> =
        cluster.processes.iter().cloned().map(|process| tokio::spawn(ask(operator.clone(), process))).collect();
    let mut document = Document::default();
    for answer in asked {
        if let Ok((process, told)) = answer.await {
            document.add(process, told);
        }
    }
    document
}

async fn ask(operator: Result<Operator, String>, process: Process) -> (ProcessStatus, Vec<Told>) {
    let fetched = match operator {
        Ok(operator) => fetch(&operator, &process).await.map_err(|error| format!("{error:#}")),
        Err(error) => Err(error),
    };
    match fetched {
        Ok(answer) => answer.split(&process),
        // It may quote what the process answered.
        Err(error) => (ProcessStatus::silent(&process, foreign::cause(&error)), Vec::new()),
    }
}

async fn fetch(operator: &Operator, process: &Process) -> anyhow::Result<Answer> {
    let (code, body) = operator.get(process, "/status").await?;
    let management = &process.management;
    ensure!(code == 200, "{management}/status answered {code}");
    Answer::read(&body).with_context(|| format!("{management}/status is not the status of a node"))
}
