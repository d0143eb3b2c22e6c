//! One task a connection: serves it until it ends, and ends it when its time has come.
use std::pin::pin;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::call::Calls;
use super::http::Http;
use super::linger::Linger;
use crate::config::Limits;
use crate::connections::{Connection, Phase};
use crate::ending::{EndReason, Quiet, quiet};
use crate::transport::gathered::{Gathered, Turns};

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Duplex for Io {}

/// Serves calls until the peer leaves, the connection has drained, or it is cut.
pub(crate) async fn drive(io: Box<dyn Duplex>, http: &Http, calls: Calls, connection: &Connection, limits: &Limits) {
    let turns = Turns::default();
    let io = Gathered::new(Linger::new(io), turns.clone());
    let mut http = pin!(http.serve_connection(TokioIo::new(io), calls));
    let mut phases = connection.phase();
    let mut timer = pin!(sleep_until(Instant::now() + limits.first_request.min(limits.idle)));
    loop {
        tokio::select! {
            ended = turns.count(http.as_mut()) => return log_end(connection, ended),
            phase = next_phase(&mut phases) => match phase {
                Phase::Serving => {}
                Phase::Draining(reason) => {
                    http.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + time_to_drain(reason, limits));
                }
                Phase::Cut(reason) => return tracing::debug!(connection = connection.id, %reason, "cut a connection"),
            },
            () = timer.as_mut() => {
                let phase = *phases.borrow();
                timer.as_mut().reset(Instant::now() + on_timer(phase, connection, limits));
            }
        }
    }
}

/// The phase once it has moved; never when nobody can move it any more.
async fn next_phase(phases: &mut watch::Receiver<Phase>) -> Phase {
    match phases.changed().await {
        Ok(()) => *phases.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

/// Acts on time passed, and says how long until the next look.
fn on_timer(phase: Phase, connection: &Connection, limits: &Limits) -> Duration {
    if phase != Phase::Serving {
        connection.cut(EndReason::DrainTimeout);
        return limits.drain;
    }
    match quiet(connection.activity(), limits.first_request, limits.idle) {
        Quiet::Wait(left) => left,
        Quiet::End(reason) => {
            connection.drain(reason);
            time_to_drain(reason, limits)
        }
    }
}

/// A peer that never asked for anything has no call to finish: it only gets the time of one ping.
fn time_to_drain(reason: EndReason, limits: &Limits) -> Duration {
    match reason {
        EndReason::NoRequest => limits.keepalive_timeout.min(limits.drain),
        _ => limits.drain,
    }
}

fn log_end(connection: &Connection, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    match ended {
        Ok(()) => tracing::debug!(connection = connection.id, "a connection ended"),
        Err(error) => tracing::debug!(connection = connection.id, %error, "a connection failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_gets_less_time_to_drain() {
        let limits = Limits::default();
        assert!(time_to_drain(EndReason::NoRequest, &limits) < time_to_drain(EndReason::Rotation, &limits));
    }
}
