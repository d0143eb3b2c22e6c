//! `verify` against listeners that hold, and against listeners that are made to give way in one point each.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use internaltls::identity::Role;
use meshctl::certs::init;
use meshctl::verify::credentials::{Credentials, Pair};
use meshctl::verify::probe::{Line, Probe, Seen, Verdict};
use meshctl::verify::{Target, report, verify};
use prost::Message;
use rpc::mesh::WhoAmIReply;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: init::Args,
}

fn certificates(more: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let given = ["init", "--out", dir.path().to_str().unwrap()];
    Init::try_parse_from(given.iter().chain(more)).unwrap().args.make(OffsetDateTime::now_utc()).unwrap();
    dir
}

/// How a listener judges.
#[derive(Clone)]
struct Judge {
    /// CAs that a client's leaf may chain to; none: no certificate is asked for.
    cas: Vec<&'static str>,
    /// The only name answered to; none: any, or none at all.
    sni: Option<&'static str>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

const STRICT: Judge =
    Judge { cas: Vec::new(), sni: Some("coordinator.mesh.internal"), versions: &[&rustls::version::TLS13] };

fn strict() -> Judge {
    Judge { cas: vec!["mesh/ca.pem"], ..STRICT }
}

#[derive(Debug)]
struct Names(Option<&'static str>, Arc<CertifiedKey>);

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (self.0.is_none() || hello.server_name() == self.0).then(|| self.1.clone())
    }
}

fn tls(certs: &Path, judge: &Judge) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(judge.versions).unwrap();
    let builder = if judge.cas.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for ca in &judge.cas {
            roots.add(CertificateDer::from_pem_file(certs.join(ca)).unwrap()).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    };
    let pair = Pair::load(&certs.join("mesh/coordinator-1"), "server").unwrap();
    let key = CertifiedKey::from_der(pair.chain, pair.key, &provider).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_cert_resolver(Arc::new(Names(judge.sni, Arc::new(key))))))
}

async fn listen<F, D>(door: D) -> SocketAddr
where
    D: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(door(tcp));
        }
    });
    address
}

async fn listen_tls(certs: &Path, judge: &Judge, node: &'static str) -> SocketAddr {
    let acceptor = tls(certs, judge);
    listen(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                answer(tls, node).await;
            }
        }
    })
    .await
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(io: S, node: &str) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let reply = WhoAmIReply {
            caller: "spiffe://mesh.internal/operator/operator-1".into(),
            server_role: "coordinator".into(),
            server_node: node.into(),
            server_generation: 1,
        };
        let encoded = reply.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
        body.extend(encoded);
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(body), false).unwrap();
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        stream.send_trailers(trailers).unwrap();
    }
}

async fn probe(certs: &Path, address: SocketAddr) -> Vec<Line> {
    let credentials = Credentials::load(certs, OffsetDateTime::now_utc()).unwrap();
    let role = Role::new("coordinator").unwrap();
    let target = Target { name: "coordinator-1".into(), address, role, node: Some("coordinator-1".into()) };
    verify(vec![target], credentials).await
}

fn surprising(lines: &[Line]) -> BTreeSet<String> {
    assert_eq!(lines.len(), Probe::ALL.len(), "a line a probe");
    lines.iter().filter(|line| line.verdict == Verdict::Surprise).map(|line| line.probe.to_string()).collect()
}

fn names(probes: &[Probe]) -> BTreeSet<String> {
    probes.iter().map(Probe::to_string).collect()
}

#[tokio::test]
async fn green_against_a_strict_listener() {
    let certs = certificates(&[]);
    let lines = probe(certs.path(), listen_tls(certs.path(), &strict(), "coordinator-1").await).await;
    let table = report::table(&lines, false);
    assert!(lines.iter().all(|line| line.verdict == Verdict::Green), "{table}");
    assert!(table.contains("all 9 probes green"), "{table}");
    assert!(
        table.contains("served: coordinator/coordinator-1 sees spiffe://mesh.internal/operator/operator-1"),
        "{table}"
    );
}

#[tokio::test]
async fn red_against_a_listener_that_accepts_all() {
    let certs = certificates(&[]);
    let judge = Judge { sni: None, versions: rustls::ALL_VERSIONS, ..STRICT };
    let lines = probe(certs.path(), listen_tls(certs.path(), &judge, "coordinator-1").await).await;
    let all_over_tls: Vec<_> =
        Probe::ALL.into_iter().filter(|probe| !matches!(probe, Probe::Plaintext | Probe::RightClient)).collect();
    assert_eq!(surprising(&lines), names(&all_over_tls), "{}", report::table(&lines, false));
    assert!(
        report::table(&lines, false).contains("7 of 9 probes were let in as intruders: internal TLS does not hold")
    );
}

#[tokio::test]
async fn red_where_one_thing_is_let_through() {
    let certs = certificates(&[]);
    let both = vec!["mesh/ca.pem", "edge/ca.pem"];
    for (judge, gap) in [
        (Judge { cas: both, ..STRICT }, [Probe::EdgeClient].as_slice()),
        (Judge { sni: None, ..strict() }, &[Probe::WrongSni, Probe::NoSni]),
        (Judge { versions: rustls::ALL_VERSIONS, ..strict() }, &[Probe::Tls12]),
    ] {
        let lines = probe(certs.path(), listen_tls(certs.path(), &judge, "coordinator-1").await).await;
        assert_eq!(surprising(&lines), names(gap), "{}", report::table(&lines, false));
    }
}

#[tokio::test]
async fn red_against_a_plaintext_listener() {
    let certs = certificates(&[]);
    let address = listen(|tcp| answer(tcp, "coordinator-1")).await;
    let lines = probe(certs.path(), address).await;
    assert_eq!(surprising(&lines), names(&Probe::ALL), "{}", report::table(&lines, false));
    assert!(matches!(&lines[0].seen, Seen::Answered(_)), "{:?}", lines[0].seen);
}

#[tokio::test]
async fn red_where_another_node_answers() {
    let certs = certificates(&[]);
    let lines = probe(certs.path(), listen_tls(certs.path(), &strict(), "coordinator-2").await).await;
    assert_eq!(surprising(&lines), names(&[Probe::RightClient]), "{}", report::table(&lines, false));
}

#[tokio::test]
async fn red_where_nobody_listens() {
    let certs = certificates(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let lines = probe(certs.path(), address).await;
    let table = report::table(&lines, false);
    assert!(lines.iter().all(|line| line.verdict == Verdict::Absent && !line.let_in()), "{table}");
    assert!(table.contains(&format!("nobody listens on {address}")) && !table.contains("does not hold"), "{table}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_refusal() {
    let certs = certificates(&[]);
    let address = listen(|tcp| async move {
        let _open = tcp;
        tokio::time::sleep(Duration::from_secs(86_400)).await;
    })
    .await;
    let lines = probe(certs.path(), address).await;
    assert_eq!(surprising(&lines), names(&Probe::ALL), "{}", report::table(&lines, false));
}

#[tokio::test]
async fn expired_leaf_needs_the_authority() {
    let certs = certificates(&[]);
    std::fs::remove_file(certs.path().join("mesh/ca.key")).unwrap();
    let lines = probe(certs.path(), listen_tls(certs.path(), &strict(), "coordinator-1").await).await;
    let table = report::table(&lines, false);
    let not_tried: Vec<_> =
        lines.iter().filter(|line| line.verdict == Verdict::NotTried).map(|line| line.probe).collect();
    assert_eq!(not_tried, [Probe::Expired], "{table}");
    assert!(surprising(&lines).is_empty() && table.contains("no surprise, but no full proof"), "{table}");
}

#[tokio::test]
async fn shared_leaf_is_the_right_client_of_its_layout() {
    let certs = certificates(&["--layout", "milvus"]);
    let credentials = Credentials::load(certs.path(), OffsetDateTime::now_utc()).unwrap();
    assert_eq!(credentials.naming.right("proxy"), "localhost");
    assert!(credentials.expired.is_ok() && credentials.edge_client.is_ok());
}
