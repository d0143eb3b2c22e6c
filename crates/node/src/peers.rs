//! The other nodes: one channel each, and a prober that asks each of them who we are, once a second.
//!
//! 1. Which peers a role needs is decided here: a proxy all others, the coordinator all data-nodes, a data-node the
//!    coordinator.
//! 2. A peer counts as reached when it answers now and names itself as the configuration does.
use std::time::Duration;

use internaltls::config::Endpoint;
use internaltls::identity::{NameError, NodeId, Role};
use internaltls::{Channel, Endpoints, Mesh, foreign};
use rpc::mesh::identity_client::IdentityClient;
use rpc::mesh::{WhoAmIReply, WhoAmIRequest};
use settings::Cluster;
use tonic::Status;

use crate::{Gate, Health};

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Another node, and the channel to it. Clones share the channel's connections.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Which one; `None` where any node of the role will do.
    pub node: Option<NodeId>,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What calls to it go through.
    pub channel: Channel,
}

/// All nodes that this one may call.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    peers: Vec<Peer>,
}

impl Peers {
    /// Makes the channels that `role` needs. Nothing is dialled yet.
    pub(crate) fn of(role: &Role, cluster: &Cluster, mesh: &Mesh) -> Result<Self, NameError> {
        let mut peers = Vec::new();
        if role.as_str() != "coordinator" {
            peers.push(peer(mesh, Role::new("coordinator")?, cluster.coordinator.clone()));
        }
        if role.as_str() != "data-node" {
            let data_node = Role::new("data-node")?;
            peers.extend(cluster.data_nodes.iter().map(|(_, at)| peer(mesh, data_node.clone(), at.clone())));
        }
        Ok(Self { peers })
    }

    /// The channel to the coordinator, where this role may call it.
    #[must_use]
    pub fn coordinator(&self) -> Option<Channel> {
        self.peers.iter().find(|peer| peer.role.as_str() == "coordinator").map(|peer| peer.channel.clone())
    }

    /// The channel to one data-node.
    #[must_use]
    pub fn data_node(&self, id: &str) -> Option<Channel> {
        let is = |peer: &&Peer| peer.node.as_ref().is_some_and(|node| node.as_str() == id);
        self.peers.iter().find(is).map(|peer| peer.channel.clone())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }
}

fn peer(mesh: &Mesh, role: Role, endpoint: Endpoint) -> Peer {
    let channel = mesh.channel(role.clone(), Endpoints::fixed([endpoint.clone()]));
    Peer { role, node: endpoint.node.clone(), endpoint, channel }
}

impl Peer {
    fn name(&self) -> String {
        match &self.node {
            Some(node) => format!("peer {node}"),
            None => format!("peer {}", self.role),
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let mut client = IdentityClient::new(self.channel.clone());
        let answer = tokio::time::timeout(PATIENCE, client.who_am_i(WhoAmIRequest {})).await;
        let late = |_| format!("{} does not answer within {} s", self.endpoint, PATIENCE.as_secs());
        let reply = answer.map_err(late)?.map_err(|status: Status| foreign::sentence(status.message()))?;
        self.fits(&reply.into_inner())
    }

    /// Over mutual TLS the handshake has proven this already; in plaintext nothing else tells two swapped addresses.
    fn fits(&self, reply: &WhoAmIReply) -> Result<(), String> {
        let node = self.node.as_ref().map_or(reply.server_node.as_str(), NodeId::as_str);
        if reply.server_role == self.role.as_str() && reply.server_node == node {
            return Ok(());
        }
        let meant = self.node.as_ref().map_or("any", NodeId::as_str);
        Err(format!(
            "{} answers as {}/{}, but {}/{meant} was meant: correct the cluster list",
            self.endpoint,
            foreign::name(&reply.server_role),
            foreign::name(&reply.server_node),
            self.role
        ))
    }
}

/// Asks every peer for as long as it is not dropped.
pub(crate) async fn probe(peers: Peers, health: Health) {
    let probes = peers.peers.into_iter().map(|peer| follow(health.require(peer.name()), peer));
    futures_util::future::join_all(probes).await;
}

async fn follow(gate: Gate, peer: Peer) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let now = peer.ask().await;
        if before.as_ref() != Some(&now) {
            tell(&peer, &now);
        }
        gate.set(now.clone());
        before = Some(now);
    }
}

/// One line a change, not one a second.
fn tell(peer: &Peer, now: &Result<(), String>) {
    let (name, endpoint) = (peer.name(), &peer.endpoint);
    match now {
        Ok(()) => tracing::info!(%endpoint, "{name} answers"),
        Err(reason) => tracing::warn!(%endpoint, reason, "{name} cannot be reached"),
    }
}
