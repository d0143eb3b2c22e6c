//! What signals mean to a process.
//!
//! 1. SIGTERM and SIGINT drain, then end it. A second one ends it at once.
//! 2. SIGHUP makes it read its certificate, list and policy files now, and log what came of it. It is no reason to end: only
//!    where the terminal that the process was started in has gone with it is it taken for SIGTERM, as a shell means it.
//! 3. SIGUSR1 and SIGUSR2 have no meaning. They are logged; their default would end the process without a drain.
//! 4. SIGPIPE is ignored by Rust's runtime: writing to what nobody reads is an error of that write. SIGQUIT keeps its
//!    default, an immediate end with a core dump, for whoever debugs.
//! 5. SIGHUP does not end a process from the first line of its `main`: see [`outlive_hangup`]. The rest holds from before the configuration is read until the process has ended, while it starts and while it
//!    drains. A SIGHUP that comes before the files are read for the first time is answered by that; one that comes later in
//!    the start is answered after it.
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use internaltls::{Edge, LoadError, Mesh};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What signals mean, for a command's help.
pub const SIGNALS: &str = "Signals: SIGHUP looks at the certificate, list and policy files now. SIGTERM and SIGINT drain, \
    then end; a second one ends at once.";

/// The terminal that this process was started in, if it was started in one.
#[derive(Debug, Clone, Copy)]
pub struct Terminal([bool; 3]);

impl Terminal {
    /// To be called before anything else, while the terminal is there. Later calls tell what the first one saw.
    #[must_use]
    pub fn at_start() -> Self {
        static FIRST: OnceLock<[bool; 3]> = OnceLock::new();
        Self(*FIRST.get_or_init(standard_streams))
    }

    /// Whether it has been closed since. After that SIGHUP means the end, as a shell means it.
    #[must_use]
    pub fn gone(&self) -> bool {
        lost(self.0, standard_streams())
    }
}

fn lost(was: [bool; 3], is: [bool; 3]) -> bool {
    was.iter().zip(is).any(|(was, is)| *was && !is)
}

fn standard_streams() -> [bool; 3] {
    // A terminal that was hung up answers every question with EIO, so it is none any more.
    [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()]
}

/// From now on SIGHUP does not end this process, which has no runtime yet. To be called first of all.
///
/// One that comes before [`listen`] needs no answer: no file has been read by then. Where it came with the end of the
/// terminal, whoever listens finds [`Terminal::gone`].
pub fn outlive_hangup() {
    let _ = Terminal::at_start();
    // A handler needs a driver to be installed, and stays when that is gone. Where there is no room for one the runtime
    // proper cannot start either, and says why.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _within = runtime.enter();
        let _ = signal(SignalKind::hangup());
    }
}

/// A listener to one signal. The process no longer dies of it from now on.
///
/// # Errors
/// The system has no more room for handlers.
pub fn listen(kind: SignalKind, name: &str) -> anyhow::Result<Signal> {
    signal(kind).with_context(|| format!("cannot handle {name}"))
}

/// Cancels the token at the first SIGTERM or SIGINT; ends the process at the second.
pub(crate) fn watch(shutdown: CancellationToken) -> anyhow::Result<AbortOnDropHandle<()>> {
    let terminal = Terminal::at_start();
    let mut term = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut hangup = listen(SignalKind::hangup(), "SIGHUP")?;
    let mut first = listen(SignalKind::user_defined1(), "SIGUSR1")?;
    let mut second = listen(SignalKind::user_defined2(), "SIGUSR2")?;
    Ok(crate::spawn(async move {
        if terminal.gone() {
            tracing::info!("the terminal is gone: draining, then ending");
            shutdown.cancel();
        }
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    // Shell and kernel may both send it: it is never the second request to end.
                    if terminal.gone() && !shutdown.is_cancelled() {
                        tracing::info!(signal = "SIGHUP", "the terminal is gone: draining, then ending");
                        shutdown.cancel();
                    }
                    continue;
                }
                _ = first.recv() => { meaningless("SIGUSR1"); continue; }
                _ = second.recv() => { meaningless("SIGUSR2"); continue; }
            };
            if shutdown.is_cancelled() {
                tracing::warn!(signal = name, "asked twice: ending at once");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "draining, then ending");
            shutdown.cancel();
        }
    }))
}

fn meaningless(name: &str) {
    tracing::warn!(signal = name, "a signal without a meaning here: SIGHUP looks at the files, SIGTERM ends");
}

/// Reads the files at each SIGHUP, until it is dropped.
pub(crate) async fn reload(mut hangup: Signal, mesh: Mesh, edge: Option<Edge>) {
    while hangup.recv().await.is_some() {
        tracing::info!(signal = "SIGHUP", "looking at the files now");
        // Beside one another: a bundle of the mesh that waits for peers must not keep clients' certificate waiting.
        tokio::join!(async { outcome("internal", mesh.generation().is_some(), mesh.reload().await) }, async {
            if let Some(edge) = &edge {
                outcome("edge", edge.status().is_some(), edge.reload().await);
            }
        });
    }
}

fn outcome(material: &'static str, tls: bool, looked: Result<Option<u64>, LoadError>) {
    match looked {
        Ok(Some(generation)) => tracing::info!(material, generation, "SIGHUP: the files have changed and are served"),
        Ok(None) if tls => tracing::info!(material, "SIGHUP: nothing has changed"),
        Ok(None) => tracing::info!(material, "SIGHUP: there are no files to look at, for TLS is off"),
        Err(error) => {
            let error = crate::log::chain(&error);
            tracing::warn!(material, error, "SIGHUP: the files are not served; what was served is served on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_is_gone_where_there_was_one() {
        assert!(lost([true, true, true], [false, false, false]) && lost([false, true, false], [false, false, false]));
        assert!(!lost([true, true, true], [true, true, true]), "a SIGHUP by hand, with the terminal open");
        assert!(!lost([false, false, false], [false, false, false]), "a service, or stdin of /dev/null");
    }
}
