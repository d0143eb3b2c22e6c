//! Who is not served. A client of TLS 1.3 is done before the server has judged it, so every attack sends a request and
//! looks for the answer.
use std::process::{Output, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tonic::Code;

use super::pki::{Authority, Folder, dialer};
use super::rig::{Client, Rig, within};
use crate::config::Limits;
use crate::material::Store;

pub(super) const NAME: &str = "coordinator.mesh.internal";

/// A mesh with one coordinator, and what it takes to attack it.
pub(super) struct Scene {
    pub(super) ca: Authority,
    pub(super) folder: Folder,
    pub(super) store: Arc<Store>,
    pub(super) rig: Rig,
}

impl Scene {
    pub(super) async fn with(limits: Limits) -> Self {
        let ca = Authority::new("mesh CA");
        let folder = Folder::with(&ca.node("coordinator", "c-1"), &ca.pem());
        let store = folder.mesh_store().await;
        Self::over(ca, folder, store, limits).await
    }

    /// A mesh whose policy is in a file.
    pub(super) async fn policed(policy: &str) -> Self {
        let ca = Authority::new("mesh CA");
        let folder = Folder::with(&ca.node("coordinator", "c-1"), &ca.pem());
        let store = folder.policed_store(policy).await;
        Self::over(ca, folder, store, Limits::default()).await
    }

    async fn over(ca: Authority, folder: Folder, store: Arc<Store>, limits: Limits) -> Self {
        let rig = Rig::tls(Arc::clone(&store), limits).await;
        Self { ca, folder, store, rig }
    }

    pub(super) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    /// How the proxy `p-1` dials.
    pub(super) fn proxy(&self) -> ClientConfig {
        dialer(&self.ca.pem(), Some(&self.ca.node("proxy", "p-1")), &[&TLS13])
    }

    /// A connection of the proxy `p-1`.
    pub(super) async fn client(&self) -> Client {
        self.rig.tls_client(self.proxy(), NAME).await.unwrap()
    }

    /// Whether a client with this config gets an answer.
    async fn serves(&self, config: ClientConfig, name: &str) -> bool {
        match self.rig.tls_client(config, name).await {
            Ok(client) => client.is_served().await,
            Err(_) => false,
        }
    }

    /// The counter of handshakes that ended so.
    async fn refused_for(&self, reason: &str) {
        let counter = format!("tls_handshakes_total{{result=\"{reason}\",resumed=\"false\",surface=\"mesh\"}} 1");
        self.rig.counted(&counter).await;
        assert_eq!(self.rig.registry.snapshot(), []);
    }

    /// `openssl s_client` with the proxy's certificate and these arguments, sending `input`.
    pub(super) async fn openssl(&self, arguments: &[&str], input: &[u8]) -> Output {
        let leaf = self.ca.node("proxy", "p-1");
        let own = Folder::with(&leaf, &self.ca.pem());
        s_client(&self.rig.address.to_string(), Some(&own), arguments, input).await
    }
}

/// Runs `openssl s_client` until it ends by itself.
pub(super) async fn s_client(address: &str, own: Option<&Folder>, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", address, "-alpn", "h2"]).args(arguments);
    if let Some(own) = own {
        command.arg("-cert").arg(own.path("leaf.pem")).arg("-key").arg(own.path("leaf.key"));
        command.arg("-CAfile").arg(own.path("ca.pem"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("openssl is a prerequisite of the tests");
    let mut stdin = child.stdin.take().unwrap();
    // It may be gone already, which its output tells better than this write.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    within("openssl ends", child.wait_with_output()).await.unwrap()
}

pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn serves_a_node_of_the_mesh() {
    let scene = Scene::new().await;
    let client = scene.client().await;
    let (code, headers) = client.answer("Who", None).await;
    assert_eq!(code, Code::Ok);
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-peer"), "spiffe://mesh.internal/proxy/p-1");
    assert_eq!(header("x-name"), "proxy/p-1");
    assert_eq!(header("x-certs"), "1");
    assert!(header("x-remote").starts_with("127.0.0.1:"));
    assert_eq!(header("x-generation"), "1");
    let (version, suite, group) = (Some("TLSv1.3"), Some("TLS13_AES_256_GCM_SHA384"), Some("X25519MLKEM768"));
    assert_eq!(header("x-tls"), format!("{version:?} {suite:?} {group:?} {:?}", Some(NAME)));
    let status = scene.rig.registry.snapshot().remove(0);
    assert_eq!((&*status.from, &*status.to), ("proxy/p-1", "coordinator/c-1"));
    assert_eq!((status.tls_version, status.cipher_suite, status.kx_group.as_deref()), (version, suite, group));
    assert!(status.peer_serial.is_some() && status.own_serial.is_some() && status.peer_serial != status.own_serial);
    scene.rig.counted("tls_handshakes_total{result=\"ok\",resumed=\"false\",surface=\"mesh\"} 1").await;
}

#[tokio::test]
async fn refuses_a_missing_client_certificate() {
    let scene = Scene::new().await;
    assert!(!scene.serves(dialer(&scene.ca.pem(), None, &[&TLS13]), NAME).await);
    scene.refused_for("no-client-certificate").await;
}

#[tokio::test]
async fn refuses_a_foreign_ca() {
    let scene = Scene::new().await;
    let leaf = Authority::new("another CA").node("proxy", "p-1");
    assert!(!scene.serves(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await);
    scene.refused_for("unknown-issuer").await;
}

#[tokio::test]
async fn refuses_a_foreign_ca_of_the_same_name() {
    let scene = Scene::new().await;
    let leaf = Authority::new("mesh CA").node("proxy", "p-1");
    assert!(!scene.serves(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await);
    scene.refused_for("bad-signature").await;
}

#[tokio::test]
async fn refuses_a_leaf_that_names_no_node() {
    let scene = Scene::new().await;
    let leaf = scene.ca.named("localhost");
    assert!(!scene.serves(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS13]), NAME).await);
    assert!(!scene.rig.telemetry.encode().contains("result=\"ok\""));
}

#[tokio::test]
async fn refuses_tls_1_2() {
    let scene = Scene::new().await;
    let leaf = scene.ca.node("proxy", "p-1");
    assert!(!scene.serves(dialer(&scene.ca.pem(), Some(&leaf), &[&TLS12]), NAME).await);
    scene.refused_for("protocol-version").await;
}

#[tokio::test]
async fn invariant_6_refuses_a_foreign_server_name() {
    let scene = Scene::new().await;
    for name in ["proxy.mesh.internal", "coordinator.mesh.internal.example.org", "xcoordinator.mesh.internal"] {
        let output = scene.openssl(&["-tls1_3", "-servername", name], b"").await;
        assert!(text(&output).contains("SSL alert number 112"), "{name}: {}", text(&output));
    }
    let counter = "tls_handshakes_total{result=\"foreign-sni\",resumed=\"false\",surface=\"mesh\"} 3";
    scene.rig.counted(counter).await;
}

#[tokio::test]
async fn invariant_6_refuses_a_missing_server_name() {
    let scene = Scene::new().await;
    let output = scene.openssl(&["-tls1_3", "-noservername"], b"").await;
    assert!(text(&output).contains("SSL alert number 109"), "{}", text(&output));
    scene.refused_for("missing-sni").await;
}

#[tokio::test]
async fn invariant_6_a_name_in_other_case_is_the_same_name() {
    // RFC 6066: names are case-insensitive; rustls lower-cases what it parses. Nothing else is let slip by this.
    let scene = Scene::new().await;
    let output = scene.openssl(&["-tls1_3", "-servername", &NAME.to_uppercase()], b"").await;
    assert!(text(&output).contains("Verify return code: 0 (ok)"), "{}", text(&output));
}

#[tokio::test]
async fn refuses_plaintext_http() {
    let scene = Scene::new().await;
    let attacks: [&[u8]; 2] =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"];
    for attack in attacks {
        let mut stream = TcpStream::connect(scene.rig.address).await.unwrap();
        stream.write_all(attack).await.unwrap();
        let mut heard = Vec::new();
        let _ = within("the server closes", stream.read_to_end(&mut heard)).await;
        // A TLS alert at most: nothing that speaks HTTP.
        assert!(heard.len() <= 7 && heard.first().is_none_or(|b| *b == 21), "{heard:?}");
    }
    scene.rig.counted("tls_handshakes_total{result=\"not-tls\",resumed=\"false\",surface=\"mesh\"} 2").await;
}

#[tokio::test]
async fn invariant_4_the_mesh_resumes_nothing() {
    let scene = Scene::new().await;
    let session = scene.folder.path("session.pem");
    let session = session.to_str().unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    let first =
        scene.openssl(&["-tls1_3", "-servername", NAME, "-sess_out", session, "-ign_eof"], head.as_bytes()).await;
    assert!(text(&first).contains("New, TLSv1.3"), "{}", text(&first));
    assert!(!text(&first).contains("Post-Handshake New Session Ticket arrived"), "{}", text(&first));
    assert!(!std::path::Path::new(session).exists(), "openssl was given a session to keep");
    let again = scene.openssl(&["-tls1_3", "-servername", NAME, "-reconnect"], b"").await;
    assert!(!text(&again).contains("Reused"), "{}", text(&again));
    assert!(!scene.rig.telemetry.encode().contains("resumed=\"true\""));
}
