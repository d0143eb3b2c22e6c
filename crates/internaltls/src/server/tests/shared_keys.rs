//! Which keys are accepted where all nodes share one leaf, and what becomes of the connections of those that no longer are.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::version::TLS13;

use super::pki::{Authority, Folder, Leaf, dialer};
use super::rig::{Client, Rig, within};
use crate::clock::{Clock as _, TestClock};
use crate::config::{Limits, Reload};
use crate::material::{Reloaded, Store};

const HOUR: Duration = Duration::from_secs(3_600);

/// A listener in the shared layout, by a clock of the test's own.
struct Stage {
    ca: Authority,
    folder: Folder,
    clock: Arc<TestClock>,
    store: Arc<Store>,
    rig: Rig,
}

impl Stage {
    async fn of(ca: Authority, leaf: &Leaf, crl: bool) -> Self {
        let clock = Arc::new(TestClock::at(SystemTime::now()));
        let folder = Folder::with(leaf, &ca.pem());
        if crl {
            folder.file("crl.pem", &ca.crl(&[], clock.now() + 24 * HOUR));
        }
        let store = folder.mesh_store_at(clock.clone()).await;
        let rig = Rig::tls_at(Arc::clone(&store), Limits::default(), clock.clone()).await;
        Self { ca, folder, clock, store, rig }
    }

    async fn dial(&self, leaf: &Leaf) -> Client {
        self.rig.tls_client(dialer(&self.ca.pem(), Some(leaf), &[&TLS13]), "localhost").await.unwrap()
    }

    async fn accepts(&self, leaf: &Leaf) -> bool {
        self.dial(leaf).await.is_served().await
    }

    async fn renew(&self, leaf: &Leaf) {
        self.folder.write(leaf, &self.ca.pem());
        assert!(matches!(self.store.reload().await.unwrap(), Reloaded::Published(_)));
    }

    /// As each second.
    fn tick(&self) {
        self.store.retire_keys(&self.rig.registry);
    }

    fn origins(&self) -> Vec<&'static str> {
        self.store.status().shared_keys.iter().map(|key| key.origin).collect()
    }

    /// Until a connection that ends for this reason is named.
    async fn names(&self, reason: &str) {
        let named = async {
            while !self.rig.registry.snapshot().iter().any(|connection| connection.ending == Some(reason)) {
                tokio::task::yield_now().await;
            }
        };
        let named = tokio::time::timeout(Duration::from_secs(10), named).await;
        assert!(named.is_ok(), "{reason}: {:#?}", self.rig.registry.snapshot());
    }

    async fn empty(&self) {
        let empty = async {
            while !self.rig.registry.snapshot().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), empty).await.is_ok(),
            "{:#?}",
            self.rig.registry.snapshot()
        );
    }
}

#[tokio::test]
async fn invariant_5_a_replaced_key_ends_when_no_peer_shows_it() {
    let ca = Authority::new("mesh CA");
    let (old, new) = (ca.named("localhost"), ca.named("localhost"));
    let stage = Stage::of(ca, &old, false).await;
    assert_eq!(stage.origins(), ["current"]);
    let late = stage.dial(&old).await;
    assert!(late.is_served().await);
    stage.renew(&new).await;
    assert_eq!(stage.origins(), ["current", "before"]);
    stage.tick();
    stage.clock.advance(Reload::default().previous_key + Duration::from_secs(1));
    stage.tick();
    assert!(late.is_served().await && stage.accepts(&old).await, "a connected peer shows it");
    drop(late);
    stage.empty().await;
    stage.tick();
    assert!(!stage.accepts(&old).await && stage.accepts(&new).await);
    assert_eq!(stage.origins(), ["current"]);
}

#[tokio::test]
async fn invariant_5_a_replaced_key_ends_with_its_certificate() {
    let ca = Authority::new("mesh CA");
    let old = ca.named_until("localhost", SystemTime::now() + HOUR);
    // The same key, in a certificate that lasts.
    let (again, new) = (ca.again(&old, "localhost"), ca.named("localhost"));
    let stage = Stage::of(ca, &old, false).await;
    let late = stage.dial(&again).await;
    assert!(late.is_served().await);
    let call = tokio::spawn(late.call("Hold", None));
    within("the call begins", stage.rig.behaviour.begun.notified()).await;
    stage.renew(&new).await;
    stage.tick();
    stage.clock.advance(HOUR + Duration::from_secs(1));
    assert!(!stage.accepts(&again).await, "by the clock, whoever shows it");
    stage.tick();
    stage.names("retired-key").await;
    stage.rig.behaviour.release.add_permits(1);
    assert_eq!(within("the call finishes", call).await.unwrap().unwrap().headers()["grpc-status"], "0");
    within("the connection ends in order", late.connection).await.unwrap().unwrap();
    stage.rig.counted("internaltls_connections_drained_total{reason=\"retired-key\"} 1").await;
}

#[tokio::test]
async fn invariant_5_a_replaced_key_ends_when_it_is_distrusted() {
    let ca = Authority::new("mesh CA");
    let (old, new) = (ca.named("localhost"), ca.named("localhost"));
    let again = ca.again(&old, "localhost");
    let stage = Stage::of(ca, &old, true).await;
    stage.renew(&new).await;
    let (listed, unlisted) = (stage.dial(&old).await, stage.dial(&again).await);
    assert!(listed.is_served().await && unlisted.is_served().await);
    stage.tick();
    // Its certificate is revoked: who shows that is cut, who shows another one with the same key drains.
    stage.folder.file("crl.pem", &stage.ca.crl(&[&old], stage.clock.now() + 24 * HOUR));
    assert!(matches!(stage.store.reload().await.unwrap(), Reloaded::Published(_)));
    assert_eq!(stage.origins(), ["current"]);
    stage.rig.counted("internaltls_connections_cut_total{reason=\"distrusted\"} 1").await;
    stage.rig.counted("internaltls_connections_drained_total{reason=\"retired-key\"} 1").await;
    assert!(!stage.accepts(&again).await && stage.accepts(&new).await);
    // That the list forgets it does not bring the key back.
    stage.folder.file("crl.pem", &stage.ca.crl(&[], stage.clock.now() + 25 * HOUR));
    stage.store.reload().await.unwrap();
    assert!(!stage.accepts(&again).await);
}

#[tokio::test]
async fn invariant_5_a_key_that_is_listed_and_then_replaced_is_not_kept() {
    let ca = Authority::new("mesh CA");
    let (old, new) = (ca.named("localhost"), ca.named("localhost"));
    let stage = Stage::of(ca, &old, false).await;
    stage.folder.distrust(&old);
    // Our own leaf is listed: that is an error, and the list is in force all the same.
    stage.store.reload().await.unwrap_err();
    assert!(!stage.accepts(&old).await);
    stage.renew(&new).await;
    assert_eq!(stage.origins(), ["current"]);
}

#[tokio::test]
async fn two_renewals_later_a_connection_drains_for_its_key() {
    let ca = Authority::new("mesh CA");
    let (first, second, third) = (ca.named("localhost"), ca.named("localhost"), ca.named("localhost"));
    let stage = Stage::of(ca, &first, false).await;
    let late = stage.dial(&first).await;
    assert!(late.is_served().await);
    stage.renew(&second).await;
    stage.tick();
    assert!(late.is_served().await);
    stage.renew(&third).await;
    stage.rig.counted("internaltls_connections_drained_total{reason=\"retired-key\"} 1").await;
    assert!(!stage.accepts(&first).await && stage.accepts(&second).await);
}
