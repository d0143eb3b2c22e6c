//! The external listener, met with clients of every kind.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

use super::attacks::{NAME, Scene, s_client, text};
use super::pki::{Authority, Folder, Leaf, by_hand, dialer};
use super::rig::{Behaviour, Client, within};
use crate::clock::{Clock, SystemClock, TestClock};
use crate::config::{EdgeConfig, EdgeMode, Limits, TlsVersion};
use crate::connections::PeerInfo;
use crate::edge::{Edge, EdgeListeners};
use crate::server::ServeError;
use crate::telemetry::Telemetry;

const HOUR: Duration = Duration::from_secs(3_600);

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
        Self::over(ca, folder, mode, limits, min_version, Arc::new(SystemClock)).await
    }

    /// Two-way, with a revocation list that names nobody.
    async fn listing() -> Self {
        let ca = Authority::new("edge CA");
        let folder = Folder::with(&ca.named("localhost"), &ca.pem());
        folder.file("crl.pem", &ca.crl(&[], SystemTime::now() + HOUR));
        Self::over(ca, folder, EdgeMode::TwoWay, Limits::default(), None, Arc::new(SystemClock)).await
    }

    async fn over(
        ca: Authority,
        folder: Folder,
        mode: EdgeMode,
        limits: Limits,
        min_version: Option<TlsVersion>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let files = (mode != EdgeMode::Off).then(|| folder.files());
        let (reload, require_client_auth_eku) = (by_hand(), true);
        let config = EdgeConfig { mode, files, min_version, require_client_auth_eku, reload, limits, state: None };
        let edge = Edge::open_with(config, &Telemetry::new(), clock).await.unwrap();
        let bind = || edge.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listeners = EdgeListeners { both: bind(), rest: Some(bind()) };
        let (both, alone) = (listeners.both.local_addr(), listeners.rest.as_ref().unwrap().local_addr());
        let shutdown = CancellationToken::new();
        let serving = {
            let (edge, stop) = (edge.clone(), shutdown.clone().cancelled_owned());
            let grpc = Behaviour::new().service();
            let grpc = tower::service_fn(move |request| grpc.call(request));
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
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /v2/list from anonymous, 0 bytes"), "{answer}");
}

#[tokio::test]
async fn grpc_and_rest_share_a_port_in_plaintext() {
    let outside = Outside::open(EdgeMode::Off).await;
    let client = Client::over(TcpStream::connect(outside.both).await.unwrap()).await;
    assert_eq!(client.answer("Who", None).await.0, Code::Ok);
    let answer = get(TcpStream::connect(outside.both).await.unwrap(), "/v2/list").await;
    assert!(answer.ends_with("GET /v2/list from plaintext, 0 bytes"), "{answer}");
}

/// What it would tell is for nodes of the mesh alone.
#[tokio::test]
async fn an_edge_answers_no_trial() {
    for mode in [EdgeMode::Off, EdgeMode::OneWay, EdgeMode::TwoWay] {
        let outside = Outside::open(mode).await;
        let client = match mode {
            EdgeMode::Off => Client::over(TcpStream::connect(outside.both).await.unwrap()).await,
            _ => {
                let config = outside.dialer("h2", Some("a client"));
                Client::over(outside.tls(outside.both, config).await.unwrap()).await
            }
        };
        let leaf = outside.ca.node("proxy", "proxy-1");
        assert_eq!(client.trial(&[&leaf.der()]).await, Some(Code::Unimplemented), "{mode:?}");
        assert!(!outside.edge.telemetry().encode().contains("side=\"answered\""), "{mode:?}");
    }
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

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// What openssl says when it asks for a session to keep, and the session if it was given one.
async fn keep_session(outside: &Outside, own: Option<&Folder>, version: &str) -> (String, Option<PathBuf>) {
    let session = outside.folder.path("session.pem");
    let keep = [version, "-sess_out", session.to_str().unwrap(), "-ign_eof"];
    let said = alpn_http1(&outside.both.to_string(), own, &keep, CLOSE).await;
    (said, session.exists().then_some(session))
}

/// What openssl says when it comes with a session.
async fn come_back(address: SocketAddr, own: Option<&Folder>, session: &Path, more: &[&str]) -> String {
    let with = [&["-tls1_3", "-sess_in", session.to_str().unwrap(), "-ign_eof"], more].concat();
    alpn_http1(&address.to_string(), own, &with, CLOSE).await
}

async fn alpn_http1(address: &str, own: Option<&Folder>, arguments: &[&str], input: &[u8]) -> String {
    let arguments: Vec<_> = [&["-alpn", "http/1.1"], arguments].concat();
    text(&s_client(address, own, &arguments, input).await)
}

#[tokio::test]
async fn invariant_4_one_way_resumes_and_two_way_does_not() {
    let one_way = Outside::open(EdgeMode::OneWay).await;
    let (_, session) = keep_session(&one_way, None, "-tls1_3").await;
    let again = come_back(one_way.both, None, &session.expect("a session"), &[]).await;
    assert!(again.contains("Reused, TLSv1.3"), "the control must resume, or the tests below prove nothing: {again}");
    let counted = one_way.edge.telemetry().encode();
    assert!(counted.contains("tls_handshakes_total{result=\"ok\",resumed=\"true\",surface=\"edge\"} 1"), "{counted}");
    for version in ["-tls1_3", "-tls1_2"] {
        let (limits, least) = (Limits::default(), Some(TlsVersion::V1_2));
        let two_way = Outside::with_version(EdgeMode::TwoWay, limits, least).await;
        let own = Folder::with(&two_way.ca.named("analyst"), &two_way.ca.pem());
        let (said, session) = keep_session(&two_way, Some(&own), version).await;
        assert!(said.contains("New, TLSv1.") && said.contains("HTTP/1.1 200"), "{said}");
        // In TLS 1.2 openssl writes down what it has, whether or not it can come back with it.
        let session = session.filter(|_| version == "-tls1_2");
        if let Some(session) = session {
            let with = ["-tls1_2", "-sess_in", session.to_str().unwrap(), "-ign_eof"];
            let again = alpn_http1(&two_way.both.to_string(), Some(&own), &with, CLOSE).await;
            assert!(again.contains("New, TLSv1.2") && !again.contains("Reused"), "{again}");
        } else {
            assert!(!two_way.folder.path("session.pem").exists(), "a session was given: {said}");
        }
        assert!(!two_way.edge.telemetry().encode().contains("resumed=\"true\""));
    }
}

/// One that openssl does present: what comes of it is up to the server.
#[tokio::test]
async fn invariant_4_a_session_of_elsewhere_gets_a_full_handshake() {
    let one_way = Outside::open(EdgeMode::OneWay).await;
    let session = keep_session(&one_way, None, "-tls1_3").await.1.expect("a session");
    let two_way = Outside::open(EdgeMode::TwoWay).await;
    let own = Folder::with(&two_way.ca.named("analyst"), &two_way.ca.pem());
    let again = come_back(two_way.both, Some(&own), &session, &[]).await;
    assert!(again.contains("New, TLSv1.3") && again.contains("HTTP/1.1 200") && !again.contains("Reused"), "{again}");
    let alone = come_back(two_way.both, None, &session, &[]).await;
    assert!(!alone.contains("HTTP/1.1 200") && !alone.contains("Reused"), "{alone}");
    let scene = Scene::new().await;
    let with = ["-tls1_3", "-servername", NAME, "-sess_in", session.to_str().unwrap(), "-ign_eof"];
    let mesh = text(&scene.openssl(&with, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0GOODBYE").await);
    assert!(mesh.contains("New, TLSv1.3") && !mesh.contains("Reused"), "{mesh}");
    scene.rig.counted("tls_handshakes_total{result=\"ok\",resumed=\"false\",surface=\"mesh\"} 1").await;
    assert!(!scene.rig.telemetry.encode().contains("resumed=\"true\""));
}

#[tokio::test]
async fn a_rotation_ends_what_one_way_could_resume() {
    let one_way = Outside::open(EdgeMode::OneWay).await;
    let session = keep_session(&one_way, None, "-tls1_3").await.1.expect("a session");
    one_way.folder.write(&one_way.ca.named("localhost"), &one_way.ca.pem());
    assert_eq!(one_way.edge.reload().await.unwrap(), Some(2));
    let again = come_back(one_way.both, None, &session, &[]).await;
    assert!(again.contains("New, TLSv1.3") && again.contains("HTTP/1.1 200") && !again.contains("Reused"), "{again}");
}

#[tokio::test]
async fn invariant_5_a_listed_client_is_cut_at_the_edge() {
    for by_list in [true, false] {
        let outside = Outside::listing().await;
        let (bad, good) = (outside.ca.named("analyst"), outside.ca.named("other"));
        let dial = async |leaf: &Leaf| {
            let config = dialer(&outside.ca.pem(), Some(leaf), &[&TLS13]);
            Client::over(outside.tls(outside.both, config).await.unwrap()).await
        };
        let (gone, kept) = (dial(&bad).await, dial(&good).await);
        let call = tokio::spawn(gone.call("Never", None));
        assert!(gone.is_served().await && kept.is_served().await);
        if by_list {
            outside.folder.file("crl.pem", &outside.ca.crl(&[&bad], SystemTime::now() + HOUR));
        } else {
            outside.folder.distrust(&bad);
        }
        assert_eq!(outside.edge.reload().await.unwrap(), Some(2));
        let published = Instant::now();
        assert!(within("the call fails", call).await.unwrap().is_err());
        assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
        assert!(!dial(&bad).await.is_served().await && dial(&good).await.is_served().await);
        let (counted, reason) = (outside.edge.telemetry().encode(), if by_list { "revoked" } else { "distrusted" });
        let refused = format!("tls_handshakes_total{{result=\"{reason}\",resumed=\"false\",surface=\"edge\"}} 1");
        assert!(counted.contains(&refused), "{counted}");
        assert!(kept.is_served().await);
    }
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

#[tokio::test]
async fn invariant_5_a_client_whose_leaf_expires_is_drained_and_cut() {
    let now = UNIX_EPOCH + Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let (ca, clock) = (Authority::new("edge CA"), Arc::new(TestClock::at(now)));
    let folder = Folder::with(&ca.named("localhost"), &ca.pem());
    let outside = Outside::over(ca, folder, EdgeMode::TwoWay, Limits::default(), None, clock.clone()).await;
    let dial = async |leaf: &Leaf| {
        let config = dialer(&outside.ca.pem(), Some(leaf), &[&TLS13]);
        Client::over(outside.tls(outside.both, config).await.unwrap()).await
    };
    let (brief, lasting) = (outside.ca.named_until("analyst", now + HOUR), outside.ca.named("other"));
    let (idle, busy, kept) = (dial(&brief).await, dial(&brief).await, dial(&lasting).await);
    let call = tokio::spawn(busy.call("Never", None));
    assert!(idle.is_served().await && busy.is_served().await && kept.is_served().await);
    clock.advance(HOUR - Limits::default().drain);
    within("the one without a call ends in order", idle.connection).await.unwrap().unwrap();
    assert!(!call.is_finished());
    clock.advance(Limits::default().drain);
    assert!(within("the call fails", call).await.unwrap().is_err());
    assert!(kept.is_served().await);
    let counted = outside.edge.telemetry().encode();
    assert!(counted.contains("internaltls_connections_cut_total{reason=\"expiry\"} 1"), "{counted}");
}

/// Begins calls and takes them back at once, so many at a time; then waits until the server has read them. How many were
/// begun before the connection ended.
async fn take_back(outside: &Outside, most: usize, at_a_time: usize) -> usize {
    let stream = outside.tls(outside.both, outside.dialer("h2", None)).await.unwrap();
    let (send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut begun = 0;
    while begun < most {
        let Ok(mut send) = within("a turn", send.clone().ready()).await else { break };
        for _ in 0..at_a_time {
            let request = Request::post("https://localhost/test.Echo/Never").header("content-type", "application/grpc");
            let Ok((_, mut stream)) = send.send_request(request.body(()).unwrap(), false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            begun += 1;
        }
        if within("a pong", pings.ping(h2::Ping::opaque())).await.is_err() {
            break;
        }
    }
    begun
}

#[tokio::test]
async fn invariant_8_rapid_resets_end_their_connection() {
    let limits = Limits { streams: 100, ..Limits::default() };
    let outside = Outside::with(EdgeMode::OneWay, limits).await;
    let bystander = outside.grpc().await;
    assert_eq!(bystander.answer("Who", None).await.0, Code::Ok);
    // As many as there are streams is what a client takes back whose deadlines pass.
    assert_eq!(take_back(&outside, 90, 90).await, 90);
    // Each is looked at, and then in bursts that are not.
    let cut = "internaltls_connections_cut_total{reason=\"cancellations\"}";
    for (at_a_time, is_cut) in [(1, true), (500, false)] {
        let before = outside.edge.telemetry().encode();
        assert_eq!(before.contains(cut), !is_cut, "{before}");
        let begun = take_back(&outside, 20_000, at_a_time).await;
        assert!(begun < 20_000, "{at_a_time} at a time: a client took back {begun} calls, and more");
    }
    assert_eq!(bystander.answer("Who", None).await.0, Code::Ok);
}

#[tokio::test]
async fn long_status_texts_are_cut_at_an_edge() {
    let outside = Outside::open(EdgeMode::OneWay).await;
    let client = outside.grpc().await;
    let (code, headers) = client.answer("Wordy", None).await;
    assert_eq!(code, Code::NotFound);
    assert!(headers["grpc-message"].len() <= 1_024, "{headers:?}");
}
