//! Python's formats of texts by `%`. minijinja's count bytes where Python counts letters, and fail at letters that are not ASCII.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::python::{self, wrong};

/// The widest that a value is filled up to, and its most digits.
const WIDEST: usize = 1000;

/// Values to format.
pub(super) enum Values<'a> {
    /// Some in order, all of which are needed.
    Listed(&'a [Value]),
    /// One, which need not be used.
    Optional(&'a Value),
    /// A map of names.
    Named(&'a Value),
}

/// `text` with `values` in the place of its formats.
pub(super) fn printf(state: &State, text: &str, values: &Values) -> Result<String, Error> {
    let mut listed = match values {
        Values::Listed(values) => values.iter(),
        Values::Optional(value) => std::slice::from_ref(*value).iter(),
        Values::Named(_) => [].iter(),
    };
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        written.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let named = named(&mut rest, values)?;
        let mut next =
            || listed.next().ok_or_else(|| wrong(format!("the format {text:?} has fewer values than it needs")));
        let format = Format::read(&mut rest, &mut next)?;
        match (format.kind, named) {
            ('%', _) => written.push('%'),
            (_, Some(value)) => written.push_str(&format.filled(state, value)?),
            (_, None) => written.push_str(&format.filled(state, next()?.clone())?),
        }
    }
    written.push_str(rest);
    match values {
        Values::Listed(values) if listed.len() > 0 => {
            Err(wrong(format!("the format {text:?} needs fewer values than the {} there are", values.len())))
        }
        _ => Ok(written),
    }
}

/// The value of the name in brackets that `rest` begins with, if it does.
fn named(rest: &mut &str, values: &Values) -> Result<Option<Value>, Error> {
    let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else { return Ok(None) };
    *rest = after;
    let Values::Named(map) = values else { return Err(wrong(format!("the format %({name}) needs a map"))) };
    let value = map.get_item(&Value::from(name))?;
    if value.is_undefined() { Err(wrong(format!("the map has no {name:?}"))) } else { Ok(Some(value)) }
}

/// A format, its beginning and name apart.
struct Format<'a> {
    flags: &'a str,
    width: Option<usize>,
    precision: Option<usize>,
    kind: char,
}

impl<'a> Format<'a> {
    /// Reads what `rest` begins with; `next` gives the values of `*`.
    fn read<'v>(rest: &mut &'a str, next: &mut impl FnMut() -> Result<&'v Value, Error>) -> Result<Format<'a>, Error> {
        let flags = taken(rest, |letter| matches!(letter, '#' | '0' | '-' | ' ' | '+'));
        let width = number(rest, next)?;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            precision = Some(number(rest, next)?.unwrap_or(0));
        }
        // Lengths of C's types.
        taken(rest, |letter| matches!(letter, 'h' | 'l' | 'L'));
        let kind = rest.chars().next().ok_or_else(|| wrong("a format is incomplete".to_owned()))?;
        *rest = &rest[kind.len_utf8()..];
        Ok(Format { flags, width, precision, kind })
    }

    /// `value` in this format.
    fn filled(&self, state: &State, value: Value) -> Result<String, Error> {
        let shown: String = match self.kind {
            's' => python::text(state, &value)?.to_string(),
            // Items of a list are shown so.
            'r' | 'a' => {
                let list = python::text(state, &Value::from(vec![value]))?.to_string();
                list[1..list.len() - 1].to_owned()
            }
            'c' if value.as_str().is_some_and(|text| text.chars().count() == 1) => value.to_string(),
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'c' => return self.number(value),
            other => return Err(wrong(format!("the format %{other} is not known"))),
        };
        let shown: String = shown.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        let missing = " ".repeat(self.width.unwrap_or(0).saturating_sub(shown.chars().count()));
        Ok(if self.flags.contains('-') { shown + &missing } else { missing + &shown })
    }

    /// A number, as minijinja writes it.
    fn number(&self, value: Value) -> Result<String, Error> {
        let kind = if matches!(self.kind, 'i' | 'u') { 'd' } else { self.kind };
        let width = self.width.map_or_else(String::new, |width| width.to_string());
        let precision = self.precision.map_or_else(String::new, |precision| format!(".{precision}"));
        let spec = format!("%{}{width}{precision}{kind}", self.flags);
        format(FormatStyle::Printf, &spec, &[numeric(value, kind)])
    }
}

/// The beginning of `rest` whose letters are as wanted, taken away from it.
fn taken<'a>(rest: &mut &'a str, is_wanted: impl Fn(char) -> bool) -> &'a str {
    let (taken, after) = rest.split_at(rest.find(|letter| !is_wanted(letter)).unwrap_or(rest.len()));
    *rest = after;
    taken
}

/// A width or a precision: the number that `rest` begins with, or the next value for `*`.
fn number<'a>(rest: &mut &str, next: &mut impl FnMut() -> Result<&'a Value, Error>) -> Result<Option<usize>, Error> {
    let number = match rest.strip_prefix('*') {
        Some(after) => {
            *rest = after;
            Some(usize::try_from(next()?.clone())?)
        }
        None => match taken(rest, |letter| letter.is_ascii_digit()) {
            "" => None,
            digits => Some(digits.parse().unwrap_or(usize::MAX)),
        },
    };
    match number {
        Some(number) if number > WIDEST => Err(wrong(format!("a format wider than {WIDEST} is not supported"))),
        number => Ok(number),
    }
}

/// A number as `kind` of a format takes it: whole ones without what is behind the point.
fn numeric(value: Value, kind: char) -> Value {
    match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Number if kind == 'd' && !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) if float.abs() < 9e18 => Value::from(float as i64),
            _ => value,
        },
        _ => value,
    }
}
