//! From files to handshakes, as a node and its peers see it.
pub(crate) mod issue;

mod alarm;
mod anchors;
mod crls;
mod follow;
mod handshakes;
mod loading;
mod refusals;
