//! One leaf for all nodes: whose key is a peer's, and for how long (invariant 2).
//!
//! The key of a set that was refused is nobody's: not while the set lies there, not after the one before was put back.
use std::time::Duration;

use test_util::authority::{Authority, Leaf, Pair, write_public, write_secret};
use test_util::rogue::{self, Identity};
use test_util::wait;

use crate::fixtures::SOON;
use crate::site::{Live, Role, Site, short};

const NAME: &str = "localhost";

fn leaf() -> Leaf {
    Leaf::nameless(NAME).dns(NAME)
}

fn write(live: &Live, pair: &Pair) {
    write_secret(&live.site.path("certs/server.key"), &pair.key);
    write_public(&live.site.path("certs/server.pem"), &pair.cert);
}

fn knock(live: &Live, pair: &Pair) -> Result<rogue::Served, String> {
    rogue::call(&live.site.internal(), NAME, &rogue::client(&Identity::of_pem(&pair.cert, &pair.key)))
}

fn served(live: &Live, what: &str, pair: &Pair) {
    wait::until(&format!("{what} is served"), SOON, || {
        knock(live, pair).map(drop).map_err(|e| format!("{e}\n{}", short(&live.process.log())))
    });
}

fn refused(live: &Live, what: &str, pair: &Pair) {
    wait::throughout(&format!("{what} is refused"), Duration::from_millis(1_500), || match knock(live, pair) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("it is served\n{}", short(&live.process.log()))),
    });
}

fn reload(live: &Live, result: &str) {
    wait::until(&format!("a reload that is {result}"), SOON, || {
        let last = live.status()["last_reload"].clone();
        let failed = last["result"] == "failed";
        if failed == (result == "failed") { Ok(()) } else { Err(last.to_string()) }
    });
}

#[test]
fn invariant_2_refused_key_is_no_peer() {
    no_peer_by_a_refused_key(Site::new(Role::Coordinator).set("internaltls.sni", NAME));
}

/// The name is the leaf's only DNS name, as it was at the start.
#[test]
fn invariant_2_refused_key_is_no_peer_where_the_leaf_names() {
    no_peer_by_a_refused_key(Site::new(Role::Coordinator));
}

fn no_peer_by_a_refused_key(site: Site) {
    let first = site.mesh.write_node(&site.path("certs"), &leaf());
    let live = site.start();
    served(&live, "a node with the key in use", &first);
    let (mesh, foreign) = (&live.site.mesh, Authority::new("mesh CA"));
    let unfit = [
        ("of another name", mesh.sign(&Leaf::nameless("other.test").dns("other.test"))),
        ("of the other layout", mesh.sign(&Leaf::node("coordinator", "coordinator-1"))),
        ("that is expired", mesh.sign(&leaf().expired())),
        ("of another CA", foreign.sign(&leaf())),
        ("marked as a CA", mesh.sign(&leaf().marked_as_ca())),
    ];
    for (what, pair) in &unfit {
        // Whoever has the key can have had a fit leaf for it, too.
        let fit = mesh.sign_again(&leaf(), pair);
        write(&live, pair);
        reload(&live, "failed");
        refused(&live, &format!("the key of a leaf {what}"), &fit);
        refused(&live, &format!("a leaf {what}"), pair);
        served(&live, "a node with the key in use", &first);
        write(&live, &first);
        reload(&live, "fit");
        refused(&live, &format!("the key of a leaf {what}, after the one before is back"), &fit);
        refused(&live, &format!("a leaf {what}, after the one before is back"), pair);
        served(&live, "a node with the key in use", &first);
    }
}

/// The control: a fit set counts at once, and the one before it still does.
#[test]
fn next_and_last_keys_are_peers() {
    let site = Site::new(Role::Coordinator).set("internaltls.sni", NAME);
    let first = site.mesh.write_node(&site.path("certs"), &leaf());
    let live = site.start();
    let next = live.site.mesh.sign(&leaf());
    refused(&live, "a key that lies nowhere", &next);
    write(&live, &next);
    served(&live, "a node with the next key", &next);
    served(&live, "a node with the last key", &first);
    let stranger = live.site.mesh.sign(&leaf());
    refused(&live, "a key that never lay there", &stranger);
}
