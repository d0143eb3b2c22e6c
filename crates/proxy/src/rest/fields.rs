//! A JSON object as a caller sent it: names in any case, types checked where they are read. Pure.
use serde_json::{Map, Value};

use super::failure::{Failure, Outcome};

/// The fields of an object. `null` counts as absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(bytes: &[u8]) -> Outcome<Self> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Failure::bad_json("the body is not a JSON object")),
            Err(error) => Err(Failure::bad_json(error.to_string())),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let any_case = || self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        self.0.get(name).or_else(any_case).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Outcome<Option<&str>> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn required(&self, name: &str) -> Outcome<&str> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| Failure::Missing(name.to_owned()))
    }

    /// An integer, or a text that is one.
    pub(super) fn number(&self, name: &str) -> Outcome<Option<i64>> {
        self.read(name, "a number", |value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
    }

    /// A truth value, or a text that is one.
    pub(super) fn flag(&self, name: &str) -> Outcome<bool> {
        let read = |value: &Value| value.as_bool().or_else(|| value.as_str()?.to_ascii_lowercase().parse().ok());
        Ok(self.read(name, "true or false", read)?.unwrap_or(false))
    }

    pub(super) fn texts(&self, name: &str) -> Outcome<Option<Vec<String>>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.read(name, "a list of texts", |value| value.as_array()?.iter().map(text).collect())
    }

    pub(super) fn list(&self, name: &str) -> Outcome<Option<&Vec<Value>>> {
        self.read(name, "a list", Value::as_array)
    }

    /// An object; one without fields when it is absent.
    pub(super) fn object(&self, name: &str) -> Outcome<Self> {
        Ok(self.read(name, "an object", |value| value.as_object().cloned().map(Self))?.unwrap_or_default())
    }

    pub(super) fn objects(&self, name: &str) -> Outcome<Vec<Self>> {
        let object = |value: &Value| value.as_object().cloned().map(Self);
        let read = |value: &Value| value.as_array()?.iter().map(object).collect();
        Ok(self.read(name, "a list of objects", read)?.unwrap_or_default())
    }

    pub(super) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    fn read<'a, T>(&'a self, name: &str, kind: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Outcome<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || Failure::bad_json(format!("`{name}` must be {kind}"));
        read(value).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn names_count_in_any_case() {
        let fields = fields(r#"{"collectionname": "a", "LIMIT": 5, "offset": null}"#);
        assert_eq!(fields.required("collectionName"), Ok("a"));
        assert_eq!(fields.number("limit"), Ok(Some(5)));
        assert_eq!(fields.number("offset"), Ok(None));
    }

    #[test]
    fn exact_names_win() {
        assert_eq!(fields(r#"{"A": "x", "a": "y"}"#).required("a"), Ok("y"));
    }

    #[test]
    fn wrong_types_are_named() {
        let fields = fields(r#"{"a": 1, "b": ["x", 2]}"#);
        assert!(matches!(fields.text("a"), Err(Failure::BadJson(reason)) if reason.contains("`a`")));
        assert!(matches!(fields.texts("b"), Err(Failure::BadJson(_))));
        assert_eq!(fields.required("c"), Err(Failure::Missing("c".into())));
    }

    #[test]
    fn a_body_must_be_an_object() {
        for body in ["", "[]", "1", "{", "nonsense"] {
            assert!(matches!(Fields::parse(body.as_bytes()), Err(Failure::BadJson(_))), "{body}");
        }
    }

    /// A client's body of any depth: the parser's own limit is on.
    #[test]
    fn deep_bodies_are_refused() {
        for deep in ["[", "{\"a\":"] {
            let body = format!("{{\"data\":{}", deep.repeat(1_000_000));
            assert!(
                matches!(Fields::parse(body.as_bytes()), Err(Failure::BadJson(reason)) if reason.contains("recursion"))
            );
        }
    }
}
