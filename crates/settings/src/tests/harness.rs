//! Mutations of real configurations: each is read or refused, at a bounded cost, in a line of bounded length.
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use crate::values::Values;
use crate::{KEYS, Settings, SettingsError, check, layers};

/// Pieces that change what YAML means.
const PIECES: [&str; 24] = [
    "\n",
    "\n  ",
    "\t",
    ": ",
    ":",
    "- ",
    "- - - - ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "'",
    "\"",
    "|\n",
    "&a ",
    "*a",
    "!t ",
    "? ",
    "# ",
    "\n---\n",
    "%TAG ! x\n",
    "\u{feff}",
    "\u{85}",
];

fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/settings");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is missing: {files:?}");
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/milvus.yaml"));
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// As a file is read, without the file.
fn load(text: &str) -> Result<Settings, SettingsError> {
    let layer = layers::parse(Path::new("milvus.yaml"), text)?;
    check::unknown(&layer)?;
    let mut values = Values::default();
    values.put(&layer)?;
    Settings::from_values(&values, Vec::new())
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, String),
    Cut(Index, usize),
    Copy(Index, Index, usize),
    Splice(Index, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let key = prop::sample::select(KEYS.iter().map(|key| format!("{}: ", key.path)).collect::<Vec<_>>());
    let piece = prop_oneof![4 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned), 1 => key, 1 => "\\PC{1,4}"];
    let edit = prop_oneof![
        4 => (any::<Index>(), piece).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        2 => (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Edit::Cut(at, length)),
        1 => (any::<Index>(), any::<Index>(), 1_usize..200).prop_map(|(from, to, length)| Edit::Copy(from, to, length)),
        1 => (any::<Index>(), 2_usize..200).prop_map(|(at, times)| Edit::Splice(at, times)),
    ];
    prop::collection::vec(edit, 0..6)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for edit in edits {
        let length = chars.len();
        match edit {
            Edit::Insert(at, piece) => drop(chars.splice(at_of(at, length)..at_of(at, length), piece.chars())),
            Edit::Cut(at, count) => drop(chars.drain(at_of(at, length)..(at_of(at, length) + count).min(length))),
            Edit::Copy(from, to, count) => {
                let from = at_of(from, length);
                let copied = chars[from..(from + count).min(length)].to_vec();
                drop(chars.splice(at_of(to, length)..at_of(to, length), copied));
            }
            Edit::Splice(at, times) => {
                let from = at_of(at, length);
                let copied = chars[from..(from + 3).min(length)].repeat(*times);
                drop(chars.splice(from..from, copied));
            }
        }
    }
    chars.into_iter().collect()
}

fn at_of(index: &Index, length: usize) -> usize {
    index.index(length + 1)
}

proptest! {
    #[test]
    fn harness_mutated_settings_are_read_or_refused(file in any::<Index>(), edits in edits()) {
        let corpus = corpus();
        let text = edited(&corpus[file.index(corpus.len())], &edits);
        if let Err(error) = load(&text) {
            let said = error.to_string();
            prop_assert!(said.len() < 4_000 && !said.contains(char::is_control), "{}", said);
        }
    }
}

#[test]
fn corpus_is_what_it_says() {
    let said = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/settings").join(name);
        load(&std::fs::read_to_string(file).unwrap()).map(drop).map_err(|error| error.to_string())
    };
    for good in ["documented.yaml", "of_milvus.yaml", "by_hand.yaml", "of_windows.yaml"] {
        assert_eq!(said(good), Ok(()), "{good}");
    }
    for (bad, why) in [
        ("mistyped.yaml", "`common.security.defaultRootPassword` is a mapping"),
        ("tabs.yaml", "correct the YAML"),
        ("anchors.yaml", "anchors are not read"),
        ("unclosed.yaml", "correct the YAML"),
        ("documents.yaml", "second document"),
        ("laughs.yaml", "anchors are not read"),
        ("deep.yaml", "nested more than 32 deep"),
    ] {
        let said = said(bad).unwrap_err();
        assert!(said.contains(why) && !said.contains("s3cret"), "{bad}: {said}");
    }
}

/// Texts within the bound on bytes that made reading cost the square of their length, or a copy of a key for each value.
#[test]
fn long_keys_and_many_keys_are_cheap() {
    let many = |line: &dyn Fn(usize) -> String| (0..9_000).map(line).collect::<String>();
    let long = format!("{}:\n{}", "k".repeat(600), (0..4_000).map(|n| format!("  k{n}: 1\n")).collect::<String>());
    assert!(load(&long).unwrap_err().to_string().contains("longer than 512 bytes"));
    let nodes = format!(
        "cluster:\n  dataNodes:\n{}",
        (0..4_900).map(|n| format!("    data-node-{n}: h:1\n")).collect::<String>()
    );
    assert_eq!(load(&nodes).unwrap().cluster.data_nodes.len(), 4_900);
    assert!(load(&many(&|n| format!("k{n}: 1\n"))).unwrap_err().to_string().contains("more than 10000 values"));
}
