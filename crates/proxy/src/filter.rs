//! Filters, as far as they are built: those that name rows by their key. Pure.
//!
//! 1. `key == x` and `key in [x, …]`, with integers or quoted texts; any other filter is refused as not built.
//! 2. A text stands in single or double quotes; a backslash escapes, as in Milvus.
use crate::error::{Code, Error, Result};
use crate::key::Key;
use rpc::schema::{DataType, FieldSchema};

/// What a filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    /// No filter at all.
    All,
    /// The rows with these keys.
    Keys(Vec<Key>),
}

/// Reads a filter over a collection whose key is `primary`.
pub(crate) fn parse(text: &str, primary: &FieldSchema) -> Result<Filter> {
    if text.trim().is_empty() {
        return Ok(Filter::All);
    }
    let keys = Reader { rest: text }.by_key(&primary.name).ok_or_else(|| unbuilt(text))?;
    if keys.iter().all(|key| key.is_of(kind(primary))) {
        Ok(Filter::Keys(keys))
    } else {
        Err(wrong_kind(text, primary))
    }
}

/// The filter that names these keys: what [`parse`] reads back.
pub(crate) fn naming(primary: &str, keys: &[Key]) -> String {
    let list: Vec<String> = keys.iter().map(literal).collect();
    format!("{primary} in [{}]", list.join(","))
}

fn literal(key: &Key) -> String {
    match key {
        Key::Int(value) => value.to_string(),
        Key::Text(value) => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn kind(primary: &FieldSchema) -> DataType {
    DataType::try_from(primary.data_type).unwrap_or_default()
}

fn unbuilt(text: &str) -> Error {
    Error::unbuilt(format_args!(
        "a filter other than `key in [...]` or `key == x` on the primary key (`{}`)",
        clip(text)
    ))
}

fn wrong_kind(text: &str, primary: &FieldSchema) -> Error {
    let reason = format!(
        "failed to create query plan: cannot parse expression: {}, error: the key `{}` is {}",
        clip(text),
        primary.name,
        kind(primary).as_str_name()
    );
    Error::refused(Code::InvalidParameter, reason)
}

fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

/// What is left of a filter. Every step takes from the front, or answers none and the filter is not one of ours.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn by_key(mut self, primary: &str) -> Option<Vec<Key>> {
        self.word(primary)?;
        let keys = if self.token("==").is_some() {
            vec![self.key()?]
        } else {
            self.word("in").or_else(|| self.word("IN"))?;
            self.list()?
        };
        self.rest.trim().is_empty().then_some(keys)
    }

    fn list(&mut self) -> Option<Vec<Key>> {
        self.token("[")?;
        let mut keys = Vec::new();
        while self.token("]").is_none() {
            keys.push(self.key()?);
            if self.token(",").is_none() {
                self.token("]")?;
                break;
            }
        }
        Some(keys)
    }

    fn key(&mut self) -> Option<Key> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            quote @ ('"' | '\'') => self.quoted(quote).map(Key::Text),
            _ => self.integer().map(Key::Int),
        }
    }

    fn integer(&mut self) -> Option<i64> {
        let end = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '+')).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let ends_well = rest.is_empty() || rest.starts_with([',', ']', ' ', '\t', '\n', '\r']);
        self.rest = rest;
        if ends_well { digits.parse().ok() } else { None }
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(unescaped(&mut chars)?),
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }

    /// A word must not go on into another: `id` is no part of `idx`.
    fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.rest.trim_start().strip_prefix(word)?;
        if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return None;
        }
        self.rest = rest;
        Some(())
    }

    fn token(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }
}

fn unescaped(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    match chars.next()?.1 {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'u' => unicode(chars),
        c @ ('\\' | '"' | '\'') => Some(c),
        _ => None,
    }
}

fn unicode(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let digits: String = chars.take(4).map(|(_, c)| c).collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn primary(kind: DataType) -> FieldSchema {
        FieldSchema { name: "id".into(), data_type: kind.into(), is_primary_key: true, ..Default::default() }
    }

    fn ints(text: &str) -> Result<Filter> {
        parse(text, &primary(DataType::Int64))
    }

    fn texts(text: &str) -> Result<Filter> {
        parse(text, &primary(DataType::VarChar))
    }

    fn text(value: &str) -> Key {
        Key::Text(value.into())
    }

    #[test]
    fn empty_filter_means_all() {
        assert_eq!(ints("  "), Ok(Filter::All));
    }

    #[test]
    fn reads_integer_keys() {
        assert_eq!(ints("id in [1, -2,3]"), Ok(Filter::Keys(vec![Key::Int(1), Key::Int(-2), Key::Int(3)])));
        assert_eq!(ints(" id==7 "), Ok(Filter::Keys(vec![Key::Int(7)])));
        assert_eq!(ints("id in [ ]"), Ok(Filter::Keys(vec![])));
        assert_eq!(ints("id IN [9223372036854775807,]"), Ok(Filter::Keys(vec![Key::Int(i64::MAX)])));
    }

    #[test]
    fn reads_quoted_keys_and_escapes() {
        assert_eq!(texts(r#"id in ['a', "b"]"#), Ok(Filter::Keys(vec![text("a"), text("b")])));
        assert_eq!(texts(r#"id == 'it\'s "x", ]'"#), Ok(Filter::Keys(vec![text("it's \"x\", ]")])));
        assert_eq!(texts(r#"id == "a\\b\n\u00e9""#), Ok(Filter::Keys(vec![text("a\\b\n\u{e9}")])));
    }

    #[test]
    fn other_filters_are_not_built() {
        for filter in [
            "age > 3",
            "id > 3",
            "idx in [1]",
            "id in [1] and age == 2",
            "id in [1",
            "id in [1 2]",
            "id == 1.5",
            "id == 99999999999999999999",
            "id not in [1]",
            "id == 'open",
            r"id == 'bad \q'",
            "id == {x}",
            "not id == 1",
        ] {
            assert!(matches!(ints(filter), Err(Error::Unbuilt(_))), "{filter}: {:?}", ints(filter));
        }
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        assert!(matches!(ints("id in ['a']"), Err(Error::Refused(_))));
        assert!(matches!(texts("id in [1]"), Err(Error::Refused(_))));
    }

    proptest! {
        #[test]
        fn naming_reads_back(values in prop::collection::vec(".*", 0..8)) {
            let keys: Vec<Key> = values.into_iter().map(Key::Text).collect();
            prop_assert_eq!(texts(&naming("id", &keys)), Ok(Filter::Keys(keys)));
        }

        #[test]
        fn never_panics(filter in r#"(id|in|==|\[|\]|'|"|\\|u|,|[0-9]|\PC| ){0,24}"#) {
            let _ = ints(&filter);
            let _ = texts(&filter);
        }
    }
}
