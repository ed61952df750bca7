//! The metadata: keys with typed values. Only the place of a value is kept, and arrays are decoded when asked for, so
//! that opening a file costs little memory whatever it holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::reader::{Reader, damaged};
use crate::error::{Error, Result};

/// Arrays within arrays deeper than this are a damaged file; no known key nests at all.
const DEEPEST_ARRAY: usize = 4;

/// The type of a value, in the order of the numbers the format gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Type {
    /// Its name in messages.
    fn name(self) -> &'static str {
        match self {
            Type::U8 | Type::I8 | Type::U16 | Type::I16 | Type::U32 | Type::I32 | Type::U64 | Type::I64 => "an integer",
            Type::F32 | Type::F64 => "a float",
            Type::Bool => "a boolean",
            Type::Text => "a string",
            Type::Array => "an array",
        }
    }

    const ALL: [Type; 13] = [
        Type::U8,
        Type::I8,
        Type::U16,
        Type::I16,
        Type::U32,
        Type::I32,
        Type::F32,
        Type::Bool,
        Type::Text,
        Type::Array,
        Type::U64,
        Type::I64,
        Type::F64,
    ];

    /// Bytes of a value, for the types where all values have the same.
    fn width(self) -> Option<usize> {
        match self {
            Type::U8 | Type::I8 | Type::Bool => Some(1),
            Type::U16 | Type::I16 => Some(2),
            Type::U32 | Type::I32 | Type::F32 => Some(4),
            Type::U64 | Type::I64 | Type::F64 => Some(8),
            Type::Text | Type::Array => None,
        }
    }
}

/// Byte range of a value in the file, without lengths. `len` counts an array's elements.
#[derive(Debug, Clone)]
enum Value {
    Single { kind: Type, bytes: Range<usize> },
    Array { element: Type, len: usize, bytes: Range<usize> },
}

/// All keys of a file.
pub(super) type Entries = BTreeMap<String, Entry>;

/// The value of one key.
#[derive(Debug, Clone)]
pub(super) struct Entry(Value);

/// Reads `count` keys, each with its value.
pub(super) fn read_entries(reader: &mut Reader, count: u64) -> Result<Entries> {
    let mut entries = Entries::new();
    for index in 0..count {
        let key = reader.name(format_args!("metadata key {index}"))?;
        let value = read_value(reader, key)?;
        if entries.insert(key.to_owned(), Entry(value)).is_some() {
            return Err(reader.damaged(format_args!("metadata key {key:?} occurs twice")));
        }
    }
    Ok(entries)
}

fn read_value(reader: &mut Reader, key: &str) -> Result<Value> {
    let kind = read_type(reader, key)?;
    match (kind, kind.width()) {
        (Type::Array, _) => read_array(reader, key, DEEPEST_ARRAY),
        (_, Some(width)) => {
            let start = reader.position;
            reader.take(width as u64, format_args!("the value of {key:?}"))?;
            Ok(Value::Single { kind, bytes: start..reader.position })
        }
        (_, None) => {
            let text = reader.string(format_args!("the value of {key:?}"))?;
            if std::str::from_utf8(text).is_err() {
                return Err(reader.damaged(format_args!("the value of {key:?} is not UTF-8")));
            }
            Ok(Value::Single { kind, bytes: reader.position - text.len()..reader.position })
        }
    }
}

fn read_type(reader: &mut Reader, key: &str) -> Result<Type> {
    let number = reader.u32(format_args!("the value type of {key:?}"))?;
    Type::ALL
        .get(number as usize)
        .copied()
        .ok_or_else(|| reader.damaged(format_args!("metadata key {key:?} has the unknown value type {number}")))
}

fn read_array(reader: &mut Reader, key: &str, deepest: usize) -> Result<Value> {
    let element = read_type(reader, key)?;
    // A nested array has at least its element type and its length.
    let smallest = element.width().unwrap_or(if element == Type::Text { 8 } else { 12 });
    let len = reader.count(smallest, format_args!("the length of the array {key:?}"))?;
    let start = reader.position;
    match (element, element.width()) {
        (_, Some(width)) => {
            reader.take(len * width as u64, format_args!("the array {key:?}"))?;
        }
        (Type::Array, _) => {
            if deepest == 1 {
                return Err(reader.damaged(format_args!("the arrays of {key:?} nest more than {DEEPEST_ARRAY} deep")));
            }
            for _ in 0..len {
                read_array(reader, key, deepest - 1)?;
            }
        }
        _ => {
            for index in 0..len {
                reader.string(format_args!("element {index} of {key:?}"))?;
            }
        }
    }
    // `count` bounds `len` by the bytes there are, so it fits.
    Ok(Value::Array { element, len: len as usize, bytes: start..reader.position })
}

/// The keys together with the file they point into.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
    pub entries: &'a Entries,
}

impl<'a> Metadata<'a> {
    /// The integer `key`.
    pub fn integer(self, key: &str) -> Result<Option<i128>> {
        match self.single(key)? {
            None => Ok(None),
            Some((kind, bytes)) => match integer(kind, bytes) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong_type(key, kind, "an integer")),
            },
        }
    }

    /// The integer `key`, which may not be negative.
    pub fn unsigned(self, key: &str) -> Result<Option<u64>> {
        let unsigned = |value| u64::try_from(value).map_err(|_| self.fault(key, format!("{value} is negative")));
        self.integer(key)?.map(unsigned).transpose()
    }

    /// The integer `key`, or the one that all elements of the array `key` (one for each layer) share.
    pub fn uniform_unsigned(self, key: &str) -> Result<Option<u64>> {
        if !matches!(self.entries.get(key), Some(Entry(Value::Array { .. }))) {
            return self.unsigned(key);
        }
        let values = self.integers(key)?.unwrap_or_default();
        match values.as_slice() {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => {
                u64::try_from(*first).map(Some).map_err(|_| self.fault(key, format!("{first} is negative")))
            }
            [] => Ok(None),
            _ => Err(self.fault(key, "differs between layers, which is not supported".to_owned())),
        }
    }

    /// The number `key`. A single-precision value becomes the shortest decimal that rounds to it, because that is what
    /// the publisher wrote (`1e-5`, not `9.999999747378752e-6`).
    pub fn float(self, key: &str) -> Result<Option<f64>> {
        match self.single(key)? {
            None => Ok(None),
            Some((kind, bytes)) => match float(kind, bytes) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong_type(key, kind, "a number")),
            },
        }
    }

    /// The boolean `key`, which some converters write as an integer.
    pub fn boolean(self, key: &str) -> Result<Option<bool>> {
        match self.single(key)? {
            None => Ok(None),
            Some((kind, bytes)) => match boolean(kind, bytes) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong_type(key, kind, "a boolean")),
            },
        }
    }

    /// The string `key`.
    pub fn text(self, key: &str) -> Result<Option<&'a str>> {
        match self.single(key)? {
            None => Ok(None),
            Some((Type::Text, bytes)) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| damaged(self.path, format_args!("the value of {key:?} is not UTF-8"))),
            Some((kind, _)) => Err(self.wrong_type(key, kind, "a string")),
        }
    }

    /// The array of strings `key`.
    pub fn texts(self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some((element, len, bytes)) = self.array(key)? else { return Ok(None) };
        if element != Type::Text {
            return Err(self.wrong_type(key, element, "an array of strings"));
        }
        let mut reader = Reader { path: self.path, bytes, position: 0 };
        let mut texts = Vec::with_capacity(len);
        for index in 0..len {
            let text = reader.string(format_args!("element {index} of {key:?}"))?;
            let text = std::str::from_utf8(text)
                .map_err(|_| damaged(self.path, format_args!("element {index} of {key:?} is not UTF-8")))?;
            texts.push(text);
        }
        Ok(Some(texts))
    }

    /// The array of integers `key`.
    pub fn integers(self, key: &str) -> Result<Option<Vec<i128>>> {
        self.numbers(key, "an array of integers", integer)
    }

    /// The array of numbers `key`.
    pub fn floats(self, key: &str) -> Result<Option<Vec<f64>>> {
        self.numbers(key, "an array of numbers", float)
    }

    /// The array of booleans `key`.
    pub fn booleans(self, key: &str) -> Result<Option<Vec<bool>>> {
        self.numbers(key, "an array of booleans", boolean)
    }

    /// [`Error::Config`] about `key`.
    pub fn fault(self, key: &str, reason: String) -> Error {
        Error::Config { path: self.path.to_owned(), field: key.to_owned(), reason }
    }

    fn numbers<N>(self, key: &str, expected: &str, decode: fn(Type, &[u8]) -> Option<N>) -> Result<Option<Vec<N>>> {
        let Some((element, len, bytes)) = self.array(key)? else { return Ok(None) };
        let width = element.width().ok_or_else(|| self.wrong_type(key, element, expected))?;
        let mut numbers = Vec::with_capacity(len);
        for value in bytes.chunks_exact(width) {
            numbers.push(decode(element, value).ok_or_else(|| self.wrong_type(key, element, expected))?);
        }
        Ok(Some(numbers))
    }

    fn single(self, key: &str) -> Result<Option<(Type, &'a [u8])>> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Entry(Value::Single { kind, bytes })) => Ok(Some((*kind, &self.bytes[bytes.clone()]))),
            Some(Entry(Value::Array { .. })) => Err(self.wrong_type(key, Type::Array, "a single value")),
        }
    }

    fn array(self, key: &str) -> Result<Option<(Type, usize, &'a [u8])>> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Entry(Value::Array { element, len, bytes })) => Ok(Some((*element, *len, &self.bytes[bytes.clone()]))),
            Some(Entry(Value::Single { kind, .. })) => Err(self.wrong_type(key, *kind, "an array")),
        }
    }

    fn wrong_type(self, key: &str, got: Type, expected: &str) -> Error {
        self.fault(key, format!("the file has {} where {expected} belongs", got.name()))
    }
}

/// The integer in `bytes`, if `kind` is one.
fn integer(kind: Type, bytes: &[u8]) -> Option<i128> {
    let signed = matches!(kind, Type::I8 | Type::I16 | Type::I32 | Type::I64);
    if !signed && !matches!(kind, Type::U8 | Type::U16 | Type::U32 | Type::U64) {
        return None;
    }
    let negative = signed && bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = if negative { [0xFF; 16] } else { [0; 16] };
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

/// The boolean in `bytes`, if `kind` is one or an integer.
fn boolean(kind: Type, bytes: &[u8]) -> Option<bool> {
    match kind {
        Type::Bool => Some(bytes != [0]),
        _ => integer(kind, bytes).map(|value| value != 0),
    }
}

/// The number in `bytes`, if `kind` is one.
fn float(kind: Type, bytes: &[u8]) -> Option<f64> {
    match kind {
        Type::F32 => f32::from_le_bytes(bytes.try_into().ok()?).to_string().parse().ok(),
        Type::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => integer(kind, bytes).map(|value| value as f64),
    }
}

/// [`Error::Tokenizer`] about the file.
pub(super) fn fault(metadata: Metadata, reason: String) -> Error {
    Error::Tokenizer { path: metadata.path.to_owned(), reason }
}
