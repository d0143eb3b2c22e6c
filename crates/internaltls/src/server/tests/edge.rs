//! The external listener, met with clients of every kind.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::body::Body;

use super::attacks::{s_client, text};
use super::pki::{Authority, Folder, by_hand, dialer};
use super::rig::{Behaviour, Client, within};
use crate::config::{EdgeConfig, EdgeMode, Limits, TlsVersion};
use crate::connections::PeerInfo;
use crate::edge::{Edge, EdgeListeners};
use crate::server::ServeError;

/// An edge with one port for both and one for REST alone.
struct Outside {
    ca: Authority,
    folder: Folder,
    edge: Edge,
    both: SocketAddr,
    rest: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// Says what was asked and by whom, and how long the body was.
async fn rest(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = request.extensions().get::<PeerInfo>().map(|p| p.name().to_owned()).unwrap_or_default();
    let (head, body) = request.into_parts();
    let length = body.collect().await.map_or(0, |b| b.to_bytes().len());
    Ok(Response::new(Full::from(format!("{} {} from {peer}, {length} bytes", head.method, head.uri.path()))))
}

impl Outside {
    async fn open(mode: EdgeMode) -> Self {
        Self::with(mode, Limits::default()).await
    }

    async fn with(mode: EdgeMode, limits: Limits) -> Self {
        Self::with_version(mode, limits, None).await
    }

    async fn with_version(mode: EdgeMode, limits: Limits, min_version: Option<TlsVersion>) -> Self {
        let ca = Authority::new("edge CA");
        let folder = Folder::with(&ca.named("localhost"), &ca.pem());
        let files = (mode != EdgeMode::Off).then(|| folder.files());
        let (reload, require_client_auth_eku) = (by_hand(), true);
        let config = EdgeConfig { mode, files, min_version, require_client_auth_eku, reload, limits };
        let edge = Edge::open(config).await.unwrap();
        let bind = || edge.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listeners = EdgeListeners { both: bind(), rest: Some(bind()) };
        let (both, alone) = (listeners.both.local_addr(), listeners.rest.as_ref().unwrap().local_addr());
        let shutdown = CancellationToken::new();
        let serving = {
            let (edge, stop) = (edge.clone(), shutdown.clone().cancelled_owned());
            let grpc = Behaviour::new().service();
            tokio::spawn(async move { edge.serve(listeners, grpc, tower::service_fn(rest), stop).await })
        };
        Self { ca, folder, edge, both, rest: alone, shutdown, serving }
    }

    fn dialer(&self, alpn: &str, client: Option<&str>) -> ClientConfig {
        let leaf = client.map(|name| self.ca.named(name));
        let mut config = dialer(&self.ca.pem(), leaf.as_ref(), &[&TLS13]);
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config
    }

    async fn tls(
        &self,
        to: SocketAddr,
        config: ClientConfig,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    async fn grpc(&self) -> Client {
        Client::over(self.tls(self.both, self.dialer("h2", None)).await.unwrap()).await
    }
}

/// One HTTP/1.1 exchange.
async fn get(mut stream: impl tokio::io::AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut heard = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = within("an answer", stream.read_to_end(&mut heard)).await;
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn grpc_and_rest_share_a_port_under_tls() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    assert_eq!(outside.grpc().await.answer("Who", None).await.0, Code::Ok);
    let answer = get(outside.tls(outside.both, outside.dialer("http/1.1", None)).await.unwrap(), "/v2/list").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /v2/list from plaintext, 0 bytes"), "{answer}");
}

#[tokio::test]
async fn grpc_and_rest_share_a_port_in_plaintext() {
    let outside = Outside::open(EdgeMode::Off).await;
    let client = Client::over(TcpStream::connect(outside.both).await.unwrap()).await;
    assert_eq!(client.answer("Who", None).await.0, Code::Ok);
    let answer = get(TcpStream::connect(outside.both).await.unwrap(), "/v2/list").await;
    assert!(answer.ends_with("GET /v2/list from plaintext, 0 bytes"), "{answer}");
}

#[tokio::test]
async fn rest_alone_serves_no_grpc() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let answer = get(outside.tls(outside.rest, outside.dialer("http/1.1", None)).await.unwrap(), "/v2/list").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stream = outside.tls(outside.rest, outside.dialer("h2", None)).await.unwrap();
    let response = Client::over(stream).await.call("Who", None).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
}

#[tokio::test]
async fn two_way_names_its_clients() {
    let outside = Outside::open(EdgeMode::TwoWay).await;
    let config = outside.dialer("http/1.1", Some("analyst"));
    let answer = get(outside.tls(outside.both, config).await.unwrap(), "/").await;
    assert!(answer.contains("from analyst"), "{answer}");
}

#[tokio::test]
async fn two_way_refuses_a_missing_or_foreign_certificate() {
    let outside = Outside::open(EdgeMode::TwoWay).await;
    let foreign = Authority::new("another CA").named("analyst");
    for leaf in [None, Some(&foreign)] {
        let config = dialer(&outside.ca.pem(), leaf, &[&TLS13]);
        let served = match outside.tls(outside.both, config).await {
            Ok(stream) => Client::over(stream).await.is_served().await,
            Err(_) => false,
        };
        assert!(!served, "with a leaf: {}", leaf.is_some());
    }
    assert_eq!(outside.edge.connections(), []);
}

#[tokio::test]
async fn a_set_minimum_keeps_tls_1_2_out() {
    let outside = Outside::with_version(EdgeMode::OneWay, Limits::default(), Some(TlsVersion::V1_3)).await;
    for (version, expected) in [(&TLS12, false), (&TLS13, true)] {
        let stream = outside.tls(outside.both, dialer(&outside.ca.pem(), None, &[version])).await;
        assert_eq!(stream.is_ok(), expected, "{version:?}");
    }
}

#[tokio::test]
async fn tls_1_2_is_for_one_way_alone() {
    for (mode, expected) in [(EdgeMode::OneWay, true), (EdgeMode::TwoWay, false)] {
        let outside = Outside::open(mode).await;
        let leaf = outside.ca.named("analyst");
        let stream = outside.tls(outside.both, dialer(&outside.ca.pem(), Some(&leaf), &[&TLS12])).await;
        assert_eq!(stream.is_ok(), expected, "{mode:?}");
    }
}

#[tokio::test]
async fn invariant_6_the_edge_takes_clients_without_a_server_name() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let ca = outside.folder.path("ca.pem");
    let arguments = ["-noservername", "-CAfile", ca.to_str().unwrap()];
    let output = s_client(&outside.both.to_string(), None, &arguments, b"").await;
    assert!(text(&output).contains("Verify return code: 0 (ok)"), "{}", text(&output));
}

/// A session that openssl keeps, if it is given one, and what it says when it comes back with it.
async fn come_back(outside: &Outside, own: Option<&Folder>) -> String {
    let session = outside.folder.path("session.pem");
    let keep = ["-tls1_3", "-sess_out", session.to_str().unwrap(), "-ign_eof"];
    let close = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let address = outside.both.to_string();
    let first = alpn_http1(&address, own, &keep, close).await;
    if !session.exists() {
        return format!("no session was given\n{first}");
    }
    alpn_http1(&address, own, &["-tls1_3", "-sess_in", session.to_str().unwrap(), "-ign_eof"], close).await
}

async fn alpn_http1(address: &str, own: Option<&Folder>, arguments: &[&str], input: &[u8]) -> String {
    let arguments: Vec<_> = [&["-alpn", "http/1.1"], arguments].concat();
    text(&s_client(address, own, &arguments, input).await)
}

#[tokio::test]
async fn invariant_4_one_way_resumes_and_two_way_does_not() {
    let one_way = Outside::open(EdgeMode::OneWay).await;
    let again = come_back(&one_way, None).await;
    assert!(again.contains("Reused, TLSv1.3"), "the control must resume, or the test below proves nothing: {again}");
    let counted = one_way.edge.telemetry().encode();
    assert!(counted.contains("tls_handshakes_total{result=\"ok\",resumed=\"true\",surface=\"edge\"} 1"), "{counted}");
    let two_way = Outside::open(EdgeMode::TwoWay).await;
    let own = Folder::with(&two_way.ca.named("analyst"), &two_way.ca.pem());
    let again = come_back(&two_way, Some(&own)).await;
    assert!(again.contains("no session was given") && again.contains("HTTP/1.1 200"), "{again}");
}

#[tokio::test]
async fn a_new_leaf_does_not_drain() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let client = outside.grpc().await;
    client.answer("Who", None).await;
    outside.folder.write(&outside.ca.named("localhost"), &outside.ca.pem());
    assert_eq!(outside.edge.reload().await.unwrap(), Some(2));
    assert_eq!(outside.grpc().await.answer("Who", None).await.1["x-generation"], "2");
    assert_eq!(client.answer("Who", None).await.1["x-generation"], "1");
    assert_eq!(outside.edge.status().unwrap().generation, 2);
}

#[tokio::test]
async fn invariant_5_a_client_no_longer_vouched_for_is_drained() {
    let outside = Outside::open(EdgeMode::TwoWay).await;
    let stream = outside.tls(outside.both, outside.dialer("h2", Some("analyst"))).await.unwrap();
    let client = Client::over(stream).await;
    assert!(client.is_served().await);
    let next = Authority::new("next CA");
    outside.folder.write(&next.named("localhost"), &next.pem());
    assert_eq!(outside.edge.reload().await.unwrap(), Some(2));
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    let forgotten = async {
        while !outside.edge.connections().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within("the edge forgets it", forgotten).await;
}

#[tokio::test]
async fn large_messages_pass() {
    const SIZE: usize = 70 * 1024 * 1024;
    let outside = Outside::open(EdgeMode::OneWay).await;
    let stream = outside.tls(outside.both, outside.dialer("h2", None)).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(vec![7; SIZE]));
    let response =
        within("an answer", sender.send_request(Request::post("http://localhost/v2").body(body).unwrap())).await;
    let text = response.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(format!("{SIZE} bytes").as_bytes()), "{text:?}");
}

#[tokio::test]
async fn plaintext_to_a_tls_port_is_refused() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let answer = get(TcpStream::connect(outside.both).await.unwrap(), "/v2/list").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("use https\n"), "{answer}");
    let mut http2 = TcpStream::connect(outside.both).await.unwrap();
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    let _ = within("the server closes", http2.read_to_end(&mut heard)).await;
    assert!(heard.len() <= 7, "{heard:?}");
    assert_eq!(outside.edge.connections(), []);
}

#[tokio::test]
async fn shutdown_ends_both_listeners() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let client = outside.grpc().await;
    client.answer("Who", None).await;
    outside.shutdown.cancel();
    within("the edge ends", outside.serving).await.unwrap().unwrap();
    within("the connection ends in order", client.connection).await.unwrap().unwrap();
    for address in [outside.both, outside.rest] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}
