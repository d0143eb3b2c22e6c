//! How bytes reach a peer. TCP today; QUIC will stand beside it and yield the same connections.
pub(crate) mod tcp;
