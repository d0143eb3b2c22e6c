//! Pairs of sidecars, as a mesh of proxies puts them between two processes:
//! client → h2c → entrance → mutual TLS 1.3, HTTP/2 → exit → h2c → server, all on loopback.
//!
//! 1. Each of the two is a process of its own with a certificate of its own. The exit wants a leaf of the CA from whoever
//!    connects; the entrance wants the exit's name in a leaf of the same CA. Nothing below TLS 1.3 is spoken between them.
//! 2. Each kind gets what its manual says makes it fast for gRPC: a worker for each core, no access log, no buffering of whole
//!    messages, connections that are kept, windows that do not hold up a message of 1 MiB, and no time-out within a run.
//!    The reason stands beside each setting.
//! 3. Nothing is downloaded unless it is asked for: [`find`] says what is missing and how a person gets it, [`install`] fetches
//!    the one that is not in Debian.
//! 4. Both end when the [`Pair`] is dropped, their workers too, and when the process that started them is gone.
//!
//! Parts: `program` looks for what is installed; `pair` runs two; `envoy`, `haproxy` and `nginx` write their configurations.
mod envoy;
mod haproxy;
mod nginx;
mod pair;
mod program;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

pub use pair::{Pair, start};
pub use program::{Missing, Program, find, install};

/// A proxy that meshes are built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Envoy: one process, a thread for each core.
    Envoy,
    /// HAProxy: one process, a thread for each core.
    Haproxy,
    /// nginx: a master, and a worker process for each core. It multiplexes no HTTP/2 to where it sends: a connection carries
    /// one call at a time and is kept for the next.
    Nginx,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Envoy, Self::Haproxy, Self::Nginx];

    /// What its binary is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// How many processes it starts beside its first.
    fn workers(self, threads: usize) -> usize {
        if self == Self::Nginx { threads } else { 0 }
    }

    fn config(self, hop: &Hop) -> Config {
        match self {
            Self::Envoy => envoy::config(hop),
            Self::Haproxy => haproxy::config(hop),
            Self::Nginx => nginx::config(hop),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Before the client: plaintext in, TLS out.
    Entrance,
    /// Before the server: TLS in, plaintext out.
    Exit,
}

impl Side {
    /// Its folder, and the first label of its name.
    fn word(self) -> &'static str {
        match self {
            Self::Entrance => "entrance",
            Self::Exit => "exit",
        }
    }
}

/// One of a pair: what it takes calls from, and where it sends them.
#[derive(Debug, Clone, Copy)]
struct Hop {
    side: Side,
    listen: SocketAddr,
    to: SocketAddr,
    threads: usize,
}

/// What a kind wants to be started with. It runs in the folder of its files, so that no path needs quoting.
#[derive(Debug)]
struct Config {
    file: &'static str,
    text: String,
    arguments: Vec<String>,
    environment: &'static [(&'static str, &'static str)],
}

/// The name that the exit has to prove.
const EXIT: &str = "exit.sidecar.internal";
/// The trust anchor.
const CA: &str = "ca.pem";
/// The leaf.
const CERT: &str = "server.pem";
/// Its key.
const KEY: &str = "server.key";
/// Leaf and key in one file.
const CERT_AND_KEY: &str = "identity.pem";
/// The most bytes of a stream that are on their way unacknowledged: a message of 1 MiB and its framing fit several times.
const STREAM_WINDOW: u32 = 4 << 20;
