//! Jinja2's tests and filters, and the methods of Python's strings, where minijinja has others or lacks them.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::globals::joiner;
use minijinja_contrib::pycompat::unknown_method_callback;

use super::jinja_operators::check_iterable;
use super::python::{self, wrong};

/// Puts Jinja2's and Python's behaviour in place of minijinja's.
pub(super) fn install(environment: &mut Environment) {
    environment.set_unknown_method_callback(method);
    // To Jinja2 none is not iterable, and texts, maps and ranges are sequences as lists are.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| !value.is_none() && value.len().is_some() || value.is_undefined());
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_filter("trim", |value: &Value, letters: Option<&str>| strip(&value.to_string(), "strip", letters));
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("string", python::text);
    environment.add_filter("e", |state: &State, value: &Value| escape(state, value, value.is_safe()));
    environment.add_filter("escape", |state: &State, value: &Value| escape(state, value, value.is_safe()));
    environment.add_filter("forceescape", |state: &State, value: &Value| escape(state, value, false));
    environment.add_filter("list", |state: &State, value: Value| {
        check_iterable(&value).and_then(|()| minijinja::filters::list(state, value))
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("center", |state: &State, value: &Value, width: Option<usize>| {
        let text = python::text(state, value)?.to_string();
        filled(&text, "center", &[Value::from(width.unwrap_or(80))])
    });
    environment.add_filter("wordcount", |state: &State, value: &Value| {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let text = python::text(state, value)?.to_string();
        Ok::<_, Error>(text.split(|letter| !is_part(letter)).filter(|word| !word.is_empty()).count())
    });
    // It cuts what it writes into lines of another length.
    environment.remove_filter("pprint");
    environment.add_function("dict", dict);
    environment.add_function("joiner", joiner);
}

fn default(value: &Value, other: Option<Value>, boolean: Option<bool>, arguments: Kwargs) -> Result<Value, Error> {
    let other = other.or(arguments.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(arguments.get("boolean")?).unwrap_or(false);
    arguments.assert_all_used()?;
    Ok(if value.is_undefined() || boolean && !value.is_true() { other } else { value.clone() })
}

fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    arguments: Kwargs,
) -> Result<String, Error> {
    let width = width.or(arguments.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(arguments.get("first")?).unwrap_or(false);
    let blank = blank.or(arguments.get("blank")?).unwrap_or(false);
    arguments.assert_all_used()?;
    let margin = python::margin(&width)?;
    let text = format!("{value}\n");
    let mut indented = if first { margin.clone() } else { String::new() };
    for (index, line) in split_lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            indented.push('\n');
            indented.push_str(if line.is_empty() && !blank { "" } else { &margin });
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn int(value: &Value, default: Option<Value>, base: Option<u32>, arguments: Kwargs) -> Result<Value, Error> {
    check_defined(value)?;
    let default = default.or(arguments.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(arguments.get("base")?).unwrap_or(10);
    arguments.assert_all_used()?;
    let whole = |number: f64| (number.abs() < 9e18).then_some(number as i64);
    let number = match value.kind() {
        ValueKind::Number if value.is_integer() => return Ok(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(whole),
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::String if (2..=36).contains(&base) => {
            let text = value.as_str().unwrap_or_default().trim_matches(is_space).to_lowercase().replace('_', "");
            let prefix = match base {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            let digits = text.strip_prefix(prefix).unwrap_or(&text);
            i64::from_str_radix(digits, base).ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    };
    Ok(number.map_or(default, Value::from))
}

fn float(value: &Value, default: Option<f64>, arguments: Kwargs) -> Result<f64, Error> {
    check_defined(value)?;
    let default = default.or(arguments.get("default")?).unwrap_or(0.0);
    arguments.assert_all_used()?;
    let number = match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => value.as_str().and_then(|text| text.trim_matches(is_space).replace('_', "").parse().ok()),
    };
    Ok(number.unwrap_or(default))
}

/// `value` for HTML, in Jinja2's names of letters.
fn escape(state: &State, value: &Value, is_safe: bool) -> Result<Value, Error> {
    if is_safe {
        return Ok(value.clone());
    }
    let text = python::text(state, value)?.to_string();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(Value::from_safe_string(text.replace('\'', "&#39;").replace('"', "&#34;")))
}

fn check_defined(value: &Value) -> Result<(), Error> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(()) }
}

/// A map of pairs or of another map, with named values put into it.
fn dict(pairs: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut entries = Vec::new();
    if let Some(pairs) = pairs.filter(|pairs| !pairs.is_undefined()) {
        for item in pairs.try_iter()? {
            let entry = match pairs.kind() {
                ValueKind::Map => (item.clone(), pairs.get_item(&item)?),
                _ => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
            };
            entries.push(entry);
        }
    }
    for name in named.args() {
        entries.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(entries))
}

/// The beginning of a text, up to its last whole word unless words may be cut.
fn truncate(value: &Value, listed: Rest<Value>, arguments: Kwargs) -> Result<String, Error> {
    let given = |index: usize, name: &str| match listed.get(index) {
        Some(value) => Ok::<_, Error>(Some(value.clone())),
        None => arguments.get::<Option<Value>>(name),
    };
    let length = given(0, "length")?.map_or(Ok(255), usize::try_from)?;
    let cuts_words = given(1, "killwords")?.is_some_and(|cuts| cuts.is_true());
    let end = given(2, "end")?.map_or_else(|| "...".to_owned(), |end| end.to_string());
    let leeway = given(3, "leeway")?.map_or(Ok(5), usize::try_from)?;
    arguments.assert_all_used()?;
    let text = value.as_str().ok_or_else(|| wrong(format!("truncate cuts texts, and this is a {}", value.kind())))?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| wrong(format!("truncate to {length} letters has no room for its end")))?;
    let kept: String = text.chars().take(kept).collect();
    let whole = kept.rfind(' ').filter(|_| !cuts_words).unwrap_or(kept.len());
    Ok(format!("{}{end}", &kept[..whole]))
}

/// Calls a method that minijinja does not know.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.kind(), name) {
        (ValueKind::String, _) => {
            let text = value.as_str().unwrap_or_default();
            if let Some(result) = string_method(state, text, name, arguments) {
                return result;
            }
        }
        (ValueKind::Map | ValueKind::Seq, "copy") => {
            let () = from_args(arguments)?;
            return Ok(value.clone());
        }
        (ValueKind::Seq, "index") => {
            let (sought,): (&Value,) = from_args(arguments)?;
            let place = value.try_iter()?.position(|item| item == *sought);
            return place.map(Value::from).ok_or_else(|| wrong(format!("{sought} is not in the list")));
        }
        _ => {}
    }
    unknown_method_callback(state, value, name, arguments)
}

/// A method of Python's strings, where minijinja's imitation of Python does not have it or takes fewer arguments.
fn string_method(state: &mut State, text: &str, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    Some(match (name, arguments) {
        ("find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith", [sought, _, ..]) => {
            within(state, text, name, sought, &arguments[1..])
        }
        ("format", _) => return check_format(text, arguments).err().map(Err),
        ("index", [_]) => found(unknown_method_callback(state, &Value::from(text), "find", arguments)),
        ("rindex", [_]) => found(unknown_method_callback(state, &Value::from(text), "rfind", arguments)),
        ("strip" | "lstrip" | "rstrip", _) => {
            from_args(arguments).map(|(letters,): (Option<&str>,)| Value::from(strip(text, name, letters)))
        }
        ("split" | "rsplit", _) => split(text, name == "rsplit", arguments),
        ("partition" | "rpartition", _) => partition(text, name == "rpartition", arguments),
        ("removeprefix", _) => {
            from_args(arguments).map(|(part,): (&str,)| Value::from(text.strip_prefix(part).unwrap_or(text)))
        }
        ("removesuffix", _) => {
            from_args(arguments).map(|(part,): (&str,)| Value::from(text.strip_suffix(part).unwrap_or(text)))
        }
        ("ljust" | "rjust" | "center" | "zfill", _) => filled(text, name, arguments),
        ("swapcase", []) => Ok(text.chars().map(swapped).collect::<String>().into()),
        ("title", []) => Ok(titled(text).into()),
        ("casefold", []) => Ok(text.to_lowercase().replace('ß', "ss").into()),
        ("splitlines", _) => from_args(arguments).map(|(keep, options): (Option<bool>, Kwargs)| {
            let keep = keep.or(options.get("keepends").ok()).unwrap_or(false);
            split_lines(text, keep).into_iter().map(Value::from).collect()
        }),
        ("isdigit" | "isdecimal", []) => {
            let is_digit = |letter: char| letter.is_numeric() && (letter.is_ascii_digit() || is_wide_digit(letter));
            Ok((!text.is_empty() && text.chars().all(is_digit)).into())
        }
        _ => return None,
    })
}

/// Refuses what minijinja's `format` fails at or counts by bytes: fields that are not ASCII, and widths of such texts.
fn check_format(text: &str, arguments: &[Value]) -> Result<(), Error> {
    let is_ascii = arguments.iter().all(|value| value.as_str().is_none_or(str::is_ascii));
    for field in text.replace("{{", "").split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or_default()) {
        let spec = field.split_once(':').map_or("", |(_, spec)| spec);
        let is_of_a_number = spec.ends_with(['b', 'd', 'e', 'E', 'f', 'F', 'g', 'G', 'n', 'o', 'x', 'X', '%']);
        if !field.is_ascii() || !is_ascii && !is_of_a_number && spec.contains(|letter: char| letter.is_ascii_digit()) {
            return Err(wrong(format!("format with {{{field}}} is supported for ASCII alone")));
        }
    }
    Ok(())
}

/// A method that looks for `sought` between two positions, which are counted from the end where they are negative.
fn within(state: &mut State, text: &str, name: &str, sought: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let (start, end): (Option<i64>, Option<i64>) = from_args(bounds)?;
    let len = text.chars().count() as i64;
    let place = |position: i64| if position < 0 { position + len } else { position }.clamp(0, len);
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(len)));
    let cut: String = text.chars().skip(start as usize).take((end - start).max(0) as usize).collect();
    let plain = match name {
        "index" => "find",
        "rindex" => "rfind",
        name => name,
    };
    let result = unknown_method_callback(state, &Value::from(cut), plain, std::slice::from_ref(sought))?;
    match (plain, i64::try_from(result.clone())) {
        ("find" | "rfind", Ok(-1)) if plain != name => found(Ok(result)),
        ("find" | "rfind", Ok(position)) if position >= 0 => Ok(Value::from(position + start)),
        _ => Ok(result),
    }
}

/// The position that a search found, or Python's error.
fn found(position: Result<Value, Error>) -> Result<Value, Error> {
    let position = position?;
    if position == Value::from(-1) { Err(wrong("substring not found".to_owned())) } else { Ok(position) }
}

fn strip(text: &str, name: &str, letters: Option<&str>) -> String {
    let goes = |letter: char| letters.map_or_else(|| is_space(letter), |letters| letters.contains(letter));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(goes) };
    if name == "lstrip" { text.to_owned() } else { text.trim_end_matches(goes).to_owned() }
}

fn split(text: &str, from_end: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.or(options.get("sep")?);
    let most = most.or(options.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
    options.assert_all_used()?;
    // Python keeps what is left beyond as many parts.
    let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(wrong("empty separator".to_owned())),
        Some(separator) if from_end => text.rsplitn(most, separator).collect(),
        Some(separator) => text.splitn(most, separator).collect(),
        None => words(text, from_end, most),
    };
    if from_end {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `most` words between blanks, from either end; the last one holds all that is left.
fn words(text: &str, from_end: bool, most: usize) -> Vec<&str> {
    let trimmed = |rest: &'_ str| -> usize {
        if from_end { rest.trim_end_matches(is_space).len() } else { rest.trim_start_matches(is_space).len() }
    };
    let (mut words, mut rest) = (Vec::new(), text);
    loop {
        let len = trimmed(rest);
        rest = if from_end { &rest[..len] } else { &rest[rest.len() - len..] };
        if rest.is_empty() {
            return words;
        }
        let end = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        match end.filter(|_| words.len() + 1 < most) {
            None => {
                words.push(rest);
                return words;
            }
            Some(at) if from_end => {
                let blank = rest[at..].chars().next().map_or(0, char::len_utf8);
                words.push(&rest[at + blank..]);
                rest = &rest[..at];
            }
            Some(at) => {
                words.push(&rest[..at]);
                rest = &rest[at..];
            }
        }
    }
}

fn partition(text: &str, from_end: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(arguments)?;
    if separator.is_empty() {
        return Err(wrong("empty separator".to_owned()));
    }
    let parts = match if from_end { text.rsplit_once(separator) } else { text.split_once(separator) } {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// `text` filled up to a width with blanks, the letter that is given, or zeros.
fn filled(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    // Not many more bytes than a step of a template may make.
    const WIDEST: usize = 80;
    let (width, letter): (usize, Option<char>) = from_args(arguments)?;
    if width > WIDEST {
        return Err(wrong(format!("{name} to more than {WIDEST} is not supported")));
    }
    let missing = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let fill = |count: usize, letter: char| letter.to_string().repeat(count);
    if name == "zfill" {
        let digits = text.trim_start_matches(['+', '-']);
        let sign = &text[..usize::from(digits.len() < text.len())];
        return Ok(format!("{sign}{}{}", fill(missing, '0'), &text[sign.len()..]).into());
    }
    let letter = letter.unwrap_or(' ');
    Ok(format!("{}{text}{}", fill(left, letter), fill(missing - left, letter)).into())
}

fn swapped(letter: char) -> String {
    if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
}

/// `text` with each word's first letter in upper case; Python's words are runs of letters.
fn titled(text: &str) -> String {
    let (mut titled, mut is_within) = (String::with_capacity(text.len()), false);
    for letter in text.chars() {
        match is_within {
            true => titled.extend(letter.to_lowercase()),
            false => titled.extend(letter.to_uppercase()),
        }
        is_within = letter.is_alphabetic();
    }
    titled
}

/// The lines of `text` as Python's `splitlines` has them.
fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end =
        |letter: char| matches!(letter, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_end) {
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let next = at + if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(&rest[..if keep_ends { next } else { at }]);
        rest = &rest[next..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Returns `true` for what Python counts as white space: Unicode's, and four separators of ASCII.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

/// Returns `true` for a full-width digit, the one kind beside ASCII's that texts have as numbers.
fn is_wide_digit(letter: char) -> bool {
    matches!(letter, '０'..='９')
}
