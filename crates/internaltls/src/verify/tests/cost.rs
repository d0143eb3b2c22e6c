//! How many signatures a chain costs, good or hostile.
use super::pki::*;
use crate::error::Reason;

/// The leaf and four intermediates, each signed by the key of the anchor, for all that a stranger can tell.
const STRANGER: usize = 5;

fn sent(leaf: Der, above: &[&Ca]) -> Vec<Der> {
    std::iter::once(leaf).chain(above.iter().map(|ca| ca.der.clone())).collect()
}

/// A path of so many intermediates, in order.
fn path_of(root: &Ca, count: usize) -> Vec<Der> {
    let mut above: Vec<Ca> = Vec::new();
    for n in 0..count {
        let next = above.last().unwrap_or(root).child(&format!("intermediate {n}"));
        above.push(next);
    }
    let leaf = above.last().unwrap_or(root).node();
    sent(leaf, &above.iter().rev().collect::<Vec<_>>())
}

/// Each of these CAs is named as its own issuer, and so is every other: the paths between them are all orders of all of them.
fn clique(name: &str, count: usize, fat: usize) -> Vec<Der> {
    let shape = |params: &mut rcgen::CertificateParams| params.custom_extensions.push(padding(fat));
    let cas: Vec<Ca> = (0..count).map(|_| Ca::root_with(name, shape)).collect();
    sent(cas[0].leaf(shape), &cas.iter().collect::<Vec<_>>())
}

#[test]
fn ordinary_paths_cost_one_signature_each() {
    let root = Ca::root("root");
    for count in 0..=4 {
        let (verified, signatures) = counted(&trust(&[&root]), &path_of(&root, count));
        assert_eq!((verified.map(drop), signatures), (Ok(()), count + 1));
    }
    // The same, sent in another order, or with the root after it.
    let mut chain = path_of(&root, 3);
    chain[1..].reverse();
    assert_eq!(counted(&trust(&[&root]), &chain).1, 4);
    chain.push(root.der.clone());
    assert_eq!(counted(&trust(&[&root]), &chain).1, 4);
}

#[test]
fn a_renewed_root_costs_nothing_more() {
    let old = Ca::root("root");
    let renewed = old.renewed(|params| params.not_after = (std::time::SystemTime::now() + 900 * HOUR).into());
    let chain = path_of(&old, 1);
    for trust in [trust(&[&old, &renewed]), trust(&[&renewed, &old])] {
        let (verified, signatures) = counted(&trust, &chain);
        assert_eq!((verified.map(drop), signatures), (Ok(()), 2));
    }
}

/// Two CAs of one name, as in a roll-over by the same scripts: the identifiers tell which one it is.
#[test]
fn a_namesake_with_identifiers_costs_nothing_more() {
    let (one, other) = (Ca::root("root"), Ca::root("root"));
    let chain = vec![one.leaf(|params| params.use_authority_key_identifier_extension = true)];
    for trust in [trust(&[&one, &other]), trust(&[&other, &one])] {
        let (verified, signatures) = counted(&trust, &chain);
        assert_eq!((verified.map(drop), signatures), (Ok(()), 1));
    }
    let (verified, signatures) = counted(&trust(&[&other, &one]), &[one.node()]);
    assert!(verified.is_ok() && signatures <= 3, "without them both are tried: {signatures}");
}

#[test]
fn invariant_8_strangers_cost_no_signature() {
    let root = Ca::root("root");
    let trust = trust(&[&root]);
    let stranger = Ca::root("another");
    let fifteen = vec![stranger.node(); 16];
    let chains = [path_of(&stranger, 1), path_of(&stranger, 4), clique("another", 4, 4_000), fifteen];
    for chain in chains {
        assert_eq!(counted(&trust, &chain), (Err(Reason::UnknownIssuer), 0));
    }
}

#[test]
fn invariant_8_a_clique_of_our_name_is_cheap() {
    let root = Ca::root("root");
    for (count, fat) in [(1, 0), (2, 6_000), (4, 0), (4, 6_000)] {
        let (verified, signatures) = counted(&trust(&[&root]), &clique("root", count, fat));
        assert_eq!(verified, Err(Reason::BadSignature));
        assert!(signatures <= STRANGER, "{count} of {fat} bytes: {signatures}");
    }
    // Anchors of one name, as roll-overs leave them, are as many keys to try; one budget is for all.
    let many: Vec<Ca> = (0..20).map(|_| Ca::root("root")).collect();
    let (_, signatures) = counted(&trust(&many.iter().collect::<Vec<_>>()), &clique("root", 4, 0));
    assert!(signatures <= 16, "{signatures}");
}

/// Whoever has seen a handshake of ours has our intermediates, and sends them above a leaf of his own.
#[test]
fn invariant_8_a_replayed_chain_is_cheap() {
    let root = Ca::root("root");
    let renewed = root.renewed(|params| params.not_after = (std::time::SystemTime::now() + 900 * HOUR).into());
    for count in 0..=4 {
        let mut replayed = path_of(&root, count);
        let issuer = if count == 0 { "root".to_owned() } else { format!("intermediate {}", count - 1) };
        replayed[0] = Ca::root(&issuer).node();
        // A key more in the name of the root is a signature more.
        let namesake = Ca::root("root");
        for (anchors, more) in [(vec![&root], 0), (vec![&root, &renewed], 0), (vec![&root, &renewed, &namesake], 1)] {
            let (verified, signatures) = counted(&trust(&anchors), &replayed);
            assert_eq!(verified, Err(Reason::BadSignature), "{count} intermediates");
            assert!(signatures <= count + 1 + more, "{count} intermediates, {} anchors: {signatures}", anchors.len());
        }
    }
}

/// Whoever holds an intermediate of ours can sign a clique.
#[test]
fn invariant_8_a_signed_clique_is_cheap() {
    let root = Ca::root("root");
    let cas: Vec<Ca> = (0..4).map(|_| root.child("root")).collect();
    let mut worst = 0;
    for bad in [false, true] {
        let leaf = cas[3].leaf(|params| {
            if bad {
                params.not_after = (std::time::SystemTime::now() - HOUR / 2).into();
            }
        });
        let (_, signatures) = counted(&trust(&[&root]), &sent(leaf, &cas.iter().collect::<Vec<_>>()));
        worst = worst.max(signatures);
    }
    assert!(worst <= 16, "{worst}");
}

#[test]
fn invariant_8_refuses_long_chains_cheaply() {
    let root = Ca::root("root");
    let trust = trust(&[&root]);
    let five = path_of(&root, 5);
    assert_eq!(counted(&trust, &five), (Err(Reason::ChainTooLong { limit: 4 }), 0));
    let direct = root.node();
    let mut many = vec![direct.clone()];
    many.extend((0..200).map(|n: u8| Der::from(vec![0x30, 1, n])));
    let (refused, signatures) = counted(&trust, &many);
    assert_eq!(refused, Err(Reason::ChainTooLong { limit: 4 }));
    assert!(signatures <= 1, "{signatures}");
    let fat: Vec<Der> = (0..5).map(|_| root.leaf(|params| params.custom_extensions.push(padding(20_000)))).collect();
    assert!(matches!(counted(&trust, &fat), (Err(Reason::OverLimit { .. }), 0)));
    // Duplicates count once.
    let mut twice = path_of(&root, 4);
    twice.extend(twice.clone());
    assert_eq!(counted(&trust, &twice).0.map(drop), Ok(()));
}

/// As large as a leaf and four intermediates of ML-DSA-87, by the algorithms that a leaf may have today.
#[test]
fn accepts_a_chain_of_post_quantum_size() {
    let pad = |params: &mut rcgen::CertificateParams| params.custom_extensions.push(padding(6_800));
    let root = Ca::root("root");
    let mut above = vec![root.child_with("intermediate 1", pad)];
    for n in 2..=4 {
        above.push(above.last().unwrap().child_with(&format!("intermediate {n}"), pad));
    }
    let chain = sent(above[3].leaf(pad), &above.iter().rev().collect::<Vec<_>>());
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    assert!(bytes > 36_000, "{bytes}");
    let (verified, signatures) = counted(&trust(&[&root]), &chain);
    assert_eq!((verified.map(drop), signatures), (Ok(()), 5));
}
