//! Real processes under attack: chains made to cost work, text made to fill logs, files that lie, vanish or stall.
//!
//! 1. The attacker has an attacker's tools: sockets, TLS that shows any chain, openssl, a CA of its own, and where a test says so
//!    the file system. It has no part in the processes it attacks.
//! 2. A bound is relative: processor time is the median of several runs beside the median of an honest peer that is refused by the
//!    same listener. What must not happen is watched for a while; what must happen has a long deadline.
//! 3. What cannot run here says NOT RUN in a line of its own, and what it did not prove.
//!
//! Parts: [`site`] is one process, its files and its settings; [`work`], [`texts`], [`lists`], [`shared`], [`files`], [`stall`], [`bombs`],
//! [`paths`] and [`upgrade`] are the tests; [`hand`] starts all four processes.
#![expect(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

mod bombs;
mod files;
mod fixtures;
#[expect(dead_code, reason = "end_to_end uses all of it")]
#[path = "../end_to_end/hand.rs"]
mod hand;
mod lists;
mod paths;
mod shared;
mod site;
mod stall;
mod texts;
mod upgrade;
mod work;
