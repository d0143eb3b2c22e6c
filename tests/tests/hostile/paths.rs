//! What a CA may vouch for, and what a leaf may say.
//!
//! 1. An intermediate CA is as good as the constraints on it: the root's path length, its own, and its extended key usages.
//! 2. A certificate that is no CA's vouches for nobody, whatever file it lies in.
//! 3. A node's leaf bears one URI, its SPIFFE id.
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use test_util::authority::{Authority, Leaf, Pair, write_public};
use test_util::forge::{
    CLIENT_AUTH, CODE_SIGNING, EMAIL_PROTECTION, Forged, Key, SERVER_AUTH, San, name, pem, subject_of,
};
use test_util::rogue::{self, Identity, Served};
use test_util::wait;

use crate::fixtures::SOON;
use crate::site::{Live, Role, Site, short};

/// An attacker that got one intermediate CA, and mints what it likes.
struct Minter {
    leaf: Key,
    ca: Key,
    issuer: Vec<u8>,
}

impl Minter {
    fn new() -> Self {
        Self { leaf: Key::p256(), ca: Key::p256(), issuer: name("issuing CA") }
    }

    fn mint(&self, sans: &[San]) -> Forged {
        Forged::leaf(&name("minted"), &self.issuer, &self.leaf).sans(sans)
    }

    fn intermediate(&self, root: &Authority) -> Forged {
        Forged::ca(&self.issuer, &subject_of(root.cert()), &self.ca)
    }

    /// A leaf with these names, and the intermediate above it, signed by `root`.
    fn chain(&self, root: &Authority, intermediate: &Forged, sans: &[San]) -> Identity {
        let above = intermediate.signed_by(&Key::of_pem(&root.key()));
        self.shown(vec![self.mint(sans).signed_by(&self.ca), above])
    }

    fn shown(&self, chain: Vec<CertificateDer<'static>>) -> Identity {
        Identity::new(chain, &self.leaf.private())
    }
}

/// With a root that may sign CAs.
fn rooted(role: Role) -> Site {
    let mut site = Site::new(role);
    (site.mesh, site.edge) = (Authority::root("mesh CA"), Authority::root("edge CA"));
    site.mesh.write_node(&site.path("certs"), &site.leaf());
    site.edge.write_node(&site.path("edge"), &Leaf::edge_server());
    site
}

fn refused(live: &Live, what: &str, answer: Result<Served, String>) {
    assert!(answer.is_err(), "{what} is served\n{}", short(&live.process.log()));
}

fn served(live: &Live, what: &str, answer: Result<Served, String>) {
    if let Err(error) = answer {
        panic!("{what} is refused: {error}\n{}", short(&live.process.log()));
    }
}

#[test]
fn invariant_6_usages_of_a_ca_bind_it() {
    let live = rooted(Role::Coordinator).start();
    let (minter, names) = (Minter::new(), San::node("proxy", "proxy-1"));
    let root = &live.site.mesh;
    let knock = |usages: &[&'static [u8]]| {
        live.knock_as(&minter.chain(root, &minter.intermediate(root).usages(usages), &names))
    };
    served(&live, "a leaf below a CA of any usage", knock(&[]));
    served(&live, "a leaf below a CA of both usages", knock(&[SERVER_AUTH, CLIENT_AUTH]));
    refused(&live, "a leaf below a CA for e-mail", knock(&[EMAIL_PROTECTION]));
    refused(&live, "a leaf below a CA for code", knock(&[CODE_SIGNING]));
    refused(&live, "a leaf below a CA for e-mail and code", knock(&[EMAIL_PROTECTION, CODE_SIGNING]));
    refused(&live, "a client's leaf below a CA for servers", knock(&[SERVER_AUTH]));
}

/// The documented scripts give a client's leaf serverAuth, so the edge takes that usage for the other, of CAs too.
#[test]
fn usages_of_a_ca_bind_it_at_the_edge() {
    let live = rooted(Role::Proxy).start();
    let (minter, names) = (Minter::new(), [San::dns("client.test")]);
    let root = &live.site.edge;
    let knock = |usages: &[&'static [u8]]| {
        let shown = minter.chain(root, &minter.intermediate(root).usages(usages), &names);
        rogue::call(&live.site.grpc(), "localhost", &rogue::client(&shown))
    };
    wait::until("the edge serves a leaf below a CA of any usage", SOON, || knock(&[]).map(drop));
    served(&live, "a client below a CA for clients", knock(&[CLIENT_AUTH]));
    served(&live, "a client below a CA for servers", knock(&[SERVER_AUTH]));
    refused(&live, "a client below a CA for e-mail", knock(&[EMAIL_PROTECTION]));
    refused(&live, "a client below a CA for code", knock(&[CODE_SIGNING]));
}

#[test]
fn invariant_6_path_length_binds_a_ca() {
    // The CA of this site has a path length of 0.
    let live = Site::new(Role::Coordinator).start();
    let (minter, names) = (Minter::new(), San::node("proxy", "proxy-1"));
    let root = &live.site.mesh;
    let shown = minter.chain(root, &minter.intermediate(root), &names);
    refused(&live, "a leaf below a CA that its root may not sign", live.knock_as(&shown));
    let live = rooted(Role::Coordinator).start();
    let root = &live.site.mesh;
    let (upper, key) = (name("upper CA"), Key::p256());
    let below = |upper_ca: Forged| {
        let chain = vec![
            minter.mint(&names).signed_by(&minter.ca),
            Forged::ca(&minter.issuer, &upper, &minter.ca).signed_by(&key),
            upper_ca.signed_by(&Key::of_pem(&root.key())),
        ];
        live.knock_as(&minter.shown(chain))
    };
    let upper_ca = Forged::ca(&upper, &subject_of(root.cert()), &key);
    served(&live, "a leaf below two CAs", below(upper_ca.clone()));
    refused(&live, "a leaf below a CA that a CA may not sign", below(upper_ca.clone().path_len(0)));
    refused(&live, "a leaf below one that is no CA", below(upper_ca.not_ca()));
}

/// A certificate of CA:FALSE, and whoever has its key.
struct Impostor {
    key: Key,
    called: Vec<u8>,
    own: CertificateDer<'static>,
}

impl Impostor {
    fn new() -> Self {
        let (key, called) = (Key::p256(), name("no CA"));
        let own = Forged::leaf(&called, &called, &key).without_key_usage().sans(&San::node("proxy", "proxy-1"));
        Self { own: own.signed_by(&key), key, called }
    }

    /// Itself, and a leaf that it signed.
    fn shown(&self) -> [(&'static str, Identity); 2] {
        let (leaf, sans) = (Key::p256(), San::node("proxy", "proxy-1"));
        let signed = Forged::leaf(&name("minted"), &self.called, &leaf).sans(&sans).signed_by(&self.key);
        [
            ("a leaf that lies among the CAs", Identity::new(vec![self.own.clone()], &self.key.private())),
            ("a leaf that a leaf signed", Identity::new(vec![signed], &leaf.private())),
        ]
    }
}

#[test]
fn invariant_6_leaf_in_a_bundle_vouches_for_nobody() {
    let live = Site::new(Role::Coordinator).start();
    let (impostor, member) = (Impostor::new(), live.site.peer("proxy", "proxy-1"));
    let bundle = format!("{}{}", live.site.mesh.cert(), pem(&impostor.own));
    write_public(&live.site.path("certs/ca.pem"), &bundle);
    wait::until("a bundle that is not taken", SOON, || {
        let last = live.status()["last_reload"].clone();
        let told = last["result"] == "failed" && last["reason"].as_str().is_some_and(|why| why.contains("ca.pem"));
        for (what, shown) in impostor.shown() {
            refused(&live, what, live.knock_as(&shown));
        }
        if told { Ok(()) } else { Err(last.to_string()) }
    });
    wait::throughout("nobody is vouched for by a leaf", Duration::from_secs(1), || {
        impostor.shown().iter().try_for_each(|(what, shown)| match live.knock_as(shown) {
            Err(_) => Ok(()),
            Ok(_) => Err(format!("{what} is served")),
        })
    });
    live.serves("a member", &member);
}

#[test]
fn leaf_in_a_bundle_stops_the_start() {
    let impostor = Impostor::new();
    let site = Site::new(Role::Coordinator);
    write_public(&site.path("certs/ca.pem"), &format!("{}{}", site.mesh.cert(), pem(&impostor.own)));
    site.write_config();
    let said = site.refuses_to_start("a leaf in ca.pem");
    assert!(
        said.contains("ca.pem") && said.contains("no CA"),
        "it names neither the file nor the certificate: {}",
        short(&said)
    );
}

#[test]
fn invariant_6_one_uri_names_a_node() {
    let live = rooted(Role::Coordinator).start();
    let (root, key) = (Key::of_pem(&live.site.mesh.key()), Key::p256());
    let issuer = subject_of(live.site.mesh.cert());
    let [dns, uri] = San::node("proxy", "proxy-1");
    let knock = |sans: &[San]| {
        let leaf = Forged::leaf(&name("minted"), &issuer, &key).sans(sans).signed_by(&root);
        live.knock_as(&Identity::new(vec![leaf], &key.private()))
    };
    let other = |uri: &str| San::uri(uri);
    served(&live, "a leaf of one URI", knock(&[dns.clone(), uri.clone()]));
    for (what, second) in [
        ("of the web", other("https://example.test/")),
        ("of another node", other("spiffe://mesh.internal/coordinator/coordinator-1")),
        ("of another trust domain", other("spiffe://other.test/proxy/proxy-1")),
        ("of the same node", uri.clone()),
        ("that is empty", other("")),
    ] {
        refused(&live, &format!("a leaf with a second URI {what}"), knock(&[dns.clone(), uri.clone(), second.clone()]));
        refused(&live, &format!("a leaf with a first URI {what}"), knock(&[second, uri.clone(), dns.clone()]));
    }
    refused(&live, "a leaf of another trust domain", knock(&[dns, other("spiffe://other.test/proxy/proxy-1")]));
}

/// It would be served as the one leaf of a shared layout.
#[test]
fn foreign_trust_domain_stops_the_start() {
    let site = Site::new(Role::Coordinator);
    let leaf = Leaf::nameless("x").dns("coordinator.other.test").uri("spiffe://other.test/coordinator/coordinator-1");
    site.mesh.write_node(&site.path("certs"), &leaf);
    site.write_config();
    let said = site.refuses_to_start("a leaf of another trust domain");
    assert!(said.contains("other.test") && said.contains("server.pem"), "{}", short(&said));
}

/// A root that was renewed with its key, beside its expired twin: as bundles of operating systems have had them.
#[test]
fn expired_twin_of_a_root_ends_nothing() {
    let live = rooted(Role::Coordinator).start();
    let (key, called) = (Key::of_pem(&live.site.mesh.key()), subject_of(live.site.mesh.cert()));
    let twin = pem(&Forged::ca(&called, &called, &key).expired().signed_by(&key));
    let renewed = live.site.mesh.cert().to_owned();
    let member = live.site.peer("proxy", "proxy-1");
    for bundle in [format!("{twin}{renewed}"), format!("{renewed}{twin}")] {
        let generation = live.status()["generation"].as_u64().unwrap();
        write_public(&live.site.path("certs/ca.pem"), &bundle);
        wait::until("the bundle with the twin", SOON, || {
            let status = live.status();
            if status["generation"].as_u64() > Some(generation) {
                Ok(())
            } else {
                Err(status["last_reload"].to_string())
            }
        });
        let mut open = live.knock(&member).unwrap();
        wait::throughout("a connection stays open", Duration::from_millis(2_500), || {
            if open.is_cut() { Err(short(&live.process.log())) } else { Ok(()) }
        });
    }
}

/// What a peer adds to its chain is not what it is refused for: whoever is revoked is cut off, and does not drain.
#[test]
fn invariant_5_junk_changes_no_verdict() {
    let site = rooted(Role::Coordinator);
    let issuing = site.mesh.intermediate("issuing CA");
    let crls = site.path("crls");
    write_public(&crls.join("mesh.pem"), &site.mesh.numbered_crl(&[], 1));
    write_public(&crls.join("issuing.pem"), &issuing.numbered_crl(&[], 1));
    let live = site.set("internaltls.crlPath", &crls.display().to_string()).start();
    let (called, root, own) = (subject_of(issuing.cert()), subject_of(live.site.mesh.cert()), Key::p256());
    let revoked = Pair { cert: issuing.cert().into(), key: String::new() };
    let junk = [
        ("nothing", None),
        ("an expired CA of its CA's name", Some(Forged::ca(&called, &root, &own).expired())),
        ("an expired CA of the root's name", Some(Forged::ca(&root, &root, &own).expired())),
        ("a CA of its CA's name that may not sign", Some(Forged::ca(&called, &root, &own).not_ca())),
        ("a CA for e-mail of its CA's name", Some(Forged::ca(&called, &root, &own).usages(&[EMAIL_PROTECTION]))),
    ];
    let pair = issuing.sign(&Leaf::node("proxy", "proxy-1"));
    let mut number = 2;
    let mut list = |revoked: &[&Pair]| {
        write_public(&crls.join("mesh.pem"), &live.site.mesh.numbered_crl(revoked, number));
        number += 1;
    };
    for (what, junk) in &junk {
        let junk = junk.iter().map(|junk| pem(&junk.signed_by(&own))).collect::<String>();
        let (behind, between) =
            (format!("{}{}{junk}", pair.cert, issuing.cert()), format!("{}{junk}{}", pair.cert, issuing.cert()));
        live.serves(&format!("a leaf with {what} behind it"), &pair_with(&behind, &pair));
        for chain in [behind, between] {
            // One that is not in the order signed may be refused as it is.
            let Ok(mut open) = live.knock(&pair_with(&chain, &pair)) else { continue };
            let before = ended(&live);
            list(&[&revoked]);
            wait::until(&format!("the end of a connection with {what}"), SOON, || {
                if open.is_cut() && ended(&live) != before { Ok(()) } else { Err(format!("{:?}", ended(&live))) }
            });
            assert_eq!(ended(&live), (before.0 + 1, before.1), "with {what} it is not cut");
            list(&[]);
            live.serves("it, when it is not revoked any more", &pair_with(&chain, &pair));
        }
    }
}

fn pair_with(chain: &str, pair: &Pair) -> Pair {
    Pair { cert: chain.into(), key: pair.key.clone() }
}

/// Connections that were cut, and that drained.
fn ended(live: &Live) -> (u64, u64) {
    let status = live.status();
    let count =
        |how: &str| status["ended"][how].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
    (count("cut"), count("drained"))
}
