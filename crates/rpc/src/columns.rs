//! Columns: `FieldData` messages as checked, typed data, and back.
//!
//! 1. A [`Column`] is always full length: row `i` of every column of a batch is row `i` of the batch. A null row holds
//!    a filler and is marked in `valid`.
//! 2. Messages come in two forms, and both are read: with the null rows left out of the payload, as clients send them,
//!    and with fillers, as they are answered. Only the second is written.
//! 3. Conversions move the data; a column is never copied on its way.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::fields::{DYNAMIC_FIELD, Field, Kind};
use crate::schema::field_data::Field as Payload;
use crate::schema::i_ds::IdField;
use crate::schema::scalar_field::Data as Scalars;
use crate::schema::vector_field::Data as Vectors;
use crate::schema::{
    BoolArray, DataType, DoubleArray, FieldData, FloatArray, IDs, IntArray, JsonArray, LongArray, ScalarField,
    StringArray, VectorField,
};
use crate::shards::KeyRef;

/// One column of a batch of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Values,
    /// Which rows are not null, one entry a row; `None` when none is null.
    pub valid: Option<Vec<bool>>,
}

/// The values of a column, one a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Bool(Vec<bool>),
    /// Int8, Int16 and Int32, as they travel.
    Int(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    VarChar(Vec<String>),
    /// One UTF-8 JSON document a row.
    Json(Vec<Bytes>),
    /// `dim` numbers a row, row after row.
    FloatVector {
        dim: usize,
        data: Vec<f32>,
    },
}

/// A primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Int64(i64),
    VarChar(String),
}

/// Columns that cannot be read, or do not fit their fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnError {
    #[error("field {0}: holds no data")]
    Empty(String),
    #[error("field {field}: data of type {data_type} is not supported")]
    Unsupported { field: String, data_type: &'static str },
    #[error("field {field}: float data should divide the dim: {length} numbers, dim {dim}")]
    Divide { field: String, length: usize, dim: i64 },
    #[error("field {field}: {rows} rows are marked in valid_data, {values} values are given")]
    Valid { field: String, rows: usize, values: usize },
    #[error("field {field}: expected {expected}, found {found}")]
    Type { field: String, expected: &'static str, found: &'static str },
    #[error("field {field}: expected dimension {expected}, found {found}")]
    Dim { field: String, expected: usize, found: usize },
    #[error("field {field}: {found} rows, the others have {expected}")]
    Rows { field: String, expected: usize, found: usize },
    #[error("field {field}, row {row}: is null and the field is not nullable")]
    Null { field: String, row: usize },
    #[error("field {field}, row {row}: not between {least} and {most}")]
    Range { field: String, row: usize, least: i32, most: i32 },
    #[error("field {field}, row {row}: length {length} exceeds max length {max_length}")]
    TooLong { field: String, row: usize, length: usize, max_length: usize },
    #[error("field {field}, row {row}: a vector's numbers must be finite, neither NaN nor infinite")]
    NotFinite { field: String, row: usize },
    #[error("field {0}: is not in the schema")]
    Unknown(String),
    #[error("field {0}: is given twice")]
    Twice(String),
    #[error("field {0}: is missing")]
    Missing(String),
    #[error("field {field}: columns of {left} and {right} cannot be joined")]
    Join { field: String, left: &'static str, right: &'static str },
}

impl Column {
    /// A column without nulls.
    pub fn new(name: impl Into<String>, values: Values) -> Self {
        Self { name: name.into(), values, valid: None }
    }

    /// A column of no rows that fits `field`.
    pub fn empty(field: &Field) -> Self {
        Self::new(&field.name, Values::empty(field.kind))
    }

    /// A column of nulls that fits `field`.
    pub fn nulls(field: &Field, rows: usize) -> Self {
        let mut column = Self::empty(field);
        column.values.fill_to(rows);
        column.valid = Some(vec![false; rows]);
        column
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `row` is null.
    pub fn is_null(&self, row: usize) -> bool {
        self.valid.as_ref().is_some_and(|valid| !valid[row])
    }

    /// The first null row.
    pub fn first_null(&self) -> Option<usize> {
        self.valid.as_ref()?.iter().position(|valid| !valid)
    }

    /// The key of a row, if this column can be one.
    pub fn key(&self, row: usize) -> Option<KeyRef<'_>> {
        match &self.values {
            Values::Int64(keys) => Some(KeyRef::Int64(keys[row])),
            Values::VarChar(keys) => Some(KeyRef::VarChar(&keys[row])),
            _ => None,
        }
    }

    /// The given rows, in the given order; a row may be taken more than once.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn take(&self, rows: &[usize]) -> Self {
        let valid = self.valid.as_ref().map(|valid| rows.iter().map(|row| valid[*row]).collect());
        Self { name: self.name.clone(), values: self.values.take(rows), valid }
    }

    /// Appends the rows of another column of the same type.
    pub fn append(&mut self, other: Self) -> Result<(), ColumnError> {
        let (before, added) = (self.len(), other.len());
        self.values.append(other.values).map_err(|(left, right)| ColumnError::Join {
            field: self.name.clone(),
            left,
            right,
        })?;
        if self.valid.is_some() || other.valid.is_some() {
            let valid = self.valid.get_or_insert_with(|| vec![true; before]);
            valid.extend(other.valid.unwrap_or_else(|| vec![true; added]));
        }
        Ok(())
    }

    /// Replaces `row` by row `from` of another column of the same type.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn set(&mut self, row: usize, other: &Self, from: usize) -> Result<(), ColumnError> {
        self.values.set(row, &other.values, from).map_err(|(left, right)| ColumnError::Join {
            field: self.name.clone(),
            left,
            right,
        })?;
        if self.valid.is_some() || other.is_null(from) {
            let rows = self.len();
            self.valid.get_or_insert_with(|| vec![true; rows])[row] = !other.is_null(from);
        }
        Ok(())
    }
}

impl TryFrom<FieldData> for Column {
    type Error = ColumnError;

    /// Reads a message of either form.
    fn try_from(message: FieldData) -> Result<Self, ColumnError> {
        let FieldData { field_name: name, field, valid_data, .. } = message;
        let values = match field {
            Some(Payload::Scalars(ScalarField { data: Some(data) })) => scalars(&name, data)?,
            Some(Payload::Vectors(VectorField { dim, data: Some(data) })) => vectors(&name, dim, data)?,
            Some(Payload::StructArrays(_)) => return Err(unsupported(&name, "StructArray")),
            _ => return Err(ColumnError::Empty(name)),
        };
        if valid_data.is_empty() {
            return Ok(Self::new(name, values));
        }
        with_nulls(name, values, valid_data)
    }
}

impl Column {
    /// The message, in the full-length form. Int8 and Int16 travel like Int32; `data_type` says which it is.
    pub fn into_message(self, data_type: DataType) -> FieldData {
        FieldData {
            r#type: data_type.into(),
            is_dynamic: self.name == DYNAMIC_FIELD,
            field_name: self.name,
            valid_data: self.valid.unwrap_or_default(),
            field: Some(self.values.into_payload()),
            field_id: 0,
        }
    }
}

/// Reads all columns of a request.
pub fn from_messages(messages: Vec<FieldData>) -> Result<Vec<Column>, ColumnError> {
    messages.into_iter().map(Column::try_from).collect()
}

fn with_nulls(name: String, values: Values, valid: Vec<bool>) -> Result<Column, ColumnError> {
    let present = valid.iter().filter(|valid| **valid).count();
    let values = match values.len() {
        full if full == valid.len() => values,
        compact if compact == present => values.spread(&valid),
        values => return Err(ColumnError::Valid { field: name, rows: valid.len(), values }),
    };
    let valid = (present < valid.len()).then_some(valid);
    Ok(Column { name, values, valid })
}

fn scalars(name: &str, data: Scalars) -> Result<Values, ColumnError> {
    Ok(match data {
        Scalars::BoolData(array) => Values::Bool(array.data),
        Scalars::IntData(array) => Values::Int(array.data),
        Scalars::LongData(array) => Values::Int64(array.data),
        Scalars::FloatData(array) => Values::Float(array.data),
        Scalars::DoubleData(array) => Values::Double(array.data),
        Scalars::StringData(array) => Values::VarChar(array.data),
        Scalars::JsonData(array) => Values::Json(array.data),
        Scalars::ArrayData(_) => return Err(unsupported(name, "Array")),
        _ => return Err(unsupported(name, "an unknown scalar")),
    })
}

fn vectors(name: &str, dim: i64, data: Vectors) -> Result<Values, ColumnError> {
    let Vectors::FloatVector(FloatArray { data }) = data else {
        return Err(unsupported(name, "a vector other than FloatVector"));
    };
    match usize::try_from(dim) {
        Ok(dim) if dim > 0 && data.len().is_multiple_of(dim) => Ok(Values::FloatVector { dim, data }),
        _ => Err(ColumnError::Divide { field: name.to_owned(), length: data.len(), dim }),
    }
}

fn unsupported(field: &str, data_type: &'static str) -> ColumnError {
    ColumnError::Unsupported { field: field.to_owned(), data_type }
}

/// The names of two types that do not go together.
type Mismatch = (&'static str, &'static str);

impl Values {
    /// No values, of a field's type.
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(vec![]),
            Kind::Int8 | Kind::Int16 | Kind::Int32 => Self::Int(vec![]),
            Kind::Int64 => Self::Int64(vec![]),
            Kind::Float => Self::Float(vec![]),
            Kind::Double => Self::Double(vec![]),
            Kind::VarChar { .. } => Self::VarChar(vec![]),
            Kind::Json => Self::Json(vec![]),
            Kind::FloatVector { dim } => Self::FloatVector { dim, data: vec![] },
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::VarChar(values) => values.len(),
            Self::Json(values) => values.len(),
            Self::FloatVector { dim, data } => data.len() / dim,
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type's name, as in the Milvus API; `Int` stands for the three that travel alike.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "Bool",
            Self::Int(_) => "Int",
            Self::Int64(_) => "Int64",
            Self::Float(_) => "Float",
            Self::Double(_) => "Double",
            Self::VarChar(_) => "VarChar",
            Self::Json(_) => "JSON",
            Self::FloatVector { .. } => "FloatVector",
        }
    }

    /// Whether a field of `data_type` holds such values.
    pub fn data_type_fits(&self, data_type: DataType) -> bool {
        matches!(
            (self, data_type),
            (Self::Bool(_), DataType::Bool)
                | (Self::Int(_), DataType::Int8 | DataType::Int16 | DataType::Int32)
                | (Self::Int64(_), DataType::Int64)
                | (Self::Float(_), DataType::Float)
                | (Self::Double(_), DataType::Double)
                | (Self::VarChar(_), DataType::VarChar)
                | (Self::Json(_), DataType::Json)
                | (Self::FloatVector { .. }, DataType::FloatVector)
        )
    }

    fn take(&self, rows: &[usize]) -> Self {
        match self {
            Self::Bool(values) => Self::Bool(pick(values, rows)),
            Self::Int(values) => Self::Int(pick(values, rows)),
            Self::Int64(values) => Self::Int64(pick(values, rows)),
            Self::Float(values) => Self::Float(pick(values, rows)),
            Self::Double(values) => Self::Double(pick(values, rows)),
            Self::VarChar(values) => Self::VarChar(pick(values, rows)),
            Self::Json(values) => Self::Json(pick(values, rows)),
            Self::FloatVector { dim, data } => Self::FloatVector { dim: *dim, data: pick_vectors(data, *dim, rows) },
        }
    }

    fn append(&mut self, other: Self) -> Result<(), Mismatch> {
        match (self, other) {
            (Self::Bool(values), Self::Bool(more)) => values.extend(more),
            (Self::Int(values), Self::Int(more)) => values.extend(more),
            (Self::Int64(values), Self::Int64(more)) => values.extend(more),
            (Self::Float(values), Self::Float(more)) => values.extend(more),
            (Self::Double(values), Self::Double(more)) => values.extend(more),
            (Self::VarChar(values), Self::VarChar(more)) => values.extend(more),
            (Self::Json(values), Self::Json(more)) => values.extend(more),
            (Self::FloatVector { dim, data }, Self::FloatVector { dim: same, data: more }) if *dim == same => {
                data.extend(more);
            }
            (left, right) => return Err((left.type_name(), right.type_name())),
        }
        Ok(())
    }

    fn set(&mut self, row: usize, other: &Self, from: usize) -> Result<(), Mismatch> {
        match (self, other) {
            (Self::Bool(values), Self::Bool(others)) => values[row] = others[from],
            (Self::Int(values), Self::Int(others)) => values[row] = others[from],
            (Self::Int64(values), Self::Int64(others)) => values[row] = others[from],
            (Self::Float(values), Self::Float(others)) => values[row] = others[from],
            (Self::Double(values), Self::Double(others)) => values[row] = others[from],
            (Self::VarChar(values), Self::VarChar(others)) => values[row].clone_from(&others[from]),
            (Self::Json(values), Self::Json(others)) => values[row].clone_from(&others[from]),
            (Self::FloatVector { dim, data }, Self::FloatVector { dim: same, data: others }) if dim == same => {
                data[row * *dim..][..*dim].copy_from_slice(&others[from * *dim..][..*dim]);
            }
            (left, right) => return Err((left.type_name(), right.type_name())),
        }
        Ok(())
    }

    /// Puts a filler where a row is not valid.
    fn spread(self, valid: &[bool]) -> Self {
        match self {
            Self::Bool(values) => Self::Bool(spread(values, valid)),
            Self::Int(values) => Self::Int(spread(values, valid)),
            Self::Int64(values) => Self::Int64(spread(values, valid)),
            Self::Float(values) => Self::Float(spread(values, valid)),
            Self::Double(values) => Self::Double(spread(values, valid)),
            Self::VarChar(values) => Self::VarChar(spread(values, valid)),
            Self::Json(values) => Self::Json(spread(values, valid)),
            Self::FloatVector { dim, data } => Self::FloatVector { dim, data: spread_vectors(&data, dim, valid) },
        }
    }

    fn fill_to(&mut self, rows: usize) {
        match self {
            Self::Bool(values) => values.resize(rows, false),
            Self::Int(values) => values.resize(rows, 0),
            Self::Int64(values) => values.resize(rows, 0),
            Self::Float(values) => values.resize(rows, 0.0),
            Self::Double(values) => values.resize(rows, 0.0),
            Self::VarChar(values) => values.resize(rows, String::new()),
            Self::Json(values) => values.resize(rows, Bytes::new()),
            Self::FloatVector { dim, data } => data.resize(rows * *dim, 0.0),
        }
    }

    fn into_payload(self) -> Payload {
        let data = match self {
            Self::Bool(data) => Scalars::BoolData(BoolArray { data }),
            Self::Int(data) => Scalars::IntData(IntArray { data }),
            Self::Int64(data) => Scalars::LongData(LongArray { data }),
            Self::Float(data) => Scalars::FloatData(FloatArray { data }),
            Self::Double(data) => Scalars::DoubleData(DoubleArray { data }),
            Self::VarChar(data) => Scalars::StringData(StringArray { data }),
            Self::Json(data) => Scalars::JsonData(JsonArray { data }),
            Self::FloatVector { dim, data } => return vector_payload(dim, data),
        };
        Payload::Scalars(ScalarField { data: Some(data) })
    }
}

fn vector_payload(dim: usize, data: Vec<f32>) -> Payload {
    Payload::Vectors(VectorField { dim: dim as i64, data: Some(Vectors::FloatVector(FloatArray { data })) })
}

fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|row| values[*row].clone()).collect()
}

fn pick_vectors(data: &[f32], dim: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|row| &data[row * dim..][..dim]).copied().collect()
}

fn spread<T: Default>(values: Vec<T>, valid: &[bool]) -> Vec<T> {
    let mut values = values.into_iter();
    valid.iter().map(|valid| if *valid { values.next().unwrap_or_default() } else { T::default() }).collect()
}

fn spread_vectors(data: &[f32], dim: usize, valid: &[bool]) -> Vec<f32> {
    let mut rows = data.chunks_exact(dim);
    let filler = vec![0.0; dim];
    let row = |valid: &bool| if *valid { rows.next().unwrap_or(&filler) } else { &filler };
    valid.iter().flat_map(row).copied().collect()
}

impl Key {
    /// The key, borrowed.
    pub fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Int64(key) => KeyRef::Int64(*key),
            Self::VarChar(key) => KeyRef::VarChar(key),
        }
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Int64(key) => Self::Int64(key),
            KeyRef::VarChar(key) => Self::VarChar(key.to_owned()),
        }
    }
}

/// The keys of an `IDs` message; none when it holds none.
pub fn keys(ids: IDs) -> Vec<Key> {
    match ids.id_field {
        Some(IdField::IntId(ids)) => ids.data.into_iter().map(Key::Int64).collect(),
        Some(IdField::StrId(ids)) => ids.data.into_iter().map(Key::VarChar).collect(),
        None => vec![],
    }
}

/// The `IDs` message of a key column; `None` when its values are no keys.
pub fn ids(values: Values) -> Option<IDs> {
    let id_field = match values {
        Values::Int64(data) => IdField::IntId(LongArray { data }),
        Values::VarChar(data) => IdField::StrId(StringArray { data }),
        _ => return None,
    };
    Some(IDs { id_field: Some(id_field) })
}

/// Which of two hits comes first: the better score, then the smaller key. `smaller_is_nearer` as L2 has it.
pub fn nearer(a: (f32, KeyRef<'_>), b: (f32, KeyRef<'_>), smaller_is_nearer: bool) -> Ordering {
    let scores = if smaller_is_nearer { a.0.total_cmp(&b.0) } else { b.0.total_cmp(&a.0) };
    scores.then_with(|| a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Values> {
        let rows = 0..20_usize;
        prop_oneof![
            prop::collection::vec(any::<bool>(), rows.clone()).prop_map(Values::Bool),
            prop::collection::vec(any::<i32>(), rows.clone()).prop_map(Values::Int),
            prop::collection::vec(any::<i64>(), rows.clone()).prop_map(Values::Int64),
            prop::collection::vec(-1e9_f32..1e9, rows.clone()).prop_map(Values::Float),
            prop::collection::vec(-1e9_f64..1e9, rows.clone()).prop_map(Values::Double),
            prop::collection::vec("[a-z]{0,9}", rows.clone()).prop_map(Values::VarChar),
            prop::collection::vec("[a-z]{0,9}".prop_map(Bytes::from), rows.clone()).prop_map(Values::Json),
            (1..4_usize, rows).prop_map(|(dim, rows)| Values::FloatVector {
                dim,
                data: (0..rows * dim).map(|number| number as f32).collect()
            }),
        ]
    }

    fn column() -> impl Strategy<Value = Column> {
        (values(), prop::collection::vec(any::<bool>(), 20)).prop_map(|(values, mut valid)| {
            valid.truncate(values.len());
            let valid = valid.contains(&false).then_some(valid);
            Column { name: "f".to_owned(), values, valid }
        })
    }

    /// What a client sends: the null rows are not in the payload.
    fn compact(column: &Column) -> FieldData {
        let present: Vec<usize> = (0..column.len()).filter(|row| !column.is_null(*row)).collect();
        let valid = column.valid.clone();
        FieldData { valid_data: valid.unwrap_or_default(), ..column.take(&present).into_message(DataType::None) }
    }

    proptest! {
        #[test]
        fn messages_bring_columns_back(column in column()) {
            prop_assert_eq!(Column::try_from(column.clone().into_message(DataType::None)).unwrap(), column);
        }

        #[test]
        fn compact_rows_land_in_their_places(column in column()) {
            let read = Column::try_from(compact(&column)).unwrap();
            prop_assert_eq!(read.len(), column.len());
            for row in 0..column.len() {
                prop_assert_eq!(read.is_null(row), column.is_null(row));
                if !column.is_null(row) {
                    prop_assert_eq!(read.take(&[row]).values, column.take(&[row]).values);
                }
            }
        }

        #[test]
        fn slices_join_to_the_whole(column in column(), at in 0..20_usize) {
            let rows: Vec<usize> = (0..column.len()).collect();
            let (left, right) = rows.split_at(at.min(rows.len()));
            let mut joined = column.take(left);
            joined.append(column.take(right)).unwrap();
            prop_assert_eq!(&joined.values, &column.values);
            prop_assert!(rows.iter().all(|row| joined.is_null(*row) == column.is_null(*row)));
        }

        #[test]
        fn setting_a_row_copies_it(column in column()) {
            let rows: Vec<usize> = (0..column.len()).rev().collect();
            let mut copy = column.take(&rows);
            for row in 0..column.len() {
                copy.set(row, &column, row).unwrap();
            }
            prop_assert_eq!(&copy.values, &column.values);
            prop_assert!(rows.iter().all(|row| copy.is_null(*row) == column.is_null(*row)));
        }
    }

    #[test]
    fn refuses_columns_of_other_types() {
        let mut ints = Column::new("f", Values::Int(vec![1]));
        let texts = Column::new("f", Values::VarChar(vec!["a".to_owned()]));
        assert!(ints.set(0, &texts, 0).unwrap_err().to_string().contains("VarChar"));
        assert!(ints.append(texts).unwrap_err().to_string().contains("VarChar"));
    }

    #[test]
    fn refuses_vectors_that_do_not_divide() {
        let message = |dim, numbers: usize| FieldData {
            field: Some(Payload::Vectors(VectorField {
                dim,
                data: Some(Vectors::FloatVector(FloatArray { data: vec![0.0; numbers] })),
            })),
            ..FieldData::default()
        };
        for (dim, numbers) in [(3, 4), (0, 4), (-1, 4)] {
            let error = Column::try_from(message(dim, numbers)).unwrap_err();
            assert!(error.to_string().contains("float data should divide the dim"), "{error}");
        }
        assert_eq!(Column::try_from(message(3, 6)).unwrap().len(), 2);
    }

    #[test]
    fn refuses_marks_that_fit_no_form() {
        let mut message = Column::new("f", Values::Int(vec![1, 2])).into_message(DataType::Int32);
        message.valid_data = vec![true, false, false];
        assert!(Column::try_from(message).unwrap_err().to_string().contains("3 rows"));
    }

    #[test]
    fn orders_hits_by_score_then_key() {
        let (a, b) = (KeyRef::Int64(1), KeyRef::Int64(2));
        assert_eq!(nearer((1.0, b), (2.0, a), true), Ordering::Less);
        assert_eq!(nearer((1.0, b), (2.0, a), false), Ordering::Greater);
        assert_eq!(nearer((1.0, a), (1.0, b), false), Ordering::Less);
    }
}
