//! The body of a response, watched to its end.
//!
//! 1. A call is over when its body is: only then it is counted, and no longer under way.
//! 2. Where the caller named a time-out, it ends the body too, with the trailers of DEADLINE_EXCEEDED.
//! 3. A body dropped before its end is a call that was cancelled.
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::body::Body;

use crate::connections::CallGuard;
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

/// Counts one call when it ends, whichever way.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Arc<CallCounters>,
    ended: bool,
    _under_way: CallGuard,
}

impl Tally {
    /// Begins to count a call.
    pub(crate) fn new(counters: Arc<CallCounters>, under_way: CallGuard) -> Self {
        Self { counters, ended: false, _under_way: under_way }
    }

    /// Counts the call; the first outcome stands.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let counter = match outcome {
            Outcome::Ok => &self.counters.ok,
            Outcome::Error => &self.counters.error,
            Outcome::Refused => &self.counters.refused,
            Outcome::Deadline => &self.counters.deadline,
        };
        counter.inc();
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.ended {
            self.counters.cancelled.inc();
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CallBody {
    inner: Body,
    outcome: Outcome,
    deadline: Option<Pin<Box<Sleep>>>,
    tally: Tally,
}

impl CallBody {
    /// Watches `inner` to its end. `outcome` is what the head says.
    pub(crate) fn new(inner: Body, outcome: Outcome, deadline: Option<Pin<Box<Sleep>>>, tally: Tally) -> Self {
        let mut body = Self { inner, outcome, deadline, tally };
        body.note_end();
        body
    }

    fn note_end(&mut self) {
        if self.inner.is_end_stream() {
            self.tally.end(self.outcome);
        }
    }

    /// Whether the caller's time is over while the body is not.
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        !self.tally.ended && self.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }

    fn expire(&mut self) -> Frame<Bytes> {
        self.inner = Body::empty();
        self.tally.end(Outcome::Deadline);
        let mut trailers = HeaderMap::new();
        // The status is of our own making, so its message fits a header.
        let _ = deadline_exceeded().add_header(&mut trailers);
        Frame::trailers(trailers)
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
pub(crate) fn deadline_exceeded() -> tonic::Status {
    tonic::Status::deadline_exceeded(tonic::TimeoutExpired(()).to_string())
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => this.note(frame),
            Poll::Ready(Some(Err(_))) => this.tally.end(Outcome::Error),
            Poll::Ready(None) => this.tally.end(this.outcome),
            Poll::Pending if this.expired(cx) => return Poll::Ready(Some(Ok(this.expire()))),
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
