//! tonic as it comes.
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Server, ServerTlsConfig};

use super::Dialler;
use crate::echo::Echo;
use crate::material::{End, Folder};

pub(super) async fn serve(
    folder: Option<&Path>,
    tell: impl FnOnce(SocketAddr),
    over: impl Future<Output = ()>,
) -> Result<()> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    tell(incoming.local_addr()?);
    let mut server = Server::builder();
    if let Some(folder) = folder {
        let (identity, ca) = Folder::of(folder, End::Server).tonic()?;
        server = server.tls_config(ServerTlsConfig::new().identity(identity).client_ca_root(ca))?;
    }
    Ok(server.add_service(Echo).serve_with_incoming_shutdown(incoming, over).await?)
}

/// Dials with `tonic::transport`.
#[derive(Debug)]
pub struct StockDialler(Endpoint);

impl StockDialler {
    /// Of `address`; with certificates below `folder`, or without TLS.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub fn new(address: SocketAddr, folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self(Endpoint::from_shared(format!("http://{address}"))?)) };
        let (identity, ca) = Folder::of(folder, End::Client).tonic()?;
        let tls = ClientTlsConfig::new().identity(identity).ca_certificate(ca).domain_name(End::Server.name());
        Ok(Self(Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?))
    }
}

impl Dialler for StockDialler {
    type Wire = Channel;

    async fn dial(&self) -> Result<Channel> {
        Ok(self.0.connect().await?)
    }
}
