//! The listeners of a node: internal, health and management.
use std::net::SocketAddr;

use anyhow::Context as _;
use internaltls::{MaterialStatus, Policy, Server};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use crate::status::Source;
use crate::{CatchPanic, HealthService, Node, built_in_policy, http, identity, probes, spawn, status};

/// The internal port, serving in a task of its own.
#[derive(Debug)]
pub struct Internal {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<Result<(), internaltls::ServeError>>,
}

impl Internal {
    /// Waits until it has drained after the shutdown, or its listener broke.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.task.await.context("the internal server stopped")?.context("the internal server stopped")
    }
}

impl Node {
    /// Takes the internal port and serves `routes` there, and mesh.v1.Identity, until the shutdown; then drains.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn serve_internal(&self, routes: Routes) -> anyhow::Result<Internal> {
        let gate = self.health.require("internal listener");
        let routes = routes
            .add_service(identity::WhoAmI::service(self.role.clone(), self.id.clone()))
            .add_service(HealthService::server(self.health.clone(), &[]));
        let server = self.bind(routes, built_in_policy()?, self.internal_listener().socket()).await?;
        let address = server.local_addr();
        self.announce(address);
        gate.open();
        let shutdown = self.shutdown.clone();
        Ok(Internal { address, task: tokio::spawn(server.serve(async move { shutdown.cancelled().await })) })
    }

    async fn bind(&self, routes: Routes, policy: Policy, at: SocketAddr) -> anyhow::Result<Server> {
        let refused = || format!("the internal port of {} cannot be had: choose another with --port", self.id);
        self.mesh
            .server(CatchPanic::new(routes))
            .policy(policy)
            .threads(&self.threads)
            .bind(at)
            .await
            .with_context(refused)
    }

    /// Said once material is loaded and the port is bound, with what was loaded.
    fn announce(&self, address: SocketAddr) {
        match self.mesh.status().material {
            Some(material) => announce_tls(&material, address),
            None => tracing::warn!(
                %address,
                "internal traffic is plaintext: set common.security.internaltlsEnabled to encrypt it"
            ),
        }
    }
}

fn announce_tls(material: &MaterialStatus, address: SocketAddr) {
    let leaf = &material.leaf;
    tracing::info!(
        value = true,
        generation = material.generation,
        leaf = leaf.serial,
        sans = leaf.sans.join(","),
        not_after = rfc3339(leaf.not_after),
        %address,
        "Internal TLS Enabled"
    );
}

fn rfc3339(at: std::time::SystemTime) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(at).format(format).unwrap_or_default()
}

/// Opens the port of probes.
pub(crate) async fn health(node: &Node) -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = http::bind(node.health_address, "health", "--health-port").await?;
    let address = listener.local_addr()?;
    Ok((address, spawn(http::serve(listener, probes::router(node.health.clone())))))
}

/// Opens the port of people: plaintext on loopback, mutual TLS on any other address.
pub(crate) async fn management(node: &Node) -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let source = Source { mesh: node.mesh.clone(), health: node.health.clone(), edge: node.edge.clone() };
    if node.management_address.ip().is_loopback() {
        return management_local(node.management_address, source).await;
    }
    anyhow::ensure!(
        node.settings.internal.enabled,
        "management cannot listen on {}: without internal TLS anyone could read it; set management.address to 127.0.0.1, or common.security.internaltlsEnabled to true",
        node.management_address
    );
    management_remote(node, source).await
}

async fn management_local(at: SocketAddr, source: Source) -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = http::bind(at, "management", "--management-port").await?;
    let address = listener.local_addr()?;
    Ok((address, spawn(http::serve(listener, status::local(source)))))
}

async fn management_remote(node: &Node, source: Source) -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let refused = || "the management port cannot be had: choose another with --management-port";
    let routes = Routes::from(status::remote(source));
    let server = node.mesh.server(routes).fixed_policy(Policy::allow_all()).bind(node.management_address).await;
    let server = server.with_context(refused)?;
    let address = server.local_addr();
    let serve = async move {
        if let Err(error) = server.serve(std::future::pending()).await {
            tracing::error!(error = crate::log::chain(&error), "the management port answers no more");
        }
    };
    Ok((address, spawn(serve)))
}
