//! The fields of a collection, as far as they are built: parsed once from its schema, checked against from then on.
//!
//! 1. A collection has one key, Int64 or VarChar, and at least one FloatVector; the rest are scalars.
//! 2. The dynamic field is one more JSON field, `$meta`, last, of one object a row.
//! 3. What is not built (other vectors, arrays, geometry) does not parse: nothing is stored that could not be read back.

use crate::columns::{Column, ColumnError, Values};
use crate::schema::{CollectionSchema, DataType, FieldSchema};

/// The name of the dynamic field.
pub const DYNAMIC_FIELD: &str = "$meta";

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    /// Text of at most `max_length` bytes.
    VarChar {
        max_length: usize,
    },
    Json,
    /// `dim` finite numbers.
    FloatVector {
        dim: usize,
    },
}

impl Kind {
    /// The type's number in the Milvus API.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Bool,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float => DataType::Float,
            Self::Double => DataType::Double,
            Self::VarChar { .. } => DataType::VarChar,
            Self::Json => DataType::Json,
            Self::FloatVector { .. } => DataType::FloatVector,
        }
    }
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
}

/// All fields of a collection, in the schema's order, the dynamic one last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    all: Vec<Field>,
    key: usize,
}

/// A schema that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldsError {
    #[error("collection {collection}: exactly one primary key field is needed, {found} given")]
    Keys { collection: String, found: usize },
    #[error("primary key field {0}: must be Int64 or VarChar, and not nullable")]
    KeyType(String),
    #[error("field {field}: data type {data_type} is not supported")]
    Unsupported { field: String, data_type: String },
    #[error("field {field}: type parameter {param} is missing or not a positive number")]
    Param { field: String, param: &'static str },
    #[error("duplicated field name: {0}")]
    Duplicate(String),
    #[error("field {0}: a vector cannot be nullable")]
    NullableVector(String),
}

impl Fields {
    /// Reads the fields of a schema.
    pub fn parse(schema: &CollectionSchema) -> Result<Self, FieldsError> {
        let mut all = schema.fields.iter().map(parse_field).collect::<Result<Vec<_>, _>>()?;
        let key = the_key(schema)?;
        check_key(&all[key])?;
        if schema.enable_dynamic_field && all.iter().all(|field| field.name != DYNAMIC_FIELD) {
            all.push(Field { name: DYNAMIC_FIELD.to_owned(), kind: Kind::Json, nullable: false });
        }
        check_names(&all)?;
        Ok(Self { all, key })
    }

    /// The primary key.
    pub fn key(&self) -> &Field {
        &self.all[self.key]
    }

    /// Where the primary key stands among the fields.
    pub fn key_index(&self) -> usize {
        self.key
    }

    /// All fields in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.all.iter()
    }

    /// Where the field called `name` stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|field| field.name == name)
    }

    /// The field called `name`.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.all[at])
    }

    /// Puts columns in the schema's order and checks them: types, lengths, values. A missing nullable column is all
    /// null, a missing dynamic one is all `{}`; anything else missing, unknown or given twice is an error.
    pub fn arrange(&self, columns: Vec<Column>) -> Result<Vec<Column>, ColumnError> {
        let rows = columns.first().map_or(0, Column::len);
        let mut places: Vec<Option<Column>> = self.all.iter().map(|_| None).collect();
        for column in columns {
            self.place(&mut places, column, rows)?;
        }
        self.all.iter().zip(places).map(|(field, column)| column.map_or_else(|| filled(field, rows), Ok)).collect()
    }

    fn place(&self, places: &mut [Option<Column>], column: Column, rows: usize) -> Result<(), ColumnError> {
        let at = self.position(&column.name).ok_or_else(|| ColumnError::Unknown(column.name.clone()))?;
        self.all[at].check(&column)?;
        if column.len() != rows {
            return Err(ColumnError::Rows { found: column.len(), field: column.name, expected: rows });
        }
        match places[at].replace(column) {
            Some(twice) => Err(ColumnError::Twice(twice.name)),
            None => Ok(()),
        }
    }
}

impl Field {
    /// Whether `column` may be stored in this field.
    pub fn check(&self, column: &Column) -> Result<(), ColumnError> {
        if column.values.data_type_fits(self.kind.data_type()) {
            self.check_nulls(column)?;
            return self.check_values(&column.values);
        }
        let (expected, found) = (self.kind.data_type().as_str_name(), column.values.type_name());
        Err(ColumnError::Type { field: self.name.clone(), expected, found })
    }

    fn check_nulls(&self, column: &Column) -> Result<(), ColumnError> {
        match column.first_null() {
            Some(row) if !self.nullable => Err(ColumnError::Null { field: self.name.clone(), row }),
            _ => Ok(()),
        }
    }

    fn check_values(&self, values: &Values) -> Result<(), ColumnError> {
        match (self.kind, values) {
            (Kind::Int8, Values::Int(ints)) => self.check_range(ints, i8::MIN.into(), i8::MAX.into()),
            (Kind::Int16, Values::Int(ints)) => self.check_range(ints, i16::MIN.into(), i16::MAX.into()),
            (Kind::VarChar { max_length }, Values::VarChar(texts)) => self.check_length(texts, max_length),
            (Kind::FloatVector { dim }, Values::FloatVector { dim: found, data }) => {
                self.check_vectors(dim, *found, data)
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, ints: &[i32], least: i32, most: i32) -> Result<(), ColumnError> {
        match ints.iter().position(|int| !(least..=most).contains(int)) {
            Some(row) => Err(ColumnError::Range { field: self.name.clone(), row, least, most }),
            None => Ok(()),
        }
    }

    fn check_length(&self, texts: &[String], max_length: usize) -> Result<(), ColumnError> {
        match texts.iter().enumerate().find(|(_, text)| text.len() > max_length) {
            Some((row, text)) => {
                Err(ColumnError::TooLong { field: self.name.clone(), row, length: text.len(), max_length })
            }
            None => Ok(()),
        }
    }

    fn check_vectors(&self, expected: usize, found: usize, data: &[f32]) -> Result<(), ColumnError> {
        if expected != found {
            return Err(ColumnError::Dim { field: self.name.clone(), expected, found });
        }
        match data.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(ColumnError::NotFinite { field: self.name.clone(), row: at / expected }),
            None => Ok(()),
        }
    }
}

fn filled(field: &Field, rows: usize) -> Result<Column, ColumnError> {
    if field.nullable {
        return Ok(Column::nulls(field, rows));
    }
    if field.name == DYNAMIC_FIELD {
        return Ok(Column::new(DYNAMIC_FIELD, Values::Json(vec![bytes::Bytes::from_static(b"{}"); rows])));
    }
    Err(ColumnError::Missing(field.name.clone()))
}

fn the_key(schema: &CollectionSchema) -> Result<usize, FieldsError> {
    let keys: Vec<usize> = (0..schema.fields.len()).filter(|at| schema.fields[*at].is_primary_key).collect();
    match keys[..] {
        [key] => Ok(key),
        _ => Err(FieldsError::Keys { collection: schema.name.clone(), found: keys.len() }),
    }
}

fn check_key(field: &Field) -> Result<(), FieldsError> {
    match field.kind {
        Kind::Int64 | Kind::VarChar { .. } if !field.nullable => Ok(()),
        _ => Err(FieldsError::KeyType(field.name.clone())),
    }
}

fn check_names(fields: &[Field]) -> Result<(), FieldsError> {
    let twice = (1..fields.len()).find(|at| fields[..*at].iter().any(|before| before.name == fields[*at].name));
    twice.map_or(Ok(()), |at| Err(FieldsError::Duplicate(fields[at].name.clone())))
}

fn parse_field(field: &FieldSchema) -> Result<Field, FieldsError> {
    let kind = parse_kind(field)?;
    if field.nullable && matches!(kind, Kind::FloatVector { .. }) {
        return Err(FieldsError::NullableVector(field.name.clone()));
    }
    Ok(Field { name: field.name.clone(), kind, nullable: field.nullable })
}

fn parse_kind(field: &FieldSchema) -> Result<Kind, FieldsError> {
    Ok(match field.data_type() {
        DataType::Bool => Kind::Bool,
        DataType::Int8 => Kind::Int8,
        DataType::Int16 => Kind::Int16,
        DataType::Int32 => Kind::Int32,
        DataType::Int64 => Kind::Int64,
        DataType::Float => Kind::Float,
        DataType::Double => Kind::Double,
        DataType::VarChar => Kind::VarChar { max_length: param(field, "max_length")? },
        DataType::Json => Kind::Json,
        DataType::FloatVector => Kind::FloatVector { dim: param(field, "dim")? },
        other => return Err(unsupported(field, other)),
    })
}

fn unsupported(field: &FieldSchema, data_type: DataType) -> FieldsError {
    let data_type = match data_type {
        DataType::None => field.data_type.to_string(),
        known => known.as_str_name().to_owned(),
    };
    FieldsError::Unsupported { field: field.name.clone(), data_type }
}

fn param(field: &FieldSchema, param: &'static str) -> Result<usize, FieldsError> {
    let text = field.type_params.iter().find(|pair| pair.key == param).map(|pair| pair.value.as_str());
    match text.and_then(|text| text.trim().parse().ok()) {
        Some(number) if number > 0 => Ok(number),
        _ => Err(FieldsError::Param { field: field.name.clone(), param }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::KeyValuePair;

    fn field(name: &str, data_type: DataType, params: &[(&str, &str)]) -> FieldSchema {
        let type_params =
            params.iter().map(|(k, v)| KeyValuePair { key: (*k).to_owned(), value: (*v).to_owned() }).collect();
        FieldSchema {
            name: name.to_owned(),
            data_type: data_type.into(),
            type_params,
            is_primary_key: name == "id",
            ..FieldSchema::default()
        }
    }

    fn schema(fields: Vec<FieldSchema>) -> CollectionSchema {
        CollectionSchema { name: "c".to_owned(), fields, enable_dynamic_field: true, ..CollectionSchema::default() }
    }

    fn simple() -> Fields {
        let fields =
            vec![field("id", DataType::Int64, &[]), field("v", DataType::FloatVector, &[("dim", "2")]), nullable("n")];
        Fields::parse(&schema(fields)).unwrap()
    }

    fn nullable(name: &str) -> FieldSchema {
        FieldSchema { nullable: true, ..field(name, DataType::Int8, &[]) }
    }

    fn vectors(data: &[f32]) -> Column {
        Column::new("v", Values::FloatVector { dim: 2, data: data.to_vec() })
    }

    fn ids(ids: &[i64]) -> Column {
        Column::new("id", Values::Int64(ids.to_vec()))
    }

    #[test]
    fn parses_fields_with_dynamic_one_last() {
        let names: Vec<_> = simple().iter().map(|f| f.name.clone()).collect();
        assert_eq!(names, ["id", "v", "n", "$meta"]);
        assert_eq!(simple().get("v").unwrap().kind, Kind::FloatVector { dim: 2 });
    }

    #[test]
    fn refuses_schemas_it_cannot_store() {
        let refused = |fields| Fields::parse(&schema(fields)).unwrap_err().to_string();
        let id = || field("id", DataType::Int64, &[]);
        assert!(refused(vec![]).contains("exactly one primary key"));
        assert!(refused(vec![field("id", DataType::Float, &[])]).contains("must be Int64 or VarChar"));
        assert!(refused(vec![id(), field("b", DataType::BinaryVector, &[])]).contains("BinaryVector"));
        assert!(refused(vec![id(), field("v", DataType::FloatVector, &[("dim", "0")])]).contains("dim"));
        assert!(refused(vec![id(), field("a", DataType::Bool, &[]), field("a", DataType::Bool, &[])]).contains("a"));
    }

    #[test]
    fn arranges_and_fills_columns() {
        let columns = simple().arrange(vec![vectors(&[1.0, 2.0]), ids(&[7])]).unwrap();
        let names: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.len())).collect();
        assert_eq!(names, [("id", 1), ("v", 1), ("n", 1), ("$meta", 1)]);
        assert_eq!(columns[2].first_null(), Some(0));
    }

    #[test]
    fn refuses_columns_that_do_not_fit() {
        let refused = |columns| simple().arrange(columns).unwrap_err().to_string();
        assert!(refused(vec![ids(&[7])]).contains("v"));
        assert!(refused(vec![ids(&[7]), vectors(&[1.0; 4])]).contains("2"));
        assert!(refused(vec![ids(&[7]), vectors(&[f32::NAN, 1.0])]).contains("finite"));
        assert!(refused(vec![ids(&[7]), ids(&[8])]).contains("twice"));
        assert!(refused(vec![Column::new("id", Values::Bool(vec![true]))]).contains("Int64"));
        let wide = Column::new("n", Values::Int(vec![200]));
        assert!(refused(vec![ids(&[7]), vectors(&[1.0, 1.0]), wide]).contains("-128"));
        assert!(refused(vec![Column::new("x", Values::Bool(vec![]))]).contains("x"));
    }
}
