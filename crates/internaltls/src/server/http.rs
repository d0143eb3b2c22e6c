//! How HTTP is spoken on an accepted connection.
//!
//! 1. Flow-control windows are fixed and well above the 64 KiB of the protocol, so that a large answer does not wait a
//!    round trip for each piece; hyper's adaptive window would begin at 64 KiB and ping to find out.
//! 2. In the mesh a connection is shared by all callers of a process. Its window covers those of all its streams, so that one
//!    that nobody reads holds up no other: what may lie unread is bounded by the streams (RFC 9113 section 5.2.1 leaves it to
//!    the receiver). At an edge a connection is one client's, and its window bounds what that client may make us hold.
//! 3. h2 ends a connection when too many streams were reset before they were looked at. Its 20 are meant for strangers: in the
//!    mesh they are what one impatient caller leaves while this process stalls for a moment, and all others would pay. So
//!    there they are [`ROUNDS`] rounds of all streams; at an edge one round, and `allowance` bounds what comes after it. What
//!    h2 itself resets it counts over the whole life of a connection; in the mesh such a count only tells how old it is.
//! 4. Pings go out whether or not calls are under way; a client that pings us is never told off.
//! 5. The mesh speaks HTTP/2 and nothing else. At an edge the client's first bytes decide.
use std::fmt::Display;
use std::pin::Pin;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;

use super::call::Calls;
use super::drive::Wire;
use crate::config::Limits;

pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
/// What one client of an edge may make us hold.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// RFC 9113 section 6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
const FRAME: u32 = 64 * 1024;
/// What a request's headers may have. A larger block fails its call with 431, up to four times this; beyond that h2 ends the
/// connection.
pub(crate) const HEADER_LIST: u32 = 32 * 1024;
/// How often all streams may be opened and reset again while this process looks at none. A call's deadline is rarely less
/// than a second, and a stall of as many seconds as this is found by the peer's pings. An entry has about 2 KiB.
const ROUNDS: usize = 16;

/// The window of a connection in the mesh: whatever is not read on some streams, there is room for the others.
pub(crate) fn shared_window(streams: u32) -> u32 {
    streams.saturating_mul(STREAM_WINDOW).clamp(CONNECTION_WINDOW, LARGEST_WINDOW)
}

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
        .initial_connection_window_size(shared_window(limits.streams))
        .max_pending_accept_reset_streams(limits.streams as usize * ROUNDS)
        .max_local_error_reset_streams(None)
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
        .max_pending_accept_reset_streams(limits.streams as usize)
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
