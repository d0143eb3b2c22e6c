//! The service that tonic's clients are built on, and the task behind it.
//!
//! 1. A call takes the channel's lock twice at most on its way: to pick a connection, and again only when it had to wait
//!    for one.
//! 2. The keeper is the one task of a channel. It takes in new lists of endpoints, and dials every connected endpoint
//!    anew when a generation is published. It ends with the last clone.
//! 3. Calls that find no connection, or all of them full, wait here, at most `Limits::max_pending` of them; one more is
//!    refused at once. When a call ends, one of those that wait is told.
//! 4. A call that the peer cannot have looked at is sent again, on whatever connection there is then (see `link` and
//!    `replay`); the time that the caller gave is the time for all of that.
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::body::Body;

use super::backoff::jitter;
use super::balance::{Balance, Dial, Link as _, SlotId, Step};
use super::body::ResponseBody;
use super::dial::{Context, Dialer};
use super::endpoints::Endpoints;
use super::error::{ChannelError, DialError};
use super::link::{Answer, Conn, Failed};
use super::replay::{Reader, Tape};
use crate::connections::Waiting;
use crate::ending::EndReason;
use crate::identity::Role;
use crate::server::reply::block_size;
use crate::server::{deadline, http as protocol};

/// Sendings of one call. A peer that turns everything away must not be asked for ever.
const SENDINGS: u32 = 8;
/// What a request's headers and path may have: what our listeners take, less what HTTP/2 itself and hyper add.
const METADATA: usize = protocol::HEADER_LIST as usize - 1_024;
/// A call waits for connections no longer than this many times `Limits::connect`: one endpoint that swallows packets
/// must leave time for another.
const PATIENCE: u32 = 2;

/// Calls to one role of the mesh: a [`tower_service::Service`] that every tonic client can be built on.
///
/// Cheap to clone; clones share their connections. Nothing is dialled before the first call. Dropping the last clone
/// closes the connections; calls that still run have [`Limits::drain`](crate::config::Limits::drain) to finish.
///
/// Errors are [`Status`]es whose source is a [`ChannelError`].
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Arc<Dialer>,
    authority: Authority,
    balance: Mutex<Balance<Conn, DialError>>,
    /// Moves when a dial ends or a list comes.
    news: watch::Sender<u64>,
    closed: CancellationToken,
    _close: DropGuard,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("role", &self.inner.dialer.role).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel to `role`. `authority` is the `:authority` of its requests.
    pub(crate) fn new(role: Role, authority: Authority, endpoints: Endpoints, context: Context) -> Self {
        let closed = CancellationToken::new();
        let runtime = context.runtime.clone();
        let inner = Arc::new(Inner {
            dialer: Arc::new(Dialer { role, context, room: Arc::default() }),
            authority,
            balance: Mutex::new(Balance::new()),
            news: watch::Sender::new(0),
            closed: closed.clone(),
            _close: closed.clone().drop_guard(),
        });
        let keeper = keep(Arc::downgrade(&inner), Arc::clone(&inner.dialer), inner.news.subscribe(), endpoints);
        runtime.spawn(closed.run_until_cancelled_owned(keeper));
        Self { inner }
    }

    /// Whom it calls.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.inner.dialer.role
    }
}

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    /// Always ready: a call waits for its connection by itself, within its own time.
    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.call(request).await.map_err(Status::from) })
    }
}

impl Inner {
    async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<ResponseBody>, ChannelError> {
        let Some(timeout) = deadline::timeout(request.headers()) else { return self.deliver(request, None).await };
        let at = tokio::time::Instant::now() + timeout;
        let answer = tokio::time::timeout_at(at, self.deliver(request, Some((at, timeout)))).await;
        answer.unwrap_or_else(|_| Err(ChannelError::Deadline { role: self.dialer.role.clone(), timeout }))
    }

    async fn deliver(
        self: &Arc<Self>,
        request: Request<Body>,
        deadline: Option<(tokio::time::Instant, Duration)>,
    ) -> Result<Response<ResponseBody>, ChannelError> {
        let (mut head, body) = request.into_parts();
        head.uri = self.address(&head.uri);
        self.measure(&head)?;
        let (tape, mut reader) = Tape::new(body);
        let mut sending = 1;
        loop {
            let conn = match self.step(&[]) {
                Step::Use(conn) => conn,
                // Rare, and large: not in every call's future.
                step => Box::pin(self.connected(step)).await?,
            };
            let Some(sender) = conn.sender() else { continue };
            match conn.send(sender, head.clone(), reader, &tape).await {
                Ok(answer) => {
                    tape.release();
                    return Ok(respond(answer, conn, deadline));
                }
                Err(failed) => reader = again(failed, &tape, sending, &conn)?,
            }
            Box::pin(tokio::time::sleep(pause(sending))).await;
            sending += 1;
        }
    }

    /// Metadata that the peer would not take fails here: sent, it would fail all calls of its connection.
    fn measure(&self, head: &Parts) -> Result<(), ChannelError> {
        let size = block_size(&head.headers) + head.uri.path().len();
        if size > METADATA {
            return Err(ChannelError::Metadata { role: self.dialer.role.clone(), size, limit: METADATA });
        }
        Ok(())
    }

    /// A request's address: HTTP/2 wants scheme and authority, a tonic client only knows the path.
    fn address(&self, uri: &Uri) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.dialer.context.store.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }

    /// A connection to send on, where the first `step` did not yield one.
    async fn connected(self: &Arc<Self>, step: Step<Conn, DialError>) -> Result<Conn, ChannelError> {
        match step {
            Step::Use(conn) => Ok(conn),
            Step::Wait(_) => {
                let pending = self.dialer.context.limits.max_pending;
                let busy = || ChannelError::Busy { role: self.dialer.role.clone(), pending };
                let waiting = self.dialer.room.enter(pending).ok_or_else(busy)?;
                self.wait(&waiting).await
            }
            step => Err(self.refused(step)),
        }
    }

    /// Asks again whenever something changed. Each endpoint's failure is waited for once, and for long only while there are
    /// connections, all of them full: that is the caller's time to bound.
    async fn wait(self: &Arc<Self>, waiting: &Waiting) -> Result<Conn, ChannelError> {
        let mut news = self.news.subscribe();
        let mut tried = Vec::new();
        let waited = self.dialer.context.limits.connect.saturating_mul(PATIENCE);
        let mut patience = pin!(tokio::time::sleep(waited));
        loop {
            // Before connections are asked, so that no call that ends meanwhile is missed.
            let mut place = pin!(waiting.place());
            place.as_mut().enable();
            match self.step(&tried) {
                Step::Use(conn) => return Ok(conn),
                Step::Wait(slot) => {
                    let full = self.balance().links().next().is_some();
                    tokio::select! {
                        // The sender lives in `self`.
                        _ = news.changed() => tried.extend(slot.filter(|slot| self.balance().failed(*slot))),
                        () = place => {}
                        () = &mut patience, if !full => {
                            return Err(ChannelError::Slow { role: self.dialer.role.clone(), waited });
                        }
                    }
                }
                step => return Err(self.refused(step)),
            }
        }
    }

    /// The next step of a call. Starts the dial that comes with it.
    fn step(self: &Arc<Self>, tried: &[SlotId]) -> Step<Conn, DialError> {
        let (step, dial) = self.balance().pick(Instant::now, tried);
        if let Some(dial) = dial {
            self.dial(dial);
        }
        step
    }

    fn refused(&self, step: Step<Conn, DialError>) -> ChannelError {
        let role = self.dialer.role.clone();
        match step {
            Step::Refuse(endpoint, reason) => ChannelError::Unreachable { role, endpoint, reason },
            _ => ChannelError::NoEndpoint { role },
        }
    }

    /// Dials in a task of its own: whoever asked for it may give up, others may wait for it.
    fn dial(self: &Arc<Self>, dial: Dial) {
        let (channel, dialer) = (Arc::downgrade(self), Arc::clone(&self.dialer));
        let dialling = async move {
            let outcome = dialer.dial(&dial.endpoint).await;
            if let Some(channel) = channel.upgrade() {
                channel.finished(dial.slot, outcome);
            }
        };
        self.dialer.context.runtime.spawn(self.closed.clone().run_until_cancelled_owned(dialling));
    }

    /// Takes the connection in first and judges it then: a generation published in between is met here or by the keeper.
    fn finished(&self, slot: SlotId, outcome: Result<Conn, DialError>) {
        let new = outcome.as_ref().ok().cloned();
        let old = self.balance().finished(slot, outcome, Instant::now(), jitter());
        if let Some(new) = new.filter(|conn| conn.generation() < self.dialer.context.current()) {
            self.dialer.judge(&new);
        }
        old.iter().for_each(|old| old.drain(EndReason::Replaced));
        self.news.send_modify(|n| *n += 1);
    }

    /// Whoever panicked while it held the lock had not begun to change anything.
    fn balance(&self) -> MutexGuard<'_, Balance<Conn, DialError>> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.balance().links().for_each(|conn| conn.drain(EndReason::Shutdown));
    }
}

/// The keeper. Ends by being cancelled.
async fn keep(channel: Weak<Inner>, dialer: Arc<Dialer>, mut news: watch::Receiver<u64>, mut endpoints: Endpoints) {
    let (mut generations, mut departures) = (dialer.context.generations(), dialer.context.registry.departures());
    loop {
        let wake = tend(&channel, dialer.context.current());
        tokio::select! {
            list = endpoints.next() => relist(&channel, list),
            () = moved(&mut generations) => renew(&channel, &dialer),
            () = moved(&mut news) => {}
            () = moved(&mut departures) => {}
            () = rest(wake) => {}
        }
    }
}

/// Makes the dials that are due, and says when to look again.
fn tend(channel: &Weak<Inner>, current: u64) -> Option<Instant> {
    let channel = channel.upgrade()?;
    let dials = channel.balance().due(Instant::now(), current);
    dials.into_iter().for_each(|dial| channel.dial(dial));
    channel.balance().wake(current)
}

fn relist(channel: &Weak<Inner>, list: Vec<crate::config::Endpoint>) {
    let Some(channel) = channel.upgrade() else { return };
    let gone = channel.balance().list(list);
    gone.iter().for_each(|conn| conn.drain(EndReason::Replaced));
    channel.news.send_modify(|n| *n += 1);
}

/// A generation was published: every connection is judged by it, and every rest is over.
fn renew(channel: &Weak<Inner>, dialer: &Dialer) {
    let Some(channel) = channel.upgrade() else { return };
    channel.balance().forgive();
    let links: Vec<Conn> = channel.balance().links().cloned().collect();
    links.iter().for_each(|conn| dialer.judge(conn));
}

/// Until the value has moved on; for ever when nobody is left to move it.
async fn moved<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn rest(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What sends a failed call again, or why nothing does.
fn again(failed: Failed, tape: &Tape, sending: u32, conn: &Conn) -> Result<Reader, ChannelError> {
    let (role, endpoint, reason) = (conn.role().clone(), conn.endpoint().clone(), failed.error);
    if !failed.unprocessed {
        return Err(ChannelError::Broken { role, endpoint, reason });
    }
    let reader = if sending < SENDINGS { tape.rewind() } else { None };
    tracing::debug!(%role, %endpoint, %reason, sending, again = reader.is_some(), "a call was turned away unprocessed");
    reader.ok_or(ChannelError::TurnedAway { role, endpoint, reason })
}

/// None before the second sending: the connection went away, and another is there. Then a peer is given time.
fn pause(sending: u32) -> Duration {
    Duration::from_millis(if sending < 2 { 0 } else { 1 << sending })
}

fn respond(answer: Answer, conn: Conn, deadline: Option<(tokio::time::Instant, Duration)>) -> Response<ResponseBody> {
    let peer = conn.peer().clone();
    let mut response = answer.response.map(|body| ResponseBody::new(body, conn, deadline, answer.under_way));
    response.extensions_mut().insert(peer);
    response
}
