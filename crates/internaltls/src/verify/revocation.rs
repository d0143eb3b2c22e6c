//! Who is revoked or distrusted, by the lists in force. Pure.
//!
//! 1. Each certificate of a path below its anchor needs a list of the very key that signed it: two CAs may share a name.
//!    Without one its state is unknown, and unknown is refused.
//! 2. Who is listed is revoked, whatever the age of the list, and whatever is missing for another certificate of the path.
//! 3. A list in the name of a CA is no word of that CA: which it signed is taken down ([`prove`]) where a path is verified.
//! 4. Of the lists of one key and scope the one of the highest rank counts (see [`Crl::rank`]); where two share the rank,
//!    entries of both count.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::crl::Crl;
use super::facts::CertificateFacts;
use crate::error::Reason;

/// What revokes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    /// Each lists who is revoked, wherever it came from.
    pub(crate) crls: Vec<Arc<Crl>>,
    /// Whether a CRL path is set. Then unknown means refused.
    pub(crate) crls_required: bool,
    /// How long a CRL is good after its next update was due.
    pub(crate) grace: Duration,
    /// Keys and certificates that an operator listed.
    pub(crate) distrust: Arc<Distrust>,
    /// The lists that an anchor signed, also one that has left: by the SHA-256 of their encoding.
    pub(crate) of_anchors: Arc<BTreeSet<[u8; 32]>>,
}

impl Lists {
    /// Whether the distrust list names the certificate or its key.
    pub(crate) fn distrusts(&self, certificate: &CertificateFacts) -> bool {
        self.distrust.names(certificate)
    }

    /// Whether a CA of ours, an anchor or one below it, was seen to have signed the list.
    pub(crate) fn is_proven(&self, crl: &Crl) -> bool {
        crl.prover().is_some() || self.of_anchors.contains(&crl.sha256)
    }
}

/// Keys and certificates that an operator listed, by SHA-256.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distrust {
    /// Of a SubjectPublicKeyInfo: whatever certificate has that key.
    pub(crate) keys: BTreeSet<[u8; 32]>,
    /// Of a certificate as it is encoded: that one alone.
    pub(crate) certificates: BTreeSet<[u8; 32]>,
}

impl Distrust {
    /// Whether the certificate or its key is listed.
    pub(crate) fn names(&self, certificate: &CertificateFacts) -> bool {
        self.names_key(&certificate.spki_sha256) || self.certificates.contains(&certificate.sha256)
    }

    /// How many entries of this one the other lacks.
    pub(crate) fn without(&self, other: &Self) -> usize {
        self.keys.difference(&other.keys).chain(self.certificates.difference(&other.certificates)).count()
    }

    /// The entries of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self { keys: &self.keys | &other.keys, certificates: &self.certificates | &other.certificates }
    }

    /// Whether nothing is listed.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.certificates.is_empty()
    }

    /// Whether the key is listed, by its SPKI SHA-256.
    pub(crate) fn names_key(&self, spki_sha256: &[u8; 32]) -> bool {
        self.keys.contains(spki_sha256)
    }
}

/// One certificate of a verified path, and the one above it, whose key signed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(crate) certificate: &'a CertificateFacts,
    pub(crate) issuer: &'a CertificateFacts,
}

/// Asks the lists for every certificate of a path. `links` begins with the leaf and ends with what the anchor signed.
pub(crate) fn check(lists: &Lists, links: &[Link<'_>], now: SystemTime) -> Result<(), Reason> {
    let mut refused = None;
    for (at, link) in links.iter().enumerate() {
        match check_one(&lists.crls, lists.grace, *link, at == 0, now) {
            Ok(()) => {}
            Err(Reason::Revoked) => return Err(Reason::Revoked),
            Err(reason) => refused = Some(graver(refused, reason)),
        }
    }
    refused.filter(|_| lists.crls_required).map_or(Ok(()), Err)
}

/// Takes down which lists the CAs below the anchor signed. For a path that is verified: on another anybody may be a CA.
pub(crate) fn prove(lists: &Lists, links: &[Link<'_>]) {
    let below_anchor = links.split_last().map_or(&[][..], |(_, below)| below);
    for issuer in below_anchor.iter().map(|link| link.issuer) {
        let may_sign = issuer.key_usage.is_none_or(|usage| usage.crl_sign);
        let unproven = lists.crls.iter().filter(|crl| may_sign && crl.prover().is_none());
        unproven.filter(|crl| crl.is_signed_by(issuer)).for_each(|crl| crl.set_prover(issuer.spki_sha256));
    }
}

/// A list that is late may come; one that never was is graver.
fn graver(one: Option<Reason>, other: Reason) -> Reason {
    match one {
        Some(one) if !matches!(one, Reason::StaleCrl { .. }) => one,
        Some(one) if matches!(other, Reason::StaleCrl { .. }) => one,
        _ => other,
    }
}

fn check_one(
    crls: &[Arc<Crl>],
    grace: Duration,
    Link { certificate, issuer }: Link<'_>,
    is_leaf: bool,
    now: SystemTime,
) -> Result<(), Reason> {
    let named: Vec<&Crl> =
        crls.iter().map(|crl| &**crl).filter(|crl| crl.issuer_der == certificate.issuer_der).collect();
    let signed: Vec<&Crl> = named.iter().copied().filter(|crl| crl.is_signed_by(issuer)).collect();
    // RFC 5280, section 6.3.3 (f): a list of a CA that may not sign lists is none, for good or ill.
    if !signed.is_empty() && issuer.key_usage.is_some_and(|usage| !usage.crl_sign) {
        return Err(Reason::UnknownRevocation("its issuer may not sign CRLs"));
    }
    let superseded = |crl: &Crl| signed.iter().any(|other| other.series() == crl.series() && other.rank() > crl.rank());
    let current: Vec<&Crl> = signed.iter().copied().filter(|crl| !superseded(crl)).collect();
    if current.iter().any(|crl| crl.lists(&certificate.raw_serial)) {
        return Err(Reason::Revoked);
    }
    let speaking: Vec<&Crl> = current.into_iter().filter(|crl| crl.speaks_of(certificate, is_leaf)).collect();
    match speaking.iter().find(|crl| !crl.is_too_old(now, grace)).or(speaking.first()) {
        Some(crl) if crl.is_too_old(now, grace) => {
            Err(Reason::StaleCrl { issuer: crl.issuer.clone(), next_update: crl.next_update })
        }
        Some(_) => Ok(()),
        None if crls.is_empty() => Err(Reason::UnknownRevocation("there is no CRL")),
        None if signed.is_empty() && !named.is_empty() => {
            Err(Reason::UnknownRevocation("the CRL in its issuer's name is signed by another key"))
        }
        None => Err(Reason::UnknownRevocation("no CRL of its issuer is at hand")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CrlScope, KeyUsagePurpose};

    use super::super::drafts::{Ca, DAY, Draft, ca, day, draft, shape};
    use super::*;

    fn lists(crls: &[&Arc<Crl>]) -> Lists {
        let crls = crls.iter().map(|crl| Arc::clone(crl)).collect();
        Lists { crls, crls_required: true, grace: DAY, ..Lists::default() }
    }

    fn label(lists: &Lists, path: &[&CertificateFacts], at: u32) -> &'static str {
        let links: Vec<_> = path.windows(2).map(|pair| Link { certificate: pair[0], issuer: pair[1] }).collect();
        check(lists, &links, day(at)).map_or_else(|reason| reason.label(), |()| "good")
    }

    #[test]
    fn invariant_5_lists_of_a_key_speak_for_that_key() {
        let (ca, twin) = (ca("one name"), ca("one name"));
        let (own, other) = (ca.list(&draft(1, &[])), twin.list(&draft(9, &[7])));
        let leaf = ca.leaf(7);
        for both in [[&own, &other], [&other, &own]] {
            assert_eq!(label(&lists(&both), &[&leaf, &ca.facts], 1), "good");
            assert_eq!(label(&lists(&both), &[&twin.leaf(7), &twin.facts], 1), "revoked");
        }
        assert_eq!(label(&lists(&[&other]), &[&leaf, &ca.facts], 1), "unknown-revocation");
        assert_eq!(label(&lists(&[]), &[&leaf, &ca.facts], 1), "unknown-revocation");
        assert_eq!(label(&Lists::default(), &[&leaf, &ca.facts], 1), "good", "no CRL is configured");
        let kept = Lists { crls_required: false, ..lists(&[&other]) };
        let seen = |ca: &Ca| label(&kept, &[&ca.leaf(7), &ca.facts], 1);
        assert_eq!([seen(&ca), seen(&twin)], ["good", "revoked"], "none is configured any more");
    }

    #[test]
    fn every_certificate_of_the_path_needs_a_list() {
        let root = ca("root");
        let middle = root.intermediate("middle", 3);
        let leaf = middle.leaf(7);
        let path = [&leaf, &middle.facts, &root.facts];
        let (of_root, of_middle) = (root.list(&draft(1, &[7])), middle.list(&draft(1, &[3])));
        assert_eq!(label(&lists(&[&of_root, &of_middle]), &path, 1), "good", "serials are of one issuer each");
        assert_eq!(label(&lists(&[&of_root]), &path, 1), "unknown-revocation");
        assert_eq!(label(&lists(&[&of_middle]), &path, 1), "unknown-revocation");
        let of_root = root.list(&draft(1, &[3]));
        assert_eq!(label(&lists(&[&of_root]), &path, 1), "revoked", "whatever is missing for the leaf");
    }

    #[test]
    fn who_is_listed_stays_so_when_the_list_is_too_old() {
        let ca = ca("ca");
        let list = ca.list(&draft(1, &[7]));
        let seen = |serial, at| label(&lists(&[&list]), &[&ca.leaf(serial), &ca.facts], at);
        assert_eq!([seen(7, 1), seen(7, 99)], ["revoked"; 2]);
        assert_eq!([seen(8, 1), seen(8, 10), seen(8, 11), seen(8, 99)], ["good", "good", "stale-crl", "stale-crl"]);
    }

    #[test]
    fn lists_without_a_number_go_by_time() {
        let ca = ca("ca");
        let list = |draft: &Draft| Arc::new(Crl::read(ca.list_der(draft)).unwrap().without_number());
        for (this, expected) in [(3, "good"), (0, "revoked")] {
            let (one, other) = (list(&draft(5, &[7])), list(&Draft { this, ..draft(5, &[]) }));
            assert_eq!(label(&lists(&[&one, &other]), &[&ca.leaf(7), &ca.facts], 4), expected, "of day {this}");
        }
        let (numbered, younger) = (ca.list(&draft(1, &[7])), list(&Draft { this: 3, ..draft(5, &[]) }));
        assert_eq!(label(&lists(&[&numbered, &younger]), &[&ca.leaf(7), &ca.facts], 4), "revoked");
    }

    #[test]
    fn invariant_5_the_highest_number_counts_and_names_one_list() {
        let ca = ca("ca");
        let (listing, clean) = (draft(5, &[7]), draft(5, &[]));
        let cases = [
            (Draft { number: 6, ..clean.clone() }, "good"),
            (Draft { number: 4, this: 3, ..clean.clone() }, "revoked"),
            (Draft { number: 0x0100, ..clean.clone() }, "good"),
            (Draft { this: 3, ..clean.clone() }, "revoked"),
            (clean.clone(), "revoked"),
        ];
        for (other, expected) in cases {
            let (one, other) = (ca.list(&listing), ca.list(&other));
            for both in [[&one, &other], [&other, &one]] {
                assert_eq!(label(&lists(&both), &[&ca.leaf(7), &ca.facts], 4), expected, "{both:?}");
            }
        }
    }

    #[test]
    fn a_list_speaks_within_its_scope() {
        let root = ca("root");
        let middle = root.intermediate("middle", 3);
        let one = vec!["http://a.test/1"];
        let scoped = |scope| root.list(&Draft { scope: Some((one.clone(), scope)), ..draft(1, &[9]) });
        let (all, leaves, cas) =
            (scoped(None), scoped(Some(CrlScope::UserCertsOnly)), scoped(Some(CrlScope::CaCertsOnly)));
        let of = |list: &Arc<Crl>, leaf: &CertificateFacts| label(&lists(&[list]), &[leaf, &root.facts], 1);
        let (plain, here, there) = (root.leaf(7), root.leaf_at(7, &one), root.leaf_at(7, &["http://a.test/2"]));
        assert_eq!([of(&all, &plain), of(&all, &here), of(&all, &there)], ["good", "good", "unknown-revocation"]);
        assert_eq!([of(&leaves, &plain), of(&cas, &plain)], ["good", "unknown-revocation"]);
        assert_eq!(of(&all, &root.leaf_at(9, &["http://a.test/2"])), "revoked", "a serial is one certificate's");
        let of_middle = middle.list(&draft(1, &[]));
        let path = [&middle.leaf(1), &middle.facts, &root.facts];
        assert_eq!(label(&lists(&[&of_middle, &cas]), &path, 1), "good");
        assert_eq!(label(&lists(&[&of_middle, &leaves]), &path, 1), "unknown-revocation");
    }

    #[test]
    fn a_ca_without_crl_sign_has_no_list() {
        let ca = ca("ca");
        let list = ca.list(&draft(1, &[7]));
        let params = shape("ca", &[KeyUsagePurpose::KeyCertSign]);
        let barred = CertificateFacts::read(params.self_signed(ca.issuer.key()).unwrap().der()).unwrap();
        assert_eq!(barred.spki_sha256, ca.facts.spki_sha256);
        assert_eq!(label(&lists(&[&list]), &[&ca.leaf(8), &ca.facts], 1), "good");
        assert_eq!(label(&lists(&[&list]), &[&ca.leaf(8), &barred], 1), "unknown-revocation");
    }

    #[test]
    fn remembers_few_keys_and_never_forgets_the_signer() {
        let others: Vec<_> = (0..40).map(|_| ca("ca")).collect();
        let ca = ca("ca");
        let list = ca.list(&draft(1, &[]));
        assert!(list.is_signed_by(&ca.facts));
        others.iter().for_each(|other| assert!(!list.is_signed_by(&other.facts)));
        assert_eq!(list.remembered(&ca.facts), Some(true), "the one that signed it is not forgotten");
        assert_eq!(list.remembered(&others[0].facts), None, "what it remembers is bounded");
        assert!(list.is_signed_by(&ca.facts));
    }

    #[test]
    fn a_certificate_is_named_by_its_key_or_itself() {
        let facts = ca("ca").facts;
        let mut distrust = Distrust::default();
        assert!(!distrust.names(&facts));
        distrust.certificates.insert(facts.sha256);
        assert!(distrust.names(&facts) && !distrust.names_key(&facts.spki_sha256));
        let by_key = Distrust { keys: [facts.spki_sha256].into(), ..Distrust::default() };
        assert!(by_key.names(&facts) && by_key.names_key(&facts.spki_sha256));
        let swapped = Distrust { keys: [facts.sha256].into(), certificates: [facts.spki_sha256].into() };
        assert!(!swapped.names(&facts));
    }
}
