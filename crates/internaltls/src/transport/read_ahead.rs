//! Reads from the kernel more than the reader asks for.
//!
//! 1. rustls asks for 4 KiB at a time, a quarter of a record. Here one system call brings in what there is, up to
//!    [`MOST`], and the reader is served from that.
//! 2. What is read lands in a buffer of the thread first, and only what is left over is kept. So a connection that is quiet
//!    holds no buffer, however many there are.
//! 3. Bytes wait here only until they are asked for: whoever bounds what a peer may send before it is known bounds it above
//!    this (see `server::metered`), and the bytes that lie here then are at most [`MOST`].
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Four records.
const MOST: usize = 64 * 1024;

thread_local! {
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST].into());
}

/// A stream that reads ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<Io> {
    io: Io,
    left: Bytes,
}

impl<Io> ReadAhead<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, left: Bytes::new() }
    }

    /// Hands out what lies here already.
    fn serve(&mut self, buf: &mut ReadBuf<'_>) {
        let size = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left[..size]);
        self.left.advance(size);
        if self.left.is_empty() {
            // A view without bytes would keep its allocation.
            self.left = Bytes::new();
        }
    }
}

impl<Io: AsyncRead + Unpin> ReadAhead<Io> {
    fn land(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        LANDING.with_borrow_mut(|landing| {
            let mut landed = ReadBuf::new(landing);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut landed))?;
            let (now, later) = landed.filled().split_at(landed.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            self.left = Bytes::copy_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for ReadAhead<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.left.is_empty() {
            self.serve(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= MOST {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        self.land(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for ReadAhead<Io> {
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

impl<Io: Connected> Connected for ReadAhead<Io> {
    type ConnectInfo = Io::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Counts how often it is read, and gives at most so much each time.
    struct Source {
        bytes: Bytes,
        most: usize,
        reads: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            let size = self.bytes.len().min(self.most).min(buf.remaining());
            buf.put_slice(&self.bytes.split_to(size));
            Poll::Ready(Ok(()))
        }
    }

    fn source(size: usize, most: usize) -> (Vec<u8>, ReadAhead<Source>) {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        (bytes.clone(), ReadAhead::new(Source { bytes: bytes.into(), most, reads: 0 }))
    }

    async fn read(reader: &mut ReadAhead<Source>, step: usize) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut piece).await.unwrap() {
                0 => return all,
                n => all.extend_from_slice(&piece[..n]),
            }
        }
    }

    #[tokio::test]
    async fn many_small_reads_are_one_large_one() {
        let (bytes, mut reader) = source(MOST, usize::MAX);
        assert_eq!(read(&mut reader, 4_096).await, bytes);
        assert_eq!(reader.io.reads, 2, "all of it, and the end");
        assert!(reader.left.is_empty());
    }

    #[tokio::test]
    async fn a_large_reader_is_not_copied_for() {
        let (bytes, mut reader) = source(3 * MOST, usize::MAX);
        assert_eq!(read(&mut reader, 3 * MOST).await, bytes);
        assert_eq!(reader.io.reads, 2);
    }

    proptest! {
        #[test]
        fn bytes_come_in_order_whatever_the_sizes(size in 0_usize..200_000, most in 1_usize..100_000, step in 1_usize..80_000) {
            let (bytes, mut reader) = source(size, most);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(read(&mut reader, step)), bytes);
        }
    }
}
