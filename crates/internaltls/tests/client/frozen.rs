//! A peer that hangs: it accepts connections, or its kernel does, and says nothing, or nearly nothing.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use internaltls::{Endpoint, LoadError, Mesh, Reload};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::bench::{Echo, LONG, by_hand, call, mesh, until};
use super::pki::{Authority, Node};
use super::scripted::listen;
use super::transaction::channel;

/// What becomes of a connection that comes from now on.
#[derive(Clone)]
enum Mode {
    Forward,
    /// Accepted, and nothing is said.
    Silent,
    /// The handshake ends, and nothing is said.
    SilentAfterTls(Arc<rustls::ServerConfig>),
    /// The peer's answer comes byte by byte.
    Trickle,
}

/// A peer between us and a node, that can hang. Connections of before go on.
struct Relay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Told of each connection that hangs.
    hangs: Arc<Notify>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    async fn to(node: SocketAddr) -> Self {
        let (listener, hangs) = (listen().await, Arc::new(Notify::new()));
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Forward);
        let told = Arc::clone(&hangs);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let now = modes.borrow().clone();
                if !matches!(now, Mode::Forward) {
                    told.notify_one();
                }
                tokio::spawn(relay(stream, node, now, modes.clone()));
            }
        });
        Self { address, mode, hangs, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Carries one connection. One that hangs breaks off when the relay forwards again.
async fn relay(mut stream: TcpStream, node: SocketAddr, mode: Mode, mut modes: watch::Receiver<Mode>) {
    let hang = async {
        match mode {
            Mode::Forward => {
                let mut onward = TcpStream::connect(node).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut onward).await;
            }
            Mode::Silent => std::future::pending().await,
            Mode::SilentAfterTls(config) => {
                let _tls = TlsAcceptor::from(config).accept(stream).await;
                std::future::pending().await
            }
            Mode::Trickle => trickle(stream, TcpStream::connect(node).await.unwrap()).await,
        }
    };
    let forwards = matches!(*modes.borrow(), Mode::Forward);
    tokio::select! {
        () = hang => {}
        _ = modes.wait_for(|mode| matches!(mode, Mode::Forward)), if !forwards => {}
    }
}

/// So slow that a handshake takes a minute.
async fn trickle(stream: TcpStream, onward: TcpStream) {
    let ((mut from_us, mut to_us), (mut from_node, mut to_node)) = (stream.into_split(), onward.into_split());
    let up = tokio::io::copy(&mut from_us, &mut to_node);
    let down = async {
        while let Ok(byte) = from_node.read_u8().await {
            let _ = to_us.write_u8(byte).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let _ = tokio::join!(up, down);
}

fn bare(node: &Node) -> Arc<rustls::ServerConfig> {
    let files = node.files();
    let chain = CertificateDer::pem_file_iter(files.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn opened(node: &Node, reload: Reload) -> Mesh {
    let mut config = by_hand(node, node.files_with_distrust());
    config.reload = reload;
    Mesh::open(config).await.unwrap()
}

#[tokio::test]
async fn a_peer_that_says_nothing_has_no_say() {
    let ca = Authority::new();
    let (node, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let echo = Echo::start(mesh(&node).await).await;
    let modes = [Mode::Silent, Mode::SilentAfterTls(bare(&node)), Mode::Trickle];
    for mode in modes {
        let relay = Relay::to(echo.address).await;
        let reload = Reload { watch: false, trial_timeout: Duration::from_millis(500), ..Reload::default() };
        let dialling = opened(&client, reload).await;
        let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(relay.address));
        call(&channel, "connect").await.unwrap();
        relay.turn(mode);
        ca.renew(&client);
        let renewed = tokio::time::timeout(LONG, dialling.reload()).await.expect("held back by a peer that hangs");
        assert_eq!(renewed.unwrap(), Some(2));
        let text = dialling.telemetry().encode();
        assert!(text.contains("internaltls_trials_total{side=\"asked\",result=\"silent\"} 1"), "{text}");
        let status = dialling.status().material.unwrap();
        assert_eq!(status.silent_peers, ["spiffe://mesh.internal/data-node/data-node-1"]);
        // One that answers again is named no longer.
        relay.turn(Mode::Forward);
        until("it is connected again", async || call(&channel, "on").await.is_ok(), |on| *on).await;
        ca.renew(&client);
        assert_eq!(dialling.reload().await.unwrap(), Some(3));
        assert_eq!(dialling.status().material.unwrap().silent_peers, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_a_frozen_peer_delays_no_cut() {
    for watch in [false, true] {
        let ca = Authority::new();
        let (server, far) = (ca.node("data-node", "data-node-1"), ca.node("data-node", "data-node-2"));
        let listed = ca.node("proxy", "proxy-1");
        let far = Echo::start(mesh(&far).await).await;
        let relay = Relay::to(far.address).await;
        let reload = Reload { watch, trial_timeout: 3 * LONG, ..Reload::default() };
        let echo = Echo::start(opened(&server, reload).await).await;
        let out = echo.mesh.channel("data-node".parse().unwrap(), Endpoint::from(relay.address));
        call(&out, "connect").await.unwrap();
        let dialling = mesh(&listed).await;
        let in_ = channel(&dialling, &echo);
        call(&in_, "connect").await.unwrap();
        let inbound = async || echo.mesh.registry().snapshot().iter().filter(|c| c.peer.contains("proxy-1")).count();
        assert_eq!(inbound().await, 1);

        // The turn of the pair is held.
        relay.turn(Mode::Silent);
        ca.renew(&server);
        let look = |mesh: &Mesh| {
            let mesh = mesh.clone();
            tokio::spawn(async move { mesh.reload().await })
        };
        let held = (!watch).then(|| look(&echo.mesh));
        tokio::time::timeout(LONG, relay.hangs.notified()).await.expect("the peer is asked");
        server.distrust(&[listed.leaf()]);
        let second = (!watch).then(|| look(&echo.mesh));
        until("the listed peer is cut", &inbound, |left| *left == 0).await;
        let text = echo.mesh.telemetry().encode();
        assert!(text.contains("internaltls_connections_cut_total{reason=\"distrusted\"} 1"), "{text}");
        assert!(!text.contains("side=\"asked\""), "the peer has answered: {text}");
        assert!(held.iter().chain(&second).all(|look| !look.is_finished()), "a look did not wait for the pair");
        assert!(call(&in_, "again").await.is_err());
        assert_eq!(echo.mesh.generation(), Some(2), "the list over the pair in use");

        // What was held is not published without its lists.
        relay.turn(Mode::Forward);
        for look in held.into_iter().chain(second) {
            let looked = tokio::time::timeout(LONG, look).await.expect("the look ends").unwrap();
            assert!(matches!(looked, Ok(Some(_)) | Err(LoadError::PeerTrial { .. })), "{looked:?}");
        }
        let renewed = async || (echo.mesh.reload().await.is_ok(), echo.mesh.generation());
        until("the leaf is renewed", renewed, |(_, generation)| *generation == Some(3)).await;
        assert!(call(&in_, "again").await.is_err());
    }
}

/// A node that serves a listed client, dials a peer that hangs, and has a new leaf on disk.
struct Held {
    server: Node,
    echo: Echo,
    look: tokio::task::JoinHandle<Result<Option<u64>, LoadError>>,
    _relay: Relay,
}

impl Held {
    async fn new(ca: &Authority) -> Self {
        let (server, far) = (ca.node("data-node", "data-node-1"), ca.node("data-node", "data-node-2"));
        let far = Echo::start(mesh(&far).await).await;
        let relay = Relay::to(far.address).await;
        let reload = Reload { watch: false, trial_timeout: Duration::from_secs(2), ..Reload::default() };
        let echo = Echo::start(opened(&server, reload).await).await;
        let out = echo.mesh.channel("data-node".parse().unwrap(), Endpoint::from(relay.address));
        call(&out, "connect").await.unwrap();
        relay.turn(Mode::Silent);
        ca.renew(&server);
        let mesh = echo.mesh.clone();
        let look = tokio::spawn(async move { mesh.reload().await });
        tokio::time::timeout(LONG, relay.hangs.notified()).await.expect("the peer is asked");
        Self { server, echo, look, _relay: relay }
    }

    /// Lists a leaf while the peer is asked, and gives what came of the look that asks.
    async fn list(&mut self, leaf: String) -> Result<Option<u64>, LoadError> {
        self.server.distrust(&[leaf]);
        let mesh = self.echo.mesh.clone();
        let second = tokio::spawn(async move { mesh.reload().await });
        until("the list is in force", async || self.echo.mesh.generation(), |now| *now == Some(2)).await;
        let looked = tokio::time::timeout(LONG, &mut self.look).await.expect("the look ends").unwrap();
        let _ = second.await.unwrap();
        looked
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_a_leaf_is_served_with_the_lists_of_now() {
    let ca = Authority::new();
    let listed = ca.node("proxy", "proxy-1");
    let mut held = Held::new(&ca).await;
    assert_eq!(held.list(listed.leaf()).await.unwrap(), Some(3));
    let dialling = mesh(&listed).await;
    assert!(call(&channel(&dialling, &held.echo), "in").await.is_err(), "the list went with the old leaf");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_3_a_leaf_that_is_listed_while_peers_are_asked_is_not_served() {
    let ca = Authority::new();
    let mut held = Held::new(&ca).await;
    let own = held.server.leaf();
    let refused = held.list(own).await;
    assert!(matches!(refused, Err(LoadError::Untrusted { .. })), "{refused:?}");
    assert_eq!(held.echo.mesh.generation(), Some(2));
}
