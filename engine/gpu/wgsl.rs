//! WGSL text as tokens, for what is rewritten before naga reads it (audit.rs and unroll.rs). Nothing is lost: the tokens
//! one after another are the text again.

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blanks, line ends and comments.
    Space,
    /// A name or a keyword.
    Word,
    /// A number with its suffix.
    Number,
    /// An operator, a bracket, a comma or a semicolon.
    Symbol,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

/// Symbols of two characters that mean something to a reader of loops. `>>` is left out: it may close two lists of types.
const PAIRS: [&str; 16] =
    ["++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<=", ">=", "==", "!=", "&&", "||"];

/// The tokens of `text`.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = if rest.starts_with("//") {
            (Kind::Space, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Kind::Space, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if first.is_whitespace() {
            (Kind::Space, rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len()))
        } else if first.is_alphabetic() || first == '_' {
            (Kind::Word, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
        } else if first.is_ascii_digit() {
            (Kind::Number, number_length(rest))
        } else if PAIRS.iter().any(|pair| rest.starts_with(pair)) {
            (Kind::Symbol, 2)
        } else {
            (Kind::Symbol, first.len_utf8())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(Token { kind, text: token });
        rest = after;
    }
    tokens
}

/// Returns the length in bytes of the number that `text` begins with. Its exponent may have a sign.
fn number_length(text: &str) -> usize {
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    let goes_on = move |c: &char| {
        let is_sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !is_hexadecimal;
        before = *c;
        c.is_alphanumeric() || *c == '.' || is_sign
    };
    text.chars().take_while(goes_on).map(char::len_utf8).sum()
}

/// The place of the bracket that closes the one at `open`, if there is one.
pub(super) fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open).filter(|(_, token)| token.kind == Kind::Symbol) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
