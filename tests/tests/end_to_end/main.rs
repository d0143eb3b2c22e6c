//! Everything together: real processes, stock clients, certificates swapped under load.
//!
//! 1. The processes are the shipped ones; the binaries of this package only give them a path that cargo tells tests.
//! 2. A test that changes a cluster has one of its own; those that only call share one for each mode of the edge.
//! 3. A test asks for what it needs and says what to install; none passes because something is missing.
#![expect(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

mod alarm;
mod attacks;
mod by_hand;
mod documented;
mod durability;
mod fails_closed;
mod faults;
mod fixtures;
mod hand;
mod readme;
mod real_data;
mod short_leaves;
mod stock_clients;
mod swaps;
mod users;
mod wire;
