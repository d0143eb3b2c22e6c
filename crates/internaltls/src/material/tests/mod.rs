//! From files to handshakes, as a node and its peers see it.
pub(crate) mod issue;

mod agree;
mod alarm;
mod anchors;
mod cpu;
mod crls;
mod files;
mod follow;
mod handshakes;
mod large;
mod lists;
mod loading;
mod refusals;
mod replaced;
mod shared_keys;
