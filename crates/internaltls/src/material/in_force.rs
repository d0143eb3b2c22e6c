//! Which lists are in force after a look at the files. Pure.
//!
//! 1. Adding needs nothing. A distrust entry leaves only where the file ends in `# end COUNT` and is whole; a file that is
//!    missing, emptied or cut off takes nothing out.
//! 2. Of the CRLs of one issuer, key and scope the one of the highest rank ([`Crl::rank`]) is in force. A lower one is
//!    ignored, whatever its file is called and whichever others are there; where it is younger, or names somebody whom the
//!    higher one does not, that is a finding. A number names one list: of two with one number both are in force, and that
//!    is a finding. One that has vanished gives way to a younger one of its number that names all whom it names.
//! 3. A CRL that vanishes stays in force until the CA that signed it leaves the bundle that is served.
//! 4. A CRL that no CA in use signed is an intermediate's, or waits for its CA. Once a verified path has shown that an
//!    intermediate signed it, it is proven ([`Crl::prover`]), and treated as an anchor's: the highest of the key stays,
//!    whatever else is there.
//! 5. One that is not proven is kept beside the others, for whoever meets a path asks for the very key
//!    (`verify::revocation`). Anybody can write such a list, in any name and with any number: of those that vanished a few
//!    are kept, and none takes the place of a proven one. To lose one that was never proven can let an older one count
//!    that is put in its place before a path leads through its CA.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lists::{Seen, SeenCrl};
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{Anchor, Crl, Distrust, Lists};

/// Unproven CRLs that are kept after they vanished: of one issuer, key identifier and scope.
const VANISHED_OF_A_GROUP: usize = 2;
/// And in all.
const VANISHED_IN_ALL: usize = 64;

/// What revokes now.
#[derive(Debug, Clone, Default)]
pub(super) struct InForce {
    pub(super) distrust: Arc<Distrust>,
    pub(super) crls: Vec<CrlInForce>,
    /// Where CRLs are configured to be: then a certificate needs one.
    pub(super) crl_path: Option<MaterialFile>,
}

/// A CRL in force.
#[derive(Debug, Clone)]
pub(super) struct CrlInForce {
    pub(super) crl: Arc<Crl>,
    /// The key of the trust anchor that signed it, by SPKI SHA-256, also after that left. `None`: none did.
    pub(super) anchor: Option<[u8; 32]>,
    /// The key of the CA below an anchor that was seen to have signed it, as of when this was made.
    pub(super) prover: Option<[u8; 32]>,
}

impl CrlInForce {
    pub(super) fn of(crl: Arc<Crl>, anchor: Option<[u8; 32]>) -> Self {
        Self { prover: crl.prover(), crl, anchor }
    }
}

/// Whether the same lists are in force. What has been found out about one since ([`CrlInForce::prover`]) is no other list.
impl PartialEq for InForce {
    fn eq(&self, other: &Self) -> bool {
        let crls = |of: &Self| of.crls.iter().map(|held| (held.crl.sha256, held.anchor)).collect::<Vec<_>>();
        self.distrust == other.distrust && self.crl_path == other.crl_path && crls(self) == crls(other)
    }
}

impl InForce {
    /// What is in force once `seen` was on disk while `anchors` are served, and what is to be told of it.
    ///
    /// `former` were served just before: a CRL may come in the same look in which its CA leaves.
    pub(super) fn after(&self, seen: &Seen, anchors: &[Anchor], former: &[Anchor]) -> (Self, Vec<LoadError>) {
        let (distrust, mut findings) = distrust_after(&self.distrust, seen);
        let (crls, of_crls) = Step { before: &self.crls, seen, anchors, former }.take();
        findings.extend(of_crls);
        (Self { distrust, crls, crl_path: seen.crl_path.clone() }, findings)
    }

    /// As handshakes ask it.
    pub(super) fn lists(&self, grace: Duration) -> Lists {
        let of_anchors = self.crls.iter().filter(|held| held.anchor.is_some()).map(|held| held.crl.sha256);
        Lists {
            crls: self.crls.iter().map(|held| Arc::clone(&held.crl)).collect(),
            crls_required: self.crl_path.is_some(),
            grace,
            distrust: Arc::clone(&self.distrust),
            of_anchors: Arc::new(of_anchors.collect()),
        }
    }

    /// The same, with what has been found out about its lists meanwhile.
    pub(super) fn now_known(&self) -> Self {
        let crls = self.crls.iter().map(|held| CrlInForce::of(Arc::clone(&held.crl), held.anchor));
        Self { crls: crls.collect(), ..self.clone() }
    }

    /// Which lists are proven, and by which key.
    pub(super) fn provers(&self) -> impl Iterator<Item = Option<[u8; 32]>> {
        self.crls.iter().map(|held| held.prover)
    }

    /// The CRLs, so that a look need not read again what has not changed.
    pub(super) fn known(&self) -> Vec<Arc<Crl>> {
        self.crls.iter().map(|held| Arc::clone(&held.crl)).collect()
    }

    fn has_a_list_named(&self, issuer_der: &[u8]) -> bool {
        self.crls.iter().any(|held| held.crl.issuer_der == issuer_der)
    }

    /// That each of these CAs, of the bundle `ca`, has a CRL where CRLs are required: all of its leaves would be refused.
    pub(super) fn covers(&self, ca: Option<&MaterialFile>, anchors: &[Anchor]) -> Result<(), LoadError> {
        let (Some(crl), Some(ca)) = (&self.crl_path, ca) else { return Ok(()) };
        let is_bare = |anchor: &&Anchor| !self.crls.iter().any(|held| may_be_used(&held.crl, anchor));
        match anchors.iter().find(is_bare) {
            None => Ok(()),
            Some(bare) if !may_sign(bare) && self.has_a_list_named(&bare.facts.subject_der) => {
                Err(LoadError::BadCrl { file: crl.clone(), what: "the CA that issued it lacks the key usage cRLSign" })
            }
            Some(bare) => {
                let (crl, subject) = (crl.clone(), bare.facts.subject.clone());
                Err(LoadError::CaWithoutCrl { crl, ca: ca.clone(), subject })
            }
        }
    }
}

fn may_sign(anchor: &Anchor) -> bool {
    anchor.facts.key_usage.is_none_or(|usage| usage.crl_sign)
}

fn may_be_used(crl: &Crl, anchor: &Anchor) -> bool {
    may_sign(anchor) && crl.is_signed_by(&anchor.facts)
}

/// The key of the CA that signed it.
fn signer_among(cas: &[Anchor], crl: &Crl) -> Option<[u8; 32]> {
    cas.iter().find(|ca| crl.is_signed_by(&ca.facts)).map(|ca| ca.facts.spki_sha256)
}

fn distrust_after(before: &Arc<Distrust>, seen: &Seen) -> (Arc<Distrust>, Vec<LoadError>) {
    let kept = |file: &MaterialFile, count| LoadError::DistrustKept { file: file.clone(), count };
    let Some(list) = &seen.distrust else {
        // That a file cannot be read has been found by who tried.
        let unset = seen.distrust_path.is_none() && !before.is_empty();
        let finding = unset.then(|| LoadError::ListUnset(seen.setting(Part::Distrust)));
        return (Arc::clone(before), finding.into_iter().collect());
    };
    if list.ended {
        return (Arc::new(list.entries.clone()), Vec::new());
    }
    let absent = before.without(&list.entries);
    let finding = (absent > 0).then(|| kept(&list.file, absent));
    (Arc::new(before.and(&list.entries)), finding.into_iter().collect())
}

/// One look at the CRLs.
struct Step<'a> {
    before: &'a [CrlInForce],
    seen: &'a Seen,
    anchors: &'a [Anchor],
    former: &'a [Anchor],
}

/// Within a series the lists of one key supersede one another. Of a list whose signer is not known its own word stands for
/// the key: then none supersedes another, and none a proven one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Signer {
    Known([u8; 32]),
    Claimed(Option<Vec<u8>>),
}

type Group = (Vec<u8>, Option<Vec<u8>>, Signer);

impl Step<'_> {
    fn take(&self) -> (Vec<CrlInForce>, Vec<LoadError>) {
        let mut findings: Vec<_> = self.seen.crls.iter().filter_map(|seen| self.about(seen)).collect();
        let mut groups: BTreeMap<Group, Vec<CrlInForce>> = BTreeMap::new();
        for held in self.all() {
            groups.entry(self.group(&held)).or_default().push(held);
        }
        let (mut kept, mut vanished) = (Vec::new(), 0);
        for ((_, _, signer), mut group) in groups {
            // The file's name must not decide anything, nor the order of files.
            let order = |crl: &Crl| (crl.this_update, crl.sha256);
            group.sort_by(|a, b| (b.crl.rank(), order(&b.crl)).cmp(&(a.crl.rank(), order(&a.crl))));
            match signer {
                Signer::Known(key) => kept.extend(self.highest(group, self.is_served(&key), &mut findings)),
                Signer::Claimed(_) => kept.extend(self.some(group, &mut vanished)),
            }
        }
        kept.sort_by(|a, b| (&a.crl.issuer_der, a.crl.sha256).cmp(&(&b.crl.issuer_der, b.crl.sha256)));
        if self.seen.crl_path.is_none() && !kept.is_empty() {
            findings.retain(|finding| !matches!(finding, LoadError::CrlGone { .. }));
            findings.push(LoadError::ListUnset(self.seen.setting(Part::Crl)));
        }
        (kept, findings)
    }

    /// What may be in force: what was, unless its CA has left and its file too; and what is on disk.
    fn all(&self) -> Vec<CrlInForce> {
        let mut all: Vec<CrlInForce> = Vec::new();
        for before in self.before {
            let anchor = self.anchor_of(&before.crl);
            let left = before.anchor.is_some() && anchor.is_none() && !self.is_on_disk(&before.crl);
            if !left {
                all.push(CrlInForce::of(Arc::clone(&before.crl), anchor.or(before.anchor)));
            }
        }
        for SeenCrl { crl, .. } in &self.seen.crls {
            if all.iter().all(|held| held.crl.sha256 != crl.sha256) {
                let anchor = self.anchor_of(crl).or_else(|| signer_among(self.former, crl));
                all.push(CrlInForce::of(Arc::clone(crl), anchor));
            }
        }
        all
    }

    fn anchor_of(&self, crl: &Crl) -> Option<[u8; 32]> {
        signer_among(self.anchors, crl)
    }

    fn is_served(&self, key: &[u8; 32]) -> bool {
        self.anchors.iter().any(|anchor| anchor.facts.spki_sha256 == *key)
    }

    fn is_on_disk(&self, crl: &Crl) -> bool {
        self.seen.crls.iter().any(|seen| seen.crl.sha256 == crl.sha256)
    }

    fn group(&self, CrlInForce { crl, prover, .. }: &CrlInForce) -> Group {
        let (issuer, scope) = crl.series();
        let claimed = || Signer::Claimed(crl.authority_key().map(<[u8]>::to_vec));
        let signer = self.anchor_of(crl).or(*prover).map_or_else(claimed, Signer::Known);
        (issuer.to_vec(), scope.map(<[u8]>::to_vec), signer)
    }

    /// Of the lists of one key, sorted by rank: the first, and what shares its rank. That one of an intermediate vanished is
    /// not told, for nothing tells whether the intermediate is still in use.
    fn highest(&self, mut group: Vec<CrlInForce>, served: bool, findings: &mut Vec<LoadError>) -> Vec<CrlInForce> {
        let count = group.iter().take_while(|held| held.crl.rank() == group[0].crl.rank()).count();
        let lower = group.split_off(count);
        let group = self.without_contained(group);
        let best = &group[0].crl;
        if group.len() > 1 {
            let on_disk = self.seen.crls.iter().find(|seen| seen.crl.sha256 == best.sha256);
            let file = on_disk.map_or_else(|| self.seen.setting(Part::Crl), |seen| seen.file.clone());
            findings.push(LoadError::CrlTied { file, issuer: best.issuer.clone(), rank: best.describe_rank() });
        }
        if group.iter().any(|held| self.is_on_disk(&held.crl)) {
            findings.extend(self.passed_over(&group, &lower));
            return group;
        }
        let on_disk = |seen: &&SeenCrl| lower.iter().any(|held| held.crl.sha256 == seen.crl.sha256);
        let ignored = |SeenCrl { file, crl }: &SeenCrl| LoadError::CrlOlder {
            file: file.clone(),
            issuer: crl.issuer.clone(),
            rank: crl.describe_rank(),
            in_force: best.describe_rank(),
        };
        let older: Vec<_> = self.seen.crls.iter().filter(on_disk).map(ignored).collect();
        if older.is_empty() && served {
            let file = self.seen.setting(Part::Crl);
            findings.push(LoadError::CrlGone { file, issuer: best.issuer.clone(), rank: best.describe_rank() });
        }
        findings.extend(older);
        group
    }

    /// Without those that vanished and that a younger one of the group contains.
    fn without_contained(&self, group: Vec<CrlInForce>) -> Vec<CrlInForce> {
        let contained = |held: &CrlInForce| group.iter().any(|other| held.crl.is_within(&other.crl));
        let is_kept = |held: &&CrlInForce| self.is_on_disk(&held.crl) || !contained(held);
        group.iter().filter(is_kept).cloned().collect()
    }

    /// Of the lists on disk below those in force: what is to be told of them. That an old one lies beside the next is usual, but
    /// not that it is the younger one, or names somebody whom the next does not.
    fn passed_over(&self, in_force: &[CrlInForce], lower: &[CrlInForce]) -> Vec<LoadError> {
        let best: Vec<&Crl> = in_force.iter().map(|held| &*held.crl).collect();
        let of = |SeenCrl { file, crl }: &SeenCrl| {
            let younger = best.iter().all(|best| crl.this_update > best.this_update);
            let what = match (younger, crl.names_more_than(&best)) {
                (true, _) => "is younger than",
                (_, true) => "names certificates that are not named by",
                _ => return None,
            };
            let (file, issuer, rank) = (file.clone(), crl.issuer.clone(), crl.describe_rank());
            Some(LoadError::CrlPassedOver { file, issuer, rank, what, in_force: best.first()?.describe_rank() })
        };
        let is_lower = |seen: &&SeenCrl| lower.iter().any(|held| held.crl.sha256 == seen.crl.sha256);
        self.seen.crls.iter().filter(is_lower).filter_map(of).collect()
    }

    /// Of lists whose signer is not known, sorted by rank: all on disk, and some that were.
    fn some(&self, group: Vec<CrlInForce>, vanished: &mut usize) -> Vec<CrlInForce> {
        let mut of_group = 0;
        let mut is_kept = |held: &CrlInForce| {
            if self.is_on_disk(&held.crl) {
                return true;
            }
            of_group += 1;
            *vanished += 1;
            of_group <= VANISHED_OF_A_GROUP && *vanished <= VANISHED_IN_ALL
        };
        group.into_iter().filter(|held| is_kept(held)).collect()
    }

    /// What is to be told of a list on disk by itself.
    fn about(&self, SeenCrl { file, crl }: &SeenCrl) -> Option<LoadError> {
        let barred = self.anchors.iter().any(|anchor| !may_sign(anchor) && crl.is_signed_by(&anchor.facts));
        if barred {
            let what = "the CA that issued it lacks the key usage cRLSign";
            return Some(LoadError::BadCrl { file: file.clone(), what });
        }
        let unsigned = || LoadError::CrlUnsigned { file: file.clone(), issuer: crl.issuer.clone() };
        self.is_unsigned(crl).then(unsigned)
    }

    /// Whether it is in the name of a CA in use and that did not sign it, nor one that was in use. One in another name is an
    /// intermediate's, or waits for its CA.
    fn is_unsigned(&self, crl: &Crl) -> bool {
        let is_ours = self.anchors.iter().any(|anchor| anchor.facts.subject_der == crl.issuer_der);
        let was_signed = || self.before.iter().any(|held| held.anchor.is_some() && held.crl.sha256 == crl.sha256);
        is_ours && self.anchor_of(crl).is_none() && crl.prover().is_none() && !was_signed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::lists;
    use super::*;
    use crate::verify::CertificateFacts;
    use crate::verify::drafts::{Ca, DAY, Draft, ca, day, draft};
    use crate::verify::revocation::{Link, check, prove};

    /// Two CAs of one name, an intermediate of the first, lists of each, and behind them lists that nobody signed.
    struct Pool {
        owners: Vec<Ca>,
        leaves: Vec<[CertificateFacts; 2]>,
        lists: Vec<(usize, Draft, Arc<Crl>)>,
    }

    const SERIALS: [u8; 2] = [7, 8];
    /// How many of the pool's lists are signed.
    const GENUINE: usize = 21;
    /// How many are not, all in the name of the intermediate.
    const FORGED: usize = 6;

    /// The same list but for its signature.
    fn forged(mut der: Vec<u8>) -> Arc<Crl> {
        *der.last_mut().unwrap() ^= 1;
        Arc::new(Crl::read(der).unwrap())
    }

    static POOL: LazyLock<Pool> = LazyLock::new(|| {
        let first = ca("one name");
        let middle = first.intermediate("middle", 3);
        let owners = vec![first, ca("one name"), middle];
        let drafts = |owner: usize| {
            let of = |number, this, listed: &[u8]| (owner, Draft { this, ..draft(number, listed) });
            [
                of(1, 0, &[7]),
                of(1, 0, &[8]),
                of(2, 0, &[7]),
                of(2, 1, &[7]),
                of(2, 1, &[]),
                of(3, 0, &[8]),
                of(4, 0, &[]),
            ]
        };
        let made = |(owner, draft): (usize, Draft)| {
            let list = owners[owner].list(&draft);
            (owner, draft, list)
        };
        let lie = |number| {
            let draft = draft(number, if number == 9 { &[7, 8] } else { &[] });
            let list = forged(owners[2].list_der(&draft));
            (2, draft, list)
        };
        let genuine: Vec<_> = (0..3).flat_map(drafts).map(made).collect();
        let lists: Vec<_> = genuine.into_iter().chain((9..).take(FORGED).map(lie)).collect();
        assert_eq!(lists.len(), GENUINE + FORGED);
        let leaves = owners.iter().map(|owner| SERIALS.map(|serial| owner.leaf(serial))).collect();
        Pool { owners, leaves, lists }
    });

    /// A number names one list.
    fn rank(list: usize) -> u64 {
        POOL.lists[list].1.number
    }

    /// Whether `other`, of the same number, is younger and names all whom `list` names.
    fn contains(other: usize, list: usize) -> bool {
        let [other, list] = [other, list].map(|at| &POOL.lists[at].1);
        let names_all = list.listed.iter().all(|serial| other.listed.contains(serial));
        other.number == list.number && other.this > list.this && names_all
    }

    fn file(part: Part) -> MaterialFile {
        MaterialFile { part, path: "file".into(), edge: false }
    }

    fn seen(lists: &[usize], distrust: Option<&str>) -> Seen {
        let of = |at: &usize| SeenCrl { file: file(Part::Crl), crl: Arc::clone(&POOL.lists[*at].2) };
        Seen {
            crls: lists.iter().map(of).collect(),
            distrust: distrust.map(|text| lists::distrust(&file(Part::Distrust), text.as_bytes()).0),
            findings: Vec::new(),
            crl_path: Some(file(Part::Crl)),
            distrust_path: Some(file(Part::Distrust)),
            edge: false,
        }
    }

    fn anchors(of: &[usize]) -> Vec<Anchor> {
        of.iter().map(|owner| POOL.owners[*owner].anchor()).collect()
    }

    /// What a handshake of that leaf would find, as one word.
    fn verdict(state: &InForce, owner: usize, serial: usize) -> &'static str {
        let leaf = &POOL.leaves[owner][serial];
        let (first, second, middle) = (&POOL.owners[0].facts, &POOL.owners[1].facts, &POOL.owners[2].facts);
        let link = |certificate, issuer| Link { certificate, issuer };
        let links = match owner {
            0 => vec![link(leaf, first)],
            1 => vec![link(leaf, second)],
            _ => vec![link(leaf, middle), link(middle, first)],
        };
        prove(&state.lists(DAY), &links);
        check(&state.lists(DAY), &links, day(2)).map_or_else(|reason| reason.label(), |()| "good")
    }

    /// A look at the files.
    #[derive(Debug, Clone)]
    struct Look {
        lists: Vec<usize>,
        anchors: Vec<usize>,
        distrust: Option<Written>,
    }

    /// A distrust file: entries by number, what else is in it, how it ends, and how many bytes are cut off.
    #[derive(Debug, Clone)]
    struct Written {
        entries: Vec<u8>,
        junk: bool,
        end: Option<usize>,
        cut: usize,
    }

    fn entry(n: u8) -> String {
        let mark = ["", "spki:", "cert:"][usize::from(n % 3)];
        format!("{mark}{}", format!("{n:02x}").repeat(32))
    }

    impl Written {
        fn text(&self) -> String {
            let mut text: String = self.entries.iter().map(|n| format!("{} # of {n}\n", entry(*n))).collect();
            if self.junk {
                text.insert_str(0, "no hash\n");
            }
            if let Some(count) = self.end {
                text.push_str(&format!("# end {count}\n"));
            }
            text.truncate(text.len().saturating_sub(self.cut));
            text
        }

        /// Whether it takes out what it lacks: no byte that counts is missing or wrong.
        fn is_the_word(&self) -> bool {
            !self.junk && self.end == Some(self.entries.len()) && self.cut <= 1
        }

        /// The entries whose hash is in what is left of it.
        fn whole(&self) -> BTreeSet<u8> {
            let text = self.text();
            self.entries.iter().copied().filter(|n| text.contains(&entry(*n))).collect()
        }
    }

    fn written() -> impl Strategy<Value = Written> {
        let entries = proptest::sample::subsequence((0..6).collect::<Vec<u8>>(), 0..=6).prop_shuffle();
        (entries, any::<bool>(), 0..3_usize, prop_oneof![4 => Just(0), 1 => Just(1), 3 => 0..200_usize]).prop_map(
            |(entries, junk, end, cut)| {
                let end = [None, Some(entries.len()), Some(entries.len() + 1)][end];
                Written { entries, junk: junk && cut > 100, end, cut }
            },
        )
    }

    fn look() -> impl Strategy<Value = Look> {
        let lists = proptest::sample::subsequence((0..GENUINE + FORGED).collect::<Vec<_>>(), 0..=8).prop_shuffle();
        let anchors = prop_oneof![Just(vec![0, 1]), Just(vec![1, 0]), Just(vec![0]), Just(vec![1])];
        (lists, anchors, proptest::option::of(written())).prop_map(|(lists, anchors, distrust)| Look {
            lists,
            anchors,
            distrust,
        })
    }

    fn hashes(state: &InForce) -> BTreeSet<([u8; 32], bool)> {
        let keys = state.distrust.keys.iter().map(|hash| (*hash, true));
        keys.chain(state.distrust.certificates.iter().map(|hash| (*hash, false))).collect()
    }

    fn hashes_of(entries: &BTreeSet<u8>) -> BTreeSet<([u8; 32], bool)> {
        let of = |n: &u8| {
            let kinds: &[bool] = [&[true, false][..], &[true], &[false]][usize::from(n % 3)];
            kinds.iter().map(|kind| ([*n; 32], *kind)).collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }

    /// The lists of one owner that a careful operator would say have been in force: those seen, but for those of a CA that left
    /// while they were not on disk.
    #[derive(Debug, Clone, Default)]
    struct Memory(BTreeSet<(usize, bool)>);

    impl Memory {
        fn look(&mut self, owner: usize, look: &Look) {
            let served = look.anchors.contains(&owner);
            if !served {
                self.0.retain(|(list, anchored)| !anchored || look.lists.contains(list));
            }
            let on_disk = look.lists.iter().filter(|list| **list < GENUINE && POOL.lists[**list].0 == owner);
            for list in on_disk {
                if !self.0.iter().any(|(known, _)| known == list) {
                    self.0.insert((*list, false));
                }
            }
            if served {
                let best = self.best();
                let contained = |list: usize| best.iter().any(|other| contains(*other, list));
                let is_kept = |list: &usize| look.lists.contains(list) || !contained(*list);
                self.0 = best.iter().copied().filter(is_kept).map(|list| (list, true)).collect();
            }
        }

        fn best(&self) -> BTreeSet<usize> {
            let best = self.0.iter().map(|(list, _)| rank(*list)).max();
            self.0.iter().map(|(list, _)| *list).filter(|list| Some(rank(*list)) == best).collect()
        }

        fn lists(&self, serial: u8) -> bool {
            self.best().iter().any(|list| POOL.lists[*list].1.listed.contains(&serial))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

        /// Whatever the files do, an entry of the distrust list leaves by word alone, and a revoked certificate is good again
        /// only by a higher list of its CA, or after its CA was gone.
        #[test]
        fn invariant_5_lists_shrink_by_word_alone(looks in proptest::collection::vec(look(), 1..12)) {
            let mut state = InForce::default();
            let mut memory = vec![Memory::default(); 3];
            let mut expected = BTreeSet::new();
            for look in &looks {
                let text = look.distrust.as_ref().map(Written::text);
                let seen = read_anew(seen(&look.lists, text.as_deref()), &state);
                let (next, _) = state.after(&seen, &anchors(&look.anchors), &[]);
                // Neither the order of files nor looking twice changes anything.
                let reversed = Seen { crls: seen.crls.iter().rev().cloned().collect(), ..seen };
                let (other, _) = state.after(&reversed, &anchors(&look.anchors), &[]);
                prop_assert!(other == next);
                let (again, _) = next.after(&reversed, &anchors(&look.anchors), &[]);
                prop_assert!(again == next);
                // The distrust list.
                match &look.distrust {
                    Some(written) if written.is_the_word() => expected = hashes_of(&written.whole()),
                    Some(written) => expected.extend(hashes_of(&written.whole())),
                    None => {}
                }
                prop_assert_eq!(hashes(&next), expected.clone());
                // The CRLs.
                for (owner, kept) in memory.iter_mut().enumerate() {
                    let (root, before) = (owner.min(owner % 2), kept.clone());
                    kept.look(owner, look);
                    for (at, serial) in SERIALS.into_iter().enumerate() {
                        // A path leads through the intermediate while its list is there: so the list is proven.
                        let revoked = verdict(&next, owner, at) == "revoked";
                        if !look.anchors.contains(&root) {
                            continue;
                        }
                        prop_assert_eq!(revoked, kept.lists(serial), "owner {}, serial {}", owner, serial);
                        let was = before.lists(serial) && look.anchors.contains(&owner);
                        let higher = kept.best().iter().map(|l| rank(*l)).max()
                            > before.best().iter().map(|l| rank(*l)).max();
                        prop_assert!(!was || revoked || higher);
                    }
                }
                state = next;
            }
        }
    }

    /// As the files are read: what is in force is known, whatever else is there is a new list.
    fn read_anew(mut seen: Seen, state: &InForce) -> Seen {
        for SeenCrl { crl, .. } in &mut seen.crls {
            let known = state.known().into_iter().find(|known| known.sha256 == crl.sha256);
            *crl = known.unwrap_or_else(|| Arc::new(Crl::read(crl.der().to_vec()).unwrap()));
        }
        seen
    }

    /// The findings of a look, after a look at `before`.
    fn found(before: (&[usize], Option<&str>), now: (&[usize], Option<&str>), served: &[usize]) -> Vec<String> {
        let (state, _) = InForce::default().after(&seen(before.0, before.1), &anchors(served), &[]);
        let (_, findings) = state.after(&seen(now.0, now.1), &anchors(served), &[]);
        findings.iter().map(ToString::to_string).collect()
    }

    fn one(findings: Vec<String>, text: &str) {
        assert!(findings.len() == 1 && findings[0].contains(text), "{text}: {findings:#?}");
    }

    #[test]
    fn findings_tell_what_stays_and_why() {
        assert!(found((&[5], None), (&[1, 5], None), &[0]).is_empty(), "an old one beside the new one is usual");
        one(found((&[5], None), (&[0], None), &[0]), "older than the one in force (number 3");
        one(found((&[5], None), (&[], None), &[0]), "no longer, and it stays in force");
        one(found((&[0], None), (&[0, 1], None), &[0]), "entries of both count");
        let (two, less) = (format!("{}\n{}\n", entry(1), entry(2)), entry(1));
        one(found((&[0], Some(&two)), (&[0], Some(&less)), &[0]), "lacks 1 entries");
        one(found((&[0], Some(&two)), (&[0], Some("")), &[0]), "lacks 2 entries");
        let ended = format!("{less}\n# end 1");
        assert!(found((&[0], Some(&two)), (&[0], Some(&ended)), &[0]).is_empty());
    }

    #[test]
    fn invariant_9_a_crl_passed_over_is_told() {
        one(found((&[5], None), (&[0, 5], None), &[0]), "names certificates that are not named by the one in force");
        // Of day 1, below the one of day 0.
        one(found((&[5], None), (&[4, 5], None), &[0]), "is younger than the one in force (number 3");
        one(found((&[5], None), (&[4, 5], None), &[0]), "remove it");
        assert!(found((&[], None), (&[6, 5, 1], None), &[0]).iter().all(|text| !text.contains("younger")));
    }

    #[test]
    fn invariant_5_one_number_names_one_list() {
        let after = |before: &[usize], now: &[usize]| {
            let (state, _) = InForce::default().after(&seen(before, None), &anchors(&[0]), &[]);
            let state = state.after(&seen(now, None), &anchors(&[0]), &[]).0;
            (state.crls.len(), verdict(&state, 0, 0))
        };
        // The younger one of the same number names nobody.
        assert_eq!(after(&[2], &[4]), (2, "revoked"));
        one(found((&[2], None), (&[4], None), &[0]), "entries of both count");
        // It names all.
        assert_eq!(after(&[2], &[3]), (1, "revoked"));
        assert!(found((&[2], None), (&[3], None), &[0]).is_empty());
        assert_eq!(after(&[2], &[5]), (1, "good"), "a higher number");
    }

    #[test]
    fn invariant_9_a_crl_that_no_ca_signed_is_told() {
        // The list of the other CA of that name; then with its CA; then of a CA that is not in the bundle.
        one(found((&[0], None), (&[0, 7], None), &[0]), "none of its keys signed");
        assert!(found((&[0], None), (&[0, 7], None), &[0, 1]).is_empty());
        assert!(found((&[0], None), (&[0, 14], None), &[0]).is_empty(), "an intermediate's");
        // One whose CA has left.
        let (state, _) = InForce::default().after(&seen(&[0, 7], None), &anchors(&[0, 1]), &[]);
        let (_, findings) = state.after(&seen(&[0, 7], None), &anchors(&[0]), &[]);
        assert!(findings.is_empty(), "{findings:#?}");
    }

    #[test]
    fn lists_whose_setting_is_gone_stay() {
        let (state, _) = InForce::default().after(&seen(&[0], Some(&entry(0))), &anchors(&[0]), &[]);
        let nothing = Seen { crl_path: None, distrust_path: None, ..seen(&[], None) };
        let (after, findings) = state.after(&nothing, &anchors(&[0]), &[]);
        assert_eq!(findings.len(), 2, "{findings:#?}");
        assert_eq!(hashes(&after), hashes(&state));
        assert_eq!([verdict(&after, 0, 0), verdict(&after, 0, 1)], ["revoked", "good"]);
        assert_eq!(verdict(&after, 1, 0), "good", "unknown is refused where CRLs are configured alone");
    }

    #[test]
    fn every_ca_needs_a_list() {
        let ca = file(Part::Ca);
        let covers = |lists: &[usize], served: &[usize]| {
            let (state, _) = InForce::default().after(&seen(lists, None), &anchors(served), &[]);
            state.covers(Some(&ca), &anchors(served)).is_ok()
        };
        assert!(covers(&[0], &[0]) && covers(&[0, 7], &[0, 1]));
        assert!(!covers(&[0], &[0, 1]), "two CAs of one name");
    }

    /// Who can write the folder of CRLs, and has no key.
    #[test]
    fn invariant_5_forged_lists_push_no_proven_one_out() {
        let root = ca("root");
        let middle = root.intermediate("middle", 3);
        let genuine = |number, listed: &[u8]| middle.list_der(&draft(number, listed));
        let forged = |number| forged(genuine(number, &[])).der().to_vec();
        let of_root = root.list_der(&draft(1, &[]));
        let leaf = middle.leaf(7);
        let look = |state: &InForce, ders: &[Vec<u8>]| {
            let crl = |der: &Vec<u8>| SeenCrl { file: file(Part::Crl), crl: Arc::new(Crl::read(der.clone()).unwrap()) };
            let crls = ders.iter().chain([&of_root]).map(crl).collect();
            let state = state.after(&Seen { crls, ..seen(&[], None) }, &[root.anchor()], &[]).0;
            let links = [
                Link { certificate: &leaf, issuer: &middle.facts },
                Link { certificate: &middle.facts, issuer: &root.facts },
            ];
            prove(&state.lists(DAY), &links);
            let verdict = check(&state.lists(DAY), &links, day(2)).map_or_else(|reason| reason.label(), |()| "good");
            (state, verdict)
        };
        let (state, verdict) = look(&InForce::default(), &[genuine(5, &[7])]);
        assert_eq!(verdict, "revoked");
        let (state, verdict) = look(&state, &[forged(9), forged(10), forged(11)]);
        assert_eq!(verdict, "revoked");
        let (state, _) = look(&state, &[]);
        assert_eq!(look(&state, &[genuine(3, &[])]).1, "revoked", "the older list is played back");
    }

    #[test]
    fn vanished_lists_of_strangers_are_bounded() {
        let stranger = ca("stranger");
        let mut state = InForce::default();
        for number in 0..40 {
            let crl = stranger.list(&draft(number, &[7]));
            let seen = Seen { crls: vec![SeenCrl { file: file(Part::Crl), crl }], ..seen(&[], None) };
            state = state.after(&seen, &anchors(&[0]), &[]).0;
        }
        assert_eq!(state.crls.len(), 1 + VANISHED_OF_A_GROUP);
    }
}
