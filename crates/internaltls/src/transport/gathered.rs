//! Writes together what is written in one turn.
//!
//! 1. HTTP/2 flushes after every frame with a payload of some size. Each flush would be a TLS record and a system call of
//!    its own, though the next frame is ready already.
//! 2. So the first flush of a turn is put off until the connection's task has its next turn, which it asks for itself: what
//!    other tasks have ready by then goes out with it. A turn is one poll of the task (see [`Turns`]).
//! 3. What waits is bounded by [`MOST`]; whatever does not fit goes out at once, and large pieces are never copied.
//! 4. Nothing waits longer than that one turn, and a shutdown writes everything first.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Two records.
const MOST: usize = 32 * 1024;

/// Counts the turns of one connection's task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<AtomicU32>);

impl Turns {
    fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// The same task, counted.
    pub(crate) fn count<F>(&self, task: F) -> Counted<F> {
        Counted { task, turns: self.clone() }
    }
}

pin_project! {
    /// A task whose turns are counted.
    #[derive(Debug)]
    pub(crate) struct Counted<F> {
        #[pin]
        task: F,
        turns: Turns,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // One task writes the count, and the same task reads it.
        this.turns.0.fetch_add(1, Ordering::Relaxed);
        this.task.poll(cx)
    }
}

/// A stream that gathers what is written.
#[derive(Debug)]
pub(crate) struct Gathered<Io> {
    io: Io,
    kept: BytesMut,
    turns: Turns,
    /// The turn in which a flush was put off.
    put_off: Option<u32>,
}

impl<Io> Gathered<Io> {
    /// `turns` are those of the task that writes.
    pub(crate) fn new(io: Io, turns: Turns) -> Self {
        Self { io, kept: BytesMut::new(), turns, put_off: None }
    }

    fn fits(&self, size: usize) -> bool {
        self.kept.len() + size <= MOST
    }
}

impl<Io: AsyncWrite + Unpin> Gathered<Io> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        // A quiet connection holds no buffer.
        self.kept = BytesMut::new();
        self.put_off = None;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Gathered<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.fits(bytes.len()) {
            ready!(self.drain(cx))?;
        }
        if !self.fits(bytes.len()) {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size = slices.iter().map(|slice| slice.len()).sum();
        if !self.fits(size) {
            ready!(self.drain(cx))?;
        }
        if !self.fits(size) {
            return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        }
        slices.iter().for_each(|slice| self.kept.extend_from_slice(slice));
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.turns.now();
        match self.put_off {
            _ if self.kept.is_empty() => {}
            Some(turn) if turn == now => return Poll::Ready(Ok(())),
            Some(_) => ready!(self.drain(cx))?,
            None => {
                self.put_off = Some(now);
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Gathered<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Keeps every piece that is written apart, and takes in none while it is blocked.
    #[derive(Debug, Default)]
    struct Sink {
        pieces: Vec<Vec<u8>>,
        blocked: bool,
        shut: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.blocked {
                return Poll::Pending;
            }
            self.pieces.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    fn gathered() -> (Gathered<Sink>, Turns) {
        let turns = Turns::default();
        (Gathered::new(Sink::default(), turns.clone()), turns)
    }

    /// Each piece written and flushed, as HTTP/2 does it, in one turn.
    async fn frames(gathered: &mut Gathered<Sink>, turns: &Turns, sizes: &[usize]) {
        turns.count(async { write(gathered, sizes).await }.boxed_local()).await;
    }

    async fn write(gathered: &mut Gathered<Sink>, sizes: &[usize]) {
        for size in sizes {
            gathered.write_all(&vec![*size as u8; *size]).await.unwrap();
            gathered.flush().await.unwrap();
        }
    }

    fn sizes(gathered: &Gathered<Sink>) -> Vec<usize> {
        gathered.io.pieces.iter().map(Vec::len).collect()
    }

    #[tokio::test]
    async fn one_turn_is_one_write() {
        let (mut gathered, turns) = gathered();
        frames(&mut gathered, &turns, &[100, 200, 300]).await;
        assert!(gathered.io.pieces.is_empty(), "put off until the next turn");
        frames(&mut gathered, &turns, &[]).await;
        turns.count(gathered.flush()).await.unwrap();
        assert_eq!(sizes(&gathered), [600]);
        assert_eq!(gathered.kept.capacity(), 0, "a quiet connection holds no buffer");
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_flush_that_is_put_off_asks_for_the_next_turn() {
        let (mut gathered, turns) = gathered();
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut gathered).poll_write(&mut cx, b"x").is_ready());
        for (turn, written) in [(1, 0), (2, 1)] {
            let flush = turns.count(poll_fn(|cx| Pin::new(&mut gathered).poll_flush(cx)));
            assert!(flush.boxed_local().poll_unpin(&mut cx).is_ready());
            assert_eq!((woken.0.load(Ordering::Relaxed), gathered.io.pieces.len()), (1, written), "turn {turn}");
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_goes_out_at_once() {
        let (mut gathered, turns) = gathered();
        frames(&mut gathered, &turns, &[MOST - 1, 2, 2 * MOST]).await;
        assert_eq!(sizes(&gathered), [MOST - 1, 2, 2 * MOST]);
    }

    #[tokio::test]
    async fn a_shutdown_writes_everything_first() {
        let (mut gathered, turns) = gathered();
        frames(&mut gathered, &turns, &[5]).await;
        gathered.shutdown().await.unwrap();
        assert_eq!((sizes(&gathered), gathered.io.shut), (vec![5], true));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_blocks_the_writer() {
        let (mut gathered, turns) = gathered();
        gathered.io.blocked = true;
        frames(&mut gathered, &turns, &[MOST]).await;
        assert!(gathered.write(&[1]).now_or_never().is_none(), "what waits is bounded");
        gathered.io.blocked = false;
        frames(&mut gathered, &turns, &[1]).await;
        assert_eq!(sizes(&gathered), [MOST]);
    }
}
