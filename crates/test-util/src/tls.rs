//! A TLS client that tells what it was shown.
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::authority::serial_of_der;

const PATIENCE: Duration = Duration::from_secs(5);

/// What a client trusts and shows.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Trust anchors.
    pub ca: PathBuf,
    /// The client's own certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Credentials {
    /// The configuration of a client that offers these protocols; resumes nothing, so that each handshake is a whole one.
    ///
    /// # Panics
    /// When a file cannot be read.
    #[must_use]
    pub fn config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions")
            .with_root_certificates(roots(&self.ca));
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(chain(cert), private_key(key)).expect("the key is of the certificate")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// The serial number of the leaf that `address` serves to a client that verifies it as `localhost`.
///
/// # Errors
/// What went wrong, as a sentence.
pub fn served_serial(address: &str, credentials: &Credentials) -> Result<String, String> {
    handshake(address, credentials).map_err(|e| format!("TLS to {address}: {e}"))
}

fn handshake(address: &str, credentials: &Credentials) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let mut connection = ClientConnection::new(credentials.config(&["h2"]), name).map_err(std::io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    chain.first().map(|leaf| serial_of_der(leaf)).ok_or_else(|| std::io::Error::other("no certificate"))
}

fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for anchor in chain(ca) {
        roots.add(anchor).expect("a CA's certificate");
    }
    roots
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn private_key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
