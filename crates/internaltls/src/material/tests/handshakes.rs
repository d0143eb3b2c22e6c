//! Who gets through a handshake with the configs of a generation, and what was agreed.
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};

use super::issue::*;
use crate::clock::TestClock;
use crate::config::EdgeMode;
use crate::error::{Reason, VerifyError};
use crate::identity::{NodeId, Role};
use crate::material::generation::provider;
use crate::material::trial::handshake;
use crate::material::{Generation, Store};
use crate::verify::{Expected, PeerSide};

struct Node {
    store: Arc<Store>,
    folder: Folder,
}

impl Node {
    async fn new(ca: &Authority, role: &str, node: &str) -> Self {
        Self::with(ca, role, node, ca.node(role, node)).await
    }

    async fn with(ca: &Authority, role: &str, node: &str, leaf: Leaf) -> Self {
        let folder = Folder::of(&ca.pem, &leaf);
        let store = open(mesh(role, node), folder.files()).await.unwrap();
        Self { store, folder }
    }

    fn generation(&self) -> Arc<Generation> {
        self.store.current()
    }

    async fn renew(&self, leaf: &Leaf) {
        self.folder.put("server.pem", &leaf.pem);
        self.folder.put("server.key", &leaf.key);
        self.store.reload().await.unwrap();
    }
}

type Ends = (ClientConnection, ServerConnection);

/// `from` dials `to`, asking for its role.
fn dial(from: &Node, to: &Node, role: &str) -> Result<Ends, Error> {
    let name = from.generation().server_name(&Role::new(role).unwrap());
    handshake(&from.generation().client.clone().unwrap(), &to.generation().server, name)
}

/// A client of our making dials `to`.
fn intrude(client: ClientConfig, to: &Node, name: &str) -> Result<Ends, Error> {
    handshake(&Arc::new(client), &to.generation().server, ServerName::try_from(name.to_owned()).unwrap())
}

/// Takes any server for what it says.
pub(super) fn careless(leaf: Option<&Leaf>, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless));
    match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            use rustls::pki_types::pem::PemObject;
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            let chain = CertificateDer::pem_slice_iter(leaf.pem.as_bytes()).collect::<Result<_, _>>().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

pub(super) const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[derive(Debug)]
struct Careless;

impl rustls::client::danger::ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The reason of ours that ended a handshake.
fn reason(result: Result<Ends, Error>) -> Reason {
    let error = result.map(|_| "the handshake succeeded").unwrap_err();
    VerifyError::of(&error).unwrap_or_else(|| panic!("not a reason of ours: {error}")).reason.clone()
}

#[tokio::test]
async fn agrees_on_tls13_post_quantum_and_h2() {
    let ca = authority("ca");
    let (proxy, coordinator) =
        (Node::new(&ca, "proxy", "proxy-1").await, Node::new(&ca, "coordinator", "coordinator-1").await);
    let (client, server) = dial(&proxy, &coordinator, "coordinator").unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(server.negotiated_cipher_suite().unwrap().suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.server_name(), Some("coordinator.mesh.internal"));
    assert_eq!(server.peer_certificates().unwrap().len(), 1);
}

#[tokio::test]
async fn falls_back_to_the_two_named_groups_alone() {
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519};
    let ca = authority("ca");
    let node = Node::new(&ca, "proxy", "proxy-1").await;
    let leaf = ca.node("proxy", "p");
    let with_group = |group| {
        let only = rustls::crypto::CryptoProvider { kx_groups: vec![group], ..provider() };
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(only))
            .with_protocol_versions(TLS13)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Careless))
            .with_client_auth_cert(vec![leaf.der.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        intrude(config, &node, "proxy.mesh.internal")
    };
    for (group, expected) in [(X25519, NamedGroup::X25519), (SECP256R1, NamedGroup::secp256r1)] {
        let (_, server) = with_group(group).unwrap();
        assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), expected);
    }
    with_group(SECP384R1).map(|_| ()).unwrap_err();
}

#[tokio::test]
async fn invariant_2_a_handshake_sees_one_generation() {
    let (old, new) = (authority("old"), authority("new"));
    let (a, b) = (Node::new(&old, "proxy", "proxy-1").await, Node::new(&old, "coordinator", "c-1").await);
    let before = (a.generation(), b.generation());
    for node in [&a, &b] {
        node.folder.put("ca.pem", &new.pem);
    }
    a.renew(&new.node("proxy", "proxy-1")).await;
    b.renew(&new.node("coordinator", "c-1")).await;
    assert_eq!((a.generation().number, b.generation().number), (2, 2));
    dial(&a, &b, "coordinator").unwrap();
    // What began under the old generation still has all of the old: leaf, key and bundle.
    let name = ServerName::try_from("coordinator.mesh.internal").unwrap();
    handshake(before.0.client.as_ref().unwrap(), &before.1.server, name.clone()).unwrap();
    handshake(before.0.client.as_ref().unwrap(), &b.generation().server, name.clone()).map(drop).unwrap_err();
    handshake(a.generation().client.as_ref().unwrap(), &before.1.server, name).map(drop).unwrap_err();
}

#[tokio::test]
async fn invariant_4_nothing_is_resumed() {
    let ca = authority("ca");
    let (a, b) = (Node::new(&ca, "proxy", "proxy-1").await, Node::new(&ca, "coordinator", "c-1").await);
    for _ in 0..3 {
        let (client, server) = dial(&a, &b, "coordinator").unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
    // Nor for a client that would.
    let eager = Arc::new(careless(Some(&ca.node("proxy", "proxy-1")), TLS13));
    for _ in 0..2 {
        let name = ServerName::try_from("coordinator.mesh.internal").unwrap();
        let (client, _) = handshake(&eager, &b.generation().server, name).unwrap();
        assert_eq!((client.handshake_kind(), client.tls13_tickets_received()), (Some(HandshakeKind::Full), 0));
    }
    assert_eq!(b.generation().server.max_early_data_size, 0);
    assert!(!a.generation().client.as_ref().unwrap().enable_early_data);
    assert!(!b.generation().server.ticketer.enabled());
}

#[tokio::test]
async fn invariant_4_an_edge_that_asks_for_certificates_resumes_nothing() {
    let ca = authority("ca");
    let client = ca.leaf(|p| {
        p.subject_alt_names = vec![dns("app")];
        p.extended_key_usages = both();
    });
    for (mode, resumed) in [(EdgeMode::TwoWay, HandshakeKind::Full), (EdgeMode::OneWay, HandshakeKind::Resumed)] {
        let folder = Folder::of(&ca.pem, &ca.leaf(shape_shared));
        let edge = Node { store: open(edge(mode, true), folder.files()).await.unwrap(), folder };
        for versions in [TLS13, TLS12] {
            let eager = Arc::new(careless(Some(&client), versions));
            let dial = || {
                let (mut client, mut server) =
                    handshake(&eager, &edge.generation().server, ServerName::try_from("localhost").unwrap()).unwrap();
                // Tickets of TLS 1.3 come after the handshake.
                let mut bytes = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut bytes).unwrap();
                }
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    client.read_tls(&mut rest).unwrap();
                    client.process_new_packets().unwrap();
                }
                client.handshake_kind().unwrap()
            };
            dial();
            assert_eq!(dial(), resumed, "{mode:?}");
        }
    }
}

#[tokio::test]
async fn invariant_6_missing_and_foreign_sni_are_refused() {
    let ca = authority("ca");
    let proxy = Node::new(&ca, "proxy", "proxy-1").await;
    let leaf = ca.node("coordinator", "c-1");
    let client = careless(Some(&leaf), TLS13);
    intrude(client.clone(), &proxy, "proxy.mesh.internal").unwrap();
    for name in [
        "coordinator.mesh.internal",
        "mesh.internal",
        "xproxy.mesh.internal",
        "proxy.mesh.internal.evil",
        "localhost",
        "127.0.0.1",
    ] {
        intrude(client.clone(), &proxy, name).map(drop).unwrap_err();
    }
    let mut silent = client;
    silent.enable_sni = false;
    intrude(silent, &proxy, "proxy.mesh.internal").map(drop).unwrap_err();
    let generation = proxy.generation();
    assert!(generation.accepts_sni(Some("proxy.mesh.internal")));
    assert!(generation.accepts_sni(Some("PROXY.mesh.internal")), "RFC 4343: case does not count");
    for sni in [None, Some("proxy.mesh.internal."), Some("proxy"), Some("coordinator.mesh.internal")] {
        assert!(!generation.accepts_sni(sni), "{sni:?}");
    }
}

#[tokio::test]
async fn invariant_6_a_dialer_verifies_the_role_it_asked_for() {
    let ca = authority("ca");
    let (a, b) = (Node::new(&ca, "proxy", "proxy-1").await, Node::new(&ca, "coordinator", "c-1").await);
    dial(&a, &b, "data-node").map(drop).unwrap_err();
    // A server that answers to any name with a right leaf of another role.
    let folder = Folder::of(&ca.pem, &ca.node("coordinator", "c-1"));
    let liar = open(edge(EdgeMode::OneWay, false), folder.files()).await.unwrap();
    let name = ServerName::try_from("data-node.mesh.internal").unwrap();
    let result = handshake(a.generation().client.as_ref().unwrap(), &liar.current().server, name);
    assert!(matches!(reason(result), Reason::NameMismatch { .. }));
}

#[tokio::test]
async fn invariant_6_the_node_meant_is_verified() {
    let ca = authority("ca");
    let a = Node::new(&ca, "proxy", "proxy-1").await;
    let expect = |role: &str, node: Option<&str>| Expected {
        role: Role::new(role).unwrap(),
        node: node.map(|n| NodeId::new(n).unwrap()),
    };
    let chain = [ca.node("data-node", "data-node-1").der];
    let vouch = |expect| a.generation().vouch(&chain, PeerSide::Server, Some(&expect)).map_err(|e| e.reason);
    let vouched = vouch(expect("data-node", Some("data-node-1"))).unwrap();
    assert_eq!(vouched.identity.to_string(), "spiffe://mesh.internal/data-node/data-node-1");
    vouch(expect("data-node", None)).unwrap();
    assert!(matches!(vouch(expect("data-node", Some("data-node-2"))), Err(Reason::NodeMismatch { .. })));
    assert!(matches!(vouch(expect("data-node", Some("data-node-11"))), Err(Reason::NodeMismatch { .. })));
    assert!(matches!(vouch(expect("proxy", None)), Err(Reason::NameMismatch { .. })));
}

#[tokio::test]
async fn invariant_1_clients_without_a_fit_certificate_are_refused() {
    let ca = authority("ca");
    let proxy = Node::new(&ca, "proxy", "proxy-1").await;
    let try_with = |leaf: Option<&Leaf>| intrude(careless(leaf, TLS13), &proxy, "proxy.mesh.internal");
    assert!(matches!(try_with(None).map(drop), Err(Error::NoCertificatesPresented)));
    assert_eq!(reason(try_with(Some(&authority("other").node("proxy", "p")))), Reason::UnknownIssuer);
    assert_eq!(reason(try_with(Some(&authority("ca").node("proxy", "p")))), Reason::BadSignature);
    assert!(intrude(careless(Some(&ca.node("proxy", "p")), TLS12), &proxy, "proxy.mesh.internal").is_err());
    let shaped = |shape: &dyn Fn(&mut CertificateParams)| {
        reason(try_with(Some(&ca.leaf(|p| {
            shape_node(p, "proxy", "p");
            shape(p);
        }))))
    };
    assert_eq!(
        shaped(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        Reason::WrongUsage { missing: "clientAuth" }
    );
    assert_eq!(shaped(&|p| p.extended_key_usages.clear()), Reason::WrongUsage { missing: "clientAuth" });
    assert_eq!(
        shaped(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        Reason::WrongUsage { missing: "clientAuth" }
    );
    assert_eq!(shaped(&|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), Reason::CaAsLeaf);
    assert_eq!(shaped(&|p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0))), Reason::CaAsLeaf);
    assert_eq!(shaped(&|p| p.subject_alt_names.clear()), Reason::NoSan);
    assert!(matches!(shaped(&|p| p.subject_alt_names = vec![dns("localhost")]), Reason::BadIdentity(_)));
    assert!(matches!(
        shaped(&|p| p.subject_alt_names = vec![dns("*.mesh.internal"), uri("spiffe://mesh.internal/proxy/p")]),
        Reason::BadIdentity(_)
    ));
    assert!(matches!(
        shaped(&|p| p.not_after = (SystemTime::now() - Duration::from_secs(5)).into()),
        Reason::Expired { .. }
    ));
    assert!(matches!(
        shaped(&|p| p.not_before = (SystemTime::now() + Duration::from_secs(600)).into()),
        Reason::NotYetValid { .. }
    ));
}

#[tokio::test]
async fn long_chains_are_refused_and_the_first_to_expire_counts() {
    let root = authority("root");
    let proxy = Node::new(&root, "proxy", "proxy-1").await;
    let mut above = vec![root.intermediate("1")];
    for n in 2..=5 {
        above.push(above.last().unwrap().intermediate(&n.to_string()));
    }
    let chain_of = |count: usize| {
        let leaf = above[count - 1].node("proxy", "p");
        std::iter::once(leaf.der).chain(above[..count].iter().rev().map(|ca| ca.der.clone())).collect::<Vec<_>>()
    };
    proxy.generation().vouch(&chain_of(4), PeerSide::Client, None).unwrap();
    let refused = proxy.generation().vouch(&chain_of(5), PeerSide::Client, None).unwrap_err();
    assert_eq!(refused.reason, Reason::ChainTooLong { limit: 4 });
    let soon = SystemTime::now() + Duration::from_secs(600);
    let short = authority_with("short", |p| p.not_after = soon.into());
    let node = Node::new(&short, "proxy", "proxy-1").await;
    let vouched = node.generation().vouch(&[short.node("proxy", "p").der], PeerSide::Client, None).unwrap();
    assert!(vouched.not_after <= soon && soon.duration_since(vouched.not_after).unwrap() < Duration::from_secs(2));
}

#[tokio::test]
async fn time_is_that_of_the_clock_passed_in() {
    let ca = authority("ca");
    let clock = Arc::new(TestClock::at(SystemTime::now()));
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let store = open_with(mesh("proxy", "proxy-1"), folder.files(), quick(), clock.clone()).await.unwrap();
    let proxy = Node { store, folder };
    dial(&proxy, &proxy, "proxy").unwrap();
    clock.advance(Duration::from_secs(3 * 86_400));
    assert!(matches!(reason(dial(&proxy, &proxy, "proxy")), Reason::AnchorExpired | Reason::Expired { .. }));
}

#[tokio::test]
async fn a_separate_leaf_dials() {
    let ca = authority("ca");
    let one = |usage| {
        ca.leaf(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.extended_key_usages = vec![usage];
        })
    };
    let (server, client) = (one(ExtendedKeyUsagePurpose::ServerAuth), one(ExtendedKeyUsagePurpose::ClientAuth));
    let folder = Folder::of(&ca.pem, &server);
    folder.put("client.pem", &client.pem);
    folder.put("client.key", &client.key);
    let files = crate::config::Files {
        client_cert: Some(folder.path("client.pem")),
        client_key: Some(folder.path("client.key")),
        ..folder.files()
    };
    let proxy = Node { store: open(mesh("proxy", "proxy-1"), files).await.unwrap(), folder };
    let (dialer, listener) = dial(&proxy, &proxy, "proxy").unwrap();
    assert_eq!(listener.peer_certificates().unwrap(), [client.der]);
    assert_eq!(dialer.peer_certificates().unwrap(), [server.der]);
}

#[tokio::test]
async fn a_shared_leaf_is_known_by_its_key() {
    let ca = authority("ca");
    let (first, second, third) = (ca.leaf(shape_shared), ca.leaf(shape_shared), ca.leaf(shape_shared));
    let (a, b) =
        (Node::with(&ca, "proxy", "p", first.clone()).await, Node::with(&ca, "coordinator", "c", first.clone()).await);
    let (_, server) = dial(&a, &b, "coordinator").unwrap();
    assert_eq!(server.server_name(), Some("localhost"));
    // Another leaf of the same CA: an edge client's.
    assert_eq!(reason(intrude(careless(Some(&second), TLS13), &b, "localhost")), Reason::UnknownSharedKey);
    // One renews first: the other still knows the key before.
    b.renew(&second).await;
    assert_eq!(b.generation().number, 2);
    intrude(careless(Some(&first), TLS13), &b, "localhost").unwrap();
    assert_eq!(reason(dial(&a, &b, "coordinator")), Reason::UnknownSharedKey);
    a.renew(&second).await;
    dial(&a, &b, "coordinator").unwrap();
    // Two renewals later it is unknown.
    b.renew(&third).await;
    assert_eq!(reason(intrude(careless(Some(&first), TLS13), &b, "localhost")), Reason::UnknownSharedKey);
}

#[tokio::test]
async fn an_unknown_shared_key_makes_us_read_the_files() {
    let ca = authority("ca");
    let (first, second) = (ca.leaf(shape_shared), ca.leaf(shape_shared));
    let b = Node::with(&ca, "coordinator", "c", first).await;
    let mut newest = b.store.subscribe();
    b.folder.put("server.pem", &second.pem);
    b.folder.put("server.key", &second.key);
    assert_eq!(reason(intrude(careless(Some(&second), TLS13), &b, "localhost")), Reason::UnknownSharedKey);
    let seen = tokio::time::timeout(Duration::from_secs(20), newest.wait_for(|number| *number == 2)).await;
    assert_eq!(seen.map(|seen| *seen.unwrap()).ok(), Some(2), "{:?}", b.store.status());
    intrude(careless(Some(&second), TLS13), &b, "localhost").unwrap();
}

#[tokio::test]
async fn invariant_3_a_refused_set_leaves_no_key_behind() {
    let ca = authority("ca");
    let first = ca.leaf(shape_shared);
    let b = Node::with(&ca, "coordinator", "c", first.clone()).await;
    let elsewhere = ca.leaf(|p| p.subject_alt_names = vec![dns("elsewhere")]);
    let per_node = ca.node("coordinator", "c");
    for other in [elsewhere, per_node] {
        b.folder.put("server.pem", &other.pem);
        b.folder.put("server.key", &other.key);
        let error = b.store.reload().await.unwrap_err();
        assert!(matches!(error, crate::error::LoadError::LayoutChanged { .. }), "{error}");
        assert_eq!(reason(intrude(careless(Some(&other), TLS13), &b, "localhost")), Reason::UnknownSharedKey);
        b.folder.put("server.pem", &first.pem);
        b.folder.put("server.key", &first.key);
        b.store.reload().await.unwrap();
        assert_eq!(reason(intrude(careless(Some(&other), TLS13), &b, "localhost")), Reason::UnknownSharedKey);
    }
    assert_eq!(b.generation().number, 1);
}

#[tokio::test]
async fn an_edge_takes_clients_as_it_is_told() {
    let ca = authority("ca");
    let client = |usages: Vec<ExtendedKeyUsagePurpose>| {
        ca.leaf(|p| {
            p.subject_alt_names = vec![dns("app")];
            p.extended_key_usages = usages;
        })
    };
    let (right, documented, silent) =
        (client(both()), client(vec![ExtendedKeyUsagePurpose::ServerAuth]), client(vec![]));
    let signs = ca.leaf(|p| {
        p.subject_alt_names = vec![dns("app")];
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    for strict in [false, true] {
        let folder = Folder::of(&ca.pem, &ca.leaf(shape_shared));
        let telemetry = Arc::new(crate::telemetry::Telemetry::new());
        let clock = Arc::new(crate::clock::SystemClock);
        let store =
            Store::open(edge(EdgeMode::TwoWay, strict), folder.files(), None, quick(), clock, Arc::clone(&telemetry))
                .await
                .unwrap();
        let edge = Node { store, folder };
        for versions in [TLS12, TLS13] {
            let dial = |leaf: Option<&Leaf>| intrude(careless(leaf, versions), &edge, "any.name.at.all");
            dial(Some(&right)).unwrap();
            assert!(dial(None).is_err());
            assert_eq!(reason(dial(Some(&signs))), Reason::CaAsLeaf);
            assert_eq!(dial(Some(&documented)).is_ok(), !strict);
            assert_eq!(dial(Some(&silent)).is_ok(), !strict);
            assert_eq!(reason(dial(Some(&authority("other").node("a", "b")))), Reason::UnknownIssuer);
        }
        let counted = format!("internaltls_clients_without_client_auth_total {}", if strict { 0 } else { 2 });
        assert!(telemetry.encode().contains(&counted), "{}", telemetry.encode());
        assert!(edge.generation().client.is_none() && edge.generation().accepts_sni(None));
    }
}

#[tokio::test]
async fn an_edge_offers_both_protocols() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.leaf(shape_shared));
    let edge = Node { store: open(edge(EdgeMode::OneWay, false), folder.files()).await.unwrap(), folder };
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let mut client = careless(None, TLS13);
        client.alpn_protocols = vec![protocol.to_vec()];
        client.enable_sni = false;
        let (_, server) = intrude(client, &edge, "localhost").unwrap();
        assert_eq!(server.alpn_protocol(), Some(protocol));
    }
}

/// A certificate's serial number, as a CRL lists it.
fn serial(der: &CertificateDer<'_>) -> Vec<u8> {
    let hex = crate::verify::CertificateFacts::read(der).unwrap().serial;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The hash of a certificate's key, as the distrust list has it.
fn key_hash(der: &CertificateDer<'_>) -> String {
    let facts = crate::verify::CertificateFacts::read(der).unwrap();
    facts.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn crl_and_distrust_refuse_peers() {
    let ca = authority("ca");
    let (own, peer, other) = (ca.node("proxy", "proxy-1"), ca.node("proxy", "p"), ca.node("proxy", "q"));
    let folder = Folder::of(&ca.pem, &own);
    folder.put("crl.pem", ca.crl(&[serial(&peer.der)], SystemTime::now() + Duration::from_secs(600)));
    folder.put("distrust", key_hash(&peer.der));
    let files = folder.files();
    let with_crl = crate::config::Files { crl: Some(folder.path("crl.pem")), ..files.clone() };
    let with_distrust = crate::config::Files { distrust: Some(folder.path("distrust")), ..files };
    for (files, expected) in [(with_crl, Reason::Revoked), (with_distrust, Reason::Distrusted)] {
        let store = open(mesh("proxy", "proxy-1"), files).await.unwrap();
        let vouch = |leaf: &Leaf| {
            store.current().vouch(std::slice::from_ref(&leaf.der), PeerSide::Client, None).map_err(|e| e.reason)
        };
        assert_eq!(vouch(&peer).unwrap_err(), expected);
        vouch(&other).unwrap();
    }
}

/// An expired certificate in the CA's name, sent beside a leaf that is listed, must not make the refusal look like an accident.
#[tokio::test]
async fn expired_bait_does_not_hide_distrust() {
    let (ca, next) = (authority("ca"), authority("next"));
    let expired = |params: &mut CertificateParams| {
        params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
    };
    let folder = Folder::of(&format!("{}{}", ca.pem, next.pem), &ca.node("proxy", "proxy-1"));
    let (revoked, of_next) = (ca.node("proxy", "p"), next.node("proxy", "q"));
    let later = SystemTime::now() + Duration::from_secs(600);
    folder.put("crl.pem", format!("{}{}", ca.crl(&[serial(&revoked.der)], later), next.crl(&[], later)));
    folder.put("distrust", key_hash(&next.der));
    let files = folder.files();
    let with_crl = crate::config::Files { crl: Some(folder.path("crl.pem")), ..files.clone() };
    let with_distrust = crate::config::Files { distrust: Some(folder.path("distrust")), ..files };
    let cases = [(with_crl, revoked, "ca", Reason::Revoked), (with_distrust, of_next, "next", Reason::Distrusted)];
    for (files, leaf, name, expected) in cases {
        let store = open(mesh("proxy", "proxy-1"), files).await.unwrap();
        let bait = authority_with(name, expired).der;
        let found = store.current().vouch(&[leaf.der, bait], PeerSide::Client, None).unwrap_err();
        assert_eq!(found.reason, expected);
        assert!(found.is_distrust());
    }
}

#[test]
fn invariant_7_sslkeylogfile_is_not_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("keys");
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "material::tests::handshakes::agrees_on_tls13_post_quantum_and_h2"])
        .env("SSLKEYLOGFILE", &log)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && told.contains("1 passed"), "{told}");
    assert!(!fs::exists(&log).unwrap());
}
