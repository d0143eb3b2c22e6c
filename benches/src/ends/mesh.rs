//! internaltls.
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use internaltls::{Channel, Endpoint, Mesh, Policy, Threads};

use super::Dialler;
use crate::echo::{Echo, SERVICE};
use crate::material::{End, Folder};

pub(super) async fn serve(
    folder: Option<&Path>,
    threads: Option<Threads>,
    tell: impl FnOnce(SocketAddr),
    over: impl Future<Output = ()>,
) -> Result<()> {
    let mesh = open(folder, End::Server).await?;
    let methods = format!("/{SERVICE}/*");
    let policy = Policy::from_rules([(End::Client.role(), &methods), ("plaintext", &methods)])?;
    let mut server = mesh.server(Echo).policy(policy);
    if let Some(threads) = &threads {
        server = server.threads(threads);
    }
    let server = server.bind(([127, 0, 0, 1], 0).into()).await?;
    tell(server.local_addr());
    Ok(server.serve(over).await?)
}

async fn open(folder: Option<&Path>, end: End) -> Result<Mesh> {
    let files = Folder::of(folder.unwrap_or(Path::new("")), end);
    Ok(Mesh::open(files.mesh(end, folder.is_some())?).await?)
}

/// Dials with a [`Mesh`]: each connection is a channel of its own.
#[derive(Debug)]
pub struct MeshDialler {
    mesh: Mesh,
    address: SocketAddr,
}

impl MeshDialler {
    /// Of `address`; with certificates below `folder`, or without TLS.
    ///
    /// # Errors
    /// When the certificates are not fit.
    pub async fn open(address: SocketAddr, folder: Option<&Path>) -> Result<Self> {
        Ok(Self { mesh: open(folder, End::Client).await?, address })
    }
}

impl Dialler for MeshDialler {
    type Wire = Channel;

    async fn dial(&self) -> Result<Channel> {
        let endpoint = Endpoint::from(self.address).of(End::Server.node().parse()?);
        Ok(self.mesh.channel(End::Server.role().parse()?, endpoint))
    }
}
