//! Calling: a channel to a role, whose certificate changes under it.
//!
//! 1. A channel knows a role and where its nodes are. It dials when a call comes, one dial at a time and endpoint, and
//!    goes round robin over the endpoints that are connected.
//! 2. A new generation opens the new connection first; then calls go there, and what runs on the old one may finish.
//!    No call fails of that.
//! 3. A call is sent again if, and only if, the peer cannot have looked at it.
//!
//! The parts, in the order a call meets them: [`Channel`] (`channel`), `balance` (with `backoff` and `endpoints`), `dial`
//! (with `socket`), `link`, `replay`, `body`; and `error` for what can go wrong on the way.
mod backoff;
mod balance;
mod body;
mod channel;
mod dial;
mod endpoints;
mod error;
mod link;
mod probe;
mod replay;
mod socket;

pub use body::ResponseBody;
pub use channel::Channel;
pub(crate) use dial::Context;
pub use endpoints::Endpoints;
pub use error::{ChannelError, DialError};
pub use probe::ProbeError;
pub(crate) use probe::{Target, ask};
