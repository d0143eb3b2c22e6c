//! Rows as JSON objects, and columns. Pure.
//!
//! 1. Keys that are no fields of the schema go into `$meta`, and come back at the top level.
//! 2. A field of type JSON comes back as a text, as in Milvus. Sent as a text that is JSON, it is taken for that JSON.
use std::collections::BTreeMap;

use bytes::Bytes;
use rpc::schema::{
    BoolArray, CollectionSchema, DataType, DoubleArray, FieldData, FieldSchema, FloatArray, IntArray, JsonArray,
    LongArray, ScalarField, StringArray, VectorField, field_data::Field, scalar_field::Data, vector_field,
};
use serde_json::{Map, Value};

use super::failure::{Failure, Outcome};
use crate::columns::{self, META};

type Row = Map<String, Value>;

/// The columns of rows that a caller sent.
pub(super) fn to_columns(schema: &CollectionSchema, mut rows: Vec<Row>) -> Outcome<Vec<FieldData>> {
    let fields = schema.fields.iter().filter(|field| !field.auto_id);
    let mut sent: Vec<FieldData> = fields.map(|field| column(field, &mut rows)).collect::<Outcome<_>>()?;
    if schema.enable_dynamic_field {
        sent.push(rest(rows));
    } else if let Some(key) = rows.iter().find_map(|row| row.keys().next()) {
        return Err(Failure::BadRows(format!("has pass more field without dynamic schema, please check it: `{key}`")));
    }
    Ok(sent)
}

/// What is left of the rows once all fields are taken.
fn rest(rows: Vec<Row>) -> FieldData {
    let data = rows.into_iter().map(|row| Bytes::from(Value::Object(row).to_string())).collect();
    FieldData { field: Some(scalars(Data::JsonData(JsonArray { data }))), ..columns::named(&columns::meta_field()) }
}

fn column(field: &FieldSchema, rows: &mut [Row]) -> Outcome<FieldData> {
    let absent = |row| Failure::BadRows(format!("row {row} has no value for field `{}`", field.name));
    let values = rows.iter_mut().enumerate().map(|(at, row)| row.remove(&field.name).ok_or_else(|| absent(at)));
    let values: Vec<Value> = values.collect::<Outcome<_>>()?;
    let wrong =
        || Failure::BadRows(format!("a value of field `{}` is not {}", field.name, field.data_type().as_str_name()));
    Ok(FieldData { field: Some(payload(field, values).ok_or_else(wrong)?), ..columns::named(field) })
}

fn payload(field: &FieldSchema, values: Vec<Value>) -> Option<Field> {
    let data = match field.data_type() {
        DataType::FloatVector => return floats(field, &values),
        DataType::Bool => Data::BoolData(BoolArray { data: each(&values, Value::as_bool)? }),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => {
            Data::IntData(IntArray { data: each(&values, |value| long(value)?.try_into().ok())? })
        }
        DataType::Int64 => Data::LongData(LongArray { data: each(&values, long)? }),
        DataType::Float => Data::FloatData(FloatArray { data: each(&values, |value| Some(value.as_f64()? as f32))? }),
        DataType::Double => Data::DoubleData(DoubleArray { data: each(&values, Value::as_f64)? }),
        DataType::VarChar => Data::StringData(StringArray { data: each(&values, |v| v.as_str().map(str::to_owned))? }),
        DataType::Json => Data::JsonData(JsonArray { data: values.into_iter().map(document).collect() }),
        _ => return None,
    };
    Some(scalars(data))
}

fn scalars(data: Data) -> Field {
    Field::Scalars(ScalarField { data: Some(data) })
}

fn each<T>(values: &[Value], read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(read).collect()
}

/// A 64-bit integer, or a text that is one.
pub(super) fn long(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn document(value: Value) -> Bytes {
    match value {
        Value::String(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => text.into(),
        other => other.to_string().into(),
    }
}

fn floats(field: &FieldSchema, values: &[Value]) -> Option<Field> {
    let vectors = each(values, vector)?;
    let dim = columns::dim(field)?;
    // A row of another length must not be made up for by the next: it shows as a wrong dimension.
    let odd = vectors.iter().map(|vector| vector.len() as i64).find(|length| *length != dim);
    let data = Some(vector_field::Data::FloatVector(FloatArray { data: vectors.concat() }));
    Some(Field::Vectors(VectorField { dim: odd.unwrap_or(dim), data }))
}

/// A vector of numbers.
pub(super) fn vector(value: &Value) -> Option<Vec<f32>> {
    value.as_array()?.iter().map(|number| Some(number.as_f64()? as f32)).collect()
}

/// The rows of columns. `names` are those asked for: of the dynamic keys only these, or all for `$meta`.
pub(super) fn from_columns(columns: &[FieldData], names: &[String], longs_as_text: bool) -> Vec<Row> {
    let count = columns.iter().filter_map(columns::rows).max().unwrap_or(0);
    let mut rows = vec![Row::new(); count];
    for column in columns {
        for (row, object) in rows.iter_mut().enumerate() {
            put(object, column, row, names, longs_as_text);
        }
    }
    rows
}

fn put(object: &mut Row, column: &FieldData, row: usize, names: &[String], longs_as_text: bool) {
    if column.field_name == META {
        let all = names.iter().any(|name| name == META);
        object.extend(dynamic(column, row).into_iter().filter(|(key, _)| all || names.contains(key)));
    } else {
        object.insert(column.field_name.clone(), value(column, row, longs_as_text).unwrap_or(Value::Null));
    }
}

fn dynamic(column: &FieldData, row: usize) -> BTreeMap<String, Value> {
    let Some(Field::Scalars(ScalarField { data: Some(Data::JsonData(list)) })) = &column.field else {
        return BTreeMap::new();
    };
    list.data.get(row).and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default()
}

fn value(column: &FieldData, row: usize, longs_as_text: bool) -> Option<Value> {
    if column.valid_data.get(row) == Some(&false) {
        return None;
    }
    match column.field.as_ref()? {
        Field::Scalars(scalars) => scalar(scalars.data.as_ref()?, row, longs_as_text),
        Field::Vectors(vectors) => row_of_vectors(vectors, row),
        Field::StructArrays(_) => None,
    }
}

fn scalar(data: &Data, row: usize, longs_as_text: bool) -> Option<Value> {
    Some(match data {
        Data::BoolData(list) => (*list.data.get(row)?).into(),
        Data::IntData(list) => (*list.data.get(row)?).into(),
        Data::LongData(list) => number(*list.data.get(row)?, longs_as_text),
        Data::FloatData(list) => float(*list.data.get(row)?),
        Data::DoubleData(list) => (*list.data.get(row)?).into(),
        Data::StringData(list) => list.data.get(row)?.as_str().into(),
        Data::JsonData(list) => String::from_utf8_lossy(list.data.get(row)?).into(),
        _ => return None,
    })
}

fn row_of_vectors(vectors: &VectorField, row: usize) -> Option<Value> {
    let dim = usize::try_from(vectors.dim).ok()?;
    match vectors.data.as_ref()? {
        vector_field::Data::FloatVector(list) => {
            Some(list.data.get(row * dim..(row + 1) * dim)?.iter().copied().map(float).collect())
        }
        _ => None,
    }
}

/// A 64-bit integer as its caller wants it.
pub(super) fn number(value: i64, as_text: bool) -> Value {
    if as_text { value.to_string().into() } else { value.into() }
}

/// The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149.
pub(super) fn float(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{field, simple};
    use serde_json::json;

    fn schema() -> CollectionSchema {
        let mut schema = simple(DataType::Int64);
        schema.fields.push(field("ok", DataType::Bool, &[]));
        schema.fields.push(field("doc", DataType::Json, &[]));
        schema.fields.push(field("score", DataType::Float, &[]));
        schema
    }

    fn row(json: Value) -> Row {
        json.as_object().cloned().unwrap()
    }

    fn sent() -> Value {
        json!({"id": 9_007_199_254_740_993_i64, "vector": [0.1, 2], "ok": true, "doc": {"a": [1]}, "score": 0.3, "color": "red", "n": 1})
    }

    #[test]
    fn rows_come_back_as_sent() {
        let columns = to_columns(&schema(), vec![row(sent())]).unwrap();
        let names = [META.to_owned()];
        let mut want = row(sent());
        want.insert("doc".into(), json!(r#"{"a":[1]}"#));
        want.insert("vector".into(), json!([0.1, 2.0]));
        assert_eq!(from_columns(&columns, &names, false), [want]);
    }

    #[test]
    fn only_dynamic_keys_asked_for_come_back() {
        let columns = to_columns(&schema(), vec![row(sent())]).unwrap();
        let rows = from_columns(&columns, &["color".to_owned()], true);
        assert_eq!((rows[0].get("color"), rows[0].get("n")), (Some(&json!("red")), None));
        assert_eq!(rows[0]["id"], json!("9007199254740993"));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let without = |key: &str| {
            let mut row = row(sent());
            row.remove(key);
            row
        };
        let with = |key: &str, value: Value| {
            let mut row = row(sent());
            row.insert(key.into(), value);
            row
        };
        for bad in [without("vector"), with("ok", json!("yes")), with("id", json!(1.5)), with("vector", json!("x"))] {
            assert!(matches!(to_columns(&schema(), vec![bad.clone()]), Err(Failure::BadRows(_))), "{bad:?}");
        }
        let fixed = CollectionSchema { enable_dynamic_field: false, ..schema() };
        assert!(matches!(to_columns(&fixed, vec![row(sent())]), Err(Failure::BadRows(_))));
    }

    #[test]
    fn rows_of_odd_length_do_not_mix() {
        let odd = |vector: Value| row(json!({"id": 1, "vector": vector}));
        let columns =
            to_columns(&simple(DataType::Int64), vec![odd(json!([1.0])), odd(json!([1.0, 2.0, 3.0]))]).unwrap();
        let vectors = columns.iter().find(|column| column.field_name == "vector").unwrap();
        assert!(matches!(&vectors.field, Some(Field::Vectors(vectors)) if vectors.dim != 2));
    }
}
