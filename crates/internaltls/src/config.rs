//! What a caller may set. Plain fields, each with its unit, its default and what it costs.
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::{NodeId, Role, TrustDomain};

/// The files that one set of material is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Leaf first, then intermediates, PEM.
    pub cert: PathBuf,
    /// The leaf's private key, PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Trust anchors, PEM, one or more. `None` only at an edge that asks for no client certificate.
    pub ca: Option<PathBuf>,
    /// A separate leaf to dial with. Default: `cert`.
    pub client_cert: Option<PathBuf>,
    /// The key of `client_cert`. Set both or none.
    pub client_key: Option<PathBuf>,
    /// A CRL file, or a folder of them. Default: none.
    pub crl: Option<PathBuf>,
    /// SHA-256 hashes of distrusted leaves and CAs, one a line in hex, `#` comments. `spki:` before a hash means a public key,
    /// `cert:` a certificate, and a bare hash either. Adding needs nothing; an entry leaves only where the last line is
    /// `# end COUNT`, COUNT being the number of entries. A certificate's hash does not name a renewal with the same key.
    /// Default: none.
    pub distrust: Option<PathBuf>,
}

impl Files {
    /// A leaf, its key and the CAs that peers must be signed by; the same leaf to dial with, no CRL, no distrust list.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>, ca: impl Into<PathBuf>) -> Self {
        Self {
            cert: cert.into(),
            key: key.into(),
            ca: Some(ca.into()),
            client_cert: None,
            client_key: None,
            crl: None,
            distrust: None,
        }
    }
}

/// How material is followed on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// How often the files' hashes are compared whatever the watcher says. Default 30 s.
    pub poll: Duration,
    /// How long a burst of events must be quiet before the files are read. Default 100 ms.
    pub debounce: Duration,
    /// How soon a set that failed is tried again. Default 2 s.
    pub retry: Duration,
    /// Whether to ask the kernel for events at all; without, only the poll. Default true.
    pub watch: bool,
    /// How long a CRL is still good for new handshakes after its next update was due; then they are refused, and live
    /// connections stay. Zero: not at all. Default 1 h: time to mend what publishes it, and little for who holds it back.
    pub crl_grace: Duration,
    /// How many live peers are asked, one a role, before a new leaf, key or bundle is published; 0 asks nobody. Default 3.
    pub trials: usize,
    /// How long one of them may take to answer, from the first packet to the last byte. One that does not answer in time has no
    /// say, as one that is not reachable. It bounds how long a peer can hold a new leaf back by saying nothing. Default 3 s.
    pub trial_timeout: Duration,
    /// Where all nodes share one leaf: how long the key before the one in use is still accepted from peers. For longer while
    /// a peer that is connected still shows it; never beyond its certificate's notAfter, nor once it is distrusted. Default
    /// 10 min: the time that all nodes have to get the same files.
    pub previous_key: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(30),
            debounce: Duration::from_millis(100),
            retry: Duration::from_secs(2),
            watch: true,
            crl_grace: Duration::from_secs(60 * 60),
            trials: 3,
            trial_timeout: Duration::from_secs(3),
            previous_key: Duration::from_secs(10 * 60),
        }
    }
}

/// Bounds on what a peer may cost before and between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of a listener that have sent no whole ClientHello yet, or wait for their turn after it; at most a quarter
    /// of the descriptors that the process may have. Beyond it the address that has the most of them loses its oldest.
    /// Default 1,024; each costs a socket and, once its ClientHello begins, that.
    pub half_open: usize,
    /// The time for a whole ClientHello. It shrinks from half of `half_open` on, to a twentieth at the bound. Default 10 s.
    pub hello_timeout: Duration,
    /// Handshakes whose keys are computed, at once on a listener; others wait for their turn. Default 256.
    pub handshakes: usize,
    /// Of those, from one address; half of all while no more are under way. Default 64.
    pub handshakes_per_address: usize,
    /// The time of a handshake from the server's first answer on. A twentieth while others wait for its place, a hundredth
    /// when they are many. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bytes read from the peer during a handshake. Default 64 KiB.
    pub handshake_bytes: usize,
    /// A dial's time: name, TCP, TLS and the peer's first HTTP/2 frame. Default 5 s.
    pub connect: Duration,
    /// From the end of the handshake to the first request. Default 30 s.
    pub first_request: Duration,
    /// Without a call under way. Default 15 min.
    pub idle: Duration,
    /// HTTP/2 pings to a peer that says nothing. Default 10 s.
    pub keepalive_interval: Duration,
    /// How long such a ping may stay unanswered; also TCP_USER_TIMEOUT. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Calls under way at once on one connection; a channel whose connection is full makes another, up to eight. At an edge
    /// also the calls that a client may take back at once, and each second. Default 1,000. In the mesh each may hold 1 MiB
    /// that is not read.
    pub streams: u32,
    /// Calls of a channel that wait for a connection, or for a place on one; each holds its request. More are refused with
    /// RESOURCE_EXHAUSTED. Default 4,096.
    pub max_pending: usize,
    /// How long running calls may go on once a connection drains. Default 30 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_open: 1_024,
            hello_timeout: Duration::from_secs(10),
            handshakes: 256,
            handshakes_per_address: 64,
            handshake_timeout: Duration::from_secs(10),
            handshake_bytes: 64 * 1024,
            connect: Duration::from_secs(5),
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(15 * 60),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            streams: 1_000,
            max_pending: 4_096,
            drain: Duration::from_secs(30),
        }
    }
}

/// The whole of what a process tells the mesh about itself.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Default `mesh.internal`.
    pub trust_domain: TrustDomain,
    /// What this process is.
    pub role: Role,
    /// Which one it is.
    pub node: NodeId,
    /// Encrypted, or not at all.
    pub security: Security,
    /// How files are followed.
    pub reload: Reload,
    /// Bounds on peers.
    pub limits: Limits,
    /// policy.yaml, followed like the material. Default: the policy given in code.
    pub policy: Option<PathBuf>,
    /// The file by which an operator forces a set that is held back for the sake of peers: it holds the hash that the status
    /// tells, and is removed when it is used, so its folder must be ours to write. Default: `reload-force` beside the
    /// certificate.
    pub force: Option<PathBuf>,
    /// The folder in which this process keeps which CRLs and distrust entries are in force, so that a restart refuses what it
    /// refused before, whatever the files say by then. Two processes must not share it. It is made, 0700, when a list is
    /// first read; without a list nothing is written. Default `None`: not kept, and each start begins with what the files say.
    pub state: Option<PathBuf>,
}

impl MeshConfig {
    /// A node with a leaf of its own in `mesh.internal`, mutual TLS on every link, and the defaults for all else.
    #[must_use]
    pub fn new(role: Role, node: NodeId, files: Files) -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            role,
            node,
            security: Security::Tls { files, shared_name: None },
            reload: Reload::default(),
            limits: Limits::default(),
            policy: None,
            force: None,
            state: None,
        }
    }
}

/// Encrypted, or not at all. There is nothing between that a failure could fall into.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Security {
    /// Mutual TLS 1.3 on every link.
    Tls {
        /// Where the material is.
        files: Files,
        /// The name that all nodes' one leaf bears. `None`: read it from the leaf (see `Layout`).
        shared_name: Option<String>,
    },
    /// No TLS. For a cluster whose `internaltlsEnabled` is false; every peer is `plaintext`.
    Plaintext,
}

/// What the edge asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeMode {
    /// tlsMode 0: no TLS.
    Off,
    /// tlsMode 1: the server shows a certificate.
    OneWay,
    /// tlsMode 2: the client must show one too.
    TwoWay,
}

/// The lowest protocol version an edge accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The external listener.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// tlsMode.
    pub mode: EdgeMode,
    /// Required unless the mode is [`EdgeMode::Off`].
    pub files: Option<Files>,
    /// Default: 1.2 in one-way mode, 1.3 in two-way mode, as Milvus.
    pub min_version: Option<TlsVersion>,
    /// Refuse a client leaf whose usages do not name clientAuth. Default false: accepted, warned of and counted.
    pub require_client_auth_eku: bool,
    /// How files are followed.
    pub reload: Reload,
    /// Bounds on clients.
    pub limits: Limits,
    /// Where it is kept which CRLs and distrust entries of clients are in force: as [`MeshConfig::state`], and another folder.
    pub state: Option<PathBuf>,
}

/// Where a peer can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Which node is meant; `None` is any node of the role.
    pub node: Option<NodeId>,
}

impl Endpoint {
    /// `host:port`, or `[v6]:port`, of any node.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, node: None }
    }

    /// The same endpoint, meant for one node: its URI SAN is verified before the first request byte.
    #[must_use]
    pub fn of(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::new(address.ip().to_string(), address.port())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
