//! The corpus of files as tools write them, and what mutation makes of them.
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::foreign::chain;

fn file(part: Part) -> MaterialFile {
    MaterialFile { part, path: PathBuf::from("x.pem"), edge: true }
}

fn read(part: Part, text: impl AsRef<[u8]>) -> Result<usize, String> {
    blocks(&file(part), text.as_ref()).map(|found| found.len()).map_err(|error| chain(&error))
}

fn certificates(text: impl AsRef<[u8]>) -> Result<usize, String> {
    read(Part::Ca, text)
}

/// A file of `corpus/pem`. Its name tells the part and how many blocks are read, or `refused`.
struct Sample {
    name: String,
    part: Part,
    count: Option<usize>,
    bytes: Vec<u8>,
}

fn corpus() -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/pem");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| sample(path)).collect()
}

fn sample(path: &Path) -> Sample {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut words = name.split('-');
    let part = match words.next() {
        Some("certificates") => Part::Ca,
        Some("crls") => Part::Crl,
        Some("key") => Part::Key,
        other => panic!("{name} begins with {other:?}"),
    };
    let count = words.next().filter(|count| *count != "refused").map(|count| count.parse().unwrap());
    Sample { part, count, bytes: fs::read(path).unwrap(), name }
}

#[test]
fn reads_or_refuses_every_shape() {
    let corpus = corpus();
    assert!(corpus.len() > 40, "{}", corpus.len());
    for Sample { name, part, count, bytes } in corpus {
        match (read(part, bytes), count) {
            (found, Some(count)) => assert_eq!(found, Ok(count), "{name}"),
            (Ok(found), None) => panic!("{name} must be refused, and {found} blocks were read"),
            (Err(_), None) => {}
        }
    }
}

/// The same DER comes out of every way to write it.
#[test]
fn shapes_do_not_change_the_content() {
    let corpus = corpus();
    let plain = corpus.iter().find(|sample| sample.name == "certificates-2-plain.pem").unwrap();
    let wanted = blocks(&file(Part::Ca), &plain.bytes).unwrap();
    assert!(wanted.iter().all(|(_, der)| x509_parser::parse_x509_certificate(der).is_ok()));
    for shape in ["crlf", "cr", "first-cr", "second-indented", "tabs", "cat-without-newline", "byte-order-marks"]
        .into_iter()
        .chain(["text", "x509-label", "underlined", "hash-comment"])
    {
        let name = format!("certificates-2-{shape}.pem");
        let sample = corpus.iter().find(|sample| sample.name == name).unwrap();
        assert_eq!(blocks(&file(Part::Ca), &sample.bytes).unwrap(), wanted, "{name}");
    }
}

#[test]
fn refuses_certificates_in_other_labels() {
    let body = "MAA=\n";
    for (label, word) in [
        ("TRUSTED CERTIFICATE", "openssl x509 -in FILE -out OUT"),
        ("PKCS7", "openssl pkcs7 -print_certs"),
        ("PKCS #7 SIGNED DATA", "openssl pkcs7 -print_certs"),
        ("CMS", "openssl cms"),
        ("CERTIFICATE REQUEST", "issued for it"),
        ("NEW CERTIFICATE REQUEST", "issued for it"),
        ("certificate", "not a known one"),
        ("CERTIFICAT", "not a known one"),
        (" CERTIFICATE", "not a known one"),
    ] {
        let text = format!(
            "# one\n-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n\n-----BEGIN {label}-----\n{body}-----END {label}-----\n"
        );
        let error = certificates(text).unwrap_err();
        for part in ["block 2", "line 6", word] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert_eq!(word == "not a known one", !error.contains(label), "{error}");
    }
}

#[test]
fn no_begin_is_a_comment() {
    for line in [
        "-----BEGIN CERTIFICATE-----x",
        "x-----BEGIN CERTIFICATE-----",
        "----- BEGIN CERTIFICATE -----",
        "-----BEGIN CERTIFICATE----",
        "-----BEGIN CERTIFICATE------",
        "----BEGIN CERTIFICATE-----",
        "------BEGIN CERTIFICATE-----",
        "--- begin certificate ---",
        "-BEGIN CERTIFICATE-",
        "BEGIN CERTIFICATE",
        "-----begin certificate-----",
        "-----Begin Certificate-----",
        "-----BEGIN",
        "-----BEGIN ",
        "-----BEGIN -----",
        "-----BEGIN-----",
        "\u{2014}BEGIN CERTIFICATE\u{2014}",
        "\u{2013}\u{2013}BEGIN CERTIFICATE",
        "-----\u{a0}BEGIN\u{a0}CERTIFICATE-----",
        "-----\u{200b}BEGIN CERTIFICATE-----",
        "> -----BEGIN CERTIFICATE-----",
        "-----BEGIN SOMETHING ELSE",
    ] {
        let error = certificates(format!("# a comment\n\n{line}\n")).unwrap_err();
        assert!(error.contains("line 3") && error.contains("looks like a BEGIN"), "{line}: {error}");
    }
}

#[test]
fn comments_may_say_anything_else() {
    for line in [
        "the certificates begin here, and end there",
        "valid from the beginning -- of 2026",
        "- the root",
        "--- ",
        "=====================================================================",
        "3b1efd3a66ea28b16697394703a72ca340a05bd5eaa4a5f2b6a3b1f0c4b0f3a1",
        "Sha256: 3B:1E:FD:3A:66:EA:28:B1:66:97:39:47:03:A7:2C:A3",
        "    localKeyID: 54 69 6D 65 20 31 36",
        "issuer=/CN=end-entity CA",
        "-- the end of the list --",
    ] {
        assert_eq!(certificates(line), Ok(0), "{line}");
    }
}

#[test]
fn bounds_the_number_of_blocks() {
    let block = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert_eq!(certificates(block.repeat(BLOCKS)), Ok(BLOCKS));
    assert!(certificates(block.repeat(BLOCKS + 1)).unwrap_err().contains("more than 4096 PEM blocks"));
}

#[test]
fn base64_is_strict() {
    assert_eq!(**decode_base64(b"AAEC\n \t/+8= \r\n").unwrap(), [0, 1, 2, 0xff, 0xef]);
    assert!(decode_base64(b"").unwrap().is_empty());
    for text in ["A", "AA", "AAA", "AA=", "A===", "====", "AA==AAAA", "AAA=A", "AA=A", "AA-A", "AAA\u{a0}"] {
        assert_eq!(decode_base64(text.as_bytes()), None, "{text}");
    }
    for byte in 0..=255_u8 {
        let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let value = table.iter().position(|digit| *digit == byte).map_or(255, |at| u8::try_from(at).unwrap());
        assert_eq!(sextet(byte), value, "{byte:#x}");
    }
}

/// Nanoseconds that this thread has had on a processor: what else the machine does is not in them.
fn on_cpu() -> u64 {
    // The kernel adds up what has passed when a thread is put aside.
    std::thread::yield_now();
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    told.split_whitespace().next().unwrap().parse().unwrap()
}

fn cost_of(text: &str) -> u64 {
    let began = on_cpu();
    let _ = certificates(text);
    let _ = certificates(format!("-----BEGIN CERTIFICATE-----\n{text}"));
    on_cpu() - began
}

#[test]
fn work_is_linear_in_the_bytes() {
    for unit in
        ["-begin ", "--begin x", "-----BEGIN ", "BEGIN CERTIFICATE ", "-----END CERTIFICATE-----", "\u{2014}end "]
    {
        let (small, large) = (cost_of(&unit.repeat(2_000)), cost_of(&unit.repeat(40_000)));
        // Twenty times the text; four hundred times the work if it were quadratic.
        assert!(large < small * 100 + 20_000_000, "{unit}: {small} ns, {large} ns");
    }
}

/// One change to a text, such as editors, mailers and tools make.
#[derive(Debug, Clone)]
enum Change {
    /// Replaces the nth of all occurrences.
    Replace(&'static str, &'static str, usize),
    /// Puts something before a line.
    Insert(usize, &'static str),
    Delete(usize),
    Twice(usize),
    /// Flips a byte.
    Byte(usize, u8),
    Cut(usize),
    Indent(usize, usize, &'static str),
}

/// Taken modulo whatever there is.
fn place() -> impl Strategy<Value = usize> {
    0..1_usize << 20
}

fn change() -> impl Strategy<Value = Change> {
    let pair = prop::sample::select(vec![
        ("\n", "\r"),
        ("\n", "\r\n"),
        ("\n", ""),
        ("\n", " "),
        ("\n", "\\n"),
        ("\n", "\u{2028}"),
        ("-----", "----"),
        ("-----", "------"),
        ("-----", "\u{2014}\u{2014}"),
        ("-----", ""),
        ("-----BEGIN", "-----BEGIN\u{a0}"),
        ("-----BEGIN", "-----\u{feff}BEGIN"),
        ("BEGIN", "begin"),
        ("BEGIN", "BEGYN"),
        ("END", "end"),
        ("END", "ENDE"),
        ("CERTIFICATE", "certificate"),
        ("CERTIFICATE", "TRUSTED CERTIFICATE"),
        ("CERTIFICATE", "X509 CERTIFICATE"),
        ("CERTIFICATE", "PKCS7"),
        ("=", ""),
        ("M", "="),
    ]);
    let text = prop::sample::select(vec![
        "# comment\n",
        "\n",
        "\u{feff}",
        "-----BEGIN\n",
        "-----END CERTIFICATE-----\n",
        "  ",
    ]);
    let with = prop::sample::select(vec![" ", "\t", "> ", "\u{feff}", "# "]);
    prop_oneof![
        6 => (pair, place()).prop_map(|((from, to), nth)| Change::Replace(from, to, nth)),
        2 => (place(), text).prop_map(|(at, text)| Change::Insert(at, text)),
        2 => place().prop_map(Change::Delete),
        1 => place().prop_map(Change::Twice),
        4 => (place(), 1..=255_u8).prop_map(|(at, bits)| Change::Byte(at, bits)),
        1 => place().prop_map(Change::Cut),
        2 => (place(), place(), with).prop_map(|(from, to, with)| Change::Indent(from, to, with)),
    ]
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::to_vec).collect()
}

fn places(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let mut lines = lines(bytes);
        let count = lines.len().max(1);
        match self {
            Self::Replace(from, to, nth) => {
                let found = places(bytes, from.as_bytes());
                if let Some(at) = found.get(nth % found.len().max(1)) {
                    bytes.splice(at..&(at + from.len()), to.bytes());
                }
                return;
            }
            Self::Byte(at, bits) => {
                let len = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at % len) {
                    *byte ^= bits;
                }
                return;
            }
            Self::Cut(at) => return bytes.truncate(at % (bytes.len() + 1)),
            Self::Insert(at, text) => lines.insert(at % count, text.as_bytes().to_vec()),
            Self::Delete(at) if !lines.is_empty() => drop(lines.remove(at % count)),
            Self::Delete(_) => {}
            Self::Twice(at) => {
                let line = lines.get(at % count).cloned().unwrap_or_default();
                lines.insert(at % count, line);
            }
            Self::Indent(from, to, with) => {
                let (from, to) = (from % count, to % count);
                for line in lines.iter_mut().take(from.max(to)).skip(from.min(to)) {
                    line.splice(0..0, with.bytes());
                }
            }
        }
        *bytes = lines.concat();
    }
}

/// Every BEGIN of a certificate as it should be written, wherever it stands: by the plainest of readers.
fn begins(bytes: &[u8]) -> usize {
    ["-----BEGIN CERTIFICATE-----", "-----BEGIN X509 CERTIFICATE-----"]
        .iter()
        .map(|begin| places(bytes, begin.as_bytes()).len())
        .sum()
}

/// As a bundle is read: a block that holds the DER of two has lost its END and BEGIN.
fn understood(bytes: &[u8]) -> Result<usize, LoadError> {
    let found = crate::material::parse::certificates(&file(Part::Ca), bytes)?;
    crate::material::parse::all_facts(&file(Part::Ca), &found).map(|facts| facts.len())
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(400)) }
}

/// `PROPTEST_CASES` where it is set: the default of proptest would be too long for every run.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens to a bundle: all of its BEGINs are read, or it is an error.
    #[test]
    fn harness_pem_counts_every_begin(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 0..12),
    ) {
        let corpus: Vec<_> = corpus().into_iter().filter(|sample| sample.part == Part::Ca).collect();
        let mut bytes = which.get(&corpus).bytes.clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        if let Ok(found) = blocks(&file(Part::Ca), &bytes) {
            prop_assert_eq!(found.len(), begins(&bytes), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// One or two accidents never make a bundle smaller without an error.
    #[test]
    fn harness_pem_never_loses_a_certificate(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..=2),
    ) {
        let corpus: Vec<_> = corpus().into_iter().filter(|sample| sample.part == Part::Ca && sample.count.is_some()).collect();
        let sample = which.get(&corpus);
        let mut bytes = sample.bytes.clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        // A file that ends where a block ended is a smaller bundle, and nothing tells that it was larger.
        let cut = changes.iter().any(|change| matches!(change, Change::Cut(_)));
        if let (Ok(found), false) = (understood(&bytes), cut) {
            prop_assert!(Some(found) >= sample.count, "{}: {}", sample.name, String::from_utf8_lossy(&bytes));
        }
    }

    /// Arbitrary bytes and pieces of PEM, for every part: no panic, and no byte of the file in an error.
    #[test]
    fn harness_pem_errors_hold_no_byte(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"-----BEGIN ".to_vec()),
                Just(b"-----END ".to_vec()),
                Just(b"-----\n".to_vec()),
                Just(b"PRIVATE KEY".to_vec()),
                Just(b"CERTIFICATE".to_vec()),
                Just(b"MIIB".to_vec()),
                Just(b"\n".to_vec()),
                "QZQ[a-z]{8}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
            ],
            0..40,
        ),
    ) {
        let bytes = pieces.concat();
        for part in [Part::Ca, Part::Key, Part::Crl] {
            if let Err(error) = blocks(&file(part), &bytes) {
                prop_assert!(!format!("{error} {error:?}").contains("QZQ"), "{error:?}");
            }
        }
    }
}
