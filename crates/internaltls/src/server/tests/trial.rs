//! `mesh.Trial/Check`, asked by those who have no business with it.
use rustls::version::TLS13;
use tonic::Code;

use super::attacks::{NAME, Scene};
use super::pki::{Authority, Leaf, dialer};
use super::rig::{Client, Rig};
use crate::config::Limits;
use crate::policy::Policy;

impl Scene {
    /// A connection with this leaf.
    async fn as_bearer_of(&self, leaf: &Leaf) -> std::io::Result<Client> {
        self.rig.tls_client(dialer(&self.ca.pem(), Some(leaf), &[&TLS13]), NAME).await
    }

    fn answered(&self) -> bool {
        self.rig.telemetry.encode().contains("side=\"answered\",result=\"ok\"")
    }
}

#[tokio::test]
async fn a_node_is_told_about_its_own_certificate() {
    let scene = Scene::new().await;
    let leaf = scene.ca.node("proxy", "p-1");
    let client = scene.as_bearer_of(&leaf).await.unwrap();
    assert_eq!(client.trial(&[&leaf.der()]).await, Some(Code::Ok));
    assert!(scene.answered());
}

/// Another node's, one without names, none at all, and what is no certificate.
#[tokio::test]
async fn a_trial_tells_nothing_of_others() {
    let scene = Scene::new().await;
    let leaf = scene.ca.node("proxy", "p-1");
    let client = scene.as_bearer_of(&leaf).await.unwrap();
    let others =
        [scene.ca.node("proxy", "p-2"), scene.ca.node("coordinator", "p-1"), scene.ca.named("proxy.mesh.internal")];
    for other in &others {
        assert_eq!(client.trial(&[&other.der()]).await, Some(Code::InvalidArgument));
        assert_eq!(client.trial(&[&other.der(), &leaf.der()]).await, Some(Code::InvalidArgument), "its own behind it");
    }
    for chain in [&[][..], &[&b"no certificate"[..]], &[&[]]] {
        assert_eq!(client.trial(chain).await, Some(Code::InvalidArgument));
    }
    let many = vec![&b""[..]; 30_000];
    let own = leaf.der();
    assert_eq!(
        client.trial(&[&[&own[..]], &many[..]].concat()).await,
        Some(Code::InvalidArgument),
        "its own before many"
    );
    let endless = vec![0x30; 1 << 20];
    assert_eq!(client.trial(&[&leaf.der(), &endless]).await, Some(Code::OutOfRange));
    assert!(!scene.answered());
}

#[tokio::test]
async fn a_trial_cannot_be_asked_without_a_leaf_of_the_mesh() {
    let scene = Scene::new().await;
    let edge_client = Authority::new("edge CA").named("a client");
    for leaf in [edge_client, scene.ca.named("localhost"), Authority::new("another CA").node("proxy", "p-1")] {
        if let Ok(client) = scene.as_bearer_of(&leaf).await {
            assert_eq!(client.trial(&[&leaf.der()]).await, None);
        }
    }
    assert!(!scene.answered());
}

#[tokio::test]
async fn a_trial_cannot_be_asked_in_plaintext() {
    let rig = Rig::plaintext(Limits::default(), Policy::allow_all()).await;
    let leaf = Authority::new("mesh CA").node("proxy", "p-1");
    assert_eq!(rig.client().await.trial(&[&leaf.der()]).await, Some(Code::Unimplemented));
    assert!(!rig.telemetry.encode().contains("side=\"answered\""));
}

/// One that asks without end is put off, and nobody else is.
#[tokio::test]
async fn a_trial_can_be_asked_only_so_often() {
    let scene = Scene::new().await;
    let (busy, quiet) = (scene.ca.node("proxy", "p-1"), scene.ca.node("proxy", "p-2"));
    let client = scene.as_bearer_of(&busy).await.unwrap();
    let der = busy.der();
    let chain = [&der[..]];
    let answers = futures_util::future::join_all((0..400).map(|_| client.trial(&chain))).await;
    let put_off = answers.iter().filter(|code| **code == Some(Code::ResourceExhausted)).count();
    assert!(put_off > 0 && put_off < answers.len(), "{put_off} of {} were put off", answers.len());
    let other = scene.as_bearer_of(&quiet).await.unwrap();
    assert_eq!(other.trial(&[&quiet.der()]).await, Some(Code::Ok));
}
