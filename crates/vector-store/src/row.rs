//! How a row is written.
//!
//! The key is `r`, then for Int64 its eight bytes big-endian with the sign flipped, so that keys sort as numbers; for
//! VarChar its UTF-8. The value is a version byte, then each field of the schema but the key, in order: a tag byte
//! that tells the type, and the value, little-endian; text, JSON and vectors with a u32 length before them.
//! The tag lets a row be checked against the schema it is read with.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rpc::columns::{Column, Values};
use rpc::fields::Fields;
use rpc::shards::KeyRef;

use crate::error::Error;

/// What every row's key starts with. Whatever else a shard may store one day starts with another byte.
pub(crate) const PREFIX: &[u8] = b"r";

const VERSION: u8 = 1;

/// The tags; what they mean never changes.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const BOOL: u8 = 1;
    pub(super) const INT: u8 = 2;
    pub(super) const INT64: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const VARCHAR: u8 = 6;
    pub(super) const JSON: u8 = 7;
    pub(super) const FLOAT_VECTOR: u8 = 8;
}

/// The bytes of a key.
pub(crate) fn encode_key(key: KeyRef<'_>) -> Bytes {
    let mut bytes = BytesMut::from(PREFIX);
    match key {
        KeyRef::Int64(key) => bytes.put_u64((key as u64) ^ (1 << 63)),
        KeyRef::VarChar(key) => bytes.put_slice(key.as_bytes()),
    }
    bytes.freeze()
}

/// The bytes of row `row` of `columns`, which stand in the schema's order.
pub(crate) fn encode_row(columns: &[Column], key: usize, row: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    for (_, column) in columns.iter().enumerate().filter(|(at, _)| *at != key) {
        encode_value(&mut bytes, column, row);
    }
    bytes.freeze()
}

fn encode_value(bytes: &mut BytesMut, column: &Column, row: usize) {
    if column.is_null(row) {
        return bytes.put_u8(tag::NULL);
    }
    match &column.values {
        Values::Bool(values) => put(bytes, tag::BOOL, &[values[row].into()]),
        Values::Int(values) => put(bytes, tag::INT, &values[row].to_le_bytes()),
        Values::Int64(values) => put(bytes, tag::INT64, &values[row].to_le_bytes()),
        Values::Float(values) => put(bytes, tag::FLOAT, &values[row].to_le_bytes()),
        Values::Double(values) => put(bytes, tag::DOUBLE, &values[row].to_le_bytes()),
        Values::VarChar(values) => put_long(bytes, tag::VARCHAR, values[row].as_bytes()),
        Values::Json(values) => put_long(bytes, tag::JSON, &values[row]),
        Values::FloatVector { dim, data } => put_vector(bytes, &data[row * dim..][..*dim]),
    }
}

fn put(bytes: &mut BytesMut, tag: u8, value: &[u8]) {
    bytes.put_u8(tag);
    bytes.put_slice(value);
}

fn put_long(bytes: &mut BytesMut, tag: u8, value: &[u8]) {
    bytes.put_u8(tag);
    bytes.put_u32_le(value.len() as u32);
    bytes.put_slice(value);
}

fn put_vector(bytes: &mut BytesMut, vector: &[f32]) {
    bytes.put_u8(tag::FLOAT_VECTOR);
    bytes.put_u32_le(vector.len() as u32);
    vector.iter().for_each(|number| bytes.put_f32_le(*number));
}

/// Appends a stored row to `columns`, which stand in the schema's order.
///
/// # Errors
/// [`Error::Corrupt`] if the row is not one of this schema; the columns may then be of different lengths.
pub(crate) fn decode(fields: &Fields, columns: &mut [Column], key: &[u8], mut value: Bytes) -> Result<(), Error> {
    match value.try_get_u8() {
        Ok(VERSION) => {}
        other => return Err(corrupt(fields, &format!("unknown version {other:?}"))),
    }
    for (at, column) in columns.iter_mut().enumerate() {
        let read = if at == fields.key_index() { decode_key(column, key) } else { decode_value(column, &mut value) };
        read.ok_or_else(|| corrupt(fields, &format!("field {} does not fit the schema", column.name)))?;
    }
    if value.has_remaining() { Err(corrupt(fields, "more fields than the schema has")) } else { Ok(()) }
}

fn corrupt(fields: &Fields, what: &str) -> Error {
    Error::Corrupt(format!("{what} (key field {})", fields.key().name))
}

fn decode_key(column: &mut Column, key: &[u8]) -> Option<()> {
    let key = key.strip_prefix(PREFIX)?;
    match &mut column.values {
        Values::Int64(keys) => keys.push((u64::from_be_bytes(key.try_into().ok()?) ^ (1 << 63)) as i64),
        Values::VarChar(keys) => keys.push(std::str::from_utf8(key).ok()?.to_owned()),
        _ => return None,
    }
    Some(())
}

fn decode_value(column: &mut Column, value: &mut Bytes) -> Option<()> {
    let tag = value.try_get_u8().ok()?;
    if tag == tag::NULL {
        return push_null(column);
    }
    push_value(&mut column.values, tag, value)?;
    if let Some(valid) = &mut column.valid {
        valid.push(true);
    }
    Some(())
}

fn push_null(column: &mut Column) -> Option<()> {
    let rows = column.len();
    match &mut column.values {
        Values::Bool(values) => values.push(false),
        Values::Int(values) => values.push(0),
        Values::Int64(values) => values.push(0),
        Values::Float(values) => values.push(0.0),
        Values::Double(values) => values.push(0.0),
        Values::VarChar(values) => values.push(String::new()),
        Values::Json(values) => values.push(Bytes::new()),
        Values::FloatVector { .. } => return None,
    }
    column.valid.get_or_insert_with(|| vec![true; rows]).push(false);
    Some(())
}

fn push_value(values: &mut Values, tag: u8, value: &mut Bytes) -> Option<()> {
    match (values, tag) {
        (Values::Bool(values), tag::BOOL) => values.push(value.try_get_u8().ok()? != 0),
        (Values::Int(values), tag::INT) => values.push(value.try_get_i32_le().ok()?),
        (Values::Int64(values), tag::INT64) => values.push(value.try_get_i64_le().ok()?),
        (Values::Float(values), tag::FLOAT) => values.push(value.try_get_f32_le().ok()?),
        (Values::Double(values), tag::DOUBLE) => values.push(value.try_get_f64_le().ok()?),
        (Values::VarChar(values), tag::VARCHAR) => values.push(String::from_utf8(long(value)?.to_vec()).ok()?),
        // A copy: the slice would keep the whole block of the store alive.
        (Values::Json(values), tag::JSON) => values.push(Bytes::copy_from_slice(&long(value)?)),
        (Values::FloatVector { dim, data }, tag::FLOAT_VECTOR) => push_vector(data, *dim, value)?,
        _ => return None,
    }
    Some(())
}

fn long(value: &mut Bytes) -> Option<Bytes> {
    let length = value.try_get_u32_le().ok()? as usize;
    (length <= value.len()).then(|| value.split_to(length))
}

fn push_vector(data: &mut Vec<f32>, dim: usize, value: &mut Bytes) -> Option<()> {
    let length = value.try_get_u32_le().ok()? as usize;
    if length != dim || value.len() < dim * size_of::<f32>() {
        return None;
    }
    data.extend(value.split_to(dim * size_of::<f32>()).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    Some(())
}
