//! Metrics and indexes, as far as an exact search knows them. Pure.
//!
//! 1. Every index type that Milvus knows is accepted and recorded: the answer of an exact search is what each of them
//!    approximates.
//! 2. Parameters are flat, `key` → text. An older client's one `params` with a JSON object is laid flat.
use rpc::common::KeyValuePair;
use rpc::mesh::Metric;
use rpc::schema::FieldSchema;

use crate::error::{Error, Result};
use crate::schema;

const VECTOR_INDEXES: [&str; 9] =
    ["AUTOINDEX", "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "HNSW", "SCANN", "DISKANN", "HNSW_SQ"];
const SCALAR_INDEXES: [&str; 5] = ["AUTOINDEX", "INVERTED", "BITMAP", "STL_SORT", "Trie"];

/// The metric of a name, in any case.
pub(crate) fn parse(name: &str) -> Option<Metric> {
    match name.to_ascii_uppercase().as_str() {
        "L2" => Some(Metric::L2),
        "IP" => Some(Metric::Ip),
        "COSINE" => Some(Metric::Cosine),
        _ => None,
    }
}

/// Whether a larger score is a nearer row.
pub(crate) fn larger_is_nearer(metric: Metric) -> bool {
    metric != Metric::L2
}

/// A parameter's value.
pub(crate) fn param<'a>(params: &'a [KeyValuePair], key: &str) -> Option<&'a str> {
    params.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str())
}

/// The parameters of an index on `field` as they are kept: flat, with its type and, for vectors, its metric.
pub(crate) fn index_params(field: &FieldSchema, sent: &[KeyValuePair]) -> Result<Vec<KeyValuePair>> {
    let mut params = flat(sent)?;
    default(&mut params, "index_type", "AUTOINDEX");
    let kind = param(&params, "index_type").unwrap_or_default().to_owned();
    if schema::is_vector(field) {
        default(&mut params, "metric_type", "COSINE");
        check_type(&kind, &VECTOR_INDEXES)?;
        check_metric(param(&params, "metric_type").unwrap_or_default())?;
    } else {
        check_type(&kind, &SCALAR_INDEXES)?;
    }
    Ok(params)
}

fn check_type(kind: &str, known: &[&str]) -> Result<()> {
    if known.iter().any(|name| name.eq_ignore_ascii_case(kind)) {
        Ok(())
    } else {
        Err(Error::invalid(format!("invalid index type: {kind}")))
    }
}

fn check_metric(name: &str) -> Result<()> {
    match parse(name) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!("float vector index does not support metric type: {name}"))),
    }
}

fn default(params: &mut Vec<KeyValuePair>, key: &str, value: &str) {
    match params.iter_mut().find(|pair| pair.key == key) {
        Some(pair) if pair.value.is_empty() => value.clone_into(&mut pair.value),
        Some(_) => {}
        None => params.push(pair(key, value)),
    }
}

/// A pair of texts.
pub(crate) fn pair(key: &str, value: impl Into<String>) -> KeyValuePair {
    KeyValuePair { key: key.into(), value: value.into() }
}

fn flat(sent: &[KeyValuePair]) -> Result<Vec<KeyValuePair>> {
    let mut params: Vec<KeyValuePair> = sent.iter().filter(|pair| pair.key != "params").cloned().collect();
    for nested in sent.iter().filter(|pair| pair.key == "params" && !pair.value.is_empty()) {
        for (key, value) in object(&nested.value)? {
            if param(&params, &key).is_none() {
                params.push(pair(&key, text(value)));
            }
        }
    }
    Ok(params)
}

fn object(json: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(json)
        .map_err(|_| Error::invalid(format!("index parameter `params` is not a JSON object: {json}")))
}

/// A JSON value as the text of a parameter: texts without their quotes.
pub(crate) fn text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::field;
    use rpc::schema::DataType;

    fn vector() -> FieldSchema {
        field("vector", DataType::FloatVector, &[("dim", "2")])
    }

    fn params(sent: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        let sent: Vec<_> = sent.iter().map(|(key, value)| pair(key, *value)).collect();
        Ok(index_params(&vector(), &sent)?.into_iter().map(|pair| (pair.key, pair.value)).collect())
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn missing_type_and_metric_have_defaults() {
        assert_eq!(params(&[]), Ok(owned(&[("index_type", "AUTOINDEX"), ("metric_type", "COSINE")])));
        assert_eq!(params(&[("index_type", "")]), Ok(owned(&[("index_type", "AUTOINDEX"), ("metric_type", "COSINE")])));
    }

    #[test]
    fn nested_parameters_are_laid_flat() {
        let got = params(&[("params", r#"{"M": 16, "index_type": "HNSW", "metric_type": "L2"}"#)]).unwrap();
        let mut want = owned(&[("M", "16"), ("index_type", "HNSW"), ("metric_type", "L2")]);
        want.sort();
        assert_eq!(
            {
                let mut got = got;
                got.sort();
                got
            },
            want
        );
    }

    #[test]
    fn refuses_what_does_not_fit_the_field() {
        assert!(params(&[("metric_type", "HAMMING")]).is_err());
        assert!(params(&[("index_type", "NOPE")]).is_err());
        assert!(params(&[("params", "[")]).is_err());
        assert!(index_params(&field("n", DataType::Int64, &[]), &[pair("index_type", "HNSW")]).is_err());
        assert!(index_params(&field("n", DataType::Int64, &[]), &[]).is_ok());
    }
}
