//! A role as a process: runtime, signals, exit code.
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Node, NodeArgs};

/// Runs a role until it ends or a signal ends it.
pub fn main(role: &str, args: &NodeArgs, run: impl AsyncFnOnce(Node) -> anyhow::Result<()>) -> ExitCode {
    process(async |shutdown| run(Node::start(role, args, shutdown).await?).await)
}

/// Gives work a runtime, a token that signals cancel, and an exit code: what [`main`] is made of, for several roles at
/// once.
pub fn process(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> ExitCode {
    let ended = in_runtime(async {
        let shutdown = CancellationToken::new();
        let _signals = watch_signals(shutdown.clone())?;
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

/// Cancels the token at the first SIGTERM or SIGINT; ends the process at the second.
fn watch_signals(shutdown: CancellationToken) -> anyhow::Result<tokio_util::task::AbortOnDropHandle<()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(crate::spawn(async move {
        for again in [false, true] {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if again {
                tracing::warn!(signal = name, "asked twice: ending at once");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "draining, then ending");
            shutdown.cancel();
        }
    }))
}
