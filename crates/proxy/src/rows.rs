//! Rows to be inserted: checked against the schema, completed, and spread over the shards. Pure.
//!
//! 1. What leaves here has one full column a field, in the schema's order, and `$meta` after them where the collection
//!    is dynamic; all of one length.
//! 2. A value that would not read back as it was sent is refused: too long a text, a wrong dimension, a number out of
//!    its type's range, NaN or infinity in a vector, bytes that are no JSON.
use rpc::schema::{
    CollectionSchema, DataType, FieldData, FieldSchema, JsonArray, ScalarField, StringArray, field_data::Field,
    scalar_field::Data, vector_field,
};

use crate::columns::{self, META};
use crate::error::{Error, Result};
use crate::key::{self, Key};
use crate::schema;

/// Rows fit to be stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) keys: Vec<Key>,
    pub(crate) columns: Vec<FieldData>,
}

/// Checks the columns a client sent. `generate` gives keys where the collection makes its own.
pub(crate) fn check(
    schema: &CollectionSchema,
    mut sent: Vec<FieldData>,
    count: usize,
    generate: impl FnOnce(usize) -> Vec<i64>,
) -> Result<Rows> {
    if count == 0 {
        return Err(Error::invalid("num_rows should be greater than 0"));
    }
    let primary = schema::primary(schema)?;
    if primary.auto_id {
        complete_keys(primary, &mut sent, || generate(count))?;
    }
    let mut columns = Vec::with_capacity(schema.fields.len() + 1);
    for field in &schema.fields {
        columns.push(checked(field, take(&mut sent, &field.name), count)?);
    }
    let keys = columns.iter().find(|column| column.field_name == primary.name).map(key::of_column).unwrap_or_default();
    if schema.enable_dynamic_field {
        columns.push(dynamic(&mut sent, count)?);
    }
    match sent.first() {
        Some(extra) => Err(Error::invalid(format!("field `{}` is not a field of the collection", extra.field_name))),
        None => Ok(Rows { keys, columns }),
    }
}

/// The rows of each shard, in the order of the shards; empty where a shard gets none.
pub(crate) fn by_shard(keys: &[Key], shards: usize, shard_of: impl Fn(&Key, usize) -> usize) -> Vec<Vec<usize>> {
    let mut rows = vec![Vec::new(); shards];
    for (row, key) in keys.iter().enumerate() {
        rows[shard_of(key, shards)].push(row);
    }
    rows
}

fn complete_keys(primary: &FieldSchema, sent: &mut Vec<FieldData>, generate: impl FnOnce() -> Vec<i64>) -> Result<()> {
    if sent.iter().any(|column| column.field_name == primary.name) {
        return Err(Error::invalid(format!(
            "the collection makes its own keys (autoID): field `{}` must be left out",
            primary.name
        )));
    }
    let keys = generate();
    let mut column = columns::longs(&primary.name, keys);
    if primary.data_type() == DataType::VarChar {
        column = as_text(column);
    }
    sent.push(column);
    Ok(())
}

fn as_text(column: FieldData) -> FieldData {
    let text = |key| if let Key::Int(number) = key { number.to_string() } else { String::new() };
    let data = key::of_column(&column).into_iter().map(text).collect();
    let payload = Data::StringData(StringArray { data });
    FieldData {
        r#type: DataType::VarChar.into(),
        field: Some(Field::Scalars(ScalarField { data: Some(payload) })),
        ..column
    }
}

fn take(sent: &mut Vec<FieldData>, name: &str) -> Option<FieldData> {
    let at = sent.iter().position(|column| column.field_name == name)?;
    Some(sent.swap_remove(at))
}

fn checked(field: &FieldSchema, column: Option<FieldData>, count: usize) -> Result<FieldData> {
    let missing = || Error::invalid(format!("fieldSchema({}) has no corresponding fieldData pass in", field.name));
    let column = column.ok_or_else(missing)?;
    check_dimension(field, &column)?;
    check_shape(field, &column, count)?;
    check_values(field, &column)?;
    Ok(FieldData { field: column.field, ..columns::named(field) })
}

fn check_dimension(field: &FieldSchema, column: &FieldData) -> Result<()> {
    let (Some(want), Some(Field::Vectors(vectors))) = (columns::dim(field), &column.field) else { return Ok(()) };
    if vectors.dim != want {
        let reason =
            format!("the dim ({}) of field data({}) is not equal to schema dim ({want})", vectors.dim, field.name);
        return Err(Error::invalid(reason));
    }
    if columns::rows(column).is_none() {
        return Err(Error::invalid(format!("float data should divide the dim({want}) of field {}", field.name)));
    }
    Ok(())
}

fn check_shape(field: &FieldSchema, column: &FieldData, count: usize) -> Result<()> {
    let of_type = same_kind(column, &columns::empty(field));
    let rows = columns::rows(column).filter(|_| of_type).ok_or_else(|| {
        Error::invalid(format!(
            "field `{}` must be {}: the values sent are of another type",
            field.name,
            field.data_type().as_str_name()
        ))
    })?;
    if rows == count {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the num_rows ({rows}) of field ({}) is not equal to passed num_rows ({count})",
        field.name
    )))
}

fn same_kind(left: &FieldData, right: &FieldData) -> bool {
    use std::mem::discriminant;
    match (&left.field, &right.field) {
        (Some(Field::Scalars(left)), Some(Field::Scalars(right))) => {
            left.data.as_ref().map(discriminant) == right.data.as_ref().map(discriminant)
        }
        (Some(Field::Vectors(left)), Some(Field::Vectors(right))) => {
            left.data.as_ref().map(discriminant) == right.data.as_ref().map(discriminant)
        }
        _ => false,
    }
}

fn check_values(field: &FieldSchema, column: &FieldData) -> Result<()> {
    match &column.field {
        Some(Field::Vectors(vectors)) => match &vectors.data {
            Some(vector_field::Data::FloatVector(list)) => check_finite(field, &list.data),
            _ => Ok(()),
        },
        Some(Field::Scalars(ScalarField { data: Some(data) })) => check_scalars(field, data),
        _ => Ok(()),
    }
}

fn check_scalars(field: &FieldSchema, data: &Data) -> Result<()> {
    match data {
        Data::StringData(list) => check_lengths(field, &list.data),
        Data::IntData(list) => check_range(field, &list.data),
        Data::JsonData(list) => check_json(field, list),
        _ => Ok(()),
    }
}

fn check_finite(field: &FieldSchema, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => {
            Err(Error::invalid(format!("value '{value}' is not a number or infinity, field {}", field.name)))
        }
        None => Ok(()),
    }
}

fn check_lengths(field: &FieldSchema, values: &[String]) -> Result<()> {
    let Some(longest) = columns::type_param(field, "max_length").and_then(|length| usize::try_from(length).ok()) else {
        return Ok(());
    };
    match values.iter().enumerate().find(|(_, value)| value.len() > longest) {
        Some((row, value)) => Err(Error::invalid(format!(
            "length of varchar field {} exceeds max length, row number: {row}, length: {}, max length: {longest}",
            field.name,
            value.len()
        ))),
        None => Ok(()),
    }
}

fn check_range(field: &FieldSchema, values: &[i32]) -> Result<()> {
    let (low, high) = match field.data_type() {
        DataType::Int8 => (i32::from(i8::MIN), i32::from(i8::MAX)),
        DataType::Int16 => (i32::from(i16::MIN), i32::from(i16::MAX)),
        _ => return Ok(()),
    };
    match values.iter().find(|value| !(low..=high).contains(value)) {
        Some(value) => {
            Err(Error::invalid(format!("the value {value} of field {} should be in range [{low}, {high}]", field.name)))
        }
        None => Ok(()),
    }
}

fn check_json(field: &FieldSchema, list: &JsonArray) -> Result<()> {
    let fit = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    match list.data.iter().position(|text| !fit(text)) {
        Some(row) => Err(Error::invalid(format!("row {row} of field {} is not valid JSON", field.name))),
        None => Ok(()),
    }
}

/// The `$meta` column: as sent, or an empty object a row.
fn dynamic(sent: &mut Vec<FieldData>, count: usize) -> Result<FieldData> {
    let field = columns::meta_field();
    let at = sent.iter().position(|column| column.is_dynamic || column.field_name == META);
    let Some(at) = at else { return Ok(no_dynamic(count)) };
    let column = sent.swap_remove(at);
    check_shape(&field, &column, count)?;
    check_objects(&column)?;
    Ok(FieldData { field: column.field, ..columns::named(&field) })
}

fn no_dynamic(count: usize) -> FieldData {
    let data = Data::JsonData(JsonArray { data: vec!["{}".into(); count] });
    FieldData {
        field: Some(Field::Scalars(ScalarField { data: Some(data) })),
        ..columns::named(&columns::meta_field())
    }
}

fn check_objects(column: &FieldData) -> Result<()> {
    let Some(Field::Scalars(ScalarField { data: Some(Data::JsonData(list)) })) = &column.field else { return Ok(()) };
    let object =
        |text: &[u8]| serde_json::from_slice::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(text);
    match list.data.iter().position(|text| object(text).is_err()) {
        Some(row) => Err(Error::invalid(format!("row {row} of the dynamic field is not a JSON object"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{field, simple};
    use proptest::prelude::*;
    use rpc::schema::{FloatArray, IntArray, VectorField};

    fn scalars(name: &str, data: Data) -> FieldData {
        let field = Some(Field::Scalars(ScalarField { data: Some(data) }));
        FieldData { field_name: name.into(), field, ..Default::default() }
    }

    fn texts(name: &str, data: &[&str]) -> FieldData {
        scalars(name, Data::StringData(StringArray { data: data.iter().map(|text| (*text).into()).collect() }))
    }

    fn json(name: &str, data: &[&'static str]) -> FieldData {
        scalars(name, Data::JsonData(JsonArray { data: data.iter().map(|text| (*text).into()).collect() }))
    }

    fn vectors(dim: i64, data: &[f32]) -> FieldData {
        let data = Some(vector_field::Data::FloatVector(FloatArray { data: data.to_vec() }));
        let field = Some(Field::Vectors(VectorField { dim, data }));
        FieldData { field_name: "vector".into(), field, ..Default::default() }
    }

    fn given(schema: &CollectionSchema, sent: Vec<FieldData>, count: usize) -> Result<Rows> {
        check(schema, sent, count, |count| (1..=count as i64).collect())
    }

    fn ids(data: &[i64]) -> FieldData {
        columns::longs("id", data.to_vec())
    }

    #[test]
    fn completes_and_orders_columns() {
        let rows = given(&simple(DataType::Int64), vec![vectors(2, &[1.0, 2.0]), ids(&[5])], 1).unwrap();
        assert_eq!(rows.keys, [Key::Int(5)]);
        let names: Vec<_> = rows.columns.iter().map(|column| column.field_name.as_str()).collect();
        assert_eq!(names, ["id", "vector", META]);
        assert!(rows.columns.iter().all(|column| columns::rows(column) == Some(1)));
    }

    #[test]
    fn makes_keys_where_asked() {
        for (kind, key) in [(DataType::Int64, Key::Int(1)), (DataType::VarChar, Key::Text("1".into()))] {
            let schema = schema::declare("c", CollectionSchema { auto_id: true, ..simple(kind) }).unwrap();
            assert_eq!(given(&schema, vec![vectors(2, &[1.0, 2.0])], 1).unwrap().keys, [key]);
        }
    }

    #[test]
    fn refuses_rows_that_do_not_fit() {
        let mut schema = simple(DataType::Int64);
        schema.fields.push(field("small", DataType::Int8, &[]));
        schema.fields.push(field("name", DataType::VarChar, &[("max_length", "3")]));
        schema.fields.push(field("doc", DataType::Json, &[]));
        let small = |value| scalars("small", Data::IntData(IntArray { data: vec![value] }));
        let v = || vectors(2, &[1.0, 2.0]);
        let sent = |vector, small, name, doc| vec![ids(&[1]), vector, small, name, doc];
        let good = sent(v(), small(1), texts("name", &["abc"]), json("doc", &["[1]"]));
        assert!(given(&schema, good.clone(), 1).is_ok());
        let wrong = [
            sent(vectors(3, &[1.0; 3]), small(1), texts("name", &["a"]), json("doc", &["1"])),
            sent(vectors(2, &[1.0; 3]), small(1), texts("name", &["a"]), json("doc", &["1"])),
            sent(vectors(2, &[f32::NAN, 1.0]), small(1), texts("name", &["a"]), json("doc", &["1"])),
            sent(v(), small(128), texts("name", &["a"]), json("doc", &["1"])),
            sent(v(), small(1), texts("name", &["abcd"]), json("doc", &["1"])),
            sent(v(), small(1), texts("name", &["a"]), json("doc", &["{"])),
            sent(v(), small(1), texts("name", &["a", "b"]), json("doc", &["1"])),
            sent(v(), texts("small", &["a"]), texts("name", &["a"]), json("doc", &["1"])),
            good[..4].to_vec(),
            [good.clone(), vec![texts("extra", &["a"])]].concat(),
            [good.clone(), vec![json(META, &["[1]"])]].concat(),
        ];
        for sent in wrong {
            assert!(given(&schema, sent.clone(), 1).is_err(), "{sent:?}");
        }
        assert!(given(&schema, good, 0).is_err());
    }

    proptest! {
        #[test]
        fn every_row_goes_to_one_shard(keys in prop::collection::vec(any::<i64>(), 0..100), shards in 1_usize..5) {
            let keys: Vec<Key> = keys.into_iter().map(Key::Int).collect();
            let spread = by_shard(&keys, shards, |key, shards| if let Key::Int(n) = key { n.rem_euclid(shards as i64) as usize } else { 0 });
            let mut all = spread.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..keys.len()).collect::<Vec<_>>());
        }
    }
}
