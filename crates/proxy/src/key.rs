//! Primary keys: one type for both kinds, and their lists on the wire. Pure.
use rpc::schema::{self, DataType, FieldData};

/// A primary key. All keys of one collection are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Int(i64),
    Text(String),
}

impl Key {
    pub(crate) fn is_of(&self, kind: DataType) -> bool {
        match self {
            Self::Int(_) => kind == DataType::Int64,
            Self::Text(_) => kind == DataType::VarChar,
        }
    }
}

/// The keys of a wire list, none when it is absent.
pub(crate) fn from_ids(ids: Option<schema::IDs>) -> Vec<Key> {
    match ids.and_then(|ids| ids.id_field) {
        Some(schema::i_ds::IdField::IntId(list)) => list.data.into_iter().map(Key::Int).collect(),
        Some(schema::i_ds::IdField::StrId(list)) => list.data.into_iter().map(Key::Text).collect(),
        None => Vec::new(),
    }
}

/// A wire list of the kind of the collection, even when it is empty.
pub(crate) fn to_ids(keys: &[Key], kind: DataType) -> schema::IDs {
    let field = if kind == DataType::VarChar {
        schema::i_ds::IdField::StrId(schema::StringArray { data: keys.iter().filter_map(text).collect() })
    } else {
        schema::i_ds::IdField::IntId(schema::LongArray { data: keys.iter().filter_map(int).collect() })
    };
    schema::IDs { id_field: Some(field) }
}

/// The keys of a key column; none when the column is of another type.
pub(crate) fn of_column(column: &FieldData) -> Vec<Key> {
    use schema::scalar_field::Data;
    let Some(schema::field_data::Field::Scalars(scalars)) = &column.field else { return Vec::new() };
    match &scalars.data {
        Some(Data::LongData(list)) => list.data.iter().copied().map(Key::Int).collect(),
        Some(Data::StringData(list)) => list.data.iter().cloned().map(Key::Text).collect(),
        _ => Vec::new(),
    }
}

fn int(key: &Key) -> Option<i64> {
    if let Key::Int(value) = key { Some(*value) } else { None }
}

fn text(key: &Key) -> Option<String> {
    if let Key::Text(value) = key { Some(value.clone()) } else { None }
}
