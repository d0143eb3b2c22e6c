//! A role as a process: runtime, signals, exit code.
use std::process::ExitCode;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{Node, NodeArgs, signals};

/// Runs a role until it ends or a signal ends it.
pub fn main(role: &str, args: &NodeArgs, run: impl AsyncFnOnce(Node) -> anyhow::Result<()>) -> ExitCode {
    process(async |shutdown| {
        let node = tokio::select! {
            node = Node::start(role, args, shutdown.clone()) => node?,
            // Whatever the start waits for, a file system that hangs or a peer: it was asked to end.
            () = shutdown.cancelled() => return Ok(()),
        };
        run(node).await
    })
}

/// Gives work a runtime, a token that signals cancel, and an exit code: what [`main`] is made of, for several roles at
/// once.
pub fn process(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> ExitCode {
    let ended = in_runtime(async {
        let shutdown = CancellationToken::new();
        let _signals = signals::watch(shutdown.clone())?;
        work(shutdown).await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to run on")?;
    let ended = runtime.block_on(work);
    // A blocking read of a file system that hangs must not keep a drained process alive.
    runtime.shutdown_background();
    ended
}

/// Tells what stopped the process: the error, then its causes, a line each. The one place that does.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    let causes: String = error.chain().skip(1).map(|cause| format!("\n  because: {cause}")).collect();
    eprintln!("error: {error}{causes}");
    ExitCode::FAILURE
}
