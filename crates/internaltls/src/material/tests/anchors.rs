//! Trust anchors: which certificates may be one, and which of several vouches.
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::issue::*;
use super::refusals::uri_constraint;
use crate::config::EdgeMode;
use crate::error::{LoadError, Reason};
use crate::foreign::chain;
use crate::material::{Layout, Purpose};
use crate::verify::PeerSide;

const HOUR: Duration = Duration::from_secs(3_600);

/// {old, renewed} × {same key, new key} × order, the old one over or not.
#[tokio::test]
async fn invariant_5_a_renewed_root_cuts_nobody() {
    let later = SystemTime::now() + 900 * HOUR;
    for old_is_over in [false, true] {
        let old = authority_with("mesh ca", |params| {
            if old_is_over {
                params.not_after = (SystemTime::now() - HOUR / 2).into();
            }
        });
        let renewed = old.again("mesh ca", |params| params.not_after = later.into());
        let new_key = authority_with("mesh ca", |params| params.not_after = later.into());
        let leaf_until = |of: &Authority| {
            of.leaf(|params| {
                shape_node(params, "proxy", "p");
                params.not_after = (later - HOUR).into();
            })
        };
        let (by_old, by_new) = (leaf_until(&old), leaf_until(&new_key));
        for (bundle, peers) in [
            (format!("{}{renewed}", old.pem), vec![&by_old]),
            (format!("{renewed}{}", old.pem), vec![&by_old]),
            (format!("{}{}", old.pem, new_key.pem), vec![&by_new]),
            (format!("{}{}", new_key.pem, old.pem), vec![&by_new]),
            (format!("{}{renewed}{}", old.pem, new_key.pem), vec![&by_old, &by_new]),
            (format!("{}{renewed}{}", new_key.pem, old.pem), vec![&by_old, &by_new]),
        ] {
            let own = if bundle.contains(&renewed) { &old } else { &new_key };
            let folder = Folder::of(&bundle, &own.node("proxy", "proxy-1"));
            let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
            for peer in peers {
                let vouched = store.current().vouch(std::slice::from_ref(&peer.der), PeerSide::Client, None).unwrap();
                // The leaf ends first: no anchor that is over, or not the one that vouches, counts.
                let until = vouched.not_after.duration_since(SystemTime::now()).unwrap();
                assert!(until > 800 * HOUR, "{until:?}, over: {old_is_over}");
            }
        }
    }
}

#[tokio::test]
async fn a_leaf_in_the_bundle_is_named() {
    let ca = authority("mesh ca");
    let own = ca.node("proxy", "proxy-1");
    let without = |shape: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "no CA");
        shape(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    let leaves = [
        own.pem.clone(),
        without(&|_| {}),
        without(&|params| params.is_ca = IsCa::ExplicitNoCa),
        without(&|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
    ];
    for leaf in leaves {
        for bundle in [format!("{}{leaf}", ca.pem), format!("{leaf}{}", ca.pem)] {
            let number = if bundle.starts_with(&leaf) { 1 } else { 2 };
            let folder = Folder::of(&bundle, &own);
            for purpose in [mesh("proxy", "proxy-1"), edge(EdgeMode::TwoWay, true)] {
                let error = fails(purpose, folder.files()).await;
                let told = chain(&error);
                assert!(matches!(error, LoadError::LeafAsAnchor { .. }), "{told}");
                let told_number = told.contains(&format!("number {number}")) && told.contains("CA:TRUE");
                assert!(told_number && told.contains("caPemPath"), "{told}");
            }
        }
    }
}

/// Version 1 has no extension to say that it is a CA.
#[tokio::test]
async fn a_root_of_version_1_stays_an_anchor() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let key = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], "");
    write(&dir.path().join("root.key"), &key);
    let request = openssl(&["req", "-new", "-key", &path("root.key"), "-subj", "/CN=version 1"], "");
    let root = openssl(&["x509", "-req", "-signkey", &path("root.key"), "-days", "3"], &request);
    let told = openssl(&["x509", "-noout", "-text"], &root);
    assert!(told.contains("Version: 1"), "{told}");
    let leaf_key = KeyPair::generate().unwrap();
    write(&dir.path().join("leaf.key"), leaf_key.serialize_pem());
    write(&dir.path().join("root.pem"), &root);
    let request = openssl(&["req", "-new", "-key", &path("leaf.key"), "-subj", "/CN=leaf"], "");
    let names = format!(
        "subjectAltName=DNS:proxy.{DOMAIN},URI:spiffe://{DOMAIN}/proxy/proxy-1\nextendedKeyUsage=serverAuth,clientAuth\n"
    );
    write(&dir.path().join("ext"), names);
    let args = ["-CA", &path("root.pem"), "-CAkey", &path("root.key"), "-CAcreateserial", "-extfile", &path("ext")];
    let pem = openssl(&[&["x509", "-req", "-days", "2"], &args[..]].concat(), &request);
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
    let folder = Folder::of(&root, &Leaf { pem, key: leaf_key.serialize_pem(), der });
    open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
}

#[tokio::test]
async fn uri_constraints_are_refused_in_words() {
    let ca = authority_with("mesh ca", |params| params.custom_extensions.push(uri_constraint()));
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let error = fails(mesh("proxy", "proxy-1"), folder.files()).await;
    let told = chain(&error);
    assert!(matches!(error, LoadError::UriConstraint { .. }), "{told}");
    assert!(told.contains("URI name constraints cannot be used"), "{told}");
    assert!(told.contains("internaltls.serverPemPath") && told.contains("internaltls.caPemPath"), "{told}");
    assert!(Reason::UriConstraint.to_string().contains("URI name constraints cannot be used"));
    // Where no URI is in a leaf they bind nothing.
    let shared = Folder::of(&ca.pem, &ca.leaf(shape_shared));
    open(mesh("proxy", "proxy-1"), shared.files()).await.unwrap();
}

/// A node's leaf of another trust domain is refused as that, not taken for a leaf that all nodes share.
#[tokio::test]
async fn a_leaf_of_another_trust_domain_is_not_shared() {
    let ca = authority("mesh ca");
    let of = |domain: &str, also: &[&str]| {
        ca.leaf(|params| {
            shape_node(params, "proxy", "proxy-1");
            params.subject_alt_names =
                vec![dns(&format!("proxy.{domain}")), uri(&format!("spiffe://{domain}/proxy/proxy-1"))];
            params.subject_alt_names.extend(also.iter().map(|name| uri(name)));
        })
    };
    for leaf in [of("other.internal", &[]), of("other.internal", &["urn:x"]), of(DOMAIN, &["urn:x"])] {
        let error = fails(mesh("proxy", "proxy-1"), Folder::of(&ca.pem, &leaf).files()).await;
        assert!(matches!(error, LoadError::BadIdentity { .. }), "{}", chain(&error));
    }
    let folder = Folder::of(&ca.pem, &of(&DOMAIN.to_uppercase(), &[]));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    assert_eq!(store.status().layout, Some(Layout::PerNode), "case does not count");
}

#[tokio::test]
async fn invariant_6_a_shared_name_has_no_case() {
    let ca = authority("mesh ca");
    let named = |name: &str| {
        ca.leaf(|params| {
            shape_shared(params);
            params.subject_alt_names = vec![dns(name)];
        })
    };
    let shared = |name: Option<&str>| match mesh("proxy", "proxy-1") {
        Purpose::Mesh { trust_domain, role, node, .. } => {
            Purpose::Mesh { trust_domain, role, node, shared_name: name.map(str::to_owned) }
        }
        edge @ Purpose::Edge { .. } => edge,
    };
    for (leaf, sni) in [
        ("Milvus.Example", None),
        ("milvus.example", Some("MILVUS.example")),
        ("MILVUS.EXAMPLE", Some("milvus.example")),
    ] {
        let leaf = named(leaf);
        let folder = Folder::of(&ca.pem, &leaf);
        // To load is to shake hands with oneself.
        let store = open(shared(sni), folder.files()).await.unwrap();
        assert_eq!(store.status().layout, Some(Layout::Shared { name: "milvus.example".to_owned() }));
        // A renewal in another case is the same layout.
        folder.put("server.pem", &named("miLvus.example").pem);
        let renewed = named("miLvus.example");
        folder.put("server.pem", &renewed.pem);
        folder.put("server.key", &renewed.key);
        store.reload().await.unwrap();
        assert_eq!(store.current().number, 2);
    }
}

/// Where the edge takes leaves without clientAuth, it takes CAs without it; where it does not, neither.
#[tokio::test]
async fn an_edge_asks_of_cas_what_it_asks_of_leaves() {
    let ca = authority("edge ca");
    let of = |usage: &ExtendedKeyUsagePurpose| {
        let middle = ca.intermediate_with("middle", |params| params.extended_key_usages = vec![usage.clone()]);
        let client = middle.leaf(|params| {
            shape_shared(params);
            params.extended_key_usages = both();
        });
        [client.der, middle.der]
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, EmailProtection, ServerAuth};
    for (usage, lax, strict) in
        [(ClientAuth, true, true), (Any, true, true), (ServerAuth, true, false), (EmailProtection, false, false)]
    {
        for (requires, expected) in [(false, lax), (true, strict)] {
            let folder = Folder::of(&ca.pem, &ca.leaf(shape_shared));
            let store = open(edge(EdgeMode::TwoWay, requires), folder.files()).await.unwrap();
            let vouched = store.current().vouch(&of(&usage), PeerSide::Client, None);
            assert_eq!(vouched.is_ok(), expected, "{usage:?}, required: {requires}: {vouched:?}");
            if let Err(refused) = vouched {
                assert!(matches!(refused.reason, Reason::CaUsage { .. }), "{refused}");
            }
        }
    }
}
