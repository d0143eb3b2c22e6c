//! The work.
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use test_util::authority::Key;

use crate::echo::Ask;
use crate::variant::{self, Variant};

/// Mebibyte.
const MIB: usize = 1024 * 1024;
/// Messages of one stream; longer than any window lasts.
const ENDLESS: u32 = u32::MAX;
/// Calls a second where their rate is fixed: well below what the slowest variant reaches on two cores.
const RATE: u32 = 2_000;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// So many callers, each with its next call as soon as the last one ended.
    Closed { callers: usize },
    /// So many calls a second, whether or not earlier ones have ended; each is timed from when it was due.
    Open { per_second: u32 },
    /// One stream from the server; a message counts as a call.
    Stream,
    /// So many callers, each with a new connection for each call: full handshakes, both sides with a certificate.
    Dial { callers: usize },
    /// So many connections without calls: what the server holds for each.
    Idle { connections: usize },
    /// Small calls, one at a time, beside a stream of 64 KiB messages.
    Beside,
    /// So many callers, while both ends' leaves are replaced again and again.
    Rotating { callers: usize },
    /// Rows into a whole database, a thousand at a time, by one thread of the stock client.
    Insert,
    /// Searches in a whole database, by so many threads of the stock client.
    Search { threads: usize },
}

/// One piece of work, by name.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As the command line and the results name it.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// What is done.
    pub work: Work,
    /// Bytes of a request.
    pub request: usize,
    /// Bytes of an answer.
    pub reply: usize,
    /// The kind of the leaves' keys.
    pub key: Key,
    /// Who does it.
    pub variants: &'static [Variant],
}

impl Scenario {
    /// The question that its calls ask.
    #[must_use]
    pub fn ask(&self) -> Ask {
        let count = if self.work == Work::Stream { ENDLESS } else { 0 };
        Ask { body: Bytes::from(vec![7; self.request]), reply: u32::try_from(self.reply).unwrap_or(u32::MAX), count }
    }

    /// Whether it needs a whole database.
    #[must_use]
    pub fn is_end_to_end(&self) -> bool {
        matches!(self.work, Work::Insert | Work::Search { .. })
    }

    /// Payload of one call, both ways.
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.work == Work::Stream { self.reply } else { self.request + self.reply }
    }
}

const fn closed(name: &'static str, about: &'static str, callers: usize, request: usize, reply: usize) -> Scenario {
    let (work, variants) = (Work::Closed { callers }, variant::CALLS);
    Scenario { name, about, work, request, reply, key: Key::Ecdsa, variants }
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    closed("unary-64b-c1", "64 bytes and back, one call at a time", 1, 64, 64),
    closed("unary-64b-c16", "64 bytes and back, 16 at a time", 16, 64, 64),
    closed("unary-64b-c64", "64 bytes and back, 64 at a time", 64, 64, 64),
    closed("search-c16", "4 KiB and 2 KiB back, as a search has it, 16 at a time", 16, 4_096, 2_048),
    closed("search-c64", "4 KiB and 2 KiB back, 64 at a time", 64, 4_096, 2_048),
    closed("unary-1m-c4", "a mebibyte and back, 4 at a time", 4, MIB, MIB),
    Scenario {
        name: "stream-1k",
        about: "a stream of 1 KiB messages from the server",
        work: Work::Stream,
        request: 0,
        reply: 1_024,
        key: Key::Ecdsa,
        variants: variant::CALLS,
    },
    Scenario {
        name: "open-64b",
        about: "64 bytes and back, 2,000 calls a second, timed from when each was due",
        work: Work::Open { per_second: RATE },
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::CALLS,
    },
    dial("dial-ecdsa", "a connection for each call, ECDSA P-256 leaves", Key::Ecdsa),
    dial("dial-ed25519", "a connection for each call, Ed25519 leaves", Key::Ed25519),
    dial("dial-rsa", "a connection for each call, RSA 2048 leaves", Key::Rsa),
    Scenario {
        name: "beside-alone",
        about: "64 bytes and back, one call at a time, nothing beside",
        work: Work::Closed { callers: 1 },
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::BESIDE,
    },
    Scenario {
        name: "beside-bulk",
        about: "the same beside a stream of 64 KiB messages",
        work: Work::Beside,
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::BESIDE,
    },
    Scenario {
        name: "rotation-quiet",
        about: "64 bytes and back, 16 at a time",
        work: Work::Closed { callers: 16 },
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::ROTATION,
    },
    Scenario {
        name: "rotation",
        about: "the same, while the leaves of both ends are replaced four times a second",
        work: Work::Rotating { callers: 16 },
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::ROTATION,
    },
    Scenario {
        name: "idle-1000",
        about: "what the server holds for each of 1,000 connections without calls",
        work: Work::Idle { connections: 1_000 },
        request: 64,
        reply: 64,
        key: Key::Ecdsa,
        variants: variant::IDLE,
    },
    end(
        "end-insert",
        "rows into a whole database over two-way TLS, durable, a thousand at a time; a row counts as a call, CPU is the server's",
        Work::Insert,
    ),
    end(
        "end-search-t1",
        "searches of one vector among 20,000 of 128 dimensions, whole database, two-way TLS, one thread of pymilvus",
        Work::Search { threads: 1 },
    ),
    end("end-search-t8", "the same by eight threads", Work::Search { threads: 8 }),
];

const fn end(name: &'static str, about: &'static str, work: Work) -> Scenario {
    Scenario { name, about, work, request: 0, reply: 0, key: Key::Ecdsa, variants: variant::END_TO_END }
}

const fn dial(name: &'static str, about: &'static str, key: Key) -> Scenario {
    Scenario { name, about, work: Work::Dial { callers: 4 }, request: 64, reply: 64, key, variants: variant::DIALS }
}

/// What `--against` runs.
pub const AGAINST: &[&str] = &["end-insert", "end-search-t1", "end-search-t8"];

/// What `--quick` runs.
pub const QUICK: &[&str] = &["unary-64b-c64", "search-c64", "stream-1k"];

/// The scenario of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// How long one window is, and how long the same work goes on before it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Window {
    /// Not counted: connections, caches, the branch predictor.
    pub warm_up: Duration,
    /// Counted.
    pub counted: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_quick_ones_exist() {
        let mut names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(QUICK.iter().all(|name| named(name).is_some()));
    }
}
