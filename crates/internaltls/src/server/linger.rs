//! Closing a connection so that its last words are read.
//!
//! 1. The last GOAWAY tells a client which of its requests nobody looked at. A request may arrive after it was sent; were the
//!    socket closed then, the kernel would answer with a reset, the client's next write would fail, and it would give up
//!    on the connection before it had read the GOAWAY: it could not know that its call may be sent again.
//! 2. So once we have said that we write nothing more, what still comes is read and thrown away until the peer closes too,
//!    for a second at most (RFC 9112 section 9.6 asks the same of HTTP/1.1).
//! 3. A connection that is cut has not said so, and is closed at once.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy, sink};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a peer has to read our last words and to close.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// A stream that goes on reading for a while when it is dropped after its shutdown.
pub(super) struct Linger<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    /// Taken by the drop alone.
    io: Option<Io>,
    shut: bool,
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Linger<Io> {
    pub(super) fn new(io: Io) -> Self {
        Self { io: Some(io), shut: false }
    }

    fn io(&mut self) -> io::Result<Pin<&mut Io>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Drop for Linger<Io> {
    fn drop(&mut self) {
        if let (true, Some(io), Ok(runtime)) = (self.shut, self.io.take(), Handle::try_current()) {
            runtime.spawn(read_out(io));
        }
    }
}

async fn read_out(mut io: impl AsyncRead + Unpin) {
    let _ = timeout(LINGER, copy(&mut io, &mut sink())).await;
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncRead for Linger<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, buf)
    }
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncWrite for Linger<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.io()?.poll_shutdown(cx))?;
        self.shut = true;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn last_words_are_read_by_a_peer_that_still_writes() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Linger::new(ours);
        ours.write_all(b"goaway").await.unwrap();
        ours.shutdown().await.unwrap();
        drop(ours);
        theirs.write_all(&[0; 256]).await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goaway");
    }

    #[tokio::test]
    async fn a_cut_connection_is_closed_at_once() {
        let (ours, mut theirs) = duplex(64);
        drop(Linger::new(ours));
        assert!(theirs.write_all(b"late").await.is_err());
    }
}
