//! TLS as an attacker speaks it: a client or a server that shows whatever chain it is given and looks at nothing.
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    StreamOwned,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// The preface of HTTP/2 and an empty SETTINGS frame: whoever is let in is answered with SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// How long the other side may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one shows: a chain, leaf first, and the leaf's key.
#[derive(Debug, Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// This chain. The key is of its leaf, or the other side finds out.
    ///
    /// # Panics
    /// When it is no key.
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Self {
        let key = aws_lc_rs::sign::any_supported_type(key).expect("a private key");
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }

    /// The chain and the key of two PEM texts.
    ///
    /// # Panics
    /// When they hold none.
    #[must_use]
    pub fn of_pem(chain: &str, key: &str) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a PEM text with a private key");
        Self::new(chain.expect("a PEM text with certificates"), &key)
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.cert.clone()
    }
}

/// Shows it, whatever the other side asks for.
#[derive(Debug)]
struct Shows(Identity);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0))
    }
}

/// Accepts anybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl Anybody {
    fn new() -> Arc<Self> {
        Arc::new(Self(Arc::new(aws_lc_rs::default_provider())))
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's configuration: shows `identity`, accepts any server, speaks HTTP/2 in TLS 1.3.
///
/// # Panics
/// Never: the provider has TLS 1.3.
#[must_use]
pub fn client(identity: &Identity) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3");
    let builder = builder.dangerous().with_custom_certificate_verifier(Anybody::new());
    let mut config = builder.with_client_cert_resolver(Arc::new(Shows(identity.clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A server's configuration: shows `identity`, asks for a certificate and accepts any, speaks HTTP/2 in TLS 1.3.
///
/// # Panics
/// Never: the provider has TLS 1.3.
#[must_use]
pub fn server(identity: &Identity) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3");
    let mut config =
        builder.with_client_cert_verifier(Anybody::new()).with_cert_resolver(Arc::new(Shows(identity.clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A connection on which the other side spoke HTTP/2: it let us in.
#[derive(Debug)]
pub struct Served(StreamOwned<ClientConnection, TcpStream>);

impl Served {
    /// Whether the other side has closed it. Reads what there is to read.
    #[must_use]
    pub fn is_cut(&mut self) -> bool {
        let _ = self.0.sock.set_read_timeout(Some(Duration::from_millis(5)));
        let mut some = [0; 4096];
        loop {
            match self.0.read(&mut some) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                }
            }
        }
    }
}

/// Goes to `address`, asks for the server name `sni`, and says what HTTP/2 begins with.
///
/// # Errors
/// Why there was no answer: we were refused, most likely.
pub fn call(address: &str, sni: &str, config: &Arc<ClientConfig>) -> Result<Served, String> {
    within(address, sni, config, PATIENCE).map_err(|e| format!("{address} as {sni}: {e}"))
}

/// [`call`] by one with little time.
///
/// # Errors
/// As [`call`].
pub fn call_within(address: &str, sni: &str, config: &Arc<ClientConfig>, patience: Duration) -> Result<Served, String> {
    within(address, sni, config, patience).map_err(|e| format!("{address} as {sni}: {e}"))
}

fn within(address: &str, sni: &str, config: &Arc<ClientConfig>, patience: Duration) -> std::io::Result<Served> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(sni.to_owned()).map_err(std::io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(HELLO)?;
    stream.flush()?;
    let mut first = [0; 1];
    stream.read_exact(&mut first)?;
    Ok(Served(stream))
}

/// What a rogue node answers to a call: its gRPC status and message, and the message's bytes where there are any.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// 0 is OK.
    pub status: u8,
    /// `grpc-message`, as it travels.
    pub message: String,
    /// The answer, as protobuf.
    pub body: Option<Vec<u8>>,
}

/// A node that shows a chain, takes any peer, and answers each call by its path.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Node {
    /// On a free port.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn start(identity: &Identity, answer: fn(&str) -> Reply) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        runtime.spawn(accept(listener, TlsAcceptor::from(server(identity)), answer, Arc::clone(&asked)));
        Self { address, asked, _runtime: runtime }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The paths of all calls so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, answer: fn(&str) -> Reply, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, asked) = (tls.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(socket).await else { return };
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                let path = request.uri().path().to_owned();
                asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
                std::future::ready(Ok::<_, Infallible>(respond(answer(&path))))
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn respond(Reply { status, message, body }: Reply) -> http::Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", u16::from(status).into());
    trailers.insert("grpc-message", message.parse().expect("a header's value"));
    // gRPC frames a message by a byte and its length.
    let framed = body.map(|body| {
        let length = u32::try_from(body.len()).expect("a small message");
        [&[0][..], &length.to_be_bytes(), &body].concat()
    });
    let body = Full::from(framed.unwrap_or_default()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = http::Response::new(body.boxed());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}
