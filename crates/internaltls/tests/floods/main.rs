//! Half-open floods (invariant 8): connections that take what a handshake may have and give nothing, beside clients that
//! mean it and a renewal of certificates.
//!
//! 1. The attacker holds so many connections from so many loopback addresses, the clients' own among them, as if all were
//!    behind one NAT. What is closed on it is opened again, a thousand a second in the long form. It runs on a thread of its own.
//! 2. A client is new each time: TCP, TLS, and the first HTTP/2 frame of the server, which proves that it was let in. The
//!    yardstick is the same clients without an attack.
//! 3. The short form takes some cases, within half a minute. `FLOODS=long` takes every attack of every size from every number
//!    of addresses, at mesh and edge, about ten minutes, and tells the figures:
//!
//!    ```console
//!    FLOODS=long cargo test --release -p internaltls --test floods -- --nocapture
//!    ```
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "../client/bench.rs"]
#[expect(dead_code, reason = "only a part of it is needed here")]
mod bench;
mod flood;
#[path = "../client/pki.rs"]
#[expect(dead_code, reason = "only a part of it is needed here")]
mod pki;
mod scene;

use std::time::Duration;

use self::flood::{Attack, Flood};
use self::scene::{Scene, Surface, Times};

/// New clients without the attack, and beside it.
const CLIENTS: usize = 200;
/// One in so many may fail.
const ONE_FAILS_IN: usize = 200;
/// How much longer than without the slowest in a hundred may take.
const SLOWER: Duration = Duration::from_secs(1);

async fn withstands(
    scene: &Scene,
    without: &Times,
    surface: Surface,
    attack: Attack,
    count: usize,
    addresses: u8,
) -> Result<(), String> {
    let what = format!("{surface:?} {attack:?}: {count} from {addresses}");
    let again = if is_long() { 1_000 } else { 250 };
    let flood = Flood::start(attack, scene.address(surface), scene.hello(surface), count, addresses, again);
    flood.is_up().await;
    let load = scene.load();
    let renewal = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.renew().await;
    };
    let (beside, ()) = tokio::join!(scene.new_clients(surface, CLIENTS), renewal);
    let calls = load.finish().await;
    let told = flood.stop();
    println!("{what}: without {without}, beside {beside}, {calls} calls, {told:?}");
    assert!(calls > 0, "{what}: no call was made beside it");
    assert!(told.opened >= count, "{what}: the attack did not come about: {told:?}");
    if count > 1_100 && attack != Attack::Garbage {
        assert!(told.alerts > 0, "{what}: nobody who was turned away heard of it: {told:?}");
    }
    let few = beside.failed.len() * ONE_FAILS_IN <= CLIENTS;
    let soon = beside.percentile(99) <= without.percentile(99) + SLOWER;
    if few && soon { Ok(()) } else { Err(format!("{what}: {beside} {:?}, without {without}", beside.failed)) }
}

fn is_long() -> bool {
    std::env::var("FLOODS").is_ok_and(|form| form == "long")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_8_half_open_floods_keep_nobody_out() {
    let scene = Scene::open().await;
    let mesh = scene.new_clients(Surface::Mesh, CLIENTS).await;
    let edge = scene.new_clients(Surface::Edge, CLIENTS).await;
    let without = |surface| if surface == Surface::Mesh { &mesh } else { &edge };
    let cases: &[(Surface, Attack, usize, u8)] = &[
        (Surface::Mesh, Attack::Partial, 256, 4),
        (Surface::Mesh, Attack::Partial, 3_000, 250),
        (Surface::Mesh, Attack::Hello, 256, 1),
        (Surface::Edge, Attack::Silent, 3_000, 1),
        (Surface::Edge, Attack::Trickle, 256, 4),
        (Surface::Edge, Attack::Garbage, 256, 250),
    ];
    if !is_long() {
        for (surface, attack, count, addresses) in cases {
            withstands(&scene, without(*surface), *surface, *attack, *count, *addresses).await.unwrap();
        }
        return;
    }
    let mut fell = Vec::new();
    for surface in [Surface::Mesh, Surface::Edge] {
        for attack in Attack::ALL {
            for count in [256, 3_000, 10_000] {
                for addresses in [1, 4, 250] {
                    fell.extend(withstands(&scene, without(surface), surface, attack, count, addresses).await.err());
                }
            }
        }
    }
    assert!(fell.is_empty(), "{fell:#?}");
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most, slowest] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "p50 {half:.1?} p99 {most:.1?} max {slowest:.1?}, {} failed", self.failed.len())
    }
}
