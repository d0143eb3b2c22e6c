//! What a search asks for, read from its request. Pure.
//!
//! 1. Parameters come as texts, and once more inside `params`, a JSON object that may hold anything: of that, only what
//!    would change the answer is looked at.
//! 2. What would change the answer and is not built is refused by name.
use bytes::Bytes;
use prost::Message;
use rpc::common::{KeyValuePair, PlaceholderGroup, PlaceholderType};
use rpc::mesh::{Index, Metric};
use rpc::milvus::SearchRequest;
use rpc::milvus::search_request::SearchInput;
use rpc::schema::{CollectionSchema, FieldSchema};

use crate::columns;
use crate::error::{Code, Error, Result};
use crate::metric::{self, param};
use crate::schema;

/// Rows past this are never reached by a limit and an offset.
const WINDOW: i64 = 16_384;

/// A search, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) field: String,
    pub(crate) metric: Metric,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    pub(crate) round_decimal: Option<u32>,
    pub(crate) queries: Vec<Bytes>,
}

/// The rows of an answer: skip `offset`, then at most `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

/// Reads a search against the collection's schema and indexes.
pub(crate) fn read(request: &SearchRequest, schema: &CollectionSchema, indexes: &[Index]) -> Result<Plan> {
    check_features(request)?;
    let params = &request.search_params;
    let field = schema::vector_field(schema, param(params, "anns_field").filter(|name| !name.is_empty()))?;
    let Window { offset, limit } = search_window(params)?;
    Ok(Plan {
        field: field.name.clone(),
        metric: metric_of(field, indexes, wanted_metric(params))?,
        offset,
        limit,
        round_decimal: round_decimal(params)?,
        queries: vectors(request, field)?,
    })
}

/// The metric an index of this field was made with.
pub(crate) fn index_metric(field: &str, indexes: &[Index]) -> Option<Metric> {
    let index = indexes.iter().find(|index| index.field == field)?;
    metric::parse(param(&index.params, "metric_type")?)
}

/// A number among the parameters of a read; none when absent or empty.
pub(crate) fn number(params: &[KeyValuePair], key: &str) -> Result<Option<i64>> {
    match param(params, key).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| Error::invalid(format!("{key} [{text}] is invalid, should be a number")))
        }
    }
}

/// Limit and offset, within bounds.
pub(crate) fn window(offset: i64, limit: i64) -> Result<Window> {
    let total = offset.checked_add(limit).filter(|total| (1..=WINDOW).contains(total));
    match (usize::try_from(offset), usize::try_from(limit), total) {
        (Ok(offset), Ok(limit), Some(_)) => Ok(Window { offset, limit }),
        (Err(_), ..) => Err(Error::invalid(format!("offset [{offset}] is invalid, it should be 0 or more"))),
        _ => Err(Error::invalid(format!(
            "invalid max query result window, (offset+limit) should be in range [1, {WINDOW}], but got {}",
            offset.saturating_add(limit)
        ))),
    }
}

fn search_window(params: &[KeyValuePair]) -> Result<Window> {
    let missing = || Error::refused(Code::MissingParameter, "topk not found in search_params");
    let limit = number(params, "topk")?.ok_or_else(missing)?;
    if !(1..=WINDOW).contains(&limit) {
        return Err(Error::invalid(format!("topk [{limit}] is invalid, it should be in range [1, {WINDOW}]")));
    }
    window(number(params, "offset")?.unwrap_or(0), limit)
}

fn round_decimal(params: &[KeyValuePair]) -> Result<Option<u32>> {
    match number(params, "round_decimal")? {
        None | Some(-1) => Ok(None),
        Some(digits @ 0..=6) => Ok(u32::try_from(digits).ok()),
        Some(other) => Err(Error::invalid(format!("round_decimal [{other}] is invalid, it should be -1 or 0 to 6"))),
    }
}

fn check_features(request: &SearchRequest) -> Result<()> {
    if !request.dsl.trim().is_empty() {
        return Err(Error::unbuilt(format_args!("a search with a filter (`{}`)", request.dsl)));
    }
    if !request.sub_reqs.is_empty() {
        return Err(Error::unbuilt("a search of several searches"));
    }
    if request.function_score.is_some() {
        return Err(Error::unbuilt("a search with a function score"));
    }
    check_params(&request.search_params)
}

/// Parameters that change an answer and are not built, with the values that ask for nothing.
const UNBUILT: [&str; 6] =
    ["iterator", "search_iter_v2", "group_by_field", "radius", "range_filter", "order_by_fields"];

fn check_params(params: &[KeyValuePair]) -> Result<()> {
    let nested = nested(params);
    for key in UNBUILT {
        let asked = param(params, key).map(str::to_owned).or_else(|| nested.get(key).and_then(scalar));
        if asked.is_some_and(|value| !matches!(value.as_str(), "" | "False" | "false" | "null" | "None")) {
            return Err(Error::unbuilt(format_args!("search parameter `{key}`")));
        }
    }
    Ok(())
}

fn nested(params: &[KeyValuePair]) -> serde_json::Map<String, serde_json::Value> {
    param(params, "params").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    if value.is_object() || value.is_array() { None } else { Some(metric::text(value.clone())) }
}

fn wanted_metric(params: &[KeyValuePair]) -> Option<String> {
    let nested = || nested(params).get("metric_type").and_then(scalar);
    param(params, "metric_type").map(str::to_owned).or_else(nested).filter(|name| !name.is_empty())
}

fn metric_of(field: &FieldSchema, indexes: &[Index], wanted: Option<String>) -> Result<Metric> {
    let unindexed = || Error::refused(Code::IndexNotFound, format!("index not found[field={}]", field.name));
    let metric = index_metric(&field.name, indexes).ok_or_else(unindexed)?;
    match wanted {
        Some(name) if metric::parse(&name) != Some(metric) => Err(Error::invalid(format!(
            "metric type not match: invalid parameter[expected={}][actual={name}]",
            metric.as_str_name().trim_start_matches("METRIC_")
        ))),
        _ => Ok(metric),
    }
}

fn vectors(request: &SearchRequest, field: &FieldSchema) -> Result<Vec<Bytes>> {
    match &request.search_input {
        Some(SearchInput::PlaceholderGroup(bytes)) => placeholders(bytes.clone(), field),
        Some(SearchInput::Ids(_)) => Err(Error::unbuilt("a search by keys (`ids`)")),
        None => Err(Error::invalid("a search needs query vectors")),
    }
}

/// The query vectors of a placeholder group, each as little-endian float32 of the field's dimension.
fn placeholders(bytes: Bytes, field: &FieldSchema) -> Result<Vec<Bytes>> {
    let group = PlaceholderGroup::decode(bytes)
        .map_err(|error| Error::invalid(format!("placeholder group cannot be decoded: {error}")))?;
    let [value] = <[_; 1]>::try_from(group.placeholders)
        .map_err(|all| Error::invalid(format!("a search needs one placeholder, got {}", all.len())))?;
    if value.r#type() != PlaceholderType::FloatVector {
        let kind = value.r#type().as_str_name();
        return Err(Error::invalid(format!(
            "vector type must be the same, field {} - type FloatVector, search info type {kind}",
            field.name
        )));
    }
    check_vectors(&value.values, field)?;
    Ok(value.values)
}

fn check_vectors(values: &[Bytes], field: &FieldSchema) -> Result<()> {
    let most = usize::try_from(WINDOW).unwrap_or(usize::MAX);
    if values.is_empty() || values.len() > most {
        return Err(Error::invalid(format!("nq [{}] is invalid, it should be in range [1, {WINDOW}]", values.len())));
    }
    let dim = columns::dim(field).and_then(|dim| usize::try_from(dim).ok()).unwrap_or_default();
    match values.iter().find(|value| value.len() != dim * 4) {
        Some(value) => Err(Error::invalid(format!(
            "vector dimension mismatch, expected vector size(byte) {}, actual {}",
            dim * 4,
            value.len()
        ))),
        None => values.iter().try_for_each(|value| check_finite(value)),
    }
}

fn check_finite(value: &[u8]) -> Result<()> {
    let finite = |four: &[u8]| <[u8; 4]>::try_from(four).is_ok_and(|four| f32::from_le_bytes(four).is_finite());
    if value.chunks_exact(4).all(finite) {
        Ok(())
    } else {
        Err(Error::invalid("a query vector holds a value that is not a number or infinity"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::pair;
    use crate::schema::tests::simple;
    use rpc::common::PlaceholderValue;
    use rpc::schema::DataType;

    fn group(kind: PlaceholderType, values: Vec<Vec<u8>>) -> Bytes {
        let values = values.into_iter().map(Bytes::from).collect();
        let value = PlaceholderValue { tag: "$0".into(), r#type: kind.into(), values, ..Default::default() };
        PlaceholderGroup { placeholders: vec![value] }.encode_to_vec().into()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn request(params: &[(&str, &str)], group: Bytes) -> SearchRequest {
        SearchRequest {
            search_params: params.iter().map(|(key, value)| pair(key, *value)).collect(),
            search_input: Some(SearchInput::PlaceholderGroup(group)),
            ..Default::default()
        }
    }

    fn indexes() -> Vec<Index> {
        vec![Index { field: "vector".into(), params: vec![pair("metric_type", "L2")], ..Default::default() }]
    }

    fn plan(request: &SearchRequest) -> Result<Plan> {
        read(request, &simple(DataType::Int64), &indexes())
    }

    fn with(params: &[(&str, &str)]) -> Result<Plan> {
        plan(&request(params, group(PlaceholderType::FloatVector, vec![floats(&[1.0, 2.0])])))
    }

    #[test]
    fn reads_what_pymilvus_sends() {
        let params = [
            ("topk", "3"),
            ("offset", "2"),
            ("round_decimal", "-1"),
            ("ignore_growing", "False"),
            ("params", r#"{"metric_type": "L2", "anns_field": "x", "param": {"a": 1}, "expr": "", "radius": null}"#),
        ];
        let got = with(&params).unwrap();
        assert_eq!((got.field.as_str(), got.metric, got.offset, got.limit), ("vector", Metric::L2, 2, 3));
        assert_eq!((got.round_decimal, got.queries), (None, vec![Bytes::from(floats(&[1.0, 2.0]))]));
    }

    #[test]
    fn refuses_windows_out_of_range() {
        for params in [
            &[("topk", "0")][..],
            &[("topk", "16385")],
            &[],
            &[("topk", "x")],
            &[("topk", "16384"), ("offset", "1")],
            &[("topk", "1"), ("offset", "-1")],
        ] {
            assert!(matches!(with(params), Err(Error::Refused(_))), "{params:?}");
        }
    }

    #[test]
    fn refuses_another_metric_than_the_index() {
        assert!(with(&[("topk", "1"), ("metric_type", "l2")]).is_ok());
        assert!(matches!(with(&[("topk", "1"), ("metric_type", "IP")]), Err(Error::Refused(_))));
        assert!(matches!(with(&[("topk", "1"), ("params", r#"{"metric_type":"IP"}"#)]), Err(Error::Refused(_))));
    }

    #[test]
    fn names_what_is_not_built() {
        for params in [("iterator", "True"), ("group_by_field", "x"), ("params", r#"{"radius": 0.5}"#)] {
            assert!(matches!(with(&[("topk", "1"), params]), Err(Error::Unbuilt(_))), "{params:?}");
        }
        let filtered = SearchRequest { dsl: "age > 3".into(), ..request(&[("topk", "1")], Bytes::new()) };
        assert!(matches!(plan(&filtered), Err(Error::Unbuilt(_))));
    }

    #[test]
    fn refuses_vectors_that_do_not_fit() {
        let wrong = [
            group(PlaceholderType::BinaryVector, vec![floats(&[1.0, 2.0])]),
            group(PlaceholderType::FloatVector, vec![floats(&[1.0])]),
            group(PlaceholderType::FloatVector, vec![floats(&[1.0, f32::NAN])]),
            group(PlaceholderType::FloatVector, vec![]),
            Bytes::from_static(b"\xff\xff"),
            Bytes::new(),
        ];
        for group in wrong {
            let got = plan(&request(&[("topk", "1")], group));
            assert!(matches!(got, Err(Error::Refused(_))), "{got:?}");
        }
    }
}
