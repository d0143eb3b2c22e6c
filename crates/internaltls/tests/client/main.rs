//! What a channel does for its callers, against real servers and against scripted ones.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
mod balances;
mod bench;
mod endings;
mod force;
mod frozen;
mod kinds;
mod pairs;
mod pki;
mod refuses;
mod replays;
mod rotates;
mod scripted;
mod shares;
mod threads;
mod transaction;
mod way_back;
