//! The plaintext HTTP/1.1 listener of probes and of people on loopback.
//!
//! 1. It is open to any address, so it is small: few connections at once, a bounded time for each, no body is read.
//! 2. Accepting never waits. When all places are taken, the newcomer gets that of the connection that has been without a
//!    whole request for the longest; where all are being answered, that of the oldest. A probe sends its request at once,
//!    so it is answered before its place goes to another, however many sit there in silence.
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// Connections at once; a probe needs one.
const CONNECTIONS: usize = 128;
/// From the first byte of a request to its last header.
const HEADERS: Duration = Duration::from_secs(2);
/// A connection's whole life: one request. A peer that holds its connection must not keep probes away.
const LIFE: Duration = Duration::from_secs(5);
/// After an error of accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the port. `what` is what it is for, `flag` what moves it elsewhere.
pub(crate) async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let refused = || format!("cannot listen on {address} for {what}: free the port, or choose another with {flag}");
    TcpListener::bind(address).await.with_context(refused)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, place) = (router.clone(), places.take());
                tokio::spawn(async move {
                    tokio::select! {
                        () = place.evicted.cancelled() => {}
                        _ = tokio::time::timeout(LIFE, connection(stream, router, &place)) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the health or management port was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, place: &Place) {
    let answer = service_fn(|request: Request<Incoming>| {
        place.request_is_whole();
        router.clone().call(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the health or management port ended early");
    }
}

/// Who has a place, oldest first. Pure.
#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// Without a whole request yet.
    waiting: BTreeSet<u64>,
    answering: BTreeSet<u64>,
}

impl Seats {
    /// A place for one more, and who loses his for it.
    fn take(&mut self) -> (u64, Option<u64>) {
        let full = self.waiting.len() + self.answering.len() >= CONNECTIONS;
        let loser = if full { self.waiting.pop_first().or_else(|| self.answering.pop_first()) } else { None };
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number);
        (number, loser)
    }

    fn request_is_whole(&mut self, number: u64) {
        if self.waiting.remove(&number) {
            self.answering.insert(number);
        }
    }

    fn leave(&mut self, number: u64) {
        let _ = self.waiting.remove(&number) || self.answering.remove(&number);
    }
}

type Tokens = std::collections::HashMap<u64, CancellationToken>;

/// The places of one listener.
#[derive(Debug, Clone, Default)]
struct Places {
    seats: Arc<Mutex<(Seats, Tokens)>>,
}

/// One connection's place. Dropping it gives it back.
#[derive(Debug)]
struct Place {
    number: u64,
    places: Places,
    evicted: CancellationToken,
}

impl Places {
    fn take(&self) -> Place {
        let mut guard = self.lock();
        let (seats, tokens) = &mut *guard;
        let (number, loser) = seats.take();
        if let Some(evicted) = loser.and_then(|loser| tokens.remove(&loser)) {
            evicted.cancel();
        }
        let evicted = CancellationToken::new();
        tokens.insert(number, evicted.clone());
        Place { number, places: self.clone(), evicted }
    }

    fn lock(&self) -> MutexGuard<'_, (Seats, Tokens)> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn request_is_whole(&self) {
        self.places.lock().0.request_is_whole(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guard = self.places.lock();
        guard.0.leave(self.number);
        guard.1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_8_silent_ones_lose_their_place_first() {
        let mut seats = Seats::default();
        for expected in 0..CONNECTIONS as u64 {
            assert_eq!(seats.take(), (expected, None));
        }
        seats.request_is_whole(0);
        assert_eq!(seats.take().1, Some(1), "0 is being answered");
        seats.leave(2);
        assert_eq!(seats.take().1, None, "a place was free");
        let waiting: Vec<u64> = seats.waiting.iter().copied().collect();
        waiting.into_iter().for_each(|number| seats.request_is_whole(number));
        assert_eq!(seats.take().1, Some(0), "all are being answered");
    }
}
