//! A stream that gives up once the peer has sent too much for a handshake.
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// The peer sent more bytes than a handshake may have.
#[derive(Debug, thiserror::Error)]
#[error("the handshake took more than {limit} bytes")]
pub(crate) struct TooManyBytes {
    limit: usize,
}

/// Counts what is read until the count is lifted.
pub(crate) struct Metered<Io> {
    io: Io,
    limit: usize,
    /// `None` once lifted.
    left: Option<usize>,
}

impl<Io> Metered<Io> {
    /// Lets `limit` bytes through until [`Metered::lift`].
    pub(crate) fn new(io: Io, limit: usize) -> Self {
        Self { io, limit, left: Some(limit) }
    }

    /// The handshake is over: no limit from here on.
    pub(crate) fn lift(&mut self) {
        self.left = None;
    }
}

impl<Io> fmt::Debug for Metered<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Metered<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        };
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TooManyBytes { limit: self.limit })));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.left = Some(left.saturating_sub(buf.filled().len() - before));
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Metered<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: Connected> Connected for Metered<Io> {
    type ConnectInfo = Io::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn invariant_8_reading_stops_at_the_limit() {
        let bytes = [0_u8; 100];
        let mut metered = Metered::new(&bytes[..], 40);
        let error = metered.read_to_end(&mut Vec::with_capacity(32)).await.unwrap_err();
        assert!(error.get_ref().is_some_and(|e| e.is::<TooManyBytes>()), "{error}");
    }

    #[tokio::test]
    async fn a_lifted_meter_counts_nothing() {
        let bytes = [0_u8; 100];
        let mut metered = Metered::new(&bytes[..], 40);
        metered.lift();
        assert_eq!(metered.read_to_end(&mut Vec::new()).await.unwrap(), 100);
    }
}
