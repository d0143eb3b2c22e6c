//! From files to handshakes, as a node and its peers see it.
pub(crate) mod issue;

mod agree;
mod alarm;
mod anchors;
mod crls;
mod files;
mod follow;
mod handshakes;
mod loading;
mod refusals;
mod replaced;
