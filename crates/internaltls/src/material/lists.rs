//! What is on disk of what revokes: CRLs and the distrust list, understood. Pure.
//!
//! 1. Reading is lenient towards refusing: every whole line that is a hash counts, and every block that is a CRL, whatever
//!    the other lines, blocks and files are. What cannot be used is a finding that names file, line and remedy.
//! 2. What is seen here is not what is in force: see `in_force`.
//! 3. The distrust list, a line an entry: SHA-256 in hex of either case, colons between bytes allowed. `spki:` before it
//!    means a public key, `cert:` a certificate; without a mark it means either. `#` begins a comment. The last line that is
//!    not empty may be `# end COUNT`, COUNT being the number of entries: with it entries that are not in the file leave.
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::SectionKind;

use super::pem::{Block, blocks};
use super::source::{Snapshot, Source};
use crate::error::{LoadError, MaterialFile, Part};
use crate::verify::{Anchor, Crl, Distrust};

/// The most CRLs of all files together.
const MOST_CRLS: usize = 1_024;
/// The most CRLs of one file.
const MOST_OF_A_FILE: usize = 512;

/// What one look at the files found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In the order of files and blocks.
    pub(super) crls: Vec<SeenCrl>,
    /// `None` where no file is configured or it could not be read.
    pub(super) distrust: Option<SeenDistrust>,
    /// What could not be used.
    pub(super) findings: Vec<LoadError>,
    /// Where CRLs are configured to be.
    pub(super) crl_path: Option<MaterialFile>,
    /// Where the distrust list is configured to be.
    pub(super) distrust_path: Option<MaterialFile>,
    /// Whether the lists are the edge's.
    pub(super) edge: bool,
}

/// A CRL, and where it is.
#[derive(Debug, Clone)]
pub(super) struct SeenCrl {
    pub(super) file: MaterialFile,
    pub(super) crl: Arc<Crl>,
}

/// The distrust list.
#[derive(Debug, Clone)]
pub(super) struct SeenDistrust {
    pub(super) file: MaterialFile,
    pub(super) entries: Distrust,
    /// Whether it is whole: it ends in `# end COUNT`, COUNT fits, and every line is well formed.
    pub(super) ended: bool,
}

impl Seen {
    /// Understands what was read of `source`: nothing where no list is configured. A CRL that is among `known`, byte by byte,
    /// is not understood again. Where there are too many, those among `known` and those that one of `anchors` signed come first.
    pub(super) fn of(
        source: Option<&Source>,
        read: (Snapshot, Vec<LoadError>),
        known: &[Arc<Crl>],
        anchors: &[Anchor],
    ) -> Self {
        let Some(source) = source else { return Self::default() };
        let (snapshot, unreadable) = read;
        let configured = |part| source.get(part).cloned();
        let mut seen = Self {
            crl_path: configured(Part::Crl),
            distrust_path: configured(Part::Distrust),
            edge: source.first().edge,
            ..Self::default()
        };
        seen.understand(&snapshot, known, anchors);
        seen.findings.extend(unreadable);
        seen
    }

    fn understand(&mut self, snapshot: &Snapshot, known: &[Arc<Crl>], anchors: &[Anchor]) {
        let mut found = Vec::new();
        for (file, bytes) in snapshot.all(Part::Crl) {
            found.extend(self.crls_of(file, bytes, known).into_iter().enumerate());
        }
        self.admit(found, known, anchors);
        if let Some((file, bytes)) = snapshot.one(Part::Distrust) {
            let (distrust, findings) = distrust(file, bytes);
            self.distrust = Some(distrust);
            self.findings.extend(findings);
        }
    }

    /// The setting of a part, with its path where it is set.
    pub(super) fn setting(&self, part: Part) -> MaterialFile {
        let configured = if part == Part::Crl { &self.crl_path } else { &self.distrust_path };
        let unset = || MaterialFile { part, path: PathBuf::new(), edge: self.edge };
        configured.clone().unwrap_or_else(unset)
    }

    /// The CRLs of a file, in their order.
    fn crls_of(&mut self, file: &MaterialFile, bytes: &[u8], known: &[Arc<Crl>]) -> Vec<SeenCrl> {
        let (mut lists, garbled) = crl_blocks(file, bytes);
        if lists.is_empty() && garbled.is_none() {
            self.findings.push(LoadError::NoCrl(file.clone()));
        }
        self.findings.extend(garbled);
        if lists.len() > MOST_OF_A_FILE {
            lists.truncate(MOST_OF_A_FILE);
            self.findings.push(too_many(file, "it holds more than 512 CRLs"));
        }
        let mut crls = Vec::new();
        for der in lists {
            let same = known.iter().find(|crl| crl.der() == der).cloned();
            match same.map_or_else(|| Crl::read(der).map(Arc::new), Ok) {
                Ok(crl) => crls.push(SeenCrl { file: file.clone(), crl }),
                Err(what) => self.findings.push(bad_crl(file, what)),
            }
        }
        crls
    }

    /// Takes in what there is room for. `found` is each CRL with its place in its file. Of several publishers none can keep out
    /// another's: what a CA in use signed comes first, and of such the first of each file, then the second of each.
    fn admit(&mut self, found: Vec<(usize, SeenCrl)>, known: &[Arc<Crl>], anchors: &[Anchor]) {
        let mut found: Vec<_> = found.into_iter().enumerate().map(|(at, (place, seen))| (at, place, seen)).collect();
        if found.len() > MOST_CRLS {
            let known: BTreeSet<_> = known.iter().map(|crl| crl.sha256).collect();
            let is_known = |crl: &Crl| known.contains(&crl.sha256);
            let is_signed = |crl: &Crl| anchors.iter().any(|anchor| crl.is_signed_by(&anchor.facts));
            found.sort_by_cached_key(|(at, place, SeenCrl { crl, .. })| {
                (!(is_known(crl) || is_signed(crl)), *place, *at)
            });
            let mut left_out: Vec<_> = found.split_off(MOST_CRLS).into_iter().map(|(.., seen)| seen.file).collect();
            left_out.sort_by(|a, b| a.path.cmp(&b.path));
            left_out.dedup();
            let of_file = |file: &MaterialFile| too_many(file, "there are more than 1,024 CRLs in all");
            self.findings.extend(left_out.iter().map(of_file));
            found.sort_by_key(|(at, ..)| *at);
        }
        self.crls = found.into_iter().map(|(.., seen)| seen).collect();
    }
}

/// The CRLs of a file, and what is wrong with it. Where the file as a whole is no PEM, its whole blocks still are.
fn crl_blocks(file: &MaterialFile, bytes: &[u8]) -> (Vec<Vec<u8>>, Option<LoadError>) {
    let crls = |blocks: Vec<Block>| {
        blocks.into_iter().filter(|(kind, _)| *kind == SectionKind::Crl).map(|(_, mut der)| std::mem::take(&mut *der))
    };
    match blocks(file, bytes) {
        Ok(blocks) => (crls(blocks).collect(), None),
        Err(garbled) => {
            let whole = whole_blocks(bytes).filter_map(|block| blocks(file, block).ok());
            (whole.flat_map(crls).collect(), Some(garbled))
        }
    }
}

/// From each line that begins a CRL to the next that ends one, where no other begins between.
fn whole_blocks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut at, mut begin) = (0, None);
    bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')).filter_map(move |line| {
        let start = at;
        at += line.len();
        match line.trim_ascii() {
            b"-----BEGIN X509 CRL-----" => begin = Some(start),
            b"-----END X509 CRL-----" => return begin.take().and_then(|begin| bytes.get(begin..at)),
            _ => {}
        }
        None
    })
}

fn too_many(file: &MaterialFile, what: &'static str) -> LoadError {
    LoadError::TooManyCrls { file: file.clone(), what }
}

fn bad_crl(file: &MaterialFile, what: &'static str) -> LoadError {
    LoadError::BadCrl { file: file.clone(), what }
}

/// The distrust file understood, line by line.
pub(super) fn distrust(file: &MaterialFile, bytes: &[u8]) -> (SeenDistrust, Vec<LoadError>) {
    let (mut entries, mut count, mut end, mut findings) = (Distrust::default(), 0, None, Vec::new());
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // As an old editor ends them.
    let end_of_line = if bytes.contains(&b'\n') { b'\n' } else { b'\r' };
    for (at, line) in bytes.split(|byte| *byte == end_of_line).enumerate() {
        match Line::of(line) {
            Line::Empty => continue,
            Line::Entry(kind, hash) => {
                count += 1;
                entries.add(kind, hash);
            }
            Line::Bad => findings.push(LoadError::BadDistrust { file: file.clone(), line: at + 1 }),
            Line::Comment | Line::End(_) => {}
        }
        end = Line::of(line).end();
    }
    let whole = findings.is_empty();
    if let Some(says) = end.filter(|says| *says != count) {
        findings.push(LoadError::DistrustCount { file: file.clone(), says, holds: count });
    }
    let seen = SeenDistrust { file: file.clone(), entries, ended: whole && end == Some(count) };
    (seen, findings)
}

/// What a hash of the distrust list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashOf {
    Key,
    Certificate,
    Either,
}

impl Distrust {
    pub(super) fn add(&mut self, of: HashOf, hash: [u8; 32]) {
        if of != HashOf::Certificate {
            self.keys.insert(hash);
        }
        if of != HashOf::Key {
            self.certificates.insert(hash);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Empty,
    Comment,
    Entry(HashOf, [u8; 32]),
    /// `# end COUNT`.
    End(usize),
    Bad,
}

impl Line {
    fn of(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Self::Empty;
        }
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if text.is_empty() {
            return end_count(line).map_or(Self::Comment, Self::End);
        }
        let (of, digits) = marked(text);
        from_hex(digits).map_or(Self::Bad, |hash| Self::Entry(of, hash))
    }

    fn end(self) -> Option<usize> {
        match self {
            Self::End(count) => Some(count),
            _ => None,
        }
    }
}

fn end_count(comment: &[u8]) -> Option<usize> {
    let words = std::str::from_utf8(comment.strip_prefix(b"#")?).ok()?;
    let mut words = words.split_ascii_whitespace();
    let (word, count) = (words.next()?, words.next()?);
    // `parse` would take a sign.
    let plain = word == "end" && count.bytes().all(|b| b.is_ascii_digit()) && words.next().is_none();
    plain.then(|| count.parse().ok()).flatten()
}

fn marked(text: &[u8]) -> (HashOf, &[u8]) {
    match text.split_at_checked(5) {
        Some((mark, rest)) if mark.eq_ignore_ascii_case(b"spki:") => (HashOf::Key, rest),
        Some((mark, rest)) if mark.eq_ignore_ascii_case(b"cert:") => (HashOf::Certificate, rest),
        _ => (HashOf::Either, text),
    }
}

/// A SHA-256 in hex of either case; white space and colons between digits are passed over.
pub(super) fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let mut digits = text.iter().copied().filter(|b| !b.is_ascii_whitespace() && *b != b':');
    let mut digit =
        || digits.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    for byte in &mut out {
        *byte = digit()? << 4 | digit()?;
    }
    digits.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use x509_parser::prelude::FromDer;
    use x509_parser::revocation_list::CertificateRevocationList;

    use super::super::source::Bytes;
    use super::*;
    use crate::verify::drafts::{ca, draft};

    /// Real files of a kind, with their names.
    fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(kind);
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{}", folder.display());
        files
    }

    fn file(part: Part, name: &str) -> MaterialFile {
        MaterialFile { part, path: name.into(), edge: false }
    }

    fn crls(bytes: &[u8]) -> Seen {
        let files = vec![(file(Part::Crl, "crl.pem"), Bytes(bytes.to_vec()))];
        let mut seen = Seen::default();
        seen.understand(&Snapshot { files }, &[], &[]);
        seen
    }

    fn texts(findings: &[LoadError]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_each_crl_of_the_corpus() {
        let expected: BTreeSet<(&str, Vec<usize>, &str)> = [
            ("delta.pem", vec![], "it is a delta CRL"),
            ("empty.pem", vec![0], ""),
            ("forty.pem", vec![40], ""),
            ("idp.pem", vec![3], ""),
            ("indirect.pem", vec![], "it is an indirect CRL"),
            ("reasons.pem", vec![3], ""),
            ("rsa.pem", vec![3], ""),
            ("torn.pem", vec![3], "not whole PEM"),
            ("two.pem", vec![3, 3], ""),
            ("unknown-critical.pem", vec![], "a critical extension that is not understood"),
            ("with-text.pem", vec![3], ""),
        ]
        .into();
        let files = corpus("crl");
        assert_eq!(files.len(), expected.len());
        for ((name, bytes), (known, entries, finding)) in files.iter().zip(&expected) {
            assert_eq!(name, known);
            let (seen, found) = (crls(bytes), texts(&crls(bytes).findings));
            assert_eq!(&seen.crls.iter().map(|seen| seen.crl.entries()).collect::<Vec<_>>(), entries, "{name}");
            let fits = if finding.is_empty() { found.is_empty() } else { found.iter().any(|f| f.contains(finding)) };
            assert!(fits, "{name}: {found:#?}");
        }
    }

    #[test]
    fn no_file_keeps_out_the_lists_of_another() {
        let (own, stranger) = (ca("own"), ca("stranger"));
        let (signed, other) = (own.list(&draft(1, &[])), stranger.list(&draft(1, &[])));
        let of_file = |name: &'static str, count, crl: &Arc<Crl>| -> Vec<_> {
            (0..count).map(|place| (place, SeenCrl { file: file(Part::Crl, name), crl: Arc::clone(crl) })).collect()
        };
        let floods = [of_file("a", MOST_OF_A_FILE, &other), of_file("b", MOST_OF_A_FILE, &other)];
        let late = [of_file("y", 2, &stranger.list(&draft(2, &[]))), of_file("z", 1, &signed)];
        let mut seen = Seen::default();
        seen.admit(floods.into_iter().chain(late).flatten().collect(), &[], &[own.anchor()]);
        let of = |name: &str| seen.crls.iter().filter(|crl| crl.file.path == Path::new(name)).count();
        assert_eq!([of("y"), of("z"), seen.crls.len()], [2, 1, MOST_CRLS]);
        let told = texts(&seen.findings);
        assert!(told.len() == 2 && told.iter().all(|told| told.contains("more than 1,024 CRLs")), "{told:?}");
        // What is in force comes before a flood, too.
        let mut seen = Seen::default();
        let floods = (0..2 * MOST_CRLS).map(|_| of_file("a", 1, &other)).chain([of_file("z", 1, &signed)]);
        seen.admit(floods.flatten().collect(), std::slice::from_ref(&signed), &[]);
        assert!(seen.crls.iter().any(|seen| seen.crl.sha256 == signed.sha256));
    }

    #[test]
    fn of_one_file_some_lists_are_read() {
        let (_, list) = corpus("crl").into_iter().find(|(name, _)| name == "empty.pem").unwrap();
        let seen = crls(&list.repeat(MOST_OF_A_FILE + 1));
        assert_eq!(seen.crls.len(), MOST_OF_A_FILE);
        assert!(texts(&seen.findings).iter().any(|told| told.contains("more than 512 CRLs")));
    }

    #[test]
    fn a_serial_has_one_form() {
        let (_, bytes) = corpus("crl").into_iter().find(|(name, _)| name == "reasons.pem").unwrap();
        let crl = &crls(&bytes).crls[0].crl;
        let listed: [&[u8]; 5] = [&[1], &[0, 1], &[0xff, 0, 0xaa], &[0, 0xff, 0, 0xaa], &[0, 0, 1]];
        listed.iter().for_each(|serial| assert!(crl.lists(serial), "{serial:x?}"));
        let not: [&[u8]; 5] = [&[], &[0], &[2], &[1, 0], &[0xff, 0]];
        not.iter().for_each(|serial| assert!(!crl.lists(serial), "{serial:x?}"));
    }

    /// Bytes changed, cut out or put in.
    fn mutated(bytes: &[u8], changes: &[(usize, u8, u8)]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, how, byte) in changes {
            let at = at % (bytes.len() + 1);
            match how % 4 {
                0 => bytes.insert(at, *byte),
                1 if at < bytes.len() => _ = bytes.remove(at),
                2 => bytes.truncate(at.max(bytes.len() / 2)),
                _ if at < bytes.len() => bytes[at] ^= byte,
                _ => {}
            }
        }
        bytes
    }

    fn changes() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
        proptest::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        /// What is read of a CRL is what another parser reads of it, and nothing is read beyond it.
        #[test]
        fn harness_crl(at in any::<proptest::sample::Index>(), changes in changes()) {
            let ders: Vec<Vec<u8>> = corpus("crl")
                .iter()
                .flat_map(|(name, bytes)| crl_blocks(&file(Part::Crl, name), bytes).0)
                .collect();
            let der = mutated(&ders[at.index(ders.len())], &changes);
            let Ok(crl) = Crl::read(der.clone()) else { return Ok(()) };
            let Ok((rest, other)) = CertificateRevocationList::from_der(&der) else { return Ok(()) };
            prop_assert!(rest.is_empty());
            // The other parser cuts a name off where it does not understand it.
            prop_assert!(crl.issuer_der.starts_with(other.issuer().as_raw()));
            prop_assert_eq!(crl.number().map(ToString::to_string), other.crl_number().map(ToString::to_string));
            let serials: BTreeSet<Vec<u8>> =
                other.iter_revoked_certificates().map(|entry| strip(entry.raw_serial()).to_vec()).collect();
            prop_assert_eq!(crl.entries(), serials.len());
            prop_assert!(serials.iter().all(|serial| crl.lists(serial)));
            prop_assert!(!serials.contains(&[0x5a; 9][..]) && !crl.lists(&[0x5a; 9]));
        }

        /// However a file of CRLs is garbled, it takes no CRL of another file with it, and a whole block after it counts.
        #[test]
        fn harness_crl_files(at in any::<proptest::sample::Index>(), changes in changes(), noise in "[ -~\n]{0,200}") {
            let files = corpus("crl");
            let (_, whole) = files.iter().find(|(name, _)| name == "forty.pem").unwrap();
            let garbled = mutated(&at.get(&files).1, &changes);
            let with_noise = [&garbled[..], b"\n", noise.as_bytes(), b"\n", whole].concat();
            let snapshot = |second: Vec<u8>| Snapshot {
                files: vec![(file(Part::Crl, "a"), Bytes(second)), (file(Part::Crl, "b"), Bytes(whole.clone()))],
            };
            for bytes in [garbled, with_noise.clone()] {
                let mut seen = Seen::default();
                seen.understand(&snapshot(bytes), &[], &[]);
                prop_assert!(seen.crls.iter().any(|seen| seen.file.path == Path::new("b") && seen.crl.entries() == 40));
            }
            prop_assert!(crls(&with_noise).crls.iter().any(|seen| seen.crl.entries() == 40));
        }

        /// Whatever is between them, whole lines that are hashes count, and only these.
        #[test]
        fn harness_distrust(
            at in any::<proptest::sample::Index>(),
            changes in changes(),
            lines in proptest::collection::vec((any::<[u8; 32]>(), 0..3_u8, "[^\n]{0,80}"), 0..8),
        ) {
            let garbled = mutated(&at.get(&corpus("distrust")).1, &changes);
            let mut bytes = [&garbled[..], b"\n"].concat();
            for (hash, mark, noise) in &lines {
                let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                bytes.extend(format!("{}{digits}\n{noise}\n", ["", "spki:", "cert:"][usize::from(*mark)]).bytes());
            }
            let (seen, findings) = distrust(&file(Part::Distrust, "distrust"), &bytes);
            for (hash, mark, _) in &lines {
                prop_assert!(*mark == 2 || seen.entries.keys.contains(hash));
                prop_assert!(*mark == 1 || seen.entries.certificates.contains(hash));
            }
            let most = bytes.split(|byte| *byte == b'\n').count();
            prop_assert!(seen.entries.keys.len() <= most && seen.entries.certificates.len() <= most);
            prop_assert!(!seen.ended || findings.is_empty());
            let shown: String = texts(&findings).concat();
            prop_assert!(shown.is_ascii() && !shown.contains('\n'), "no byte of the file is shown: {}", shown);
        }
    }

    fn strip(serial: &[u8]) -> &[u8] {
        serial.get(serial.iter().take_while(|byte| **byte == 0).count()..).unwrap_or_default()
    }

    #[test]
    fn reads_each_distrust_file_of_the_corpus() {
        // Keys, certificates, whether it takes out what it lacks, and what is wrong with it.
        let expected: BTreeSet<(&str, usize, usize, bool, &[&str])> = [
            ("colons-bom", 1, 1, false, &[][..]),
            ("dos", 2, 1, true, &[]),
            ("empty", 0, 0, false, &[]),
            ("ended", 2, 2, true, &[]),
            ("nobody", 0, 0, true, &[]),
            ("prose", 1, 1, false, &["line 1 ", "line 5 "]),
            ("torn", 1, 1, false, &["line 2 "]),
        ]
        .into();
        let files = corpus("distrust");
        assert_eq!(files.len(), expected.len());
        for ((name, bytes), (known, keys, certificates, ended, wrong)) in files.iter().zip(&expected) {
            let (seen, findings) = distrust(&file(Part::Distrust, name), bytes);
            assert_eq!(name, known);
            let found = (seen.entries.keys.len(), seen.entries.certificates.len(), seen.ended);
            assert_eq!(found, (*keys, *certificates, *ended), "{name}");
            let findings = texts(&findings);
            assert_eq!(findings.len(), wrong.len(), "{name}: {findings:#?}");
            findings.iter().zip(*wrong).for_each(|(found, text)| assert!(found.contains(text), "{name}: {found}"));
        }
    }

    #[test]
    fn the_end_must_fit_and_be_last() {
        let hash = "ab".repeat(32);
        let ended = |text: &str| distrust(&file(Part::Distrust, "d"), text.as_bytes()).0.ended;
        let two = format!("{hash}\n{hash}\n");
        for end in ["# end 2", "#end 2\n\n\n", "# end 2\r\n \r\n", "  #  end\t2  \n", "# end 02"] {
            assert!(ended(&format!("{two}{end}")), "{end:?}");
        }
        for end in [
            "# end 1",
            "# end 3",
            "# end",
            "# end two",
            "# end +2",
            "# end 2 of 2",
            "# END 2",
            "end 2",
            "# end 2\n#",
            "# end 2\nxyz",
        ] {
            assert!(!ended(&format!("{two}{end}\n")), "{end:?}");
        }
        assert!(!ended(&format!("xyz\n{two}# end 2")), "a line that is no hash");
        assert!(!ended(&format!("{two}{hash} # end 3")));
        assert!(ended(&format!("{two}# end 2\n").replace('\n', "\r")));
    }
}
