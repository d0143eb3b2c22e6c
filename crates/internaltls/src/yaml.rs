//! YAML of bounded cost, read into a tree. Pure. Policy files and configuration files are read by it.
//!
//! 1. Bytes, depth and number of nodes are bounded, and every bound is checked before the node that would exceed it is
//!    built. The parser's events are pulled one by one: its own `load` recurses once a level and would end the process.
//! 2. Anchors, aliases and tags are refused. An alias lets few bytes stand for many; an anchor or a tag in front of a value
//!    replaces what its writer meant. Neither kind of file needs them.
//! 3. A scalar stays the text that was written: `1.3` is a version here, not a number.
//! 4. An error names the line and the rule, and never quotes the file: what stands there may be a password.
//! 5. A file holds one document.
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

/// Bytes of one file. A flow sequence is scanned to its end before its first event, at up to a hundred bytes of memory a
/// byte, so this also bounds memory. The whole configuration of Milvus is a third of it.
pub const MAX_BYTES: usize = 256 * 1024;
/// Collections within one another.
pub const MAX_DEPTH: usize = 32;
/// Scalars and collections of one file.
pub const MAX_NODES: usize = 10_000;

/// Unquoted words that mean no value.
const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];

/// A value and where it begins.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// Counted from 1.
    pub line: usize,
    /// What was written there.
    pub value: Value,
}

/// What was written at a place.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`, without quotes.
    Null,
    /// A scalar, as written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file. A key may come twice: what that means is the reader's to say.
    Map(Vec<(Node, Node)>),
}

/// Why a text was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// The rule. Holds nothing of the text.
    pub what: String,
}

/// Shows structure and no text: a scalar may be a password.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at line {}", self.value, self.line)
    }
}

impl Node {
    /// The text of a scalar. `None` for null and for collections.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "one value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads one document; `None` where there is none, as in an empty file.
///
/// # Errors
/// [`YamlError`] when the text is not YAML, holds what is refused, or exceeds a bound.
pub fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(refused(1, format!("the file is larger than {} KiB", MAX_BYTES / 1024)));
    }
    // The scanner takes a byte order mark for the first letter of the first key.
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut tree = Tree::default();
    loop {
        let (event, mark) = parser.next_token().map_err(|error| syntax(&error))?;
        if event == Event::StreamEnd {
            return Ok(tree.root);
        }
        tree.take(event, mark)?;
    }
}

/// The parser's own words hold nothing of the text but one character of it, and that may be the first of a password.
fn syntax(error: &ScanError) -> YamlError {
    let what = match error.info() {
        // Of flow collections the scanner sees the whole before the first event: its own limit, 255, is met first.
        "recursion limit exceeded" => TOO_DEEP,
        info if info.starts_with("unexpected character") => "a value that begins with %, @ or ` must stand in quotes",
        "while parsing node, found unknown anchor" => ALIAS,
        info => info,
    };
    refused(error.marker().line(), what)
}

const TOO_DEEP: &str = "nested more than 32 deep";
const ALIAS: &str = "aliases are not read: write the value out, or put it in quotes if it begins with *";
const ANCHOR: &str = "anchors are not read: remove it, or put the value in quotes if it begins with &";
const TAG: &str = "tags are not read: remove it, or put the value in quotes if it begins with !";

fn refused(line: usize, what: impl Into<String>) -> YamlError {
    YamlError { line, what: what.into() }
}

/// A collection that has begun and not ended.
enum Open {
    List { line: usize, items: Vec<Node> },
    Map { line: usize, pairs: Vec<(Node, Node)>, key: Option<Node> },
}

#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    nodes: usize,
    documents: usize,
}

impl Tree {
    fn take(&mut self, event: Event, mark: Marker) -> Result<(), YamlError> {
        let line = self.line(&event, mark);
        match event {
            Event::DocumentStart => self.document(line),
            Event::Alias(_) => Err(refused(line, ALIAS)),
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag)
                if anchor > 0 || tag.is_some() =>
            {
                Err(refused(line, if anchor > 0 { ANCHOR } else { TAG }))
            }
            Event::Scalar(text, style, ..) => {
                self.count(line)?;
                self.put(Node { line, value: scalar(text, style) });
                Ok(())
            }
            Event::SequenceStart(..) => self.begin(line, Open::List { line, items: Vec::new() }),
            Event::MappingStart(..) => self.begin(line, Open::Map { line, pairs: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => {
                self.end();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// The parser finds an empty value, and what follows an anchor, where the next token begins: that may be lines below
    /// the key that a reader looks for.
    fn line(&self, event: &Event, mark: Marker) -> usize {
        let far = match event {
            Event::Scalar(text, _, anchor, tag) => text.is_empty() || *anchor > 0 || tag.is_some(),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => *anchor > 0 || tag.is_some(),
            _ => false,
        };
        match self.open.last() {
            Some(Open::Map { key: Some(key), .. }) if far => key.line,
            _ => mark.line(),
        }
    }

    fn document(&mut self, line: usize) -> Result<(), YamlError> {
        self.documents += 1;
        if self.documents > 1 { Err(refused(line, "a second document begins here: keep one")) } else { Ok(()) }
    }

    fn count(&mut self, line: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(refused(line, format!("the file holds more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, collection: Open) -> Result<(), YamlError> {
        self.count(line)?;
        if self.open.len() == MAX_DEPTH {
            return Err(refused(line, TOO_DEEP));
        }
        self.open.push(collection);
        Ok(())
    }

    fn end(&mut self) {
        match self.open.pop() {
            Some(Open::List { line, items }) => self.put(Node { line, value: Value::List(items) }),
            Some(Open::Map { line, pairs, .. }) => self.put(Node { line, value: Value::Map(pairs) }),
            None => {}
        }
    }

    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { pairs, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
        }
    }
}

fn scalar(text: String, style: TScalarStyle) -> Value {
    let null = style == TScalarStyle::Plain && NULLS.contains(&text.as_str());
    if null { Value::Null } else { Value::Text(text) }
}

#[cfg(test)]
pub(crate) mod tests;
