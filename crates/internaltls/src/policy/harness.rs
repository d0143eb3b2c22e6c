//! Mutations of real policies: each is read or refused, and none allows what its text does not name.
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::Policy;
use crate::identity::{Identity, NodeId, Role, TrustDomain};

/// Pieces that change what YAML, or a rule, means.
const PIECES: [&str; 24] = [
    "\n", "\n  ", "\t", ": ", "- ", "- - - - ", "[", "]", "{", "}", ", ", "'", "\"", "|\n", "&a ", "*a", "!t ", "? ",
    "# ", "\n---\n", "*", "/", "/*", "allow: ",
];
const ROLES: [&str; 5] = ["proxy", "coordinator", "data-node", "operator", "stranger"];
const METHODS: [&str; 7] = [
    "/mesh.v1.DataNode/Insert",
    "/mesh.v1.Coordinator/Assignments",
    "/m.v1.Store/Get",
    "/m.v1.Store/Put",
    "/m.v1.Log/Append",
    "/m.v1.Open/Any",
    "/grpc.health.v1.Health/Check",
];

fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/policy");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is missing: {files:?}");
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Cuts, insertions and repetitions, as (place, length, piece, times).
type Edit = (Index, usize, &'static str, usize);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit =
        (any::<Index>(), 0_usize..12, prop::sample::select(&PIECES[..]), prop_oneof![4 => Just(1), 1 => 2_usize..100]);
    prop::collection::vec(edit, 0..6)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, piece, times) in edits {
        let at = at.index(chars.len() + 1);
        let end = (at + length).min(chars.len());
        drop(chars.splice(at..end, piece.repeat(*times).chars()));
    }
    chars.into_iter().collect()
}

fn identity(role: &str) -> Identity {
    Identity::Node {
        trust_domain: TrustDomain::new("mesh.internal").unwrap(),
        role: Role::new(role).unwrap(),
        node: NodeId::new("n-1").unwrap(),
    }
}

/// Whether a text names a role and a service, in letters that stand for themselves.
fn names(text: &str, role: &str, method: &str) -> bool {
    let service = &method[..=method.rfind('/').unwrap()];
    text.contains('\\') || (text.contains(role) && text.contains(service))
}

proptest! {
    #[test]
    fn harness_mutated_policies_allow_only_what_they_name(file in any::<Index>(), edits in edits()) {
        let corpus = corpus();
        let text = edited(&corpus[file.index(corpus.len())], &edits);
        match Policy::parse(&text) {
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.len() < 1_000 && !said.contains(char::is_control), "{}", said);
            }
            Ok(policy) => for role in ROLES {
                for method in METHODS {
                    let allowed = policy.allows(&identity(role), method);
                    prop_assert!(!allowed || names(&text, role, method), "{} {} in {}", role, method, text);
                }
            }
        }
    }
}

#[test]
fn corpus_is_what_it_says() {
    let parse = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/policy").join(name);
        Policy::parse(&std::fs::read_to_string(file).unwrap()).map_err(|error| error.to_string())
    };
    let allows = |name: &str, method: &str| parse(name).unwrap().allows(&identity("proxy"), method);
    assert!(
        allows("built_in.yaml", "/mesh.v1.DataNode/Insert") && !allows("built_in.yaml", "/mesh.v1.DataNode/OpenShard")
    );
    assert!(allows("flow.yaml", "/m.v1.Log/Append") && !allows("flow.yaml", "/m.v1.Log/Read"));
    assert!(allows("by_hand.yaml", "/m.v1.Store/Get") && allows("by_hand.yaml", "/m.v1.Store/Put"));
    assert!(allows("of_windows.yaml", "/m.v1.Store/Any"));
    for (bad, why) in [
        ("anchors.yaml", "line 2: anchors are not read"),
        ("unclosed.yaml", "not YAML"),
        ("documents.yaml", "second document"),
        ("wildcards.yaml", "which is no role"),
        ("laughs.yaml", "anchors are not read"),
        ("deep.yaml", "nested more than 32 deep"),
    ] {
        let said = parse(bad).unwrap_err();
        assert!(said.contains(why), "{bad}: {said}");
    }
}
