//! Templates in Jinja2's syntax → the same in minijinja's, where the two differ: `{% generation %}`, line ends, escapes in
//! texts, macros that take any arguments, and operators that minijinja applies to other values than Python does, which
//! become calls of functions.

use crate::error::{Error, Result};

/// The function in the place of `<`, `<=`, `>`, `>=`, `in` and of chains with them: `compare(a, "<", b, "in", c)`.
pub(super) const COMPARE: &str = "__compare";
/// The function in the place of `%`.
pub(super) const PERCENT: &str = "__percent";
/// The function around what `for` goes through.
pub(super) const ITERABLE: &str = "__iterable";
/// The function around what is sliced.
pub(super) const SLICEABLE: &str = "__sliceable";
/// The function around a macro that knows its surplus arguments by [`SURPLUS`].
pub(super) const VARIADIC: &str = "__variadic";
/// The names by which a macro knows surplus arguments: a tuple of those by position, and those by name.
pub(super) const SURPLUS: [&str; 2] = ["varargs", "kwargs"];

/// Brackets within brackets that are read; minijinja's parser goes as deep.
const DEEPEST: usize = 150;
/// Words and signs of a tag at most: for some, minijinja takes time that grows with their square, and as much stack.
const LONGEST: usize = 5_000;

/// `source` in minijinja's syntax. What neither reads is left to minijinja to refuse.
///
/// # Errors
///
/// [`Error::Template`].
pub(super) fn translate(source: &str) -> Result<String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut translation = Translation { text: String::with_capacity(source.len()), macros: Vec::new() };
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        let (before, tag) = rest.split_at(start);
        translation.text.push_str(before);
        let len = match &tag[..2] {
            "{#" => translation.comment(tag),
            open => translation.tag(tag, open)?,
        };
        let Some(len) = len else {
            rest = tag;
            break;
        };
        rest = &tag[len..];
    }
    translation.text.push_str(rest);
    Ok(translation.text)
}

/// The position of the next tag.
fn next_tag(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// A template, translated up to some tag.
struct Translation {
    text: String,
    /// The macros that are open.
    macros: Vec<Macro>,
}

/// A macro whose end is not reached.
struct Macro {
    name: String,
    /// The end of its list of parameters in the translation, where the surplus ones go.
    parameters_end: usize,
    has_parameters: bool,
    /// The names of [`SURPLUS`] that are parameters.
    declared: [bool; 2],
    /// Those that the body has.
    named: [bool; 2],
}

impl Translation {
    /// Copies the comment that `source` begins with, and returns its length; none if it has no end.
    fn comment(&mut self, source: &str) -> Option<usize> {
        let len = source[2..].find("#}")? + 4;
        self.text.push_str(&source[..len]);
        Some(len)
    }

    /// Translates the tag that `source` begins with, and returns its length; none if it has no end.
    fn tag(&mut self, source: &str, open: &str) -> Result<Option<usize>> {
        let close = if open == "{{" { "}}" } else { "%}" };
        let Some((tokens, inner_end, len)) = tokens(source, close)? else { return Ok(None) };
        let (head, tail) = (&source[..head_len(source)], &source[inner_end..len]);
        let words: Vec<&str> = tokens.iter().map(|token| &*token.text).collect();
        let names = SURPLUS.map(|name| {
            let is_name = |at: usize| words[at] == name && (at == 0 || words[at - 1] != ".");
            (0..words.len()).any(is_name)
        });
        if let Some(open) = self.macros.last_mut() {
            open.named = [open.named[0] || names[0], open.named[1] || names[1]];
        }
        match words[..] {
            _ if open == "{{" => self.write(&[head, &expression(&tokens, 0)?, tail]),
            ["raw"] => return Ok(self.raw(source, len)),
            ["generation"] => self.write(&[head, " if true", tail]),
            ["endgeneration"] => self.write(&[head, " endif", tail]),
            ["for", ..] => self.write(&[head, &for_loop(&tokens)?, tail]),
            ["macro", name, "(", ref parameters @ .., ")"] => {
                self.write(&[head, &expression(&tokens, 0)?]);
                self.macros.push(Macro {
                    name: name.to_owned(),
                    parameters_end: self.text.len() - 1,
                    has_parameters: !matches!(parameters.last(), None | Some(&",")),
                    declared: names,
                    named: [false; 2],
                });
                self.text.push_str(tail);
            }
            ["endmacro", ..] => self.end_macro(head, &expression(&tokens, 0)?, tail),
            _ => self.write(&[head, &expression(&tokens, 0)?, tail]),
        }
        Ok(Some(len))
    }

    fn write(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied());
    }

    /// Copies what is between `{% raw %}`, whose tag has the length `len`, and its end. Jinja2 keeps a line end that follows
    /// the first of the two tags, and minijinja drops one.
    fn raw(&mut self, source: &str, len: usize) -> Option<usize> {
        let mut at = len;
        loop {
            at += source[at..].find("{%")?;
            let inside = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
            if let Some(end) = inside.strip_prefix("endraw").map(|end| end.trim_start().trim_start_matches(['-', '+']))
                && end.starts_with("%}")
            {
                let end = source.len() - end.len() + 2;
                let line_end =
                    if source[len..].starts_with('\n') && !source[..len].ends_with("-%}") { "\n" } else { "" };
                self.write(&[&source[..len], line_end, &source[len..end]]);
                return Some(end);
            }
            at += 2;
        }
    }

    /// Ends the innermost macro. One that has surplus arguments gets parameters for them, and a function around it that
    /// fills these in.
    fn end_macro(&mut self, head: &str, inside: &str, tail: &str) {
        self.write(&[head, inside]);
        if let Some(Macro { name, parameters_end, has_parameters, declared, named }) = self.macros.pop() {
            let used = (0..2).filter(|&index| named[index] && !declared[index]);
            let surplus: Vec<&str> = used.map(|index| ["varargs=()", "kwargs={}"][index]).collect();
            if !surplus.is_empty() {
                let comma = if has_parameters { ", " } else { "" };
                self.text.insert_str(parameters_end, &format!("{comma}{}", surplus.join(", ")));
                self.write(&["%}{% set ", &name, " = ", VARIADIC, "(", &name, ")"]);
            }
        }
        self.text.push_str(tail);
    }
}

/// A token of a tag.
struct Token {
    /// As minijinja is to read it.
    text: String,
    /// White space before it.
    blank: String,
    kind: Kind,
}

impl Token {
    fn is_open(&self) -> bool {
        self.kind == Kind::Operator && matches!(&*self.text, "(" | "[" | "{")
    }

    fn is_close(&self) -> bool {
        self.kind == Kind::Operator && matches!(&*self.text, ")" | "]" | "}")
    }

    fn write(&self, text: &mut String) {
        text.extend([&*self.blank, &*self.text]);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    /// A number or a text.
    Literal,
    Operator,
}

/// The operators of more than one letter.
const LONG_OPERATORS: [&str; 6] = ["**", "//", "==", "!=", "<=", ">="];

/// The length of a tag's beginning.
fn head_len(source: &str) -> usize {
    2 + usize::from(source[2..].starts_with(['-', '+']))
}

/// The tokens of the tag that `source` begins with, the end of the last one, and the tag's length; none if it has no end.
fn tokens(source: &str, close: &str) -> Result<Option<(Vec<Token>, usize, usize)>> {
    let (mut tokens, mut depth) = (Vec::new(), 0usize);
    let mut at = head_len(source);
    loop {
        let rest = source[at..].trim_start();
        let start = source.len() - rest.len();
        let sign = usize::from(rest.starts_with(['-', '+']));
        if depth == 0 && rest[sign..].starts_with(close) {
            // The white space before the end goes with it.
            return Ok(Some((tokens, at, start + sign + 2)));
        }
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let (text, len, kind) = match first {
            '"' | '\'' => match literal(rest, first)? {
                Some((text, len)) => (text, len, Kind::Literal),
                None => return Ok(None),
            },
            '0'..='9' => {
                let len = number_len(rest);
                (rest[..len].to_owned(), len, Kind::Literal)
            }
            _ if word(first) => {
                let len = rest.find(|letter| !word(letter)).unwrap_or(rest.len());
                (rest[..len].to_owned(), len, Kind::Name)
            }
            _ => {
                let long = LONG_OPERATORS.into_iter().find(|long| rest.starts_with(long));
                let text = long.unwrap_or(&rest[..first.len_utf8()]);
                match first {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                (text.to_owned(), text.len(), Kind::Operator)
            }
        };
        if tokens.len() == LONGEST {
            return Err(fault(format!("a tag is longer than {LONGEST} words and signs")));
        }
        tokens.push(Token { text, blank: source[at..start].to_owned(), kind });
        at = start + len;
    }
}

/// The length of the number that `text` begins with, as Jinja2 reads it.
fn number_len(text: &str) -> usize {
    let run = |from: usize, is_part: fn(&char) -> bool| {
        from + text[from..].chars().take_while(is_part).map(char::len_utf8).sum::<usize>()
    };
    let digits: fn(&char) -> bool = |letter| letter.is_ascii_digit() || *letter == '_';
    if ["0x", "0X", "0o", "0O", "0b", "0B"].into_iter().any(|prefix| text.starts_with(prefix)) {
        return run(2, |letter| letter.is_ascii_hexdigit() || *letter == '_');
    }
    let mut len = run(0, digits);
    let digit_at = |at: usize| text[at..].starts_with(|letter: char| letter.is_ascii_digit());
    if text[len..].starts_with('.') && digit_at(len + 1) {
        len = run(len + 1, digits);
    }
    if text[len..].starts_with(['e', 'E']) {
        let exponent = len + 1 + usize::from(text[len + 1..].starts_with(['+', '-']));
        if digit_at(exponent) {
            len = run(exponent, digits);
        }
    }
    len
}

/// The text that `source` begins with, its escapes read as Python does, and its length in `source`; none if it has no end.
fn literal(source: &str, quote: char) -> Result<Option<(String, usize)>> {
    let (mut value, mut letters) = (String::new(), source.char_indices().skip(1));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                let Some((_, escaped)) = letters.next() else { return Ok(None) };
                let rest = &source[at + 1..];
                let skipped = unescape(&mut value, escaped, rest)?;
                for _ in 0..skipped {
                    letters.next();
                }
            }
            letter if letter == quote => {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                return Ok(Some((format!("\"{escaped}\""), at + 1)));
            }
            letter => value.push(letter),
        }
    }
    Ok(None)
}

/// Appends what the escape of `letter`, which `rest` begins with, stands for, and returns the number of letters after it.
fn unescape(value: &mut String, letter: char, rest: &str) -> Result<usize> {
    let simple = match letter {
        '\\' | '\'' | '"' => letter,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\n' => return Ok(0),
        'x' => return hexadecimal(value, rest, 2),
        'u' => return hexadecimal(value, rest, 4),
        'U' => return hexadecimal(value, rest, 8),
        'N' => return Err(fault("a letter by its name, \\N{…}, is not supported; write the letter itself")),
        '0'..='7' => {
            let len = rest.chars().take(3).take_while(|digit| matches!(digit, '0'..='7')).count();
            let code = u32::from_str_radix(&rest[..len], 8).unwrap_or_default();
            value.extend(char::from_u32(code));
            return Ok(len - 1);
        }
        // Python keeps both.
        other => {
            value.extend(['\\', other]);
            return Ok(0);
        }
    };
    value.push(simple);
    Ok(0)
}

/// Appends the letter whose number `rest` has in `digits` digits after its first letter. Two halves of a pair are one.
fn hexadecimal(value: &mut String, rest: &str, digits: usize) -> Result<usize> {
    let code = |rest: &str, digits: usize| {
        let text = rest.get(1..=digits).filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        u32::from_str_radix(text, 16).ok()
    };
    let wrong = || fault(format!("\\{} stands for no letter", rest.chars().take(digits + 1).collect::<String>()));
    let first = code(rest, digits).ok_or_else(wrong)?;
    if let 0xd800..=0xdbff = first {
        let second = rest.get(digits + 1..).and_then(|rest| code(rest.strip_prefix('\\')?, 4));
        let second = second.filter(|second| matches!(second, 0xdc00..=0xdfff)).ok_or_else(wrong)?;
        value.extend(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
        return Ok(digits + 6);
    }
    value.push(char::from_u32(first).ok_or_else(wrong)?);
    Ok(digits)
}

/// A `for` tag.
fn for_loop(tokens: &[Token]) -> Result<String> {
    let find = |from: usize, names: &[&str]| {
        let is_one = |token: &Token| token.kind == Kind::Name && names.contains(&&*token.text);
        outermost(tokens).find(|(at, token)| *at >= from && is_one(token)).map(|(at, _)| at)
    };
    let Some(start) = find(0, &["in"]) else { return expression(tokens, 0) };
    let end = find(start + 1, &["if", "recursive"]).unwrap_or(tokens.len());
    let (rest, recursive) = match &tokens[end..] {
        [rest @ .., last] if last.text == "recursive" => (rest, " recursive"),
        rest => (rest, ""),
    };
    let mut target = String::new();
    tokens[..=start].iter().for_each(|token| token.write(&mut target));
    let (through, rest) = (expression(&tokens[start + 1..end], 0)?, expression(rest, 0)?);
    Ok(format!("{target} {ITERABLE}({through}){rest}{recursive}"))
}

/// A part of an expression: an operand, or what stands between operands.
struct Piece {
    text: String,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Operand,
    /// `+`, `-` and `~`.
    Sum,
    /// `*`, `/`, `//`.
    Product,
    Percent,
    /// `==` and `!=`.
    Equality,
    /// `<`, `<=`, `>`, `>=`, `in` and `not in`.
    Order,
    /// Operators that bind less than comparisons, and marks.
    Separator,
}

/// An expression, or what a tag has in place of one, `depth` brackets deep.
fn expression(tokens: &[Token], depth: usize) -> Result<String> {
    if depth > DEEPEST {
        return Err(fault(format!("brackets nest more than {DEEPEST} deep")));
    }
    let mut pieces: Vec<Piece> = Vec::new();
    // The place in the last piece where the value begins that a slice would be of.
    let mut value = 0;
    // Calls that are put around values, one within the other.
    let mut calls = 0;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let role = match &*token.text {
            "set" | "with" | "do" | "elif" if at == 0 && depth == 0 => Role::Separator,
            _ => role(tokens, at, pieces.last()),
        };
        // Parts of one operand are one piece.
        if pieces.last().is_none_or(|last| role != Role::Operand || last.role != Role::Operand) {
            pieces.push(Piece { text: String::new(), role });
            value = 0;
        }
        let Some(Piece { text, .. }) = pieces.last_mut() else { break };
        let continues = at.checked_sub(1).is_some_and(|before| is_continued(&tokens[before], token));
        if !continues {
            value = text.len();
        }
        calls += usize::from(role == Role::Percent);
        // A bracket ends with the one that closes it, and `not` with `in`.
        let mut last = at;
        if token.is_open() {
            last = group_end(tokens, at);
            let inside = &tokens[at + 1..last];
            if continues && token.text == "[" && is_slice(inside) {
                text.insert_str(value, &format!(" {SLICEABLE}("));
                text.push(')');
                calls += 1;
            }
            token.write(text);
            text.push_str(&expression(inside, depth + 1)?);
        } else {
            token.write(text);
            last += usize::from(role == Role::Order && token.text == "not");
        }
        if last > at
            && let Some(last) = tokens.get(last)
        {
            last.write(text);
        }
        if calls > DEEPEST {
            return Err(fault(format!("more than {DEEPEST} slices and formats are in one expression")));
        }
        at = last + 1;
    }
    let segments = pieces.split_inclusive(|piece| piece.role == Role::Separator);
    Ok(segments.map(comparison).collect())
}

/// Returns `true` if `token` goes on with the value that `before` ends: its attribute, its item, or a call of it.
fn is_continued(before: &Token, token: &Token) -> bool {
    let ends_value = before.kind != Kind::Operator || matches!(&*before.text, ")" | "]" | "}");
    match token.kind {
        Kind::Operator => ends_value && matches!(&*token.text, "." | "(" | "["),
        _ => before.text == ".",
    }
}

/// Returns `true` if the inside of brackets is a slice.
fn is_slice(inside: &[Token]) -> bool {
    outermost(inside).any(|(_, token)| token.kind == Kind::Operator && token.text == ":")
}

/// The tokens that are within no brackets of `tokens`, with their places.
fn outermost(tokens: &[Token]) -> impl Iterator<Item = (usize, &Token)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let (at, token) = (next, tokens.get(next)?);
        next = if token.is_open() { group_end(tokens, at) } else { at } + 1;
        Some((at, token))
    })
}

/// The index of the bracket that closes the one at `start`, or the number of tokens.
fn group_end(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0usize;
    let closes = tokens[start..].iter().position(|token| {
        depth += usize::from(token.is_open());
        depth -= usize::from(token.is_close());
        depth == 0
    });
    closes.map_or(tokens.len(), |end| start + end)
}

/// The role of the token at `at`, which follows `before`.
fn role(tokens: &[Token], at: usize, before: Option<&Piece>) -> Role {
    let text = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let follows = |index: usize| at.checked_sub(index).map_or("", text);
    let after_operand = before.is_some_and(|before| before.role == Role::Operand);
    // Names of attributes, filters and tests are no words of the language.
    let is_name = matches!(follows(1), "." | "|" | "is") || follows(1) == "not" && follows(2) == "is";
    match (tokens[at].kind, text(at)) {
        (Kind::Literal, _) => Role::Operand,
        (Kind::Name, _) if is_name => Role::Operand,
        (Kind::Name, "in") => Role::Order,
        (Kind::Name, "not") if after_operand && text(at + 1) == "in" => Role::Order,
        (Kind::Name, "and" | "or" | "not" | "if" | "else") => Role::Separator,
        (Kind::Operator, "," | ":" | "=") => Role::Separator,
        (Kind::Operator, "==" | "!=") => Role::Equality,
        (Kind::Operator, "<" | "<=" | ">" | ">=") => Role::Order,
        (Kind::Operator, "+" | "-" | "~") if after_operand => Role::Sum,
        (Kind::Operator, "*" | "/" | "//") => Role::Product,
        (Kind::Operator, "%") => Role::Percent,
        _ => Role::Operand,
    }
}

/// A comparison, or a chain of these, and the separator after it.
fn comparison(pieces: &[Piece]) -> String {
    let (pieces, separator) = match pieces {
        [pieces @ .., last] if last.role == Role::Separator => (pieces, &*last.text),
        pieces => (pieces, ""),
    };
    let compares = |piece: &Piece| matches!(piece.role, Role::Equality | Role::Order);
    let mut operands = pieces.split(compares).map(sum);
    let operators = pieces.iter().filter(|piece| compares(piece)).map(|piece| &*piece.text);
    let mut text = operands.next().unwrap_or_default();
    if pieces.iter().any(|piece| piece.role == Role::Order) {
        text = format!(" {COMPARE}({text}");
        for (operator, operand) in operators.zip(operands) {
            let words: Vec<&str> = operator.split_whitespace().collect();
            text.extend([", \"", &words.join(" "), "\",", &operand]);
        }
        text.push(')');
    } else {
        for (operator, operand) in operators.zip(operands) {
            text.extend([operator, &operand]);
        }
    }
    text.push_str(separator);
    text
}

/// Products, added up.
fn sum(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for product in pieces.split_inclusive(|piece| piece.role == Role::Sum) {
        let (factors, sign) = match product {
            [factors @ .., last] if last.role == Role::Sum => (factors, &*last.text),
            factors => (factors, ""),
        };
        // Products are taken from the left.
        let mut whole = String::new();
        for (index, part) in factors.split(|piece| piece.role == Role::Percent).enumerate() {
            let (factor, others) = match part {
                [factor, others @ ..] if index > 0 => (&*factor.text, others),
                others => ("", others),
            };
            if index > 0 {
                whole = format!(" {PERCENT}({whole}, {factor})");
            }
            whole.extend(others.iter().map(|piece| &*piece.text));
        }
        text.push_str(&whole);
        text.push_str(sign);
    }
    text
}

fn fault(reason: impl Into<String>) -> Error {
    Error::Template { reason: format!("does not compile: {}", reason.into()) }
}
