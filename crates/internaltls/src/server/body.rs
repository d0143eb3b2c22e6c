//! The body of a response, watched to its end.
//!
//! 1. A call is over when its body is: only then it is counted, and no longer under way.
//! 2. What bounds the call ends the body too, with trailers that say why: the caller's time, or a policy that changed.
//! 3. A body dropped before its end is a call that was cancelled. At an edge these are bounded: see `allowance`.
//! 4. Every reply of a listener becomes one of these, its head first: so here header blocks are bounded, see `reply`.
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::allowance::Allowance;
use super::leave::Leave;
use super::reply::{bound_head, bound_trailers};
use crate::connections::{CallGuard, Connection};
use crate::ending::EndReason;
use crate::telemetry::CallCounters;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Refused,
    Deadline,
}

impl Outcome {
    /// Read from the head of a response. A gRPC status in it is final; else the trailers may still say otherwise.
    pub(crate) fn of_head(status: StatusCode, headers: &HeaderMap) -> Self {
        if status.is_client_error() || status.is_server_error() { Self::Error } else { Self::of_trailers(headers) }
    }

    fn of_trailers(headers: &HeaderMap) -> Self {
        match headers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            None | Some(b"0") => Self::Ok,
            Some(_) => Self::Error,
        }
    }
}

/// Where the calls of one connection are counted.
#[derive(Debug)]
pub(crate) struct Ledger {
    counters: CallCounters,
    /// What a client may take back, and the connection that it loses beyond that. Calls must not keep it alive.
    allowance: Option<(Allowance, Weak<Connection>)>,
}

impl Ledger {
    /// Counts into `counters`, and bounds nothing.
    pub(crate) fn new(counters: CallCounters) -> Self {
        Self { counters, allowance: None }
    }

    /// Lets the connection's client take back so many calls at once, and as many each second.
    pub(crate) fn allowing(self, calls: u32, connection: &Arc<Connection>) -> Self {
        Self { allowance: Some((Allowance::new(calls), Arc::downgrade(connection))), ..self }
    }

    fn cancelled(&self) {
        self.counters.cancelled.inc();
        if let Some((allowance, connection)) = &self.allowance
            && !allowance.take(Instant::now())
            && let Some(connection) = connection.upgrade()
        {
            connection.cut(EndReason::Cancellations);
        }
    }
}

/// Counts one call when it ends, whichever way.
#[derive(Debug)]
pub(crate) struct Tally {
    ledger: Arc<Ledger>,
    ended: bool,
    _under_way: CallGuard,
}

impl Tally {
    /// Begins to count a call.
    pub(crate) fn new(ledger: Arc<Ledger>, under_way: CallGuard) -> Self {
        Self { ledger, ended: false, _under_way: under_way }
    }

    /// Counts the call; the first outcome stands.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let counters = &self.ledger.counters;
        let counter = match outcome {
            Outcome::Ok => &counters.ok,
            Outcome::Error => &counters.error,
            Outcome::Refused => &counters.refused,
            Outcome::Deadline => &counters.deadline,
        };
        counter.inc();
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.cancelled();
        }
    }
}

/// What ends a call that would go on. The default never does.
#[derive(Default)]
pub(crate) struct Bounds {
    /// The caller's time.
    pub(crate) deadline: Option<Pin<Box<Sleep>>>,
    /// What policy lets it do.
    pub(crate) leave: Leave,
}

impl Bounds {
    /// Ready when the call must end: how it is counted, and what the caller is told.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<(Outcome, Status)> {
        if let Poll::Ready(status) = self.leave.poll_withdrawn(cx) {
            return Poll::Ready((Outcome::Refused, status));
        }
        match self.deadline.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready((Outcome::Deadline, deadline_exceeded())),
            _ => Poll::Pending,
        }
    }
}

/// See the module.
pub(crate) struct CallBody {
    inner: Body,
    outcome: Outcome,
    bounds: Bounds,
    tally: Tally,
}

impl CallBody {
    /// The reply as it goes out, its body watched to its end.
    pub(crate) fn reply(response: Response<Body>, bounds: Bounds, tally: Tally) -> Response<Self> {
        let response = bound_head(response);
        let outcome = Outcome::of_head(response.status(), response.headers());
        response.map(|inner| {
            let mut body = Self { inner, outcome, bounds, tally };
            body.note_end();
            body
        })
    }

    fn note_end(&mut self) {
        if self.inner.is_end_stream() {
            self.tally.end(self.outcome);
        }
    }

    /// The last frame of a call that is ended. Also one that always has something to say is asked before each frame.
    fn ended(&mut self, cx: &mut Context<'_>) -> Option<Frame<Bytes>> {
        if self.tally.ended {
            return None;
        }
        let Poll::Ready((outcome, status)) = self.bounds.poll_over(cx) else { return None };
        self.inner = Body::empty();
        self.tally.end(outcome);
        let mut trailers = HeaderMap::new();
        // The status is of our own making, so its message fits a header.
        let _ = status.add_header(&mut trailers);
        bound_trailers(&mut trailers);
        Some(Frame::trailers(trailers))
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.outcome = Outcome::of_trailers(trailers);
            self.tally.end(self.outcome);
        } else {
            self.note_end();
        }
    }
}

/// The status of a call whose `grpc-timeout` has passed, in tonic's words.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded(tonic::TimeoutExpired(()).to_string())
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(last) = this.ended(cx) {
            return Poll::Ready(Some(Ok(last)));
        }
        let mut polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    bound_trailers(trailers);
                }
                this.note(frame);
            }
            Poll::Ready(Some(Err(_))) => this.tally.end(Outcome::Error),
            Poll::Ready(None) => this.tally.end(this.outcome),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
