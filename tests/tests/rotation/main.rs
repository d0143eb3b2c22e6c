//! Certificates and CAs replaced under a living cluster, with everything that goes wrong meanwhile.
//!
//! 1. The processes are real ones, started as an operator starts them; each test has a cluster of its own.
//! 2. No call fails, whatever is replaced; what is served is in the end what is on disk.
#![expect(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

mod ca;
mod fixtures;
