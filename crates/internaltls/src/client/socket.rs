//! The bytes of one dialled connection.
//!
//! 1. It holds the connection's entry in the registry: the entry lives exactly as long as the socket.
//! 2. It tells when the peer spoke first. In TLS 1.3 a client finishes its handshake before the server has judged its
//!    certificate; only a byte from the server proves that it was accepted. Until then a dial is not over.
//! 3. It can be cut from outside, whatever HTTP/2 is doing.
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::error::DialError;
use crate::connections::Connection;

/// Closes a [`Socket`] from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Scissors(Arc<Cut>);

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
}

impl Scissors {
    /// Every read and write fails from now on, also those that wait already.
    pub(super) fn cut(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    fn check(&self) -> io::Result<()> {
        if self.0.done.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "we closed the connection"));
        }
        Ok(())
    }
}

/// A TCP or TLS stream with its entry in the registry.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    scissors: Scissors,
    spoke: Option<oneshot::Sender<Result<(), DialError>>>,
    _entry: Arc<Connection>,
}

impl<S> Socket<S> {
    /// The socket, and the outcome of the first read.
    pub(super) fn new(
        stream: S,
        entry: Arc<Connection>,
        scissors: Scissors,
    ) -> (Self, oneshot::Receiver<Result<(), DialError>>) {
        let (spoke, heard) = oneshot::channel();
        (Self { stream, scissors, spoke: Some(spoke), _entry: entry }, heard)
    }

    /// Reports the first read. An error is consumed by the report; hyper only needs to know that it is over.
    fn report(&mut self, read: io::Result<usize>) -> io::Result<()> {
        let Some(spoke) = self.spoke.take() else { return read.map(drop) };
        let (told, result) = match read {
            Ok(0) => (Err(DialError::Silent), Ok(())),
            Ok(_) => (Ok(()), Ok(())),
            Err(error) => (Err(first_read(error)), Err(io::ErrorKind::ConnectionAborted.into())),
        };
        // Whoever dialled may have given up.
        let _ = spoke.send(told);
        result
    }
}

/// A reset instead of a first frame says no more than an end of file does.
fn first_read(error: io::Error) -> DialError {
    match DialError::of_tls(error) {
        DialError::Handshake(_) => DialError::Silent,
        other => other,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.scissors.0.reader.register(cx.waker());
        self.scissors.check()?;
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let read = read.map(|()| buf.filled().len() - before);
        Poll::Ready(self.report(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.scissors.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.scissors.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.scissors.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.scissors.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
