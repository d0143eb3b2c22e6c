//! Chains of the corpus, and what becomes of them when they are torn, mixed and mended.
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::CustomExtension;
use rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pki::*;
use crate::clock::unix;
use crate::verify::outline::Outline;
use crate::verify::path::AnyUsage;
use crate::verify::{Anchor, CertificateFacts, PeerSide, Trust};

/// The most signatures of any chain, webpki's among them.
const SIGNATURES: usize = 16;

/// Name, and what becomes of it.
const CHAINS: [(&str, &str); 10] = [
    ("direct", "ok"),
    ("one", "ok"),
    ("four", "ok"),
    ("with_root", "ok"),
    ("cross_signed", "ok"),
    ("constrained", "ok"),
    ("p384", "ok"),
    ("rsa", "ok"),
    ("ed25519", "ok"),
    ("ml_dsa_87", "weak-key"),
];

static CORPUS: LazyLock<Vec<Vec<Der>>> = LazyLock::new(|| CHAINS.iter().map(|(name, _)| read(name)).collect());
static TRUST: LazyLock<Trust> = LazyLock::new(|| trusting(anchors()));

fn read(name: &str) -> Vec<Der> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "corpus", "chains", &format!("{name}.pem")].iter().collect();
    Der::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn anchors() -> Vec<Anchor> {
    read("roots").iter().map(anchor).collect()
}

/// The corpus is valid then: 2027-01-15.
fn then() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn label(chain: &[Der]) -> &'static str {
    TRUST.vouch(chain, PeerSide::Client, None, then()).map_or_else(|refused| refused.label(), |_| "ok")
}

#[test]
fn the_corpus_is_judged_as_it_should_be() {
    for ((name, expected), chain) in CHAINS.iter().zip(CORPUS.iter()) {
        assert_eq!(label(chain), *expected, "{name}");
    }
}

/// A leaf and four intermediates of ML-DSA-87: neither count nor bytes refuse them, and their path is good.
#[test]
fn post_quantum_chains_are_within_the_limits() {
    let chain = read("ml_dsa_87");
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    assert!(chain.len() == 5 && bytes > 36_000, "{} of {bytes} bytes", chain.len());
    let admitted = crate::verify::chain::Chain::admit(&chain).unwrap();
    assert_eq!(admitted.above.unwrap().len(), 4);
    let (verified, signatures) = counted_at(&TRUST, &chain, then());
    assert_eq!(
        (verified.map(drop), signatures),
        (Ok(()), 5),
        "only the leaf's own key is of a kind that TLS here lacks"
    );
}

/// One change to a chain.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, Index, u8),
    Cut(Index, Index),
    Insert(Index, Index, Vec<u8>),
    Remove(Index),
    Repeat(Index, u8),
    Swap(Index, Index),
    Borrow(Index, Index, Index),
    Junk(Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let (at, within) = (any::<Index>, any::<Index>);
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        4 => (at(), within(), 0..8_u8).prop_map(|(at, within, bit)| Change::Flip(at, within, bit)),
        1 => (at(), within()).prop_map(|(at, within)| Change::Cut(at, within)),
        2 => (at(), within(), bytes(8)).prop_map(|(at, within, bytes)| Change::Insert(at, within, bytes)),
        1 => at().prop_map(Change::Remove),
        1 => (at(), 1..20_u8).prop_map(|(at, times)| Change::Repeat(at, times)),
        2 => (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
        3 => (at(), at(), at()).prop_map(|(at, chain, cert)| Change::Borrow(at, chain, cert)),
        1 => (at(), bytes(300)).prop_map(|(at, bytes)| Change::Junk(at, bytes)),
    ]
}

fn apply(chain: &mut Vec<Der>, change: Change) {
    if chain.is_empty() {
        return;
    }
    let edit = |chain: &mut Vec<Der>, at: Index, edit: &dyn Fn(&mut Vec<u8>)| {
        let at = at.index(chain.len());
        let mut bytes = chain[at].to_vec();
        if !bytes.is_empty() {
            edit(&mut bytes);
        }
        chain[at] = Der::from(bytes);
    };
    match change {
        Change::Flip(at, within, bit) => edit(chain, at, &|bytes| {
            let within = within.index(bytes.len());
            bytes[within] ^= 1 << bit;
        }),
        Change::Cut(at, within) => edit(chain, at, &|bytes| bytes.truncate(within.index(bytes.len()))),
        Change::Insert(at, within, new) => edit(chain, at, &|bytes| {
            let within = within.index(bytes.len());
            bytes.splice(within..within, new.clone());
        }),
        Change::Remove(at) => drop(chain.remove(at.index(chain.len()))),
        Change::Repeat(at, times) => {
            let der = chain[at.index(chain.len())].clone();
            chain.extend(std::iter::repeat_n(der, usize::from(times)));
        }
        Change::Swap(one, other) => {
            let count = chain.len();
            chain.swap(one.index(count), other.index(count));
        }
        Change::Borrow(at, from, cert) => {
            let from = from.get(&CORPUS);
            chain.insert(at.index(chain.len() + 1), cert.get(from).clone());
        }
        Change::Junk(at, bytes) => chain.insert(at.index(chain.len() + 1), Der::from(bytes)),
    }
}

fn changed() -> impl Strategy<Value = Vec<Der>> {
    (any::<Index>(), proptest::collection::vec(change(), 0..6)).prop_map(|(which, changes)| {
        let mut chain = which.get(&CORPUS).clone();
        changes.into_iter().for_each(|change| apply(&mut chain, change));
        chain
    })
}

/// What webpki says by itself, with all anchors and all that was sent.
fn stock_accepts(chain: &[Der]) -> bool {
    let anchors: Vec<_> = TRUST.anchors.iter().map(|anchor| anchor.anchor.clone()).collect();
    let leaf = EndEntityCert::try_from(&chain[0]);
    leaf.is_ok_and(|leaf| {
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &anchors, &chain[1..], unix(then()), AnyUsage, None, None).is_ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is sent: bounded work, a bounded answer, and nobody in whom our CAs did not let in.
    #[test]
    fn harness_invariant_8_mutated_chains(chain in changed()) {
        let (verified, signatures) = match chain.as_slice() {
            [] => return Ok(()),
            chain => counted_at(&TRUST, chain, then()),
        };
        prop_assert!(signatures <= SIGNATURES, "{signatures}");
        match TRUST.vouch(&chain, PeerSide::Client, None, then()) {
            Ok(vouched) => {
                prop_assert!(verified.is_ok());
                prop_assert!(vouched.not_after > then());
                prop_assert!(CORPUS.iter().any(|known| known[0] == chain[0]), "a leaf that nobody signed");
                prop_assert!(stock_accepts(&chain), "webpki by itself refuses it");
            }
            Err(refused) => {
                let told = refused.to_string();
                prop_assert!(told.len() <= 4_096 && !told.chars().any(char::is_control), "{told:?}");
            }
        }
    }

    /// What is looked at by its outline is what the parsers read.
    #[test]
    fn harness_outlines_agree_with_parsers(chain in changed()) {
        for der in &chain {
            let (Ok(outline), Ok((_, parsed))) = (Outline::read(der), X509Certificate::from_der(der)) else { continue };
            prop_assert_eq!(outline.tbs, parsed.tbs_certificate.as_ref());
            if let Ok(facts) = CertificateFacts::read(der) {
                prop_assert_eq!(outline.subject, facts.subject_der);
                prop_assert_eq!(outline.issuer, facts.issuer_der);
                prop_assert!(parsed.public_key().raw.ends_with(outline.spki));
            }
            prop_assert_eq!(outline.signature, parsed.signature_value.data.as_ref());
        }
    }

    /// Whatever names a leaf bears, what is shown of them is short and on one line.
    #[test]
    fn harness_invariant_8_names_are_shown_bounded(names in proptest::collection::vec(any::<String>(), 1..40), times in 1..40_usize) {
        let mut san = Vec::new();
        for name in names.iter().map(|name| name.repeat(times)).take_while(|name| name.len() < 4_000) {
            san.extend(tlv(0x82, name.as_bytes()));
        }
        let san = CustomExtension::from_oid_content(&[2, 5, 29, 17], tlv(0x30, &san));
        let leaf = NAMER.leaf(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(san);
        });
        if let Ok(facts) = CertificateFacts::read(&leaf) {
            let told = facts.names().to_string();
            prop_assert!(told.len() <= 2_048 && !told.chars().any(char::is_control), "{told:?}");
        }
        let refused = TRUST.vouch(&[leaf], PeerSide::Client, None, SystemTime::now()).unwrap_err().to_string();
        prop_assert!(refused.len() <= 4_096 && !refused.chars().any(char::is_control), "{refused:?}");
    }
}

static NAMER: LazyLock<Ca> = LazyLock::new(|| Ca::root("nobody's CA"));

/// One DER value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    let header = match value.len() {
        0..=0x7f => vec![tag, length[1]],
        0x80..=0xff => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [header, value.to_vec()].concat()
}
