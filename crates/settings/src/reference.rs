//! The reference text: config/milvus.yaml, made from the table of keys, so that it can never lack one.
use crate::keys::{KEYS, KeyInfo};

const HEAD: &str = "\
# Every key that is read, with its default. A key that is not set stands in a comment.
#
# A configuration is a file or a folder; in a folder milvus.yaml, then default.yaml, then user.yaml, each over the one
# before. Keys may be written in any case. A relative path counts from the folder of the file that names it.
# An environment variable overrides a key: the dotted path in upper case with underscores (COMMON_SECURITY_TLSMODE).
# Unknown keys in tls, internaltls, cluster, management and coordinator are errors; other sections of a Milvus
# configuration may stay, and are counted in one line of the log. An empty value takes a key back to its default; where
# that would take protection away (paths of certificates and lists, tlsMode, addresses) it is an error: leave the key out.
# No anchors, aliases or tags; at most 256 KiB, 10,000 values, 32 levels.
";

/// What config/milvus.yaml holds.
#[must_use]
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    let mut open: Vec<&str> = Vec::new();
    for key in KEYS {
        text.push_str(&row(key, &mut open));
    }
    text
}

fn row(key: &KeyInfo, open: &mut Vec<&'static str>) -> String {
    let sections: Vec<&'static str> = key.path.split('.').collect();
    let sections = &sections[..sections.len() - 1];
    let shared = sections.iter().zip(open.iter()).take_while(|(a, b)| a == b).count();
    let mut text = if shared == 0 { "\n".to_owned() } else { String::new() };
    for (depth, section) in sections.iter().enumerate().skip(shared) {
        text.push_str(&format!("{}{section}:\n", indent(depth)));
    }
    *open = sections.to_vec();
    text + &value(key, &indent(sections.len()))
}

fn value(key: &KeyInfo, indent: &str) -> String {
    let about = format!("{indent}# {}\n", key.about);
    let leaf = key.leaf();
    match key.default {
        None => format!("{about}{indent}# {leaf}:\n"),
        Some(default) if key.map => format!("{about}{indent}{leaf}:\n{}", mapping(default, indent)),
        Some(default) => format!("{about}{indent}{leaf}: {default}\n"),
    }
}

fn mapping(default: &str, indent: &str) -> String {
    let line = |pair: &str| format!("{indent}  {}\n", pair.replacen('=', ": ", 1));
    default.split(',').map(line).collect()
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}
