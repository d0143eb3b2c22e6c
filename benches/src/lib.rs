//! What internaltls is compared with.
pub mod sidecar;
