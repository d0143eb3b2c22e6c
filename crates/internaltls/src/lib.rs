//! An in-process mutual-TLS mesh for the components of a distributed system.
//!
//! 1. A process names its certificate files once, in a [`MeshConfig`]. From then on every listener and every dialer that
//!    its [`Mesh`] makes uses them, and follows every change on disk without a restart and without a failed call.
//! 2. It fails closed. Without fit material [`Mesh::open`] is an error that names file, field and remedy, and nothing
//!    listens or dials; a client that speaks TLS never falls back.
//! 3. One checked set of material is a generation. Leaf, key, CAs, CRLs and distrust list are published together; a
//!    handshake sees one generation, and a new one drains the connections of the old.
//! 4. A peer is who its leaf says, byte by byte: role and node. [`PeerInfo`] stands in the extensions of every request,
//!    and of every response of a [`Channel`].
//! 5. A [`Policy`] is asked for every call. A server without one does not build.
//!
//! ```no_run
//! use internaltls::{Endpoint, Files, Mesh, MeshConfig, NodeId, Policy, Role};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Each node's leaf bears the DNS SAN `proxy.mesh.internal` and the URI SAN `spiffe://mesh.internal/proxy/proxy-1`.
//! let files = Files::new("certs/server.pem", "certs/server.key", "certs/ca.pem");
//! let mesh = Mesh::open(MeshConfig::new(Role::new("proxy")?, NodeId::new("proxy-1")?, files)).await?;
//!
//! // Serve: tonic's `Routes`, a generated server, or any other service of HTTP requests.
//! let routes = tonic::service::Routes::default();
//! let policy = Policy::from_rules([("coordinator", "/my.v1.Proxy/*")])?;
//! let server = mesh.server(routes).policy(policy).bind("0.0.0.0:19529".parse()?).await?;
//! let serving = tokio::spawn(server.serve(async { tokio::signal::ctrl_c().await.unwrap_or(()) }));
//!
//! // Call: a role, or one node of it. Give the channel to any tonic client: `MyClient::new(channel)`.
//! let endpoint = Endpoint::new("10.0.0.7", 21124).of(NodeId::new("data-node-1")?);
//! let channel = mesh.channel(Role::new("data-node")?, endpoint);
//! # drop(channel);
//! serving.await??;
//! # Ok(())
//! # }
//! ```
//! `examples/echo_server.rs` and `examples/echo_client.rs` are a whole pair to copy. The [`manual`] has the threat model,
//! what happens when certificates rotate, and a table of failures with what to do.
//!
//! The parts: `material` reads, checks and publishes generations; `verify` judges peers; [`server`] and [`edge`] accept;
//! `client` dials; [`connections`] knows every live connection, `ending` says who of them must go; [`policy`], [`identity`], [`clock`] and [`config`] are
//! pure; [`telemetry`] counts.
#![warn(missing_docs)]

mod aside;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod client;
pub mod clock;
pub mod config;
pub mod connections;
pub mod edge;
mod ending;
pub mod error;
pub mod foreign;
pub mod identity;
pub mod manual;
mod material;
mod mesh;
pub mod policy;
mod question;
pub mod server;
pub mod telemetry;
mod ticker;
mod transport;
mod verify;
#[doc(hidden)]
pub mod yaml;

pub use client::{Channel, ChannelError, DialError, Endpoints, ProbeError, ResponseBody};
pub use config::{EdgeConfig, EdgeMode, Endpoint, Files, Limits, MeshConfig, Reload, Security, TlsVersion};
pub use connections::{ConnectionStatus, PeerInfo, Registry};
pub use edge::Edge;
pub use error::LoadError;
pub use identity::{Identity, NodeId, Role, TrustDomain};
pub use material::{
    CaStatus, CrlStatus, HeldStatus, Layout, LeafStatus, ListsStatus, LookStatus, MaterialStatus, ReloadStatus,
    SharedKeyStatus, WatchState, WatchStatus,
};
pub use material::{inspect, trusted};
pub use mesh::{Mesh, MeshStatus, OpenError};
pub use policy::Policy;
pub use server::{BindError, PolicedServer, ServeError, Server, ServerBuilder, Threads};
pub use telemetry::Telemetry;
