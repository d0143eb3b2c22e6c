//! What a collection may be declared as. Pure.
//!
//! 1. [`declare`] checks a schema as a client sent it and gives its fields their numbers, from 100 up.
//! 2. What is not built (a data type, nullable fields, functions …) is refused by name, never dropped silently.
use rpc::schema::{CollectionSchema, DataType, FieldSchema};

use crate::columns::{META, dim, type_param};
use crate::error::{Code, Error, Result};
use crate::names;

const FIRST_FIELD: i64 = 100;
const MOST_FIELDS: usize = 64;
const MOST_VECTORS: usize = 10;
const DIMENSIONS: std::ops::RangeInclusive<i64> = 2..=32_768;
const TEXT_LENGTHS: std::ops::RangeInclusive<i64> = 1..=65_535;

/// The schema as it is kept: checked, named, its fields numbered.
pub(crate) fn declare(name: &str, mut schema: CollectionSchema) -> Result<CollectionSchema> {
    names::check_collection(name)?;
    check_features(&schema)?;
    check_fields(&schema.fields)?;
    name.clone_into(&mut schema.name);
    let auto = schema.auto_id || schema.fields.iter().any(|field| field.auto_id);
    schema.auto_id = auto;
    for (number, field) in (FIRST_FIELD..).zip(&mut schema.fields) {
        field.field_id = number;
        field.auto_id = auto && field.is_primary_key;
    }
    Ok(schema)
}

/// The key field. A schema without one never gets past [`declare`].
pub(crate) fn primary(schema: &CollectionSchema) -> Result<&FieldSchema> {
    let missing = || Error::refused(Code::Unexpected, "primary key is not specified");
    schema.fields.iter().find(|field| field.is_primary_key).ok_or_else(missing)
}

/// The vector field meant: the one named, or the only one.
pub(crate) fn vector_field<'a>(schema: &'a CollectionSchema, name: Option<&str>) -> Result<&'a FieldSchema> {
    let mut vectors = schema.fields.iter().filter(|field| is_vector(field));
    if let Some(name) = name {
        let missing = || Error::invalid(format!("failed to get field schema by name: fieldName({name}) not found"));
        return vectors.find(|field| field.name == name).ok_or_else(missing);
    }
    match (vectors.next(), vectors.next()) {
        (Some(field), None) => Ok(field),
        _ => Err(Error::invalid("multiple anns_fields exist, please specify a anns_field in search_params")),
    }
}

/// A field by name.
pub(crate) fn field<'a>(schema: &'a CollectionSchema, name: &str) -> Option<&'a FieldSchema> {
    schema.fields.iter().find(|field| field.name == name)
}

/// Whether a field holds vectors.
pub(crate) fn is_vector(field: &FieldSchema) -> bool {
    field.data_type() == DataType::FloatVector
}

fn check_features(schema: &CollectionSchema) -> Result<()> {
    if !schema.functions.is_empty() {
        return Err(Error::unbuilt("a schema with functions"));
    }
    if !schema.struct_array_fields.is_empty() {
        return Err(Error::unbuilt("a schema with struct fields"));
    }
    Ok(())
}

fn check_fields(fields: &[FieldSchema]) -> Result<()> {
    if fields.len() > MOST_FIELDS {
        return Err(Error::invalid(format!("maximum field's number should be limited to {MOST_FIELDS}")));
    }
    for (at, field) in fields.iter().enumerate() {
        check_field(field)?;
        if fields[..at].iter().any(|other| other.name == field.name) {
            return Err(Error::invalid(format!("duplicated field name: {}", field.name)));
        }
    }
    check_primary(fields)?;
    check_vectors(fields)
}

fn check_primary(fields: &[FieldSchema]) -> Result<()> {
    let mut keys = fields.iter().filter(|field| field.is_primary_key);
    let key = keys.next().ok_or_else(|| Error::invalid("primary key is not specified"))?;
    if keys.next().is_some() {
        return Err(Error::invalid("there are more than one primary key, field name: ".to_owned() + &key.name));
    }
    if !matches!(key.data_type(), DataType::Int64 | DataType::VarChar) {
        return Err(Error::invalid("the data type of primary key should be Int64 or VarChar"));
    }
    match fields.iter().find(|field| field.auto_id && !field.is_primary_key) {
        Some(field) => {
            Err(Error::invalid(format!("only primary field can speficy AutoID with true, field name: {}", field.name)))
        }
        None => Ok(()),
    }
}

fn check_vectors(fields: &[FieldSchema]) -> Result<()> {
    match fields.iter().filter(|field| is_vector(field)).count() {
        0 => Err(Error::invalid("schema does not contain vector field")),
        n if n > MOST_VECTORS => {
            Err(Error::invalid(format!("maximum vector field's number should be limited to {MOST_VECTORS}")))
        }
        _ => Ok(()),
    }
}

fn check_field(field: &FieldSchema) -> Result<()> {
    if field.name == META {
        return Err(Error::invalid(format!("{META} is the dynamic field's name: a field must have another")));
    }
    names::check_field(&field.name)?;
    check_attributes(field)?;
    match field.data_type() {
        DataType::FloatVector => check_dim(field),
        DataType::VarChar => check_max_length(field),
        DataType::Bool | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Ok(()),
        DataType::Float | DataType::Double | DataType::Json => Ok(()),
        DataType::None => Err(Error::invalid(format!("data type of field {} is not set", field.name))),
        other => Err(Error::unbuilt(format_args!("data type {} (field {})", other.as_str_name(), field.name))),
    }
}

fn check_attributes(field: &FieldSchema) -> Result<()> {
    let built = [
        (field.nullable, "a nullable field"),
        (field.default_value.is_some(), "a default value"),
        (field.is_partition_key, "a partition key"),
        (field.is_clustering_key, "a clustering key"),
    ];
    match built.iter().find(|(set, _)| *set) {
        Some((_, feature)) => Err(Error::unbuilt(format_args!("{feature} (field {})", field.name))),
        None => Ok(()),
    }
}

fn check_dim(field: &FieldSchema) -> Result<()> {
    match dim(field) {
        Some(dim) if DIMENSIONS.contains(&dim) => Ok(()),
        Some(dim) => Err(Error::invalid(format!(
            "invalid dimension: {dim} of field {}. it should be in range {} to {}",
            field.name,
            DIMENSIONS.start(),
            DIMENSIONS.end()
        ))),
        None => Err(Error::invalid(format!(
            "dimension is not defined in field type params of field {}, check type param `dim` for vector field",
            field.name
        ))),
    }
}

fn check_max_length(field: &FieldSchema) -> Result<()> {
    match type_param(field, "max_length") {
        Some(length) if TEXT_LENGTHS.contains(&length) => Ok(()),
        Some(length) => Err(Error::invalid(format!(
            "the maximum length specified for the field({}) should be in (0, {}], but got {length} instead",
            field.name,
            TEXT_LENGTHS.end()
        ))),
        None => {
            Err(Error::invalid(format!("type param(max_length) should be specified for the field({})", field.name)))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rpc::common::KeyValuePair;
    use rpc::schema::{FunctionSchema, ValueField};

    pub(crate) fn field(name: &str, kind: DataType, params: &[(&str, &str)]) -> FieldSchema {
        let type_params =
            params.iter().map(|(key, value)| KeyValuePair { key: (*key).into(), value: (*value).into() }).collect();
        FieldSchema { name: name.into(), data_type: kind.into(), type_params, ..Default::default() }
    }

    pub(crate) fn key(kind: DataType) -> FieldSchema {
        FieldSchema { is_primary_key: true, ..field("id", kind, &[("max_length", "8")]) }
    }

    pub(crate) fn simple(kind: DataType) -> CollectionSchema {
        let fields = vec![key(kind), field("vector", DataType::FloatVector, &[("dim", "2")])];
        CollectionSchema { fields, enable_dynamic_field: true, ..Default::default() }
    }

    fn with(field: FieldSchema) -> CollectionSchema {
        let mut schema = simple(DataType::Int64);
        schema.fields.push(field);
        schema
    }

    #[test]
    fn numbers_fields_from_100() {
        let schema = declare("c", simple(DataType::Int64)).unwrap();
        assert_eq!(schema.fields.iter().map(|field| field.field_id).collect::<Vec<_>>(), [100, 101]);
        assert_eq!(schema.name, "c");
    }

    #[test]
    fn auto_id_means_the_key() {
        let schema = declare("c", CollectionSchema { auto_id: true, ..simple(DataType::Int64) }).unwrap();
        assert_eq!(schema.fields.iter().map(|field| field.auto_id).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let wrong = [
            CollectionSchema::default(),
            simple(DataType::Double),
            CollectionSchema { fields: vec![key(DataType::Int64)], ..Default::default() },
            with(key(DataType::Int64)),
            with(field("1st", DataType::Int64, &[])),
            with(field(META, DataType::Json, &[])),
            with(field("vector", DataType::Int64, &[])),
            with(field("v", DataType::FloatVector, &[])),
            with(field("v", DataType::FloatVector, &[("dim", "1")])),
            with(field("t", DataType::VarChar, &[])),
            with(field("t", DataType::VarChar, &[("max_length", "65536")])),
            with(FieldSchema { auto_id: true, ..field("n", DataType::Int64, &[]) }),
        ];
        for schema in wrong {
            let got = declare("c", schema.clone());
            assert!(matches!(got, Err(Error::Refused(_))), "{schema:?}: {got:?}");
        }
    }

    #[test]
    fn names_what_is_not_built() {
        let unbuilt = [
            with(field("b", DataType::BinaryVector, &[("dim", "8")])),
            with(field("a", DataType::Array, &[])),
            with(FieldSchema { nullable: true, ..field("n", DataType::Int64, &[]) }),
            with(FieldSchema { default_value: Some(ValueField::default()), ..field("n", DataType::Int64, &[]) }),
            with(FieldSchema { is_partition_key: true, ..field("n", DataType::Int64, &[]) }),
            CollectionSchema { functions: vec![FunctionSchema::default()], ..simple(DataType::Int64) },
        ];
        for schema in unbuilt {
            let got = declare("c", schema.clone());
            assert!(matches!(got, Err(Error::Unbuilt(_))), "{schema:?}: {got:?}");
        }
    }

    #[test]
    fn vector_field_must_be_named_among_several() {
        let two = with(field("other", DataType::FloatVector, &[("dim", "4")]));
        assert!(vector_field(&two, None).is_err());
        assert_eq!(vector_field(&two, Some("other")).unwrap().name, "other");
        assert!(vector_field(&two, Some("id")).is_err());
        assert_eq!(vector_field(&simple(DataType::Int64), None).unwrap().name, "vector");
    }
}
