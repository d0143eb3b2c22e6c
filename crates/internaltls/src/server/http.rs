//! How HTTP is spoken on an accepted connection.
//!
//! 1. Flow-control windows are fixed and well above the 64 KiB of the protocol, so that a large answer does not wait a
//!    round trip for each piece; hyper's adaptive window would begin at 64 KiB and ping to find out.
//! 2. A client that resets streams or sends pings and settings at will is bounded by h2's own defaults, which are kept.
//! 3. Pings go out whether or not calls are under way; a client that pings us is never told off.
//! 4. The mesh speaks HTTP/2 and nothing else. At an edge the client's first bytes decide.
use std::fmt::Display;
use std::pin::Pin;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;

use super::call::Calls;
use super::drive::Wire;
use crate::config::Limits;

const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const FRAME: u32 = 64 * 1024;
const HEADER_LIST: u32 = 32 * 1024;

/// What makes connections of a listener.
pub(crate) enum Http {
    Two(http2::Builder<TokioExecutor>),
    Either(auto::Builder<TokioExecutor>),
}

/// HTTP/2 and nothing else, for the mesh.
pub(crate) fn two_only(limits: &Limits) -> Http {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    Http::Two(http)
}

/// HTTP/1.1 or HTTP/2, whichever the client begins with.
pub(crate) fn either(limits: &Limits) -> Http {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.first_request);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    Http::Either(http)
}

/// A connection of either kind: over when it is ready.
pub(super) trait Conversation: Future<Output = Result<(), Self::Error>> {
    type Error: Display;

    /// Takes no more calls, and is ready when the running ones are done.
    fn finish(self: Pin<&mut Self>);
}

impl Conversation for http2::Connection<TokioIo<Wire>, Calls, TokioExecutor> {
    type Error = hyper::Error;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Conversation for auto::Connection<'_, TokioIo<Wire>, Calls, TokioExecutor> {
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
