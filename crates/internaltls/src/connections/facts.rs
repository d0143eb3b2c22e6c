//! What is known of a connection, and how it is told: to services as [`PeerInfo`], to people as [`ConnectionStatus`].
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::ending::Making;
use crate::foreign;
use crate::identity::Identity;
use crate::verify::KeyHash;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What a TLS handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) cipher_suite: &'static str,
    pub(crate) kx_group: String,
    pub(crate) sni: Option<String>,
    pub(crate) resumed: bool,
}

impl TlsFacts {
    /// Reads the facts of a handshake that is over.
    pub(crate) fn of(state: &rustls::CommonState, sni: Option<&str>) -> Self {
        Self {
            version: version(state.protocol_version()),
            cipher_suite: state.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown"),
            kx_group: state.negotiated_key_exchange_group().map_or_else(String::new, |g| format!("{:?}", g.name())),
            sni: sni.map(foreign::name),
            resumed: state.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

/// What is known of a connection once its handshake is over; never changes.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionFacts {
    pub(crate) direction: Direction,
    /// `tcp` or `quic`.
    pub(crate) transport: &'static str,
    /// Our end as `role/node`.
    pub(crate) local: String,
    /// The peer's end as `role/node`; see [`end_of`].
    pub(crate) remote: String,
    pub(crate) peer: Identity,
    pub(crate) peer_addr: SocketAddr,
    /// Lower hex; `None` when the peer showed no certificate.
    pub(crate) peer_serial: Option<String>,
    /// SPKI SHA-256 of the peer's leaf; `None` when it showed none.
    pub(crate) peer_key: Option<KeyHash>,
    /// Serial of the leaf that we showed; `None` without TLS.
    pub(crate) own_serial: Option<String>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsFacts>,
    /// Number of the generation the handshake was done under; 0 without TLS.
    pub(crate) generation: u64,
    pub(crate) since: SystemTime,
    /// The smallest `notAfter` of the peer's verified path.
    pub(crate) not_after: Option<SystemTime>,
}

impl ConnectionFacts {
    pub(super) fn making(&self) -> Making {
        Making { generation: self.generation, peer_serial: self.peer_serial.clone() }
    }

    /// Names the two nodes and who dialled. Who has no node's name is known by its address.
    pub(super) fn pair(&self) -> String {
        let direction = self.direction.label();
        match &self.peer {
            Identity::Node { .. } => format!("{direction} {}", self.remote),
            _ => format!("{direction} {} {}", self.remote, self.peer_addr.ip()),
        }
    }
}

/// How an identity is shown at one end of a connection: `role/node`, an edge client's name, `shared`, `anonymous` or `plaintext`.
pub(crate) fn end_of(identity: &Identity) -> String {
    match identity {
        Identity::Node { role, node, .. } => format!("{role}/{node}"),
        Identity::Client { name } => name.to_string(),
        other => other.to_string(),
    }
}

/// One connection as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The dialling end, `role/node`.
    pub from: String,
    /// The accepting end, `role/node`.
    pub to: String,
    /// Which of the two is us.
    pub direction: Direction,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// `TLSv1.3`; null without TLS.
    pub tls_version: Option<&'static str>,
    /// Such as `TLS13_AES_256_GCM_SHA384`; null without TLS.
    pub cipher_suite: Option<&'static str>,
    /// Such as `X25519MLKEM768`; null without TLS.
    pub kx_group: Option<String>,
    /// The server name that the dialler asked for; null without TLS, or where none was sent.
    pub sni: Option<String>,
    /// The peer's identity, such as `spiffe://mesh.internal/proxy/proxy-1`.
    pub peer: String,
    /// The peer's leaf, lower hex.
    pub peer_serial: Option<String>,
    /// Our leaf, lower hex.
    pub own_serial: Option<String>,
    /// The generation of ours that the handshake was done under; 0 without TLS.
    pub generation: u64,
    /// When the handshake ended, RFC 3339 in UTC.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Why it takes no new calls; null while it does.
    pub ending: Option<&'static str>,
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let at = time::OffsetDateTime::from(*at);
    time::serde::rfc3339::serialize(&at, serializer)
}

impl From<&ConnectionFacts> for ConnectionStatus {
    fn from(facts: &ConnectionFacts) -> Self {
        let (from, to) = match facts.direction {
            Direction::Inbound => (&facts.remote, &facts.local),
            Direction::Outbound => (&facts.local, &facts.remote),
        };
        let tls = facts.tls.as_ref();
        Self {
            from: from.clone(),
            to: to.clone(),
            direction: facts.direction,
            transport: facts.transport,
            tls_version: tls.map(|t| t.version),
            cipher_suite: tls.map(|t| t.cipher_suite),
            kx_group: tls.map(|t| t.kx_group.clone()),
            sni: tls.and_then(|t| t.sni.clone()),
            peer: facts.peer.to_string(),
            peer_serial: facts.peer_serial.clone(),
            own_serial: facts.own_serial.clone(),
            generation: facts.generation,
            since: facts.since,
            ending: None,
        }
    }
}

/// Who is calling, in the extensions of every request. Cheap to clone; keeps no connection alive.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    id: u64,
    facts: Arc<ConnectionFacts>,
}

impl PeerInfo {
    pub(super) fn new(id: u64, facts: Arc<ConnectionFacts>) -> Self {
        Self { id, facts }
    }

    /// Who the peer's certificate proves it to be.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.facts.peer
    }

    /// The peer's name: `role/node` in the mesh, the first name of a client's leaf at an edge.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.remote
    }

    /// Serial number of the peer's leaf in lower hex; `None` when it showed none.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.facts.peer_serial.as_deref()
    }

    /// `TLSv1.3` or `TLSv1.2`; `None` without TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        self.facts.tls.as_ref().map(|t| t.version)
    }

    /// Such as `TLS13_AES_256_GCM_SHA384`; `None` without TLS.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.facts.tls.as_ref().map(|t| t.cipher_suite)
    }

    /// Such as `X25519MLKEM768`; `None` without TLS.
    #[must_use]
    pub fn kx_group(&self) -> Option<&str> {
        self.facts.tls.as_ref().map(|t| t.kx_group.as_str())
    }

    /// The server name that the peer asked for.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        self.facts.tls.as_ref().and_then(|t| t.sni.as_deref())
    }

    /// The generation of ours that the handshake was done under; 0 without TLS.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.facts.generation
    }

    /// Unique within this process's registry.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.id
    }

    /// Where the peer's end of the connection is.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.facts.peer_addr
    }
}
