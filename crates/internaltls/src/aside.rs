//! Work beside a connection's frames that is looked at only when it has something to say.
//!
//! A connection's task waits for much besides frames: shutdown, new material, policy, time. Were all of it polled whenever a
//! frame comes, as a `select!` does, it would cost more than the frame. A future that lies aside is polled when it was woken
//! itself, and not when its neighbour was.
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;

/// A future that is polled only when it was woken itself.
#[derive(Debug)]
pub(crate) struct Aside<F>(FuturesUnordered<F>);

impl<F: Future> Aside<F> {
    pub(crate) fn new(work: F) -> Self {
        Self(std::iter::once(work).collect())
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match Pin::new(&mut self.0).poll_next(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            // Nothing is left once it was ready; it is not polled again then.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn is_polled_when_it_is_woken_and_not_otherwise() {
        let (tell, told) = oneshot::channel();
        let (polls, mut told) = (Cell::new(0), told);
        let work = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            told.poll_unpin(cx)
        });
        let mut aside = Aside::new(work);
        for _ in 0..5 {
            let now = poll_fn(|cx| Poll::Ready(Pin::new(&mut aside).poll(cx).is_ready())).await;
            assert!(!now);
        }
        assert_eq!(polls.get(), 1);
        tell.send(7).unwrap();
        assert_eq!(aside.await, Ok(7));
        assert_eq!(polls.get(), 2);
    }
}
