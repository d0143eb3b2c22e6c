//! What is published, and what the peers connected now have to say about it.
use http::uri::PathAndQuery;
use internaltls::{Channel, Endpoint, Files, LoadError, Mesh, Policy, ProbeError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::bench::{Echo, by_hand, call, mesh, until};
use super::pki::{Authority, Node};

/// A data-node that serves and a proxy that has called it.
pub(crate) struct Pair {
    pub(crate) ca: Authority,
    pub(crate) server: Node,
    pub(crate) client: Node,
    pub(crate) echo: Echo,
    pub(crate) dialling: Mesh,
    pub(crate) channel: Channel,
}

impl Pair {
    pub(crate) async fn connected() -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let echo = Echo::start(Mesh::open(by_hand(&server, server.files_with_distrust())).await.unwrap()).await;
        let dialling = Mesh::open(by_hand(&client, client.files_with_distrust())).await.unwrap();
        let channel = channel(&dialling, &echo);
        call(&channel, "connect").await.unwrap();
        Self { ca, server, client, echo, dialling, channel }
    }
}

pub(crate) fn channel(mesh: &Mesh, to: &Echo) -> Channel {
    mesh.channel("data-node".parse().unwrap(), Endpoint::from(to.address))
}

pub(crate) fn orphan_of(refused: Result<Option<u64>, LoadError>) -> String {
    match refused {
        Err(LoadError::Orphan { peer, .. }) => peer,
        other => panic!("not held back for a peer: {other:?}"),
    }
}

#[tokio::test]
async fn invariant_3_a_bundle_that_would_orphan_a_peer_is_held_back() {
    let pair = Pair::connected().await;
    let next = Authority::new();
    // Each end by itself: the one that was dialled, and the one that dialled.
    next.renew(&pair.server);
    assert_eq!(orphan_of(pair.echo.mesh.reload().await), "spiffe://mesh.internal/proxy/proxy-1");
    next.renew(&pair.client);
    assert_eq!(orphan_of(pair.dialling.reload().await), "spiffe://mesh.internal/data-node/data-node-1");
    let told = pair.echo.mesh.status().material.unwrap().last_reload.reason.unwrap();
    assert!(told.contains("meshctl ca rotate") && told.contains("internaltls.distrustPath"), "{told}");
    assert!(told.contains("no CA in our bundle signed it"), "{told}");
    assert_eq!((pair.echo.mesh.generation(), pair.dialling.generation()), (Some(1), Some(1)));
    call(&pair.channel, "still").await.unwrap();
}

#[tokio::test]
async fn a_union_of_bundles_is_published() {
    let pair = Pair::connected().await;
    let both = format!("{}{}", pair.ca.pem(), Authority::new().pem());
    pair.ca.install(&pair.server, &both);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
    pair.ca.install(&pair.client, &both);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(2));
    call(&pair.channel, "on").await.unwrap();
}

#[tokio::test]
async fn what_was_held_back_is_published_when_the_peer_has_gone() {
    let pair = Pair::connected().await;
    Authority::new().renew(&pair.server);
    orphan_of(pair.echo.mesh.reload().await);
    drop((pair.channel, pair.dialling));
    let gone = |left: &usize| *left == 0;
    until("the peer leaves", async || pair.echo.mesh.registry().snapshot().len(), gone).await;
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
}

/// The CA is out of the bundle and on the list at once: that is meant, and nobody of it can veto it.
#[tokio::test]
async fn invariant_5_a_listed_ca_has_no_veto() {
    let pair = Pair::connected().await;
    Authority::new().renew(&pair.server);
    pair.server.distrust(&[pair.ca.pem()]);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(3), "the list by itself, then the set");
    until("it is let go", async || pair.echo.mesh.registry().snapshot().len(), |left| *left == 0).await;
}

#[tokio::test]
async fn invariant_5_distrust_does_not_wait_for_a_torn_pair() {
    let pair = Pair::connected().await;
    std::fs::write(pair.server.folder.join("server.key"), "half a k").unwrap();
    pair.server.distrust(&[pair.client.leaf()]);
    pair.echo.mesh.reload().await.unwrap_err();
    assert_eq!(pair.echo.mesh.generation(), Some(2), "the list over the pair that is served");
    until("it is cut", async || pair.echo.mesh.registry().snapshot().len(), |left| *left == 0).await;
    let text = pair.echo.mesh.telemetry().encode();
    assert!(text.contains("internaltls_connections_cut_total{reason=\"distrusted\"} 1"), "{text}");
    assert!(call(&pair.channel, "again").await.is_err());
    // The same files once more are no news.
    pair.echo.mesh.reload().await.unwrap_err();
    assert_eq!(pair.echo.mesh.generation(), Some(2));
}

#[tokio::test]
async fn invariant_5_distrust_does_not_wait_for_a_bundle_that_is_held_back() {
    let pair = Pair::connected().await;
    let other = pair.ca.node("proxy", "proxy-2");
    let second = mesh(&other).await;
    let its_channel = channel(&second, &pair.echo);
    call(&its_channel, "connect").await.unwrap();
    Authority::new().renew(&pair.server);
    pair.server.distrust(&[other.leaf()]);
    assert_eq!(orphan_of(pair.echo.mesh.reload().await), "spiffe://mesh.internal/proxy/proxy-1");
    assert!(call(&its_channel, "again").await.is_err());
    call(&pair.channel, "still").await.unwrap();
    assert_eq!(pair.echo.mesh.generation(), Some(2));
}

pub(crate) fn trial_of(refused: Result<Option<u64>, LoadError>) -> (String, ProbeError) {
    match refused {
        Err(LoadError::PeerTrial { peer, source, .. }) => (peer, *source),
        other => panic!("not held back by a trial: {other:?}"),
    }
}

fn counts(mesh: &Mesh, side: &str, result: &str) -> bool {
    let line = format!("internaltls_trials_total{{side=\"{side}\",result=\"{result}\"}} 1");
    mesh.telemetry().encode().contains(&line)
}

#[tokio::test]
async fn a_live_peer_is_asked_before_a_new_leaf_is_served() {
    let pair = Pair::connected().await;
    pair.ca.renew(&pair.client);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(2));
    assert!(counts(&pair.dialling, "asked", "ok") && counts(&pair.echo.mesh, "answered", "ok"));
    // Nothing but lists changed: what they would be asked about stays as it is.
    pair.client.distrust(&[pair.ca.node("proxy", "proxy-9").leaf()]);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(3));
    assert!(counts(&pair.dialling, "asked", "ok"));
}

#[tokio::test]
async fn invariant_3_a_leaf_of_a_ca_that_the_peer_does_not_have_is_held_back() {
    let pair = Pair::connected().await;
    let next = Authority::new();
    let both = format!("{}{}", pair.ca.pem(), next.pem());
    next.install(&pair.client, &both);
    let (peer, _) = trial_of(pair.dialling.reload().await);
    assert_eq!(peer, "spiffe://mesh.internal/data-node/data-node-1");
    let told = pair.dialling.status().material.unwrap().last_reload.reason.unwrap();
    assert!(
        told.contains("server.pem") && told.contains("data-node-1") && told.contains("meshctl ca rotate"),
        "{told}"
    );
    // The new CA is trusted from now on; the leaf stays.
    let material = pair.dialling.status().material.unwrap();
    assert_eq!((material.generation, material.cas.len()), (2, 2));
    assert!(material.differs_since.is_some() && material.held.is_some());
    trial_of(pair.dialling.reload().await);
    assert_eq!(pair.dialling.generation(), Some(2), "that once is enough");
    call(&pair.channel, "still").await.unwrap();
    pair.ca.install(&pair.server, &both);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(3));
    assert_eq!(pair.dialling.status().material.unwrap().held, None);
    call(&pair.channel, "on").await.unwrap();
}

/// The proxy dials and is not dialled: that it trusts the new CA is seen when it shows a leaf of it.
#[tokio::test]
async fn invariant_3_a_leaf_of_a_new_ca_waits_for_who_cannot_be_asked() {
    let pair = Pair::connected().await;
    let next = Authority::new();
    let both = format!("{}{}", pair.ca.pem(), next.pem());
    // The bundle alone drains the connection; a call keeps it, or there would soon be nobody to wait for.
    let under_way = tokio::spawn({
        let channel = pair.channel.clone();
        async move { call(&channel, "hold").await }
    });
    pair.echo.held.notified().await;
    next.install(&pair.server, &both);
    for _ in 0..2 {
        match pair.echo.mesh.reload().await {
            Err(LoadError::Unheard { peer, .. }) => assert_eq!(peer, "spiffe://mesh.internal/proxy/proxy-1"),
            other => panic!("{other:?}"),
        }
        assert_eq!(pair.echo.mesh.generation(), Some(2), "the bundle alone, once");
    }
    call(&pair.channel, "still").await.unwrap();
    pair.echo.release.notify_one();
    under_way.await.unwrap().unwrap();
    let serial = next.install(&pair.client, &both);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(2));
    let shown = async || {
        call(&pair.channel, "on").await.unwrap();
        pair.echo.mesh.registry().snapshot().iter().any(|c| c.peer_serial.as_ref() == Some(&serial))
    };
    until("the proxy shows its new leaf", shown, |shown| *shown).await;
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(3));
    call(&pair.channel, "on").await.unwrap();
}

#[tokio::test]
async fn a_leaf_of_a_new_ca_does_not_wait_for_ever() {
    let (ca, next) = (Authority::new(), Authority::new());
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let mut config = by_hand(&server, server.files());
    config.reload.poll = std::time::Duration::from_millis(200);
    let echo = Echo::start(Mesh::open(config).await.unwrap()).await;
    let dialling = mesh(&client).await;
    let channel = channel(&dialling, &echo);
    call(&channel, "connect").await.unwrap();
    next.install(&server, &format!("{}{}", ca.pem(), next.pem()));
    until("it is served in the end", async || echo.mesh.generation(), |generation| *generation == Some(3)).await;
}

/// What was served before is another set than what is served now, though its files are back.
#[tokio::test]
async fn a_bundle_that_went_ahead_is_taken_back_with_its_files() {
    let pair = Pair::connected().await;
    let (before, next) = (pair.client.set(), Authority::new());
    next.install(&pair.client, &format!("{}{}", pair.ca.pem(), next.pem()));
    trial_of(pair.dialling.reload().await);
    assert_eq!(pair.dialling.status().material.unwrap().cas.len(), 2);
    pair.client.put(&before);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(3));
    let material = pair.dialling.status().material.unwrap();
    assert_eq!((material.cas.len(), material.differs_since), (1, None));
}

/// The leaf to dial with is fine; only the peer can tell that the one to serve with is not.
#[tokio::test]
async fn the_peer_tells_whether_it_would_accept_our_server() {
    let (ca, next) = (Authority::new(), Authority::new());
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let serving = next.node("proxy", "proxy-1");
    ca.renew(&serving);
    let Files { cert, key, .. } = serving.files();
    let dials = client.files();
    let files =
        Files { cert, key, client_cert: Some(dials.cert.clone()), client_key: Some(dials.key.clone()), ..dials };
    let echo = Echo::start(mesh(&server).await).await;
    let dialling = Mesh::open(by_hand(&client, files)).await.unwrap();
    let channel = channel(&dialling, &echo);
    call(&channel, "connect").await.unwrap();
    ca.install(&client, &format!("{}{}", ca.pem(), next.pem()));
    next.renew(&serving);
    let (_, why) = trial_of(dialling.reload().await);
    assert!(matches!(&why, ProbeError::Refused(reason) if reason.contains("no CA in our bundle signed it")), "{why:?}");
    assert!(counts(&echo.mesh, "answered", "refused") && dialling.generation() == Some(2));
    call(&channel, "still").await.unwrap();
}

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(bytes = "vec", repeated, tag = "1")]
    chain: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(bool, tag = "1")]
    accepted: bool,
}

async fn check(channel: &Channel, leaf: &str) -> Result<bool, Status> {
    let chain = vec![CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap().to_vec()];
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static("/mesh.Trial/Check"), ProstCodec::<Question, Answer>::default());
    Ok(grpc.unary(Request::new(Question { chain }), path, codec).await?.into_inner().accepted)
}

/// Policy lets the caller do nothing; its own certificate it may ask about, and no other.
#[tokio::test]
async fn invariant_10_a_trial_answers_about_the_callers_own_certificate_alone() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let policy = Policy::from_rules([("coordinator", "/echo.Echo/*")]).unwrap();
    let routes = tonic::service::Routes::default();
    let listening = mesh(&server).await.server(routes).policy(policy).bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listening.local_addr();
    let serving = tokio::spawn(listening.serve(std::future::pending()));
    let dialling = mesh(&client).await;
    let channel = dialling.channel("data-node".parse().unwrap(), Endpoint::from(address));
    assert_eq!(call(&channel, "").await.unwrap_err().code(), Code::PermissionDenied);
    assert!(check(&channel, &client.leaf()).await.unwrap());
    let stranger = Authority::new();
    let forged = stranger.node("proxy", "proxy-1");
    assert!(!check(&channel, &forged.leaf()).await.unwrap(), "our names, and a CA that nobody knows");
    assert_eq!(check(&channel, &server.leaf()).await.unwrap_err().code(), Code::InvalidArgument);
    serving.abort();
}

#[tokio::test]
async fn nobody_to_ask_is_no_reason_to_wait() {
    let Pair { ca, client, echo, dialling, channel, .. } = Pair::connected().await;
    drop(echo);
    ca.renew(&client);
    assert_eq!(dialling.reload().await.unwrap(), Some(2));
    drop(channel);
}
