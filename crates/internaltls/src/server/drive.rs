//! One task a connection: serves it until it ends, and ends it when its time has come.
use std::pin::{Pin, pin};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::call::Calls;
use super::http::{Conversation, Http};
use super::linger::Linger;
use super::metered::Metered;
use crate::aside::Aside;
use crate::config::Limits;
use crate::connections::{Connection, Phase};
use crate::ending::{EndReason, Quiet, quiet};
use crate::foreign;
use crate::transport::gathered::{Gathered, Turns};
use crate::transport::read_ahead::ReadAhead;

/// A wait that does not end: a hundred years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// An accepted socket, without TLS or with it.
pub(super) type Stream = Either<TcpStream, TlsStream<Metered<ReadAhead<TcpStream>>>>;

/// What HTTP is spoken on.
pub(super) type Wire = Gathered<Linger<Stream>>;

/// Serves calls until the peer leaves, the connection has drained, or it is cut.
pub(super) async fn drive(io: Stream, http: &Http, calls: Calls, connection: &Connection, limits: &Limits) {
    let turns = Turns::default();
    let io = TokioIo::new(Gathered::new(Linger::new(io), turns.clone()));
    match http {
        Http::Two(http) => converse(http.serve_connection(io, calls), turns, connection, limits).await,
        Http::Either(http) => converse(http.serve_connection(io, calls), turns, connection, limits).await,
    }
}

async fn converse(http: impl Conversation, turns: Turns, connection: &Connection, limits: &Limits) {
    let mut http = pin!(http);
    let mut orders = Orders::new(connection, limits);
    loop {
        let order = {
            let next = pin!(Aside::new(orders.next()));
            tokio::select! {
                biased;
                ended = turns.count(http.as_mut()) => return log_end(connection, ended),
                order = next => order,
            }
        };
        match order {
            Order::Finish => http.as_mut().finish(),
            Order::Leave(reason) => return tracing::debug!(connection = connection.id, %reason, "cut a connection"),
        }
    }
}

/// What ends a conversation from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// No new calls.
    Finish,
    /// At once.
    Leave(EndReason),
}

/// The phases of a connection, and what time makes of them.
struct Orders<'a> {
    connection: &'a Connection,
    limits: &'a Limits,
    phases: watch::Receiver<Phase>,
    timer: Pin<Box<Sleep>>,
}

impl<'a> Orders<'a> {
    fn new(connection: &'a Connection, limits: &'a Limits) -> Self {
        let timer = Box::pin(sleep_until(after(limits.first_request.min(limits.idle))));
        Self { connection, limits, phases: connection.phase(), timer }
    }

    async fn next(&mut self) -> Order {
        loop {
            tokio::select! {
                phase = next_phase(&mut self.phases) => match phase {
                    Phase::Serving => {}
                    Phase::Draining(reason) => {
                        self.timer.as_mut().reset(after(time_to_drain(reason, self.limits)));
                        return Order::Finish;
                    }
                    Phase::Cut(reason) => return Order::Leave(reason),
                },
                () = self.timer.as_mut() => {
                    let phase = *self.phases.borrow();
                    let next = on_timer(phase, self.connection, self.limits);
                    self.timer.as_mut().reset(after(next));
                }
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
/// So long after now; a moment that nobody lives to see where the clock does not reach so far, for limits are anybody's.
fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

fn time_to_drain(reason: EndReason, limits: &Limits) -> Duration {
    match reason {
        EndReason::NoRequest => limits.keepalive_timeout.min(limits.drain),
        _ => limits.drain,
    }
}

fn log_end(connection: &Connection, ended: Result<(), impl std::fmt::Display>) {
    match ended {
        Ok(()) => tracing::debug!(connection = connection.id, "a connection ended"),
        Err(error) => {
            let error = foreign::cause(&error.to_string());
            tracing::debug!(connection = connection.id, error, "a connection failed");
        }
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

    #[tokio::test]
    async fn a_limit_may_be_without_end() {
        for wait in [Duration::MAX, Duration::from_secs(u64::MAX), NEVER] {
            assert!(after(wait) >= Instant::now() + NEVER / 2, "{wait:?}");
        }
        assert!(tokio::time::timeout(Duration::ZERO, sleep_until(after(Duration::MAX))).await.is_err());
    }
}
