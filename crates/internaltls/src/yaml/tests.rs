use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn map(text: &str) -> Vec<(Node, Node)> {
    match parse(text).unwrap().unwrap().value {
        Value::Map(pairs) => pairs,
        other => panic!("{other:?}"),
    }
}

/// The texts that ended a process or ate its memory, and their kin. All are within the bound on bytes.
pub(crate) fn hostile() -> Vec<(&'static str, String)> {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    vec![
        ("sequences in one line", "- ".repeat(100_000)),
        ("sequences, a line each", lines(600, &|n| format!("{}-\n", " ".repeat(n)))),
        ("keys in one line", "? ".repeat(100_000)),
        ("mappings, a line each", lines(600, &|n| format!("{}a:\n", " ".repeat(n)))),
        ("flow sequences", "[".repeat(200_000)),
        ("flow sequences of 250", format!("{}{}", "[".repeat(250), "]".repeat(250))),
        ("flow mappings", "{a: ".repeat(60_000)),
        ("flow sequence of nothing", format!("[{}]", ",".repeat(200_000))),
        ("flow sequence of letters", format!("[{}]", "a,".repeat(100_000))),
        ("flow sequence of texts without commas", format!("[{}", "\"\" ".repeat(80_000))),
        ("flow mapping of letters", format!("{{{}}}", "a,".repeat(100_000))),
        ("keys", lines(20_000, &|n| format!("k{n}: 1\n"))),
        ("documents", "---\n".repeat(60_000)),
        ("aliases", format!("a: &a [x]\nb: [{}]\n", "*a,".repeat(60_000))),
        ("laughs", laughs()),
        ("anchors", lines(20_000, &|n| format!("- &a{n} x\n"))),
        ("tags", "- !a x\n".repeat(30_000)),
        ("tag directives", lines(8_000, &|n| format!("%TAG !a{n}! tag:x:\n"))),
    ]
}

/// 547 bytes that stand for 10⁹ texts.
fn laughs() -> String {
    let mut text = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(",")));
    }
    text
}

#[test]
fn refuses_hostile_texts_by_line() {
    for (kind, text) in hostile() {
        assert!(text.len() <= MAX_BYTES, "{kind}: {} bytes", text.len());
        let said = refusal(&text);
        assert!(said.starts_with("line ") && said.len() < 200, "{kind}: {said}");
    }
    for deep in ["- ", "[", "{a: ", "? "] {
        assert_eq!(refusal(&deep.repeat(60_000)), format!("line 1: nested more than {MAX_DEPTH} deep"), "{deep}");
    }
    assert!(refusal(&laughs()).contains("anchors are not read"));
    assert_eq!(refusal(&"#".repeat(MAX_BYTES + 1)), "line 1: the file is larger than 256 KiB");
}

/// A thread of 64 KiB of stack parses them all: nothing recurses with the depth of the text.
#[test]
fn needs_little_stack() {
    let small = std::thread::Builder::new().stack_size(64 * 1024);
    let parsed = small.spawn(|| hostile().iter().all(|(_, text)| parse(text).is_err())).unwrap().join().unwrap();
    assert!(parsed);
}

#[test]
fn as_deep_as_allowed_is_read() {
    let text = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(parse(&text).is_ok());
    assert!(parse(&format!("[{text}]")).is_err());
}

#[test]
fn scalars_stay_as_written() {
    let pairs = map("version: 1.3\nempty:\ntilde: ~\nquoted: ''\nword: 'null'\n");
    let values: Vec<_> = pairs.into_iter().map(|(_, node)| (node.line, node.value)).collect();
    let text = |text: &str| Value::Text(text.to_owned());
    let expected = [(1, text("1.3")), (2, Value::Null), (3, Value::Null), (4, text("")), (5, text("null"))];
    assert_eq!(values, expected);
}

#[test]
fn refuses_what_replaces_a_value() {
    for (text, rule) in [
        ("a: &word\nb: 1\n", "anchors are not read"),
        ("a: !word\n", "tags are not read"),
        ("a: !!binary aGk=\n", "tags are not read"),
        ("a: *word\n", "aliases are not read"),
        ("a: @word\n", "must stand in quotes"),
        ("a: %word\n", "must stand in quotes"),
    ] {
        let said = refusal(text);
        assert!(said.starts_with("line 1: ") && said.contains(rule) && !said.contains("word"), "{text}: {said}");
    }
}

#[test]
fn byte_order_mark_is_no_part_of_a_key() {
    assert_eq!(map("\u{feff}tls: 1\n")[0].0.text(), Some("tls"));
}

#[test]
fn nothing_is_no_document() {
    assert_eq!(parse(""), Ok(None));
    assert_eq!(parse("# only a comment\n"), Ok(None));
}

/// How many scalars a tree holds, and how deep it is.
fn measure(node: &Node) -> (usize, usize) {
    let below: Vec<_> = match &node.value {
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(key, value)| [measure(key), measure(value)]).collect(),
        _ => return (1, 0),
    };
    let deepest = below.iter().map(|(_, depth)| *depth).max().unwrap_or_default();
    (1 + below.iter().map(|(nodes, _)| nodes).sum::<usize>(), 1 + deepest)
}

proptest! {
    /// Whatever the text, it is read within the bounds or refused; no refusal quotes a word of it.
    #[test]
    fn harness_any_yaml_is_bounded(parts in prop::collection::vec("[a-z:{}\\[\\]\\-&*?!|>'\"#\n\t ,.%@0-9]{0,24}|S3CRET|- |\\[|\n  ", 0..24)) {
        match parse(&parts.concat()) {
            Ok(None) => {}
            Ok(Some(root)) => {
                let (nodes, depth) = measure(&root);
                prop_assert!(nodes <= MAX_NODES && depth <= MAX_DEPTH);
                let shown = format!("{root:?}");
                prop_assert!(!shown.contains("S3CRET"), "{}", shown);
            }
            Err(error) => prop_assert!(!error.to_string().contains("S3CRET")),
        }
    }
}
