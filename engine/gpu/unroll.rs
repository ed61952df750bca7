//! Writes loops with constant bounds out, before naga sees them. naga's SPIR-V, HLSL and Metal loop without a hint and
//! index arrays by the counter; what a compiler does not unroll, it keeps in memory in place of registers. Written out,
//! every index is a literal. Loops that index no such array stay as they are.
//!
//! A loop is written out if it is `for (var i = A; i < B; i++)` (or `<=`, or `i += C`) with A, B and C made of numbers, of
//! constants and of the counters of loops around it that are written out themselves, all of them `u32`; if its counter
//! indexes an array that a function declares; if nothing in it leaves it early or changes the counter; and if the result
//! has no more than the budget's tokens. Where a nest is too large, its inner loops are written out alone.

use std::collections::HashMap;

use super::wgsl::{self, Kind, Token};

/// Values of names: `u32` constants and counters.
type Values = HashMap<String, u32>;

/// `source` with its loops written out, each nest to `budget` tokens at most.
pub(super) fn unroll(source: &str, budget: usize) -> String {
    let tokens = wgsl::tokens(source);
    let composer = Composer { arrays: local_arrays(&tokens), budget };
    composer.expand(&tokens, &constants(&tokens)).text
}

/// Text, and how many of its tokens are more than space.
#[derive(Default)]
struct Written {
    text: String,
    tokens: usize,
}

impl Written {
    fn push(&mut self, token: &Token) {
        self.text += token.text;
        self.tokens += usize::from(token.kind != Kind::Space);
    }

    fn append(&mut self, other: &Written) {
        self.text += &other.text;
        self.tokens += other.tokens;
    }
}

/// A loop's header and the places of its body's braces.
struct Loop<'a> {
    counter: &'a str,
    values: Vec<u32>,
    body: (usize, usize),
}

/// Writes loops out.
struct Composer {
    /// Arrays that functions declare, held in registers if every index is known.
    arrays: Vec<String>,
    budget: usize,
}

impl Composer {
    fn expand(&self, tokens: &[Token], values: &Values) -> Written {
        let mut written = Written::default();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if token.kind == Kind::Word
                && token.text == "for"
                && let Some(found) = self.constant_loop(tokens, at, values)
                && let Some(copies) = self.write_out(tokens, &found, values)
            {
                written.append(&copies);
                at = found.body.1 + 1;
                continue;
            }
            written.push(token);
            at += 1;
        }
        written
    }

    /// The loop's body once for each value of its counter, if that is no more than the budget.
    fn write_out(&self, tokens: &[Token], found: &Loop, values: &Values) -> Option<Written> {
        let body = &tokens[found.body.0 + 1..found.body.1];
        let mut copies = Written::default();
        for &value in &found.values {
            let mut inner = values.clone();
            inner.insert(found.counter.to_owned(), value);
            copies.text += &format!("{{ const {} = {value}u;", found.counter);
            copies.append(&self.expand(body, &inner));
            copies.text += "}\n";
            copies.tokens += 7;
            if copies.tokens > self.budget {
                return None;
            }
        }
        Some(copies)
    }

    /// The loop that begins with `for` at `at`, if all of its turns are known.
    fn constant_loop<'a>(&self, tokens: &[Token<'a>], at: usize, values: &Values) -> Option<Loop<'a>> {
        let open = next(tokens, at + 1)?;
        let close = wgsl::closing(tokens, open)?;
        let begin = next(tokens, close + 1)?;
        let end = wgsl::closing(tokens, begin)?;
        if tokens[open].text != "(" || tokens[begin].text != "{" {
            return None;
        }
        let header: Vec<Token> = meaningful(&tokens[open + 1..close]);
        let parts: Vec<&[Token]> = header.split(|token| token.text == ";").collect();
        let [start, bound, step] = parts[..] else { return None };
        let [var, counter, equals, start @ ..] = start else { return None };
        let [compared, compares, bound @ ..] = bound else { return None };
        let [stepped, steps, step @ ..] = step else { return None };
        let name = counter.text;
        if var.text != "var" || equals.text != "=" || compared.text != name || stepped.text != name {
            return None;
        }
        let (start, bound) = (u32_value(start, values)?, u32_value(bound, values)?);
        let end_value = match compares.text {
            "<" => bound,
            "<=" => bound.checked_add(1)?,
            _ => return None,
        };
        let step = match (steps.text, step) {
            ("++", []) => 1,
            ("+=", step) => u32_value(step, values)?,
            _ => return None,
        };
        // More turns than any budget has tokens.
        let is_short = step > 0 && end_value.saturating_sub(start) / step <= 4096;
        let body = meaningful(&tokens[begin + 1..end]);
        if !is_short || !is_plain(&body, name) || !self.indexes(&body, name) {
            return None;
        }
        let values = (start..end_value).step_by(step as usize).collect();
        Some(Loop { counter: name, values, body: (begin, end) })
    }

    /// Returns `true` if `counter` is part of an index into an array of a function's.
    fn indexes(&self, body: &[Token], counter: &str) -> bool {
        let is_array = |token: &Token| token.kind == Kind::Word && self.arrays.iter().any(|array| array == token.text);
        body.iter().enumerate().filter(|(_, token)| is_array(token)).any(|(at, _)| {
            // An array of arrays has one pair of brackets after the other.
            let mut open = at + 1;
            while body.get(open).is_some_and(|token| token.text == "[") {
                let Some(close) = wgsl::closing(body, open) else { return false };
                if body[open..close].iter().any(|token| token.text == counter) {
                    return true;
                }
                open = close + 1;
            }
            false
        })
    }
}

/// The names of the arrays that functions declare.
fn local_arrays(tokens: &[Token]) -> Vec<String> {
    let tokens = meaningful(tokens);
    let mut depth = 0usize;
    let mut arrays = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "var" if depth > 0 => {
                if let Some([name, colon, ty]) = tokens.get(at + 1..at + 4)
                    && colon.text == ":"
                    && ty.text == "array"
                {
                    arrays.push(name.text.to_owned());
                }
            }
            _ => {}
        }
    }
    arrays
}

/// Returns `true` if `body` has no `break` or `continue` and does not change the counter.
fn is_plain(body: &[Token], counter: &str) -> bool {
    body.iter().enumerate().all(|(at, token)| {
        if token.kind != Kind::Word {
            return true;
        }
        let beside = |place: Option<usize>| place.and_then(|place| body.get(place)).map_or("", |token| token.text);
        let (before, after) = (beside(at.checked_sub(1)), beside(Some(at + 1)));
        let is_changed = token.text == counter
            && (matches!(after, "=" | "++" | "--" | "+=" | "-=" | "*=" | "/=" | "%=" | "&=" | "|=" | "^=")
                || matches!(before, "&" | "let" | "var" | "const"));
        !is_changed && !matches!(token.text, "break" | "continue")
    })
}

/// The `u32` constants that are declared outside functions and can be computed here.
fn constants(tokens: &[Token]) -> Values {
    let tokens = meaningful(tokens);
    let mut values = Values::new();
    let mut declared: Vec<(&str, &[Token])> = Vec::new();
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "const" if depth == 0 => {
                let length = tokens[at..].iter().position(|token| token.text == ";").unwrap_or(0);
                match &tokens[at + 1..at + length.max(1)] {
                    [name, colon, ty, equals, value @ ..]
                        if [colon.text, ty.text, equals.text] == [":", "u32", "="] =>
                    {
                        declared.push((name.text, value));
                    }
                    [name, equals, value @ ..] if equals.text == "=" => declared.push((name.text, value)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    // In any order: each turn knows more than the one before it.
    loop {
        let known = values.len();
        for (name, value) in &declared {
            if let Some(value) = u32_value(value, &values) {
                values.insert((*name).to_owned(), value);
            }
        }
        if values.len() == known {
            return values;
        }
    }
}

/// The value of an expression of `u32` numbers and names that are known.
fn u32_value(tokens: &[Token], values: &Values) -> Option<u32> {
    let mut reader = Reader { tokens, at: 0, values };
    let value = reader.sum()?;
    (reader.at == tokens.len()).then_some(value)
}

/// Reads an expression: sums of products of atoms, by WGSL's precedence.
struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    values: &'a Values,
}

impl Reader<'_> {
    fn take(&mut self, texts: &[&str]) -> Option<&str> {
        let text = self.tokens.get(self.at)?.text;
        texts.contains(&text).then(|| self.at += 1)?;
        Some(text)
    }

    fn sum(&mut self) -> Option<u32> {
        let mut value = self.product()?;
        while let Some(operator) = self.take(&["+", "-"]).map(str::to_owned) {
            let right = self.product()?;
            value = if operator == "+" { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<u32> {
        let mut value = self.atom()?;
        while let Some(operator) = self.take(&["*", "/", "%"]).map(str::to_owned) {
            let right = self.atom()?;
            value = match operator.as_str() {
                "*" => value.checked_mul(right)?,
                "/" => value.checked_div(right)?,
                _ => value.checked_rem(right)?,
            };
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<u32> {
        let token = *self.tokens.get(self.at)?;
        self.at += 1;
        match (token.kind, token.text) {
            // Numbers without a suffix may be of another type.
            (Kind::Number, text) => text.strip_suffix('u')?.parse().ok(),
            (Kind::Symbol, "(") => {
                let value = self.sum()?;
                self.take(&[")"]).map(|_| value)
            }
            (Kind::Word, function @ ("min" | "max")) => {
                self.take(&["("])?;
                let left = self.sum()?;
                self.take(&[","])?;
                let right = self.sum()?;
                self.take(&[")"])?;
                Some(if function == "min" { left.min(right) } else { left.max(right) })
            }
            (Kind::Word, name) => self.values.get(name).copied(),
            _ => None,
        }
    }
}

/// The place of the first token from `at` on that is no space.
fn next(tokens: &[Token], at: usize) -> Option<usize> {
    (at..tokens.len()).find(|&place| tokens[place].kind != Kind::Space)
}

/// The tokens without the spaces between them.
fn meaningful<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    tokens.iter().copied().filter(|token| token.kind != Kind::Space).collect()
}
