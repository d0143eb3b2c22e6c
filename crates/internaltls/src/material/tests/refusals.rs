//! Why a chain is refused, and that nothing which a peer adds to it changes that.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::issue::*;
use crate::clock::{Clock as _, TestClock};
use crate::config::{Files, Reload};
use crate::material::Store;
use crate::verify::{CertificateFacts, PeerSide};

type Der = CertificateDer<'static>;

const HOUR: Duration = Duration::from_secs(3_600);
const CA: &str = "mesh ca";
const MIDDLE: &str = "middle";

/// A chain that is refused, and its reason's label.
struct Case {
    store: Arc<Store>,
    chain: Vec<Der>,
    label: &'static str,
    /// The name of the leaf's issuer.
    issuer: &'static str,
    _folder: Folder,
}

/// What is on disk beside the pair.
#[derive(Default)]
struct Listed<'a> {
    cas: Vec<&'a Authority>,
    crls: Option<String>,
    distrust: Option<&'a Der>,
    /// How far the clock goes once the store is open.
    later: Duration,
}

fn facts(der: &Der) -> CertificateFacts {
    CertificateFacts::read(der).unwrap()
}

fn serial(der: &Der) -> Vec<u8> {
    facts(der).raw_serial
}

fn expired(params: &mut CertificateParams) {
    params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
}

fn due() -> SystemTime {
    SystemTime::now() + 12 * HOUR
}

async fn case(ca: &Authority, listed: Listed<'_>, chain: Vec<Der>, label: &'static str, issuer: &'static str) -> Case {
    let bundle: String = [ca].into_iter().chain(listed.cas).map(|ca| ca.pem.as_str()).collect();
    let folder = Folder::of(&bundle, &ca.node("proxy", "proxy-1"));
    let mut files = folder.files();
    if let Some(crls) = listed.crls {
        folder.put("crl.pem", crls);
        files = Files { crl: Some(folder.path("crl.pem")), ..files };
    }
    if let Some(der) = listed.distrust {
        let hex: String = facts(der).spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        folder.put("distrust", format!("{hex}\n"));
        files = Files { distrust: Some(folder.path("distrust")), ..files };
    }
    let clock = Arc::new(TestClock::at(SystemTime::now()));
    let reload = Reload { watch: false, crl_grace: HOUR, ..quick() };
    let store = open_with(mesh("proxy", "proxy-1"), files, reload, clock.clone()).await.unwrap();
    clock.set(clock.now() + listed.later);
    Case { store, chain, label, issuer, _folder: folder }
}

impl Case {
    fn label(&self, chain: &[Der]) -> &'static str {
        match self.store.current().vouch(chain, PeerSide::Client, None) {
            Ok(_) => "ok",
            Err(refused) => refused.label(),
        }
    }
}

/// Every reason that depends on more than the leaf's own words, and some that do not.
async fn cases() -> Vec<Case> {
    let ca = authority(CA);
    let middle = ca.intermediate(MIDDLE);
    let none = Listed::default;
    let (leaf, below) = (ca.node("proxy", "p").der, middle.node("proxy", "p").der);
    let under = vec![below.clone(), middle.der.clone()];
    let shaped = |of: &Authority, shape: &dyn Fn(&mut CertificateParams)| {
        of.leaf(|params| {
            shape_node(params, "proxy", "p");
            shape(params);
        })
        .der
    };
    let crls =
        |root: &[Vec<u8>], under: &[Vec<u8>]| Some(format!("{}{}", ca.crl(root, due()), middle.crl(under, due())));
    let mut cases = vec![
        case(&ca, Listed { distrust: Some(&leaf), ..none() }, vec![leaf.clone()], "distrusted", CA).await,
        case(&ca, Listed { distrust: Some(&middle.der), ..none() }, under.clone(), "distrusted", MIDDLE).await,
        case(&ca, Listed { crls: crls(&[serial(&leaf)], &[]), ..none() }, vec![leaf.clone()], "revoked", CA).await,
        case(&ca, Listed { crls: crls(&[], &[serial(&below)]), ..none() }, under.clone(), "revoked", MIDDLE).await,
        case(&ca, Listed { crls: crls(&[serial(&middle.der)], &[]), ..none() }, under.clone(), "revoked", MIDDLE).await,
        case(&ca, Listed { crls: Some(ca.crl(&[], due())), ..none() }, under.clone(), "unknown-revocation", MIDDLE)
            .await,
    ];
    let stale = Listed { crls: crls(&[], &[]), later: 14 * HOUR, ..none() };
    cases.push(case(&ca, stale, under.clone(), "stale-crl", MIDDLE).await);
    let next = authority("next");
    let of_next = next.node("proxy", "p").der;
    cases.push(
        case(
            &ca,
            Listed { cas: vec![&next], distrust: Some(&next.der), ..none() },
            vec![of_next],
            "distrusted",
            "next",
        )
        .await,
    );
    // The graver of two reasons.
    let old = shaped(&ca, &expired);
    let both = Listed { crls: crls(&[serial(&old)], &[]), ..none() };
    cases.push(case(&ca, both, vec![old.clone()], "revoked", CA).await);
    cases.push(case(&ca, none(), vec![old], "expired", CA).await);
    let ended = ca.intermediate_with(MIDDLE, expired);
    let of_ended = vec![ended.node("proxy", "p").der, ended.der.clone()];
    let distrusted = Listed { distrust: Some(&ended.der), ..none() };
    cases.push(case(&ca, distrusted, of_ended.clone(), "distrusted", MIDDLE).await);
    cases.push(case(&ca, none(), of_ended, "expired", MIDDLE).await);
    let early = shaped(&ca, &|params| params.not_before = (SystemTime::now() + HOUR).into());
    cases.push(case(&ca, none(), vec![early], "not-yet-valid", CA).await);
    let gone = authority_with("gone", expired);
    let of_gone = vec![gone.node("proxy", "p").der];
    cases.push(case(&ca, Listed { cas: vec![&gone], ..none() }, of_gone, "anchor-expired", "gone").await);
    // The constraints of CAs.
    let mail =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    let blind = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let of_uris = |params: &mut CertificateParams| params.custom_extensions.push(uri_constraint());
    let leafy = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let short = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    for (shape, label) in [
        (&mail as &dyn Fn(&mut CertificateParams), "ca-usage"),
        (&blind, "bad-chain"),
        (&of_uris, "uri-constraint"),
        (&leafy, "bad-chain"),
    ] {
        let middle = ca.intermediate_with(MIDDLE, shape);
        let chain = vec![middle.node("proxy", "p").der, middle.der.clone()];
        cases.push(case(&ca, none(), chain, label, MIDDLE).await);
    }
    let narrow = authority_with("narrow", short);
    let below = narrow.intermediate(MIDDLE);
    let chain = vec![below.node("proxy", "p").der, below.der.clone()];
    cases.push(case(&ca, Listed { cas: vec![&narrow], ..none() }, chain, "bad-chain", MIDDLE).await);
    // What the leaf says itself.
    let server = shaped(&ca, &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    cases.push(case(&ca, none(), vec![server], "wrong-usage", CA).await);
    let nobody = shaped(&ca, &|params| params.subject_alt_names = vec![dns("localhost")]);
    cases.push(case(&ca, none(), vec![nobody], "bad-identity", CA).await);
    // Strangers.
    cases.push(case(&ca, none(), vec![authority("other").node("proxy", "p").der], "unknown-issuer", "other").await);
    cases.push(case(&ca, none(), vec![authority(CA).node("proxy", "p").der], "bad-signature", CA).await);
    cases
}

/// NameConstraints with the permitted subtree URI:mesh.internal, RFC 5280 section 4.2.1.10.
pub(super) fn uri_constraint() -> CustomExtension {
    let host = b"mesh.internal";
    let wrap = |tag: u8, inner: &[u8]| [&[tag, u8::try_from(inner.len()).unwrap()], inner].concat();
    let der = wrap(0x30, &wrap(0xa0, &wrap(0x30, &wrap(0x86, host))));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], der);
    extension.set_criticality(true);
    extension
}

/// What a peer can make without the key of any of our CAs.
fn junk(case: &Case) -> Vec<(&'static str, Vec<Der>)> {
    let stale = |params: &mut CertificateParams| expired(params);
    let early = |params: &mut CertificateParams| params.not_before = (SystemTime::now() + HOUR).into();
    let fat = |params: &mut CertificateParams| {
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![7; 20_000]));
    };
    let of_issuer = |shape: &dyn Fn(&mut CertificateParams)| authority_with(case.issuer, shape).der;
    let bridge = |shape: &dyn Fn(&mut CertificateParams)| authority(CA).intermediate_with(case.issuer, shape).der;
    let half = Der::from(case.chain[0][..case.chain[0].len() / 2].to_vec());
    let mut torn = case.chain[0].to_vec();
    let last = torn.len() - 1;
    torn[last] ^= 1;
    vec![
        ("nothing", vec![Der::from(Vec::new())]),
        ("garbage", vec![Der::from(vec![0xff; 300])]),
        ("half a certificate", vec![half]),
        ("a torn leaf", vec![Der::from(torn)]),
        ("a duplicate", vec![case.chain[case.chain.len() - 1].clone()]),
        ("the issuer's name", vec![of_issuer(&|_| {})]),
        ("the issuer's name, expired", vec![of_issuer(&stale)]),
        ("the issuer's name, not yet valid", vec![of_issuer(&early)]),
        ("the issuer's name, fat", vec![of_issuer(&fat)]),
        ("the anchor's name", vec![authority(CA).der]),
        ("the anchor's name, expired", vec![authority_with(CA, stale).der]),
        ("a bridge", vec![bridge(&|_| {})]),
        ("a bridge, expired", vec![bridge(&stale)]),
        ("a bridge, over a CA", vec![bridge(&|_| {}), authority(CA).der]),
        ("a stranger", vec![authority("nobody").node("proxy", "x").der]),
        ("two of the issuer's name", vec![of_issuer(&stale), bridge(&stale)]),
    ]
}

/// Whether a change of the label tells only which kind of stranger it is: nothing of ours vouches for either.
fn both_strangers(one: &str, other: &str) -> bool {
    let stranger = |label: &str| ["unknown-issuer", "bad-signature"].contains(&label);
    stranger(one) && stranger(other)
}

#[tokio::test]
async fn invariant_5_junk_does_not_change_a_refusal() {
    for case in cases().await {
        assert_eq!(case.label(&case.chain), case.label);
        for (kind, junk) in junk(&case) {
            for at in 1..=case.chain.len() {
                let mut chain = case.chain.clone();
                chain.splice(at..at, junk.clone());
                let label = case.label(&chain);
                let same = label == case.label || both_strangers(label, case.label);
                assert!(same, "{} with {kind} at {at}: {label}", case.label);
            }
        }
    }
}

/// Who is listed cannot hide it behind a chain that is too long to be looked at.
#[tokio::test]
async fn invariant_5_a_long_chain_does_not_hide_the_listed() {
    let cases = cases().await;
    let listed: Vec<_> =
        cases.iter().filter(|case| case.chain.len() == 1 && ["revoked", "distrusted"].contains(&case.label)).collect();
    assert!(listed.len() >= 3);
    for case in listed {
        let mut chain = case.chain.clone();
        chain.extend((0..40).map(|n: u8| Der::from(vec![0x30, 1, n])));
        assert_eq!(case.label(&chain), case.label);
        chain.truncate(8);
        assert_eq!(case.label(&chain), case.label);
    }
}

/// Junk beside a good chain does not make it bad.
#[tokio::test]
async fn junk_beside_a_good_chain_is_left_out() {
    let ca = authority(CA);
    let middle = ca.intermediate(MIDDLE);
    let chain = vec![middle.node("proxy", "p").der, middle.der.clone()];
    let good = case(&ca, Listed::default(), chain, "ok", MIDDLE).await;
    assert_eq!(good.label(&good.chain), "ok");
    for (kind, junk) in junk(&good) {
        for at in 1..=good.chain.len() {
            let mut chain = good.chain.clone();
            chain.splice(at..at, junk.clone());
            assert_eq!(good.label(&chain), "ok", "{kind} at {at}");
        }
    }
}
