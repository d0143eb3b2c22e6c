//! RFC 5280's constraints on the CAs of a path, case by case, for both sides.
//!
//! A case is a root, an intermediate and a leaf, each shaped; what is not shaped is as it should be.
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints,
};

use super::pki::*;
use crate::verify::PeerSide;

type Shape = fn(&mut CertificateParams);

struct Case {
    name: &'static str,
    root: Shape,
    middle: Shape,
    leaf: Shape,
    /// The label for a client and for a server; `ok` where it is accepted.
    client: &'static str,
    server: &'static str,
}

const AS_IT_SHOULD_BE: Case =
    Case { name: "as it should be", root: |_| {}, middle: |_| {}, leaf: |_| {}, client: "ok", server: "ok" };

fn is_ca(params: &mut CertificateParams, path_len: u8) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
}

fn critical(oid: &[u64], content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(true);
    extension
}

fn permits(params: &mut CertificateParams, name: &str) {
    let permitted_subtrees = vec![GeneralSubtree::DnsName(name.to_owned())];
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
}

fn cases() -> Vec<Case> {
    let both = |name, root: Shape, middle: Shape, leaf: Shape, label| Case {
        name,
        root,
        middle,
        leaf,
        client: label,
        server: label,
    };
    let root = |name, shape: Shape, label| both(name, shape, |_| {}, |_| {}, label);
    let middle = |name, shape: Shape, label| both(name, |_| {}, shape, |_| {}, label);
    let leaf = |name, shape: Shape, label| both(name, |_| {}, |_| {}, shape, label);
    vec![
        AS_IT_SHOULD_BE,
        // Basic constraints.
        middle("an intermediate without basic constraints", |p| p.is_ca = IsCa::NoCa, "bad-chain"),
        middle("an intermediate that is CA:FALSE", |p| p.is_ca = IsCa::ExplicitNoCa, "bad-chain"),
        leaf("a leaf that is CA:TRUE", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), "ca-as-leaf"),
        leaf("a leaf that is CA:FALSE in so many words", |p| p.is_ca = IsCa::ExplicitNoCa, "ok"),
        leaf("a leaf with keyCertSign", |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign], "ca-as-leaf"),
        // Path lengths.
        root("a root that allows no intermediate", |p| is_ca(p, 0), "bad-chain"),
        root("a root that allows one", |p| is_ca(p, 1), "ok"),
        middle("an intermediate that allows none below it", |p| is_ca(p, 0), "ok"),
        // Key usages.
        root("a root with cRLSign alone", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign], "bad-chain"),
        root(
            "a root with digitalSignature alone",
            |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            "bad-chain",
        ),
        root("a root without a key usage", |p| p.key_usages.clear(), "ok"),
        middle("an intermediate with cRLSign alone", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign], "bad-chain"),
        middle("an intermediate without a key usage", |p| p.key_usages.clear(), "ok"),
        // Extended key usages.
        middle("an intermediate for e-mail", |p| p.extended_key_usages = vec![Eku::EmailProtection], "ca-usage"),
        middle("an intermediate for anything", |p| p.extended_key_usages = vec![Eku::Any], "ok"),
        middle("an intermediate for both", |p| p.extended_key_usages = vec![Eku::ClientAuth, Eku::ServerAuth], "ok"),
        Case {
            name: "an intermediate for servers",
            middle: |p| p.extended_key_usages = vec![Eku::ServerAuth],
            client: "ca-usage",
            ..AS_IT_SHOULD_BE
        },
        Case {
            name: "an intermediate for clients",
            middle: |p| p.extended_key_usages = vec![Eku::ClientAuth],
            server: "ca-usage",
            ..AS_IT_SHOULD_BE
        },
        root("a root for code", |p| p.extended_key_usages = vec![Eku::CodeSigning], "ca-usage"),
        root("a root for anything", |p| p.extended_key_usages = vec![Eku::Any, Eku::CodeSigning], "ok"),
        Case {
            name: "a root for servers",
            root: |p| p.extended_key_usages = vec![Eku::ServerAuth],
            client: "ca-usage",
            ..AS_IT_SHOULD_BE
        },
        leaf("a leaf for anything", |p| p.extended_key_usages = vec![Eku::Any], "wrong-usage"),
        leaf("a leaf without usages", |p| p.extended_key_usages.clear(), "wrong-usage"),
        // Name constraints.
        root("a root of our domain", |p| permits(p, "mesh.internal"), "ok"),
        root("a root of another domain", |p| permits(p, "example.org"), "bad-chain"),
        middle("an intermediate of our domain", |p| permits(p, "mesh.internal"), "ok"),
        middle("an intermediate of another domain", |p| permits(p, "example.org"), "bad-chain"),
        middle("an intermediate of a part of our name", |p| permits(p, "sh.internal"), "bad-chain"),
        // Extensions that nobody understands.
        middle(
            "an intermediate with a critical unknown",
            |p| p.custom_extensions.push(critical(&[1, 2, 3], &[5, 0])),
            "bad-chain",
        ),
        leaf(
            "a leaf with a critical unknown",
            |p| p.custom_extensions.push(critical(&[1, 2, 3], &[5, 0])),
            "bad-chain",
        ),
        leaf("a leaf with an unknown", |p| p.custom_extensions.push(padding(3)), "ok"),
        leaf(
            "a leaf with two SANs",
            |p| p.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0])),
            "bad-encoding",
        ),
        // Serial numbers.
        leaf("a serial number of 20 octets", |p| p.serial_number = Some(vec![0x7f; 20].into()), "ok"),
        leaf("a serial number of 21 octets", |p| p.serial_number = Some(vec![0x7f; 21].into()), "bad-encoding"),
        leaf("a serial number of 7,000 octets", |p| p.serial_number = Some(vec![0x7f; 7_000].into()), "bad-encoding"),
        middle(
            "an intermediate with a long serial number",
            |p| p.serial_number = Some(vec![0x7f; 21].into()),
            "unknown-issuer",
        ),
        // Times.
        middle("an intermediate that is over", |p| p.not_after = (SystemTime::now() - HOUR / 2).into(), "expired"),
        leaf(
            "a leaf that ends before it begins",
            |p| std::mem::swap(&mut p.not_before, &mut p.not_after),
            "bad-encoding",
        ),
    ]
}

#[test]
fn invariant_3_ca_constraints_bind_the_whole_path() {
    for case in cases() {
        let root = Ca::root_with("root", case.root);
        let middle = root.child_with("middle", case.middle);
        let chain = [middle.leaf(case.leaf), middle.der.clone()];
        let trust = trust(&[&root]);
        for (side, expected) in [(PeerSide::Client, case.client), (PeerSide::Server, case.server)] {
            let vouched = trust.vouch(&chain, side, None, SystemTime::now());
            let label = vouched.as_ref().map_or_else(|refused| refused.label(), |_| "ok");
            assert_eq!(label, expected, "{}, {side:?}: {vouched:?}", case.name);
        }
    }
}

/// RFC 5280 section 4.2.1.9: certificates that a CA issued for itself do not count.
#[test]
fn a_self_issued_intermediate_does_not_lengthen_a_path() {
    let shape = |params: &mut CertificateParams| is_ca(params, 1);
    let root = Ca::root_with("root", shape);
    let rolled = root.child("root");
    let middle = rolled.child("middle");
    let chain = [middle.node(), middle.der.clone(), rolled.der.clone()];
    trust(&[&root]).vouch(&chain, PeerSide::Client, None, SystemTime::now()).unwrap();
    let further = middle.child("further");
    let chain = [further.node(), further.der.clone(), middle.der.clone(), rolled.der.clone()];
    let refused = trust(&[&root]).vouch(&chain, PeerSide::Client, None, SystemTime::now()).unwrap_err();
    assert_eq!(refused.label(), "bad-chain");
}

/// A CA that two roots vouch for: each path is judged by itself, and the better one counts.
#[test]
fn a_cross_signed_ca_has_the_better_path() {
    let (one, other) = (Ca::root("one"), Ca::root_with("other", |p| p.extended_key_usages = vec![Eku::CodeSigning]));
    let middle = one.child("middle");
    let cross = other.cross(&middle);
    for chain in [[middle.node(), middle.der.clone(), cross.clone()], [middle.node(), cross, middle.der.clone()]] {
        let vouch = |trust: crate::verify::Trust| {
            let vouched = trust.vouch(&chain, PeerSide::Client, None, SystemTime::now());
            vouched.map(drop).map_err(|refused| refused.label())
        };
        assert_eq!(vouch(trust(&[&one, &other])), Ok(()));
        assert_eq!(vouch(trust(&[&other, &one])), Ok(()));
        assert_eq!(vouch(trust(&[&other])), Err("ca-usage"));
    }
}

/// Of several good paths the one that ends last counts, whatever the order.
#[test]
fn the_path_that_ends_last_counts() {
    let later = SystemTime::now() + 900 * HOUR;
    let (one, other) = (Ca::root("one"), Ca::root_with("other", |p| p.not_after = later.into()));
    let middle = one.child_with("middle", |p| p.not_after = later.into());
    let cross = other.cross(&middle);
    let leaf = middle.leaf(|p| p.not_after = later.into());
    for chain in [[leaf.clone(), middle.der.clone(), cross.clone()], [leaf, cross, middle.der.clone()]] {
        for trust in [trust(&[&one, &other]), trust(&[&other, &one])] {
            let vouched = trust.vouch(&chain, PeerSide::Client, None, SystemTime::now()).unwrap();
            assert!(vouched.not_after > SystemTime::now() + 800 * HOUR, "{:?}", vouched.not_after);
        }
    }
}
