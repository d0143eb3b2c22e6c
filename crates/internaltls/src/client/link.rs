//! One live connection to one endpoint, and the task that sees it through to its end.
//!
//! 1. hyper's connection has two tasks: one that takes requests in and one that moves frames. Dropping the first ends
//!    the taking in: requests it had not begun come back to their callers, running ones go on in the second.
//! 2. So every way out is the same. Whether we drain it, the peer says GOAWAY or the socket ends: the taking in stops,
//!    and what still runs after `Limits::drain` is cut.
//! 3. Calls beyond the peer's limit of streams are not handed to hyper, whose queue has no bound: the connection is full, and
//!    they wait in the channel. A call that was cancelled in the queue lies there until hyper comes to it, so the queue counts
//!    as well.
//! 4. A request queued in the very moment in which the taking in ends may be missed when the queue is emptied, and then
//!    lies in it until the last sender is gone. So a connection gives its sender up as soon as the taking in has ended
//!    (see [`Sender`]), and whoever waits keeps none.
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::balance::Link;
use super::error;
use super::replay::{Reader, Tape};
use crate::aside::Aside;
use crate::config::Endpoint;
use crate::connections::{CallGuard, Calls, Connection, PeerInfo, Phase};
use crate::ending::EndReason;
use crate::identity::Role;

/// The way in for requests, until the taking in has ended.
#[derive(Debug, Clone)]
pub(super) struct Sender(Arc<Mutex<Option<SendRequest<Reader>>>>);

impl Sender {
    pub(super) fn new(send: SendRequest<Reader>) -> Self {
        Self(Arc::new(Mutex::new(Some(send))))
    }

    fn get(&self) -> Option<SendRequest<Reader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Requests that nobody took in come back to their callers.
    fn give_up(&self) {
        let given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(given_up);
    }
}

/// What a successful dial yields.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) send: Sender,
    pub(super) connection: Weak<Connection>,
    /// Both without the connection: they are needed for each call, and it may have gone by then.
    pub(super) calls: Calls,
    pub(super) peer: PeerInfo,
    pub(super) streams: Streams,
}

/// How many calls the peer lets us have under way at once (SETTINGS_MAX_CONCURRENT_STREAMS).
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<AtomicUsize>);

impl Streams {
    /// What is assumed until the peer has said it: that it is as we are.
    pub(super) fn assumed(streams: u32) -> Self {
        Self(Arc::new(AtomicUsize::new(streams as usize)))
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// hyper's task that takes requests in. From the second turn on, when the peer's settings are there, it is asked for them
    /// now and then: asking takes h2's lock.
    pub(super) async fn follow<S, X>(self, mut taking_in: http2::Connection<S, Reader, X>) -> hyper::Result<()>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
        X: hyper::rt::bounds::Http2ClientConnExec<Reader, S> + Unpin,
    {
        const OFTEN: u32 = 8;
        const SELDOM: u32 = 256;
        let mut turn = 0_u32;
        poll_fn(|cx| {
            let polled = Pin::new(&mut taking_in).poll(cx);
            if polled.is_pending() && turn > 0 && (turn < OFTEN || turn.is_multiple_of(SELDOM)) {
                self.0.store(taking_in.current_max_send_streams(), Ordering::Relaxed);
            }
            turn = turn.wrapping_add(1);
            polled
        })
        .await
    }
}

/// A connection that calls can go out on. Clones are the same connection.
#[derive(Debug, Clone)]
pub(super) struct Conn(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connected: Connected,
    role: Role,
    endpoint: Endpoint,
    generation: u64,
    chain: Vec<CertificateDer<'static>>,
}

/// A call that got no response head.
#[derive(Debug)]
pub(super) struct Failed {
    /// The peer cannot have looked at it.
    pub(super) unprocessed: bool,
    pub(super) error: hyper::Error,
}

/// A response and its place in the count of calls under way.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) under_way: CallGuard,
}

impl Conn {
    pub(super) fn new(
        connected: Connected,
        role: Role,
        endpoint: Endpoint,
        generation: u64,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self(Arc::new(Inner { connected, role, endpoint, generation, chain }))
    }

    pub(super) fn role(&self) -> &Role {
        &self.0.role
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The peer's certificates as it showed them, leaf first; none without TLS.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// Who the peer is.
    pub(super) fn peer(&self) -> &PeerInfo {
        &self.0.connected.peer
    }

    /// The entry in the registry, while the socket lives.
    fn connection(&self) -> Option<Arc<Connection>> {
        self.0.connected.connection.upgrade()
    }

    /// Running calls may finish, new ones go elsewhere.
    pub(super) fn drain(&self, reason: EndReason) {
        end(&self.0.connected.connection, |connection| connection.drain(reason));
    }

    /// Nothing of it goes on.
    pub(super) fn cut(&self, reason: EndReason) {
        end(&self.0.connected.connection, |connection| connection.cut(reason));
    }

    /// The way in, unless the connection has stopped taking in since it was picked.
    pub(super) fn sender(&self) -> Option<SendRequest<Reader>> {
        self.0.connected.send.get()
    }

    /// Sends one request through `sender`, which is let go of at once: a waiting call must not keep the taking in alive.
    /// `tape` is what `body` reads from.
    pub(super) async fn send(
        &self,
        mut sender: SendRequest<Reader>,
        head: Parts,
        body: Reader,
        tape: &Tape,
    ) -> Result<Answer, Failed> {
        let under_way = self.0.connected.calls.begin();
        let body = body.queued(self.0.connected.calls.queue());
        let sending = sender.try_send_request(Request::from_parts(head, body));
        drop(sender);
        match sending.await {
            Ok(response) => Ok(Answer { response, under_way }),
            Err(failed) => Err(Failed { unprocessed: unprocessed(&failed, tape), error: failed.into_error() }),
        }
    }
}

impl Link for Conn {
    fn usable(&self) -> bool {
        self.0.connected.send.is_open()
    }

    fn generation(&self) -> u64 {
        self.0.generation
    }

    fn is_full(&self) -> bool {
        self.0.connected.calls.are(self.0.connected.streams.now())
    }

    fn has_room(&self) -> bool {
        self.connection().is_none_or(|connection| connection.has_room())
    }
}

/// Whether the failure proves that the peer did not look at the request:
/// - hyper gave the request back: it was never begun;
/// - the peer's GOAWAY names a last stream below this one (RFC 9113 section 6.8), which is the only way in which h2
///   ends a stream with a GOAWAY of the peer's;
/// - the peer reset the stream with REFUSED_STREAM (RFC 9113 section 8.7);
/// - hyper's taking in ended under the request ("dispatch gone", an error of the user's kind) or found the connection
///   going away just after it had queued the head, and no frame of the body was taken: the peer has at most a head
///   that does not end the stream.
///
/// An error of input or output, a reset for any other reason and a ping that timed out prove nothing.
fn unprocessed(failed: &TrySendError<Request<Reader>>, tape: &Tape) -> bool {
    let error = failed.error();
    let said = error::h2(error).is_some_and(|h2| h2.is_remote() && turned_away(h2));
    failed.message().is_some() || said || (error.is_user() && tape.untouched())
}

fn turned_away(error: &h2::Error) -> bool {
    error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Sees a connection through to its end. `taking_in` is hyper's task of that name, `grace` the time that a drain has.
pub(super) async fn oversee<T, E: std::fmt::Display>(
    taking_in: T,
    sender: Sender,
    connection: Weak<Connection>,
    cut: impl Fn() + Send,
    grace: Duration,
) where
    T: Future<Output = Result<(), E>> + Send,
{
    let Some(mut phases) = connection.upgrade().map(|connection| connection.phase()) else { return sender.give_up() };
    tokio::select! {
        biased;
        ended = taking_in => {
            log_end(ended);
            end(&connection, |connection| connection.drain(EndReason::Peer));
        }
        () = Aside::new(no_longer_serving(&mut phases)) => {}
    }
    sender.give_up();
    tokio::select! {
        () = cut_or_gone(&mut phases) => {}
        () = tokio::time::sleep(grace) => end(&connection, |connection| connection.cut(EndReason::DrainTimeout)),
    }
    cut();
}

async fn no_longer_serving(phases: &mut watch::Receiver<Phase>) {
    let _ = phases.wait_for(|phase| *phase != Phase::Serving).await;
}

/// Until the connection is to be cut, or has gone with its socket.
async fn cut_or_gone(phases: &mut watch::Receiver<Phase>) {
    let _ = phases.wait_for(|phase| matches!(phase, Phase::Cut(_))).await;
}

fn end(connection: &Weak<Connection>, how: impl FnOnce(&Connection)) {
    if let Some(connection) = connection.upgrade() {
        how(&connection);
    }
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    match ended {
        Ok(()) => tracing::debug!("a connection takes no more calls"),
        Err(error) => tracing::debug!(%error, "a connection failed"),
    }
}
