//! What each process tells on its management port: in plaintext on loopback, over mutual TLS anywhere else.
//!
//! A guarded port lets in the operator alone, by the leaf that `certs init` makes for it, and is itself held to the name of the
//! node that it belongs to.
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use internaltls::{Files, Mesh, MeshConfig, NodeId, Role};
use tonic::body::Body;
use tower_service::Service;

use crate::certs::authority::Facts;
use crate::cluster::{Cluster, Process};
use crate::http;
use crate::verify::credentials::{Naming, naming};

/// The folder of the operator's leaf, within `certs`.
const FOLDER: &str = "mesh/operator-1";
const DEADLINE: Duration = Duration::from_secs(3);

/// One who asks processes.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    /// `None` where all ports are on loopback.
    mesh: Option<Mesh>,
}

impl Operator {
    /// Of this cluster. The leaf is loaded only where a port is guarded.
    ///
    /// # Errors
    /// When one is, and the operator's leaf cannot be used.
    pub(crate) async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        if cluster.processes.iter().all(|process| is_local(&process.management)) {
            return Ok(Self { mesh: None });
        }
        let certs = cluster.certs.as_deref().context("cluster.json names no folder `certs` with an operator's leaf")?;
        let mesh = open(&certs.join(FOLDER)).await.with_context(|| {
            format!(
                "management ports of this cluster are guarded, and {} cannot open them",
                certs.join(FOLDER).display()
            )
        })?;
        Ok(Self { mesh: Some(mesh) })
    }

    /// Status and body of `path` at the management port of `process`.
    pub(crate) async fn get(&self, process: &Process, path: &str) -> anyhow::Result<(u16, Bytes)> {
        match &self.mesh {
            Some(mesh) if !is_local(&process.management) => guarded(mesh, process, path).await,
            _ => http::get(&process.management, path).await,
        }
    }
}

async fn open(folder: &Path) -> anyhow::Result<Mesh> {
    let leaf = folder.join("server.pem");
    let names = Facts::of_file(&leaf)?.request.sans;
    let Naming::ByRole { trust_domain } = naming(&names)? else {
        anyhow::bail!("{} bears no name of an operator; make one with `meshctl certs init`", leaf.display());
    };
    let files = Files::new(&leaf, folder.join("server.key"), folder.join("ca.pem"));
    let mut config = MeshConfig::new(Role::new("operator")?, NodeId::new("operator-1")?, files);
    config.trust_domain = trust_domain.parse()?;
    Ok(Mesh::open(config).await?)
}

async fn guarded(mesh: &Mesh, process: &Process, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let address = &process.management;
    tokio::time::timeout(DEADLINE, exchange(mesh, process, path))
        .await
        .with_context(|| format!("https://{address}{path} did not answer within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("https://{address}{path} did not answer"))
}

async fn exchange(mesh: &Mesh, process: &Process, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let endpoint = settings::endpoint(&process.management).map_err(anyhow::Error::msg)?;
    let mut channel = mesh.channel(Role::new(&process.role)?, endpoint.of(NodeId::new(&process.node)?));
    let request = ::http::Request::get(path).body(Body::empty())?;
    let response = channel.call(request).await?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), http::MAX_BODY)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)?
        .to_bytes();
    Ok((code, body))
}

/// Whether `host:port` is this host, by the address or by its only name that is never anything else.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_asked_in_plaintext() {
        assert!(["127.0.0.1:9092", "localhost:9092", "[::1]:9092", "127.9.9.9:1"].into_iter().all(is_local));
        assert!(
            !["proxy-1:9092", "10.0.0.7:9092", "localhost.evil.example:1", "[fe80::1]:9"].into_iter().any(is_local)
        );
    }
}
