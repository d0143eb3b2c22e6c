//! What is published, and what the peers connected now have to say about it.
use internaltls::{Channel, Endpoint, LoadError, Mesh};

use super::bench::{Echo, by_hand, call, mesh, until};
use super::pki::{Authority, Node};

/// A data-node that serves and a proxy that has called it.
struct Pair {
    ca: Authority,
    server: Node,
    client: Node,
    echo: Echo,
    dialling: Mesh,
    channel: Channel,
}

impl Pair {
    async fn connected() -> Self {
        let ca = Authority::new();
        let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
        let echo = Echo::start(Mesh::open(by_hand(&server, server.files_with_distrust())).await.unwrap()).await;
        let dialling = Mesh::open(by_hand(&client, client.files_with_distrust())).await.unwrap();
        let channel = channel(&dialling, &echo);
        call(&channel, "connect").await.unwrap();
        Self { ca, server, client, echo, dialling, channel }
    }
}

fn channel(mesh: &Mesh, to: &Echo) -> Channel {
    mesh.channel("data-node".parse().unwrap(), Endpoint::from(to.address))
}

fn orphan_of(refused: Result<Option<u64>, LoadError>) -> String {
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
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
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
