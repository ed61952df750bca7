//! Python features that chat templates expect and minijinja lacks: `json.dumps`, `strftime`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// `json.dumps(value, ensure_ascii, indent=…, separators=…, sort_keys=…)`, which Hugging Face puts in place of Jinja's
/// `tojson`: nothing is escaped for HTML.
pub(super) fn tojson(
    value: &Value,
    ascii: Option<Value>,
    indent: Option<Value>,
    arguments: Kwargs,
) -> Result<String, Error> {
    let indent = indent.or(arguments.get("indent")?).filter(|indent| !indent.is_none());
    let indent = indent.as_ref().map(margin).transpose()?;
    let separators = match arguments.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some([item, key]) => [item.clone(), key.clone()],
        Some(_) => return Err(unsupported("tojson with other than two separators")),
    };
    let style = Style {
        indent,
        separators,
        ascii: ascii.or(arguments.get("ensure_ascii")?).is_some_and(|ascii| ascii.is_true()),
        sorted: arguments.get::<Option<Value>>("sort_keys")?.is_some_and(|sorted| sorted.is_true()),
    };
    arguments.assert_all_used()?;
    let mut json = String::new();
    write_json(&mut json, value, &style, 1)?;
    Ok(json)
}

/// The form of JSON.
struct Style {
    /// The beginning of each line, as often as it is deep, if there are lines.
    indent: Option<String>,
    /// Between items, and between a key and its value.
    separators: [String; 2],
    /// Set if all that is not ASCII is escaped.
    ascii: bool,
    /// Set if keys are sorted.
    sorted: bool,
}

fn write_json(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > 64 {
        return Err(unsupported("tojson of a value nested more than 64 deep"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value).replace("inf", "Infinity").replace("nan", "NaN")),
        ValueKind::String => write_json_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort();
            }
            write_items(out, ('{', '}'), &keys, style, depth, |out, key| {
                write_json_string(out, &key.to_string(), style);
                out.push_str(&style.separators[1]);
                write_json(out, &value.get_item(key)?, style, depth + 1)
            })?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ('[', ']'), &items, style, depth, |out, item| write_json(out, item, style, depth + 1))?;
        }
        kind => return Err(unsupported(&format!("tojson of {kind}"))),
    }
    Ok(())
}

/// Writes a value as Python's `str` does.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.write_str(&number(value)),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => return Printable::write(out, state, value),
        _ => return minijinja::escape_formatter(out, state, value),
    };
    written.map_err(Error::from)
}

/// A value as Python's `str` has it.
pub(super) fn text(state: &State, value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.clone()),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {
            let mut text = String::new();
            Printable::write(&mut text, state, value)?;
            Ok(text.into())
        }
        _ => Ok(value.to_string().into()),
    }
}

/// Texts within lists and maps, where Python escapes letters that are not printed. Values that hold others many times over
/// take steps of the template.
struct Printable<'a, W> {
    out: &'a mut W,
    state: &'a State<'a, 'a>,
    pieces: u64,
}

impl<'a, W: Write> Printable<'a, W> {
    fn write(out: &'a mut W, state: &'a State<'a, 'a>, value: &Value) -> Result<(), Error> {
        let written = write!(Printable { out, state, pieces: 0 }, "{value}");
        // A lack of steps, if there is one, says more.
        written.map_err(|error| state.consume_fuel(1).err().unwrap_or_else(|| error.into()))
    }
}

impl<W: Write> Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        /// Pieces for a step.
        const STEP: u64 = 32;
        self.pieces += 1;
        if self.pieces.is_multiple_of(STEP) {
            self.state.consume_fuel(1).map_err(|_| std::fmt::Error)?;
        }
        let mut printed = 0;
        for (at, letter) in text.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
            self.out.write_str(&text[printed..at])?;
            printed = at + letter.len_utf8();
            match letter as u32 {
                code @ 0..=0xff => write!(self.out, "\\x{code:02x}")?,
                code @ 0x100..=0xffff => write!(self.out, "\\u{code:04x}")?,
                code => write!(self.out, "\\U{code:08x}")?,
            }
        }
        self.out.write_str(&text[printed..])
    }
}

/// Returns `true` for a letter that `repr` writes as it is. The standard library escapes the same ones, after another letter
/// not those that combine with it.
fn is_printable(letter: char) -> bool {
    match letter {
        ' '..='~' => true,
        _ => String::from_iter(['a', letter]).escape_debug().count() == 2,
    }
}

/// A line's beginning, given as it is or as a number of blanks.
pub(super) fn margin(width: &Value) -> Result<String, Error> {
    const WIDEST: usize = 16;
    let margin = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(width.clone())?.min(WIDEST + 1)),
    };
    if margin.len() > WIDEST {
        return Err(unsupported(&format!("an indentation above {WIDEST}")));
    }
    Ok(margin)
}

/// A number as Python writes it: large and small floats with an exponent of two digits at least.
pub(super) fn number(value: &Value) -> String {
    let float = Some(value).filter(|value| !value.is_integer()).and_then(|value| f64::try_from(value.clone()).ok());
    let Some(float) = float else { return value.to_string() };
    if !float.is_finite() {
        return float.to_string().to_lowercase();
    }
    let text = format!("{float:?}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn write_items(
    out: &mut String,
    (open, close): (char, char),
    items: &[Value],
    style: &Style,
    depth: usize,
    mut write: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    out.push(open);
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push_str(&style.separators[0]);
        }
        new_line(out, depth);
        write(out, item)?;
    }
    if !items.is_empty() {
        new_line(out, depth - 1);
    }
    out.push(close);
    Ok(())
}

fn write_json_string(out: &mut String, text: &str, style: &Style) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other if style.ascii && !matches!(other, ' '..='~') => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// `datetime.strftime` of `time` in UTC, since the standard library knows no time zones. Codes outside those that
/// templates use are refused.
pub(super) fn strftime(time: SystemTime, format: &str) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, microsecond) = (elapsed.as_secs(), elapsed.subsec_micros());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let hour_of_twelve = (hour + 11) % 12 + 1;
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        // "%-d" is "%d" without its leading zero.
        let (padding, code) = match characters.next() {
            Some('-') => (1, characters.next()),
            code => (2, code),
        };
        let mut number = |value: u64| write!(text, "{value:0padding$}");
        let written = match code {
            Some('Y') => write!(text, "{year}"),
            Some('y') => number(year % 100),
            Some('m') => number(month),
            Some('d') => number(day),
            Some('e') => write!(text, "{day:2}"),
            Some('H') => number(hour),
            Some('I') => number(hour_of_twelve),
            Some('M') => number(minute),
            Some('S') => number(second % 60),
            Some('B') => write!(text, "{month_name}"),
            Some('b' | 'h') => write!(text, "{}", &month_name[..3]),
            Some('A') => write!(text, "{day_name}"),
            Some('a') => write!(text, "{}", &day_name[..3]),
            Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('F') => write!(text, "{year}-{month:02}-{day:02}"),
            Some('T' | 'X') => write!(text, "{hour:02}:{minute:02}:{:02}", second % 60),
            Some('j') => {
                let earlier = (1..=days.min(365)).take_while(|&before| civil_date(days - before).0 == year);
                write!(text, "{:03}", earlier.count() + 1)
            }
            Some('u') => write!(text, "{}", (days + 3) % 7 + 1),
            Some('w') => write!(text, "{}", (days + 4) % 7),
            Some('k') => write!(text, "{hour:2}"),
            Some('l') => write!(text, "{hour_of_twelve:2}"),
            Some('P') => write!(text, "{}", if hour < 12 { "am" } else { "pm" }),
            Some('C') => write!(text, "{:02}", year / 100),
            Some('R') => write!(text, "{hour:02}:{minute:02}"),
            Some('D' | 'x') => write!(text, "{month:02}/{day:02}/{:02}", year % 100),
            Some('c') => write!(
                text,
                "{} {} {day:2} {hour:02}:{minute:02}:{:02} {year}",
                &day_name[..3],
                &month_name[..3],
                second % 60
            ),
            Some('f') => write!(text, "{microsecond:06}"),
            Some('s') => write!(text, "{seconds}"),
            Some('n') => writeln!(text),
            Some('t') => write!(text, "\t"),
            // Python's time of day without a time zone has no name and no offset.
            Some('Z' | 'z') => Ok(()),
            Some('%') => write!(text, "%"),
            _ => return Err(unsupported(&format!("strftime_now with the format {format:?}"))),
        };
        written.map_err(|_| unsupported("strftime_now"))?;
    }
    Ok(text)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
/// The year is taken to begin in March, so that the leap day is its last (Howard Hinnant, "chrono-compatible low-level
/// date algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn unsupported(what: &str) -> Error {
    wrong(format!("{what} is not supported"))
}

/// The error of an operation that its values do not go with.
pub(super) fn wrong(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}
