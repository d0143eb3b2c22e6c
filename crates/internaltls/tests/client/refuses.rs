//! A server that is not who was meant gets no byte of a request, and the error says why.
use std::error::Error;
use std::sync::Arc;

use internaltls::{Channel, ChannelError, DialError, Endpoint};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

use super::bench::{Echo, call, mesh, mesh_with};
use super::pki::{Authority, Node};
use super::scripted::listen;

async fn channel_of(ca: &Authority, endpoint: Endpoint) -> Channel {
    mesh(&ca.node("proxy", "proxy-1")).await.channel("data-node".parse().unwrap(), endpoint)
}

fn reason_of(status: &Status) -> &DialError {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    match status.source().and_then(|source| source.downcast_ref()) {
        Some(ChannelError::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A bare TLS server with the node's leaf, of that ALPN. Its result is every byte that a client sent after the handshake.
fn listens(listener: TcpListener, node: &Node, alpn: &'static [u8]) -> tokio::task::JoinHandle<Vec<u8>> {
    let files = node.files();
    let chain = CertificateDer::pem_file_iter(files.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        if let Ok(mut tls) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let _ = tls.read_to_end(&mut heard).await;
        }
        heard
    })
}

#[tokio::test]
async fn another_node_of_the_role_gets_no_byte() {
    let ca = Authority::new();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap()).of("data-node-1".parse().unwrap());
    let heard = listens(listener, &ca.node("data-node", "data-node-2"), b"h2");
    let status = call(&channel_of(&ca, endpoint.clone()).await, "").await.unwrap_err();
    assert_eq!(reason_of(&status).label(), "node-mismatch");
    let message = status.message();
    assert!(
        message.starts_with(&format!("cannot reach data-node at {endpoint}: the peer's certificate (")),
        "{message}"
    );
    assert!(message.contains("data-node/data-node-2"), "names who answered: {message}");
    assert!(message.ends_with("it is not of node `data-node-1`"), "{message}");
    assert_eq!(heard.await.unwrap(), b"");
}

#[tokio::test]
async fn the_node_that_is_meant_is_served() {
    let ca = Authority::new();
    let node = ca.node("data-node", "data-node-1");
    let echo = Echo::start(mesh(&node).await).await;
    call(&channel_of(&ca, Endpoint::from(echo.address).of(node.id)).await, "").await.unwrap();
}

#[tokio::test]
async fn another_role_gets_no_byte() {
    let ca = Authority::new();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let heard = listens(listener, &ca.node("coordinator", "coordinator-1"), b"h2");
    let status = call(&channel_of(&ca, endpoint).await, "").await.unwrap_err();
    assert_eq!(reason_of(&status).label(), "name-mismatch");
    assert!(status.message().contains("coordinator.mesh.internal"), "{status}");
    assert_eq!(heard.await.unwrap(), b"");
}

#[tokio::test]
async fn servers_of_a_foreign_ca_get_no_byte() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let heard = listens(listener, &foreign.node("data-node", "data-node-1"), b"h2");
    let status = call(&channel_of(&ca, endpoint).await, "").await.unwrap_err();
    assert_eq!(reason_of(&status).label(), "unknown-issuer");
    assert_eq!(heard.await.unwrap(), b"");
}

#[tokio::test]
async fn servers_without_http2_get_no_byte() {
    let ca = Authority::new();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let heard = listens(listener, &ca.node("data-node", "data-node-1"), b"http/1.1");
    let status = call(&channel_of(&ca, endpoint).await, "").await.unwrap_err();
    let label = reason_of(&status).label();
    assert!(["alpn", "refused-us"].contains(&label), "{status}");
    assert_eq!(heard.await.unwrap(), b"");
}

/// Whatever a plaintext server says, all it ever gets is a ClientHello.
#[tokio::test]
async fn plaintext_servers_get_a_client_hello_at_most() {
    const SETTINGS_FRAME: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const TLS_HANDSHAKE: u8 = 22;
    let ca = Authority::new();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut firsts = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(SETTINGS_FRAME).await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            firsts.push(heard[0]);
            let preface = heard.windows(3).any(|bytes| bytes == b"PRI");
            assert!(!preface, "HTTP/2 in plaintext");
        }
        firsts
    });
    let dialling = mesh(&ca.node("proxy", "proxy-1")).await;
    for _ in 0..3 {
        let channel = dialling.channel("data-node".parse().unwrap(), endpoint.clone());
        let status = call(&channel, "").await.unwrap_err();
        assert_eq!(reason_of(&status).label(), "not-tls", "{status}");
        assert!(status.message().contains("the peer does not speak TLS"), "{status}");
    }
    assert_eq!(server.await.unwrap(), [TLS_HANDSHAKE; 3]);
}

/// In TLS 1.3 a client is done before the server has judged it; a dial is not, so no call breaks of that.
#[tokio::test]
async fn servers_that_refuse_us_are_unreachable() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let echo = Echo::start(mesh(&ca.node("data-node", "data-node-1")).await).await;
    // A client whose leaf is of the foreign CA but that trusts ours.
    let node = foreign.node("proxy", "proxy-1");
    let trusting = foreign.folder.path().join("both.pem");
    let bundle = [foreign.pem(), ca.pem()].concat();
    std::fs::write(&trusting, bundle).unwrap();
    let mut files = node.files();
    files.ca = Some(trusting);
    let mut config = internaltls::MeshConfig::new(node.role.clone(), node.id.clone(), files);
    config.reload.watch = false;
    let dialling = internaltls::Mesh::open(config).await.unwrap();
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(echo.address));
    let status = call(&channel, "").await.unwrap_err();
    assert!(["refused-us", "silent"].contains(&reason_of(&status).label()), "{status}");
    assert!(status.message().contains("its log tells why"), "{status}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let ca = Authority::new();
    let endpoint = Endpoint::from(listen().await.local_addr().unwrap());
    let status = call(&channel_of(&ca, endpoint.clone()).await, "").await.unwrap_err();
    assert_eq!(reason_of(&status).label(), "connect");
    let start = format!("cannot reach data-node at {endpoint}: no TCP connection: check that the peer runs");
    assert!(status.message().starts_with(&start), "{status}");
}

#[tokio::test]
async fn names_that_do_not_resolve_are_said_so() {
    let ca = Authority::new();
    let status = call(&channel_of(&ca, Endpoint::new("no-such-host.invalid", 1)).await, "").await.unwrap_err();
    assert_eq!(reason_of(&status).label(), "resolve");
    assert!(
        status.message().contains("data-node at no-such-host.invalid:1: the host name does not resolve"),
        "{status}"
    );
}

#[tokio::test]
async fn silent_servers_run_out_of_time() {
    let ca = Authority::new();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let short = |limits: &mut internaltls::Limits| limits.connect = std::time::Duration::from_millis(100);
    let dialling = mesh_with(&ca.node("proxy", "proxy-1"), short).await;
    let status = call(&dialling.channel("data-node".parse().unwrap(), endpoint), "").await.unwrap_err();
    assert!(status.message().contains("no connection within 100ms, stuck in the TLS handshake"), "{status}");
    assert_eq!(reason_of(&status).label(), "timeout");
}
