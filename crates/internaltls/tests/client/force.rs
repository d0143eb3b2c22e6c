//! An operator's word above that of peers: what it does, and what it never does.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use internaltls::{HeldStatus, LoadError, Mesh};

use super::bench::{call, until};
use super::pki::Authority;
use super::transaction::{Pair, orphan_of, trial_of};

fn held(mesh: &Mesh) -> HeldStatus {
    mesh.status().material.unwrap().held.expect("a set is held back")
}

/// Types what the status tells to type.
fn force(mesh: &Mesh) {
    let HeldStatus { force, sha256, .. } = held(mesh);
    assert!(force.contains(&sha256), "{force}");
    assert!(Command::new("sh").args(["-c", &force]).status().unwrap().success(), "{force}");
}

async fn nobody_is_connected(mesh: &Mesh) {
    until("the peers leave", async || mesh.registry().snapshot().len(), |left| *left == 0).await;
}

#[tokio::test]
async fn invariant_3_force_publishes_what_is_held_back_once() {
    let pair = Pair::connected().await;
    let before = pair.server.set();
    Authority::new().renew(&pair.server);
    let forced = pair.server.set();
    orphan_of(pair.echo.mesh.reload().await);
    force(&pair.echo.mesh);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
    assert_eq!(pair.echo.mesh.status().material.unwrap().held, None);
    assert!(!pair.server.folder.join("reload-force").exists());
    nobody_is_connected(&pair.echo.mesh).await;
    // The very same set once more: the word is used up.
    pair.server.put(&before);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(3));
    call(&pair.channel, "again").await.unwrap();
    pair.server.put(&forced);
    orphan_of(pair.echo.mesh.reload().await);
    assert_eq!(held(&pair.echo.mesh).unheeded, None);
    assert_eq!(pair.echo.mesh.generation(), Some(3));
}

#[tokio::test]
async fn force_overrules_a_trial_as_well() {
    let pair = Pair::connected().await;
    let next = Authority::new();
    next.install(&pair.client, &format!("{}{}", pair.ca.pem(), next.pem()));
    trial_of(pair.dialling.reload().await);
    force(&pair.dialling);
    assert_eq!(pair.dialling.reload().await.unwrap(), Some(3), "the bundle had gone ahead");
}

#[tokio::test]
async fn a_candidate_that_changed_after_is_not_forced() {
    let pair = Pair::connected().await;
    Authority::new().renew(&pair.server);
    orphan_of(pair.echo.mesh.reload().await);
    force(&pair.echo.mesh);
    let word = held(&pair.echo.mesh).sha256;
    Authority::new().renew(&pair.server);
    orphan_of(pair.echo.mesh.reload().await);
    let held = held(&pair.echo.mesh);
    assert_ne!(held.sha256, word);
    assert!(held.unheeded.as_ref().is_some_and(|why| why.contains(&word)), "{held:?}");
    assert_eq!(pair.echo.mesh.generation(), Some(1));
    call(&pair.channel, "still").await.unwrap();
}

#[tokio::test]
async fn a_word_that_others_can_write_is_refused() {
    let pair = Pair::connected().await;
    Authority::new().renew(&pair.server);
    orphan_of(pair.echo.mesh.reload().await);
    force(&pair.echo.mesh);
    let file = pair.server.folder.join("reload-force");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    orphan_of(pair.echo.mesh.reload().await);
    let held = held(&pair.echo.mesh);
    assert!(held.unheeded.as_ref().is_some_and(|why| why.contains("chmod go-w")), "{held:?}");
    assert!(file.exists() && pair.echo.mesh.generation() == Some(1));
    mode(0o644);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
}

/// Key, chain and validity are judged before anybody asks for a word, and the word of a set that fails is not used up.
#[tokio::test]
async fn invariant_3_force_skips_no_check_of_the_files() {
    let pair = Pair::connected().await;
    let next = Authority::new();
    next.renew(&pair.server);
    let good = pair.server.set();
    orphan_of(pair.echo.mesh.reload().await);
    force(&pair.echo.mesh);
    let [cert, key, bundle] = good.clone();
    let foreign = Authority::new();
    let another = foreign.node("data-node", "data-node-1").set();
    let broken = [
        [cert.clone(), another[1].clone(), bundle.clone()],
        [cert.clone(), key.clone(), foreign.pem()],
        [cert[..cert.len() / 2].to_owned(), key, bundle],
    ];
    for set in broken {
        pair.server.put(&set);
        let refused = pair.echo.mesh.reload().await.unwrap_err();
        assert!(!matches!(refused, LoadError::Orphan { .. } | LoadError::PeerTrial { .. }), "{refused}");
        assert_eq!(pair.echo.mesh.status().material.unwrap().held, None);
        assert!(pair.server.folder.join("reload-force").exists() && pair.echo.mesh.generation() == Some(1));
    }
    pair.server.put(&good);
    assert_eq!(pair.echo.mesh.reload().await.unwrap(), Some(2));
}
