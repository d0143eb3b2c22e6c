//! A node as its peers, a probe and an operator see it: real listeners, a PKI made here.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt as _;
use internaltls::{Channel, Endpoint, Endpoints, Files, Mesh, NodeId, Role, Security};
use node::{Internal, Node};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rpc::mesh::WhoAmIRequest;
use rpc::mesh::identity_client::IdentityClient;
use settings::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt as _;

/// A CA and the leaves it gave, in a folder that goes away with it.
struct Pki {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, role: &str) -> Files {
        let mut params = CertificateParams::new([format!("{role}.mesh.internal")]).unwrap();
        let uri = format!("spiffe://mesh.internal/{role}/{role}-1");
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(300)).into();
        params.not_after = (now + Duration::from_secs(3_600)).into();
        let key = KeyPair::generate().unwrap();
        let (cert, key_path) = (self.at(&format!("{role}.pem")), self.at(&format!("{role}.key")));
        std::fs::write(&cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        write_secret(&key_path, &key.serialize_pem());
        Files::new(cert, key_path, self.at("ca.pem"))
    }

    fn settings(&self, role: &str) -> Settings {
        let mut settings = plain();
        settings.internal.enabled = true;
        settings.internal.files = Some(self.files(role));
        settings
    }

    async fn mesh(&self, role: &str) -> Mesh {
        let settings = self.settings(role);
        Mesh::open(settings.mesh_config(name(role), id(role))).await.unwrap()
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// Without TLS, on loopback, every port a free one.
fn plain() -> Settings {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("milvus.yaml"), "").unwrap();
    let mut settings = Settings::load_with_env(folder.path(), std::iter::empty()).unwrap();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for listener in [&mut settings.coordinator, &mut settings.data_node] {
        (listener.address, listener.port) = (loopback, 0);
    }
    (settings.management.health.address, settings.management.health.port) = (loopback, 0);
    settings.management.management.port = 0;
    settings
}

fn name(role: &str) -> Role {
    Role::new(role).unwrap()
}

fn id(role: &str) -> NodeId {
    NodeId::new(&format!("{role}-1")).unwrap()
}

async fn start(role: &str, settings: Settings) -> (Node, Internal) {
    let node = Node::with_settings(role, id(role), settings, CancellationToken::new()).await.unwrap();
    let internal = node.serve_internal(Routes::default()).await.unwrap();
    (node, internal)
}

/// One HTTP/1.1 exchange on a port for probes and people: status line and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn channel(mesh: &Mesh, role: &str, at: SocketAddr) -> Channel {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), at.port());
    mesh.channel(name(role), Endpoints::fixed([Endpoint::from(at)]))
}

async fn ask(channel: Channel, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(tonic::body::Body::empty()).unwrap();
    let answer = channel.oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn unfit_certificate_stops_it_before_it_listens() {
    let pki = Pki::new();
    let mut settings = pki.settings("coordinator");
    std::fs::remove_file(pki.at("coordinator.pem")).unwrap();
    // A port that is known to be free: whatever listens on it afterwards is the node.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = probe.local_addr().unwrap();
    drop(probe);
    settings.management.health.port = free.port();
    let started = Node::with_settings("coordinator", id("coordinator"), settings, CancellationToken::new()).await;
    let chain = format!("{:#}", started.unwrap_err());
    assert!(chain.contains("coordinator.pem") && chain.contains("internaltls.serverPemPath"), "{chain}");
    assert!(std::net::TcpStream::connect(free).is_err(), "the health port was opened");
}

#[tokio::test]
async fn ready_when_its_peer_answers_and_not_before() {
    let pki = Pki::new();
    let (peer, peer_port) = start("data-node", pki.settings("data-node")).await;
    let mut settings = pki.settings("coordinator");
    settings.cluster.data_nodes = vec![(id("data-node"), Endpoint::from(peer_port.address).of(id("data-node")))];
    let node = Node::with_settings("coordinator", id("coordinator"), settings, CancellationToken::new()).await.unwrap();
    let listener = node.health.require("listener of the test");
    let (status, body) = get(node.health_address, "/healthz").await;
    assert_eq!(status, 503);
    assert!(body.contains("listener of the test: not yet"), "{body}");
    assert_eq!(get(node.health_address, "/livez").await.0, 200);
    assert_eq!(get(node.health_address, "/status").await.0, 404, "probes see nothing else");
    listener.open();
    let ready = tokio::time::timeout(Duration::from_secs(30), node.health.wait_ready()).await;
    assert!(ready.is_ok(), "{:?}", node.health.reasons());
    assert_eq!(get(node.health_address, "/healthz").await.0, 200);
    drop(peer);
}

#[tokio::test]
async fn peer_by_another_name_is_not_the_peer() {
    let (_peer, port) = start("data-node", plain()).await;
    let mut settings = plain();
    let other = NodeId::new("data-node-2").unwrap();
    settings.cluster.data_nodes = vec![(other.clone(), Endpoint::from(port.address).of(other))];
    let (node, _internal) = start("coordinator", settings).await;
    let told = async {
        while !node.health.reasons().iter().any(|reason| reason.contains("answers as data-node/data-node-1")) {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), told).await.is_ok(), "{:?}", node.health.reasons());
}

#[tokio::test]
async fn tells_callers_who_they_are() {
    let pki = Pki::new();
    let (_node, internal) = start("data-node", pki.settings("data-node")).await;
    let mesh = pki.mesh("coordinator").await;
    let mut client = IdentityClient::new(channel(&mesh, "data-node", internal.address));
    let reply = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.caller, "spiffe://mesh.internal/coordinator/coordinator-1");
    assert_eq!((reply.server_role.as_str(), reply.server_node.as_str()), ("data-node", "data-node-1"));
    assert_eq!(reply.server_generation, 1);
}

#[tokio::test]
async fn status_tells_the_material_and_connections() {
    let pki = Pki::new();
    let (node, internal) = start("data-node", pki.settings("data-node")).await;
    let mesh = pki.mesh("coordinator").await;
    let mut client = IdentityClient::new(channel(&mesh, "data-node", internal.address));
    client.who_am_i(WhoAmIRequest {}).await.unwrap();
    let (_, body) = get(node.management_address, "/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["role"], "data-node");
    assert_eq!(status["generation"], 1);
    assert_eq!(status["ready"], false, "no coordinator answers it");
    let connections = status["connections"].as_array().unwrap();
    assert!(
        connections.iter().any(|c| c["from"] == "coordinator/coordinator-1" && c["tls_version"] == "TLSv1.3"),
        "{body}"
    );
    assert!(get(node.management_address, "/metrics").await.1.contains("grpc_server_tls_handshakes"));
    assert!(get(node.management_address, "/").await.1.contains("<h1>"));
}

#[tokio::test]
async fn management_elsewhere_is_for_operator_and_metrics() {
    let pki = Pki::new();
    let mut settings = pki.settings("data-node");
    settings.management.management.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let policy = pki.at("policy.yaml");
    std::fs::write(&policy, "allow: {proxy: [\"/mesh.v1.DataNode/Get\"]}").unwrap();
    settings.internal.policy = Some(policy);
    let (node, _internal) = start("data-node", settings).await;
    for (role, expected) in [("operator", 200), ("metrics", 200), ("proxy", 403)] {
        let mesh = pki.mesh(role).await;
        let (status, body) = ask(channel(&mesh, "data-node", node.management_address), "/status").await;
        assert_eq!(status, expected, "{role}: {body}");
    }
}

#[tokio::test]
async fn management_elsewhere_needs_internal_tls() {
    let mut settings = plain();
    settings.management.management.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let started = Node::with_settings("data-node", id("data-node"), settings, CancellationToken::new()).await;
    assert!(started.unwrap_err().to_string().contains("set management.address to 127.0.0.1"));
}

#[tokio::test]
async fn ends_when_it_is_told_to() {
    let pki = Pki::new();
    let (node, internal) = start("data-node", pki.settings("data-node")).await;
    assert!(matches!(node.mesh.config().security, Security::Tls { .. }));
    node.shutdown.cancel();
    let finished = tokio::time::timeout(Duration::from_secs(30), internal.finished()).await;
    assert!(matches!(finished, Ok(Ok(()))), "{finished:?}");
}

/// The beginning of a request, and no more: as many as take every place nine times over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_8_probes_pass_slow_sockets() {
    let (node, _internal) = start("data-node", plain()).await;
    let began = Instant::now();
    get(node.health_address, "/livez").await;
    let alone = began.elapsed();
    let mut slow = Vec::new();
    for _ in 0..600 {
        let mut stream = tokio::net::TcpStream::connect(node.health_address).await.unwrap();
        // One that has lost its place already is as slow as the rest.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await;
        slow.push(stream);
    }
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(get(node.health_address, "/livez").await.0, 200);
        let beside = began.elapsed();
        assert!(beside < Duration::from_secs(1) + 10 * alone, "{beside:?} beside slow sockets, {alone:?} alone");
    }
    // It was not waited for: the youngest of them are still there.
    let youngest = slow.last_mut().unwrap();
    let open = youngest.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn probes_by_grpc_need_leave_in_the_mesh() {
    use rpc::health::HealthCheckRequest;
    use rpc::health::health_client::HealthClient;

    let pki = Pki::new();
    let mut settings = pki.settings("data-node");
    let policy = pki.at("policy.yaml");
    std::fs::write(&policy, "allow: {operator: [\"/grpc.health.v1.Health/Check\"]}").unwrap();
    settings.internal.policy = Some(policy);
    let (_node, internal) = start("data-node", settings).await;
    let ask = async |role: &str| {
        let mesh = pki.mesh(role).await;
        let mut client = HealthClient::new(channel(&mesh, "data-node", internal.address));
        client.check(HealthCheckRequest::default()).await.map(|reply| reply.into_inner().status)
    };
    assert_eq!(ask("operator").await.unwrap(), 2, "no coordinator answers it: NOT_SERVING");
    assert_eq!(ask("proxy").await.unwrap_err().code(), tonic::Code::PermissionDenied);
}

/// The call ends as an error of its own, counted as one; its connection and the calls on it go on.
#[tokio::test]
async fn panic_fails_its_own_call() {
    let pki = Pki::new();
    let mut settings = pki.settings("data-node");
    let policy = pki.at("policy.yaml");
    std::fs::write(&policy, "allow: {coordinator: [\"/a.B/Panics\", \"/mesh.v1.Identity/WhoAmI\"]}").unwrap();
    settings.internal.policy = Some(policy);
    let node = Node::with_settings("data-node", id("data-node"), settings, CancellationToken::new()).await.unwrap();
    let panics = axum::routing::post(async || {
        tokio::task::yield_now().await;
        assert!(std::hint::black_box(false), "a secret of the handler");
    });
    let routes = Routes::from(axum::Router::new().route("/a.B/Panics", panics));
    let internal = node.serve_internal(routes).await.unwrap();
    let mesh = pki.mesh("coordinator").await;
    let channel = channel(&mesh, "data-node", internal.address);
    let request = http::Request::post("/a.B/Panics").header("content-type", "application/grpc");
    let failed = channel.clone().oneshot(request.body(tonic::body::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(failed.headers()["grpc-status"], "13");
    assert!(!failed.headers()["grpc-message"].to_str().unwrap().contains("secret"));
    IdentityClient::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap();
    let connections = node.mesh.status().connections;
    let callers = connections.iter().filter(|connection| connection.from == "coordinator/coordinator-1").count();
    assert_eq!(callers, 1, "both calls were on one connection: {connections:?}");
    let metrics = get(node.management_address, "/metrics").await.1;
    for counted in ["result=\"error\"} 1", "result=\"ok\"} 1", "result=\"cancelled\"} 0"] {
        assert!(
            metrics.contains(&format!("internaltls_calls_total{{role=\"coordinator\",{counted}")),
            "{counted}: {metrics}"
        );
    }
}
