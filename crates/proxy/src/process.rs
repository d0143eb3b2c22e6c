//! The proxy as a process: its listeners, from the first bound to the last drained.
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use internaltls::edge::{EdgeListener, EdgeListeners};
use internaltls::{Channel, Edge};
use node::{Node, NodeArgs};
use tonic::service::Routes;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::{Cluster, Users, Wire, routers};

/// The proxy's command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// What every role has.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The port of clients: gRPC, and REST too; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    pub edge_port: Option<u16>,
    /// A port for REST alone; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
}

impl Args {
    fn lay_over(&self, node: &mut Node) {
        let proxy = &mut Arc::make_mut(&mut node.settings).proxy;
        proxy.port = self.edge_port.unwrap_or(proxy.port);
        proxy.http_port = self.http_port.or(proxy.http_port);
    }
}

/// Runs a proxy until it ends or a signal ends it.
pub fn main_with(args: Args) -> ExitCode {
    node::main("proxy", &args.node, async |mut node| {
        args.lay_over(&mut node);
        run(node).await
    })
}

/// Serves the edge and the internal port until the node's shutdown, then drains both.
///
/// # Errors
/// A port cannot be had, or a listener breaks.
pub async fn run(node: Node) -> anyhow::Result<()> {
    let gate = node.health.require("edge");
    let edge = node.edge.clone().context("a proxy needs an external listener, and none was opened")?;
    let listeners = bind(&edge, &node)?;
    let internal = node.serve_internal(Routes::default()).await?;
    let (grpc, rest) = routers(cluster(&node)?, &users(&node), node.health.clone());
    let rest = if node.settings.proxy.http_enabled { rest } else { Router::new() };
    gate.open();
    edge.serve(listeners, grpc, rest, node.shutdown.cancelled()).await.context("the proxy's edge stopped")?;
    internal.finished().await
}

fn bind(edge: &Edge, node: &Node) -> anyhow::Result<EdgeListeners> {
    let proxy = &node.settings.proxy;
    let what = if proxy.http_enabled { "gRPC and REST" } else { "gRPC" };
    let both = listen(edge, SocketAddr::new(proxy.address, proxy.port), what, "proxy.port")?;
    let rest = proxy.http_port.filter(|_| proxy.http_enabled);
    let rest = rest.map(|port| listen(edge, SocketAddr::new(proxy.address, port), "REST", "proxy.http.port"));
    Ok(EdgeListeners { both, rest: rest.transpose()? })
}

fn listen(edge: &Edge, at: SocketAddr, what: &str, key: &str) -> anyhow::Result<EdgeListener> {
    let listener =
        edge.bind(at).with_context(|| format!("the port of {what} cannot be had: set {key} to a free one"))?;
    tracing::info!(address = %listener.local_addr(), mode = ?edge.mode(), "{what} at the edge");
    Ok(listener)
}

fn cluster(node: &Node) -> anyhow::Result<Cluster> {
    let coordinator = node.peers.coordinator().context("a proxy needs a coordinator: set cluster.coordinator")?;
    let named = node.peers.iter().filter(|peer| peer.role.as_str() == "data-node");
    let named = named.filter_map(|peer| Some((peer.node.as_ref()?.to_string(), wire(peer.channel.clone()))));
    Ok(Cluster::new(wire(coordinator), named))
}

fn wire(channel: Channel) -> Wire {
    BoxCloneSyncService::new(channel.map_response(|reply| reply.map(tonic::body::Body::new)))
}

fn users(node: &Node) -> Users {
    let users = &node.settings.users;
    if users.authorization_enabled { Users::Root(users.default_root_password.reveal().to_owned()) } else { Users::Open }
}
