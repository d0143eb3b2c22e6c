//! Columns of rows: counted, picked from, put together. Pure.
//!
//! A column between the parts of the cluster is always full: one value a row, none left out.
use rpc::schema::{
    BoolArray, BytesArray, DataType, DoubleArray, FieldData, FieldSchema, FloatArray, IntArray, JsonArray, LongArray,
    ScalarField, StringArray, VectorField, field_data::Field, scalar_field::Data, vector_field,
};

use crate::error::{Error, Result};

/// The column that holds the keys that are no fields of the schema.
pub(crate) const META: &str = "$meta";

/// One row of one of several sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) source: usize,
    pub(crate) row: usize,
}

macro_rules! scalar_columns {
    ($($variant:ident: $array:ident),* $(,)?) => {
        fn scalar_rows(data: &Data) -> Option<usize> {
            match data {
                $(Data::$variant(list) => Some(list.data.len()),)*
                _ => None,
            }
        }

        fn gather_scalars(sources: &[&Data], picks: &[Pick]) -> Option<Data> {
            match sources.first()? {
                $(Data::$variant(_) => {
                    let lists: Option<Vec<_>> = sources
                        .iter()
                        .map(|data| if let Data::$variant(list) = data { Some(&list.data) } else { None })
                        .collect();
                    let data = pick_values(&lists?, picks)?;
                    Some(Data::$variant($array { data }))
                })*
                _ => None,
            }
        }
    };
}

scalar_columns! {
    BoolData: BoolArray,
    IntData: IntArray,
    LongData: LongArray,
    FloatData: FloatArray,
    DoubleData: DoubleArray,
    StringData: StringArray,
    BytesData: BytesArray,
    JsonData: JsonArray,
}

/// How many rows a column has; none when its payload is missing, of an unknown kind or does not divide into rows.
pub(crate) fn rows(column: &FieldData) -> Option<usize> {
    match column.field.as_ref()? {
        Field::Scalars(scalars) => scalar_rows(scalars.data.as_ref()?),
        Field::Vectors(vectors) => vector_rows(vectors),
        Field::StructArrays(_) => None,
    }
}

/// The picked rows of columns of the same field, in the order of the picks.
pub(crate) fn gather(sources: &[&FieldData], picks: &[Pick]) -> Result<FieldData> {
    let first = sources.first().ok_or_else(|| Error::invalid("no column to pick rows from"))?;
    let field = gather_payloads(sources, picks).ok_or_else(|| mismatch(&first.field_name))?;
    Ok(FieldData { field: Some(field), valid_data: gather_valid(sources, picks), ..header(first) })
}

/// The picked rows of every column of one set.
pub(crate) fn select(columns: &[FieldData], rows: &[usize]) -> Result<Vec<FieldData>> {
    let picks: Vec<Pick> = rows.iter().map(|&row| Pick { source: 0, row }).collect();
    columns.iter().map(|column| gather(&[column], &picks)).collect()
}

/// A column without rows that still says what it is: clients read its type and divide by its dimension.
pub(crate) fn empty(field: &FieldSchema) -> FieldData {
    let payload = match field.data_type() {
        DataType::FloatVector => Field::Vectors(VectorField {
            dim: dim(field).unwrap_or(1),
            data: Some(vector_field::Data::FloatVector(FloatArray::default())),
        }),
        kind => Field::Scalars(ScalarField { data: Some(empty_scalars(kind)) }),
    };
    FieldData { field: Some(payload), ..named(field) }
}

/// A column's head, without values.
pub(crate) fn named(field: &FieldSchema) -> FieldData {
    FieldData {
        r#type: field.data_type,
        field_name: field.name.clone(),
        field_id: field.field_id,
        is_dynamic: field.is_dynamic,
        ..Default::default()
    }
}

/// What a `$meta` column would be declared as.
pub(crate) fn meta_field() -> FieldSchema {
    FieldSchema { name: META.into(), data_type: DataType::Json.into(), is_dynamic: true, ..Default::default() }
}

/// One column of 64-bit integers.
pub(crate) fn longs(name: &str, data: Vec<i64>) -> FieldData {
    let payload = Field::Scalars(ScalarField { data: Some(Data::LongData(LongArray { data })) });
    FieldData { r#type: DataType::Int64.into(), field_name: name.into(), field: Some(payload), ..Default::default() }
}

/// A vector field's dimension.
pub(crate) fn dim(field: &FieldSchema) -> Option<i64> {
    type_param(field, "dim")
}

/// A number among a field's type parameters.
pub(crate) fn type_param(field: &FieldSchema, key: &str) -> Option<i64> {
    field.type_params.iter().find(|pair| pair.key == key)?.value.parse().ok()
}

fn empty_scalars(kind: DataType) -> Data {
    match kind {
        DataType::Bool => Data::BoolData(BoolArray::default()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Data::IntData(IntArray::default()),
        DataType::Float => Data::FloatData(FloatArray::default()),
        DataType::Double => Data::DoubleData(DoubleArray::default()),
        DataType::VarChar | DataType::String | DataType::Text => Data::StringData(StringArray::default()),
        DataType::Json => Data::JsonData(JsonArray::default()),
        _ => Data::LongData(LongArray::default()),
    }
}

fn header(column: &FieldData) -> FieldData {
    FieldData {
        r#type: column.r#type,
        field_name: column.field_name.clone(),
        field_id: column.field_id,
        is_dynamic: column.is_dynamic,
        ..Default::default()
    }
}

fn mismatch(name: &str) -> Error {
    Error::invalid(format!("column `{name}` has values of several types, or fewer rows than its answer says"))
}

fn gather_payloads(sources: &[&FieldData], picks: &[Pick]) -> Option<Field> {
    match sources.first()?.field.as_ref()? {
        Field::Scalars(_) => {
            let lists: Option<Vec<&Data>> = sources.iter().map(|column| scalars(column)).collect();
            Some(Field::Scalars(ScalarField { data: Some(gather_scalars(&lists?, picks)?) }))
        }
        Field::Vectors(first) => {
            let lists: Option<Vec<&[f32]>> = sources.iter().map(|column| floats(column, first.dim)).collect();
            let data = pick_rows(&lists?, usize::try_from(first.dim).ok()?, picks)?;
            let data = Some(vector_field::Data::FloatVector(FloatArray { data }));
            Some(Field::Vectors(VectorField { dim: first.dim, data }))
        }
        Field::StructArrays(_) => None,
    }
}

fn scalars(column: &FieldData) -> Option<&Data> {
    if let Some(Field::Scalars(scalars)) = &column.field { scalars.data.as_ref() } else { None }
}

fn floats(column: &FieldData, dim: i64) -> Option<&[f32]> {
    match &column.field {
        Some(Field::Vectors(VectorField { dim: own, data: Some(vector_field::Data::FloatVector(list)) }))
            if *own == dim =>
        {
            Some(&list.data)
        }
        _ => None,
    }
}

fn vector_rows(vectors: &VectorField) -> Option<usize> {
    let dim = usize::try_from(vectors.dim).ok().filter(|dim| *dim > 0)?;
    match vectors.data.as_ref()? {
        vector_field::Data::FloatVector(list) => (list.data.len() % dim == 0).then_some(list.data.len() / dim),
        _ => None,
    }
}

fn pick_values<T: Clone>(lists: &[&Vec<T>], picks: &[Pick]) -> Option<Vec<T>> {
    picks.iter().map(|pick| lists.get(pick.source)?.get(pick.row).cloned()).collect()
}

fn pick_rows(lists: &[&[f32]], dim: usize, picks: &[Pick]) -> Option<Vec<f32>> {
    let mut data = Vec::with_capacity(picks.len() * dim);
    for pick in picks {
        let start = pick.row * dim;
        data.extend_from_slice(lists.get(pick.source)?.get(start..start + dim)?);
    }
    Some(data)
}

/// Validity stays absent unless some source has it; a source without it is valid throughout.
fn gather_valid(sources: &[&FieldData], picks: &[Pick]) -> Vec<bool> {
    if sources.iter().all(|column| column.valid_data.is_empty()) {
        return Vec::new();
    }
    picks.iter().map(|pick| sources[pick.source].valid_data.get(pick.row).copied().unwrap_or(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors(dim: i64, data: Vec<f32>) -> FieldData {
        let data = Some(vector_field::Data::FloatVector(FloatArray { data }));
        FieldData {
            r#type: DataType::FloatVector.into(),
            field_name: "vector".into(),
            field: Some(Field::Vectors(VectorField { dim, data })),
            ..Default::default()
        }
    }

    #[test]
    fn counts_rows_of_vectors() {
        assert_eq!(rows(&vectors(2, vec![1.0; 6])), Some(3));
        assert_eq!(rows(&vectors(2, vec![1.0; 5])), None);
        assert_eq!(rows(&vectors(0, vec![])), None);
    }

    #[test]
    fn gathers_across_sources_in_order() {
        let (left, right) = (vectors(2, vec![1.0, 2.0, 3.0, 4.0]), vectors(2, vec![5.0, 6.0]));
        let picks = [Pick { source: 1, row: 0 }, Pick { source: 0, row: 1 }];
        assert_eq!(gather(&[&left, &right], &picks), Ok(vectors(2, vec![5.0, 6.0, 3.0, 4.0])));
    }

    #[test]
    fn a_row_that_is_not_there_is_an_error() {
        assert!(gather(&[&longs("id", vec![1])], &[Pick { source: 0, row: 1 }]).is_err());
        assert!(gather(&[&vectors(2, vec![1.0; 2])], &[Pick { source: 0, row: 1 }]).is_err());
    }

    #[test]
    fn columns_of_two_types_are_an_error() {
        let picks = [Pick { source: 0, row: 0 }];
        assert!(gather(&[&longs("x", vec![1]), &vectors(1, vec![1.0])], &picks).is_err());
        assert!(gather(&[&vectors(1, vec![1.0]), &vectors(2, vec![1.0; 2])], &picks).is_err());
    }

    #[test]
    fn empty_columns_say_what_they_are() {
        for kind in [DataType::Bool, DataType::Int8, DataType::Int64, DataType::VarChar, DataType::Json] {
            let field = FieldSchema { data_type: kind.into(), ..Default::default() };
            assert_eq!(rows(&empty(&field)), Some(0), "{kind:?}");
        }
        assert_eq!(rows(&empty(&meta_field())), Some(0));
    }

    proptest! {
        #[test]
        fn select_is_indexing(values in prop::collection::vec(any::<i64>(), 1..40), seeds in prop::collection::vec(any::<usize>(), 0..60)) {
            let rows: Vec<usize> = seeds.into_iter().map(|seed| seed % values.len()).collect();
            let want: Vec<i64> = rows.iter().map(|&row| values[row]).collect();
            prop_assert_eq!(select(&[longs("id", values)], &rows), Ok(vec![longs("id", want)]));
        }
    }
}
