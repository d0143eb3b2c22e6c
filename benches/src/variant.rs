//! What is compared.
use serde::{Deserialize, Serialize};

use crate::sidecar;

/// One way to get a call from a client to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Stock tonic, plaintext, on tokio's default runtime: what all else is compared with
    Tonic,
    /// The same again: how far it lies from the first is the noise
    TonicAgain,
    /// Stock tonic with its own TLS, both sides with a certificate
    TonicTls,
    /// internaltls without TLS, on its own runtime: what of a gain is not TLS
    Plain,
    /// internaltls, mutual TLS, on its own runtime
    Mesh,
    /// internaltls, mutual TLS, on tokio's default runtime
    MeshShared,
    /// internaltls, mutual TLS, a server thread for each core, and bulk on a channel of its own
    MeshLanes,
    /// rustls, hyper and tonic put together by hand, mutual TLS, on our kind of runtime, none of our layers
    Bare,
    /// The same again: the noise of what is compared with it
    BareAgain,
    /// Bare without the post-quantum group
    BareClassic,
    /// Bare with sessions resumed, which internaltls refuses to do: what that costs
    BareResumed,
    /// Stock tonic, plaintext, through a pair of Envoys with mutual TLS between them
    Envoy,
    /// The same through a pair of HAProxies
    Haproxy,
    /// The same through a pair of nginxes
    Nginx,
    /// Our cluster: proxy, coordinator, two data-nodes, mutual TLS on every internal hop
    Cluster,
    /// The real Milvus 2.3.5, as one process
    Milvus,
    /// The user's own cluster, named by --against
    Against,
}

use Variant::{
    Bare, BareAgain, BareClassic, BareResumed, Cluster, Envoy, Haproxy, Mesh, MeshLanes, MeshShared, Milvus, Nginx,
    Plain, Tonic, TonicAgain, TonicTls,
};

/// Where calls are counted.
pub const CALLS: &[Variant] = &[Tonic, TonicAgain, TonicTls, Plain, Mesh, MeshShared, Bare, Envoy, Haproxy, Nginx];
/// Where handshakes are.
pub const DIALS: &[Variant] = &[Bare, BareAgain, BareClassic, BareResumed, Mesh];
/// Where one call waits for another.
pub const BESIDE: &[Variant] = &[Tonic, TonicAgain, TonicTls, Mesh, MeshLanes];
/// Where material changes.
pub const ROTATION: &[Variant] = &[Mesh];
/// Where nothing happens.
pub const IDLE: &[Variant] = &[Tonic, TonicTls, Plain, Mesh];
/// Where a whole database is asked.
pub const END_TO_END: &[Variant] = &[Cluster, Milvus];
/// What `--quick` compares.
pub const QUICK: &[Variant] = &[Tonic, TonicAgain, Mesh];

impl Variant {
    /// As the command line and the results name it.
    #[must_use]
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is, in a sentence.
    #[must_use]
    pub fn about(self) -> String {
        use clap::ValueEnum;
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    /// What the client and the server of it are: sidecars stand between stock ones.
    #[must_use]
    pub fn ends(self) -> Self {
        match self {
            TonicAgain | Envoy | Haproxy | Nginx => Tonic,
            BareAgain => Bare,
            other => other,
        }
    }

    /// The proxies between its ends.
    #[must_use]
    pub fn sidecar(self) -> Option<sidecar::Kind> {
        match self {
            Envoy => Some(sidecar::Kind::Envoy),
            Haproxy => Some(sidecar::Kind::Haproxy),
            Nginx => Some(sidecar::Kind::Nginx),
            _ => None,
        }
    }

    /// The variant that the others of its scenario are compared with, and the same once more.
    #[must_use]
    pub fn controls(variants: &[Self]) -> Option<(Self, Self)> {
        [(Tonic, TonicAgain), (Bare, BareAgain)].into_iter().find(|(a, b)| variants.contains(a) && variants.contains(b))
    }
}
