//! Parts of the mesh by themselves, for the benchmarks alone.
//!
//! The transport: what our own layers cost is told by a client and a server that have this and nothing else of ours. And the
//! pieces of [`Material`], one by one.
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::SystemClock;
use crate::config::{MeshConfig, Security};
use crate::error::LoadError;
use crate::identity::{Identity, Role, TrustDomain};
use crate::material::{Purpose, Store, trial};
use crate::telemetry::Telemetry;
use crate::verify::CertificateFacts;

/// What lies beneath TLS.
pub fn beneath<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> impl AsyncRead + AsyncWrite + Unpin {
    crate::transport::read_ahead::ReadAhead::new(io)
}

/// What lies between HTTP/2 and TLS. The task that drives HTTP/2 must be counted by `turns`.
pub fn above<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    turns: &Turns,
) -> impl AsyncRead + AsyncWrite + Unpin + use<Io> {
    crate::transport::gathered::Gathered::new(io, turns.0.clone())
}

/// The turns of one connection's task.
#[derive(Debug, Clone, Default)]
pub struct Turns(crate::transport::gathered::Turns);

impl Turns {
    /// The task, counted.
    pub fn count<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.count(task)
    }
}

/// A mesh's material alone: what is done once a file changes or a peer connects.
#[derive(Debug)]
pub struct Material {
    store: Arc<Store>,
    role: Role,
    trust_domain: TrustDomain,
}

impl Material {
    /// Reads, parses and checks the files of `config`, builds every config of TLS, and tries them on one another.
    ///
    /// # Errors
    /// As [`Mesh::open`](crate::Mesh::open).
    pub async fn load(config: &MeshConfig) -> Result<Self, LoadError> {
        let Security::Tls { files, .. } = &config.security else { unreachable!("a benchmark of TLS has TLS") };
        let (role, trust_domain) = (config.role.clone(), config.trust_domain.clone());
        let purpose = Purpose::Mesh {
            trust_domain: trust_domain.clone(),
            role: role.clone(),
            node: config.node.clone(),
            shared_name: None,
        };
        let (clock, telemetry) = (Arc::new(SystemClock), Arc::new(Telemetry::new()));
        let store = Store::open(purpose, files.clone(), None, config.reload, clock, telemetry).await?;
        Ok(Self { store, role, trust_domain })
    }

    /// A full mutual handshake in memory, with ourselves.
    ///
    /// # Errors
    /// As rustls has them.
    pub fn handshake(&self) -> Result<(), rustls::Error> {
        let generation = self.store.current();
        let Some(client) = &generation.client else { unreachable!("a mesh dials") };
        trial::handshake(client, &generation.server, generation.server_name(&self.role)).map(drop)
    }

    /// Who a leaf, DER, says it is.
    ///
    /// # Errors
    /// As a sentence.
    pub fn identity(&self, leaf: &CertificateDer<'_>) -> Result<Identity, String> {
        let facts = CertificateFacts::read(leaf).map_err(|reason| reason.to_string())?;
        Identity::from_names(&self.trust_domain, &facts.dns, &facts.uris).map_err(|error| error.to_string())
    }
}
