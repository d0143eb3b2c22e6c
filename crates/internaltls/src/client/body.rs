//! The body of an answer.
//!
//! 1. Its call is under way until the body is dropped.
//! 2. The caller's time-out bounds it as well.
//! 3. Its errors name who broke off.
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::error::ChannelError;
use super::link::Conn;
use crate::connections::CallGuard;

/// The body of an answer that a [`Channel`](super::Channel) yields.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    conn: Conn,
    deadline: Option<Deadline>,
    under_way: Option<CallGuard>,
}

#[derive(Debug)]
struct Deadline {
    sleep: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl ResponseBody {
    /// `deadline` is the end of the caller's time and how long that was.
    pub(super) fn new(
        incoming: Incoming,
        conn: Conn,
        deadline: Option<(Instant, Duration)>,
        under_way: CallGuard,
    ) -> Self {
        let deadline = deadline.map(|(at, timeout)| Deadline { sleep: Box::pin(sleep_until(at)), timeout });
        Self { incoming, conn, deadline, under_way: Some(under_way) }
    }

    fn broke(&self, reason: hyper::Error) -> Status {
        let (role, endpoint) = (self.conn.role().clone(), self.conn.endpoint().clone());
        ChannelError::Broken { role, endpoint, reason }.into()
    }

    /// The error of a caller whose time is up; there is only one.
    fn expired(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        let timeout = self
            .deadline
            .as_mut()
            .and_then(|deadline| deadline.sleep.as_mut().poll(cx).is_ready().then_some(deadline.timeout))?;
        self.deadline = None;
        Some(ChannelError::Deadline { role: self.conn.role().clone(), timeout }.into())
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => self.expired(cx).map_or(Poll::Pending, |status| Poll::Ready(Some(Err(status)))),
            Poll::Ready(Some(Err(reason))) => Poll::Ready(Some(Err(self.broke(reason)))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => {
                self.under_way = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
