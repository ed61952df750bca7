//! JSON objects read key by key, where a fault names the key.

use std::path::Path;

use serde_json::{Map, Value};

use super::contents;
use super::storage::Storage;
use crate::error::{Error, Result};

/// One object of a JSON file. A key whose value is `null` counts as absent, as Hugging Face writes its defaults so.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    path: &'a Path,
    /// `rope_scaling.` inside that object; empty at the top.
    prefix: &'a str,
    values: &'a Map<String, Value>,
}

/// The file's JSON value.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Damaged`] if it is not JSON.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    let text = contents::without_mark(bytes);
    let value = serde_json::from_slice(text).or_else(|error| {
        // Python writes numbers that are none, which JSON does not know.
        std::str::from_utf8(text).ok().and_then(|text| serde_json::from_str(&with_names(text)).ok()).ok_or(error)
    });
    value.map_err(|error| {
        let error = Error::Damaged { path: path.to_owned(), reason: format!("not JSON: {error}") };
        contents::explained(path, bytes, error)
    })
}

/// `json` with the names of numbers that are none (`NaN`, `Infinity`, `-Infinity`) as strings, so that they are at fault
/// only where a number is needed.
fn with_names(json: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(json.len()), json);
    let (mut in_string, mut escaped) = (false, false);
    while let Some(letter) = rest.chars().next() {
        let name = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| !in_string && rest.starts_with(name));
        if let Some(name) = name {
            text.extend(["\"", name, "\""]);
            rest = &rest[name.len()..];
            continue;
        }
        in_string ^= letter == '"' && !escaped;
        escaped = in_string && letter == '\\' && !escaped;
        text.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    text
}

/// The JSON value of the file `name` of `storage`, or nothing if there is no such file.
///
/// # Errors
///
/// As [`read`].
pub(crate) fn read_if_present(storage: &dyn Storage, name: &str) -> Result<Option<Value>> {
    let path = storage.path(name);
    match storage.open(name) {
        Ok(bytes) => parse(&path, &bytes).map(Some),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

impl<'a> Object<'a> {
    /// `value`, which must be an object.
    pub(crate) fn of(path: &'a Path, value: &'a Value) -> Result<Object<'a>> {
        let values = value.as_object().ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            reason: format!("holds {}, not a JSON object", kind(value)),
        })?;
        Ok(Object { path, prefix: "", values })
    }

    /// The object under `key`. `prefix` is `key` with a dot, for messages.
    pub(crate) fn object(&self, key: &str, prefix: &'a str) -> Result<Option<Object<'a>>> {
        self.typed(key, "an object", |value| value.as_object().map(|values| Object { path: self.path, prefix, values }))
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values.keys().map(String::as_str)
    }

    /// The value under `key`, whatever its type.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Returns `true` if there is a value under `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The whole number under `key`.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| whole(value).and_then(|number| usize::try_from(number).ok()))
    }

    /// The list of whole numbers under `key`, some of which may be negative.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "a list of whole numbers", |value| {
            let number = |item: &Value| item.as_i64().and_then(|number| i32::try_from(number).ok());
            value.as_array()?.iter().map(number).collect()
        })
    }

    /// The token id under `key`; none where it is -1, which trainers write for that.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.typed(key, "a token id", as_token)?.flatten())
    }

    /// The token id, or the list of them, under `key`.
    pub(crate) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let tokens: Option<Vec<Option<u32>>> =
            self.typed(key, "a token id or a list of them", |value| match value {
                Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(as_token).collect(),
                other => as_token(other).map(|token| vec![token]),
            })?;
        Ok(tokens.into_iter().flatten().flatten().collect())
    }

    /// The number under `key`.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// The truth value under `key`; false without one.
    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// The string under `key`.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// `value`, which `key` must have.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.fault(key, "is missing"))
    }

    /// A fault of `key`.
    pub(crate) fn fault(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_owned(), field: format!("{}{key}", self.prefix), reason: reason.into() }
    }

    fn typed<T>(&self, key: &str, wanted: &str, convert: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.fault(key, format!("is {}, expected {wanted}", kind(value)))),
        }
    }
}

/// A token id, or none for -1.
fn as_token(value: &Value) -> Option<Option<u32>> {
    match value.as_f64() {
        Some(-1.0) => Some(None),
        _ => whole(value).and_then(|number| u32::try_from(number).ok()).map(Some),
    }
}

/// A whole number, which some tools write with a point.
fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number));
    value.as_u64().or_else(|| float().map(|number| number as u64))
}

/// Describes `value` in words that fit a message: scalars as they are written, the rest by kind.
fn kind(value: &Value) -> String {
    match value {
        Value::String(text) => {
            format!("the string {:?}", text.chars().take(60).collect::<String>())
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}
