//! Grammars in GBNF, the form of llama.cpp, read into rules. `gbnf_lexemes.rs` makes grammars of llguidance of them.

use std::collections::HashMap;

/// Nested groups at most, and repetitions, as llama.cpp has them.
const MAX_DEPTH: usize = 100;
const MAX_REPETITIONS: usize = 2000;
/// Rules at most.
const MAX_RULES: usize = 2000;

/// A part of a rule.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Character(Class),
    /// The rule of this index.
    Rule(usize),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    /// Repetitions from the first number on to the second, if there is one.
    Repeat(Box<Node>, usize, Option<usize>),
    /// A part that llguidance takes for one lexeme.
    Lexeme(Box<Node>),
}

/// Characters of which one is taken.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// The regular expression that stands for it.
    pub regex: String,
    pub set: Set,
}

/// A set of characters, in which those beyond ASCII are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub ascii: u128,
    pub others: bool,
}

impl Set {
    pub fn union(self, other: Set) -> Set {
        Set { ascii: self.ascii | other.ascii, others: self.others || other.others }
    }

    /// The characters of both.
    pub fn both(self, other: Set) -> Set {
        Set { ascii: self.ascii & other.ascii, others: self.others && other.others }
    }

    pub fn is_empty(self) -> bool {
        self == Set::default()
    }
}

impl Class {
    fn any() -> Class {
        Class { regex: "(?s:.)".to_owned(), set: Set { ascii: u128::MAX, others: true } }
    }

    fn of(ranges: &[(char, char)], is_negated: bool) -> Class {
        let mut set = Set { others: is_negated, ..Set::default() };
        let mut regex = if is_negated { "[^" } else { "[" }.to_owned();
        for &(from, to) in ranges {
            regex += &format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(from), u32::from(to));
            for code in u32::from(from)..=u32::from(to).min(127) {
                set.ascii |= 1 << code;
            }
            set.others |= !to.is_ascii();
        }
        if is_negated {
            set.ascii = !set.ascii;
        }
        Class { regex: regex + "]", set }
    }
}

/// The rules of a grammar.
#[derive(Debug)]
pub(super) struct Rules {
    pub bodies: Vec<Node>,
    /// The index of the rule that an answer as a whole is of.
    pub root: usize,
}

impl Rules {
    /// Returns `true` if `text` begins as grammars in GBNF do.
    pub fn is_gbnf(text: &str) -> bool {
        let mut parser = Parser::new(text);
        parser.skip_space(true);
        let is_named = parser.name().is_some();
        parser.skip_space(false);
        is_named && parser.rest.starts_with("::=")
    }

    /// Reads a grammar.
    ///
    /// # Errors
    ///
    /// The reason, with the line at fault or the rule that is missing.
    pub fn parse(text: &str) -> Result<Rules, String> {
        let mut parser = Parser::new(text);
        parser.rules().map_err(|reason| {
            let line = text[..text.len() - parser.rest.len()].matches('\n').count() + 1;
            format!("line {line}: {reason}")
        })?;
        let Parser { names, bodies, .. } = parser;
        let root = *names.get("root").ok_or("there is no rule `root`, with which an answer begins")?;
        let mut missing: Vec<&str> =
            names.iter().filter(|(_, index)| bodies[**index].is_none()).map(|(name, _)| *name).collect();
        missing.sort_unstable();
        match missing.first() {
            Some(name) => Err(format!("there is no rule `{name}`")),
            None => Ok(Rules { bodies: bodies.into_iter().flatten().collect(), root }),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    names: HashMap<&'a str, usize>,
    /// The body of each name, once it was read.
    bodies: Vec<Option<Node>>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser { rest: text, names: HashMap::new(), bodies: Vec::new(), depth: 0 }
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn next(&mut self) -> Result<char, String> {
        let mut chars = self.rest.chars();
        let next = chars.next().ok_or("it ends too early")?;
        self.rest = chars.as_str();
        Ok(next)
    }

    /// Skips blanks and comments, and line ends if `lines` says so.
    fn skip_space(&mut self, lines: bool) {
        loop {
            let skipped =
                self.rest.trim_start_matches(|c| c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')));
            if !skipped.starts_with('#') {
                self.rest = skipped;
                return;
            }
            self.rest = &skipped[skipped.find(['\n', '\r']).unwrap_or(skipped.len())..];
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn index_of(&mut self, name: &'a str) -> usize {
        let next = self.bodies.len();
        let index = *self.names.entry(name).or_insert(next);
        if index == next {
            self.bodies.push(None);
        }
        index
    }

    fn rules(&mut self) -> Result<(), String> {
        self.skip_space(true);
        while !self.rest.is_empty() {
            if self.bodies.len() > MAX_RULES {
                return Err(format!("there are more than {MAX_RULES} rules"));
            }
            let name = self.name().ok_or("a rule's name is expected")?;
            let index = self.index_of(name);
            self.skip_space(false);
            if !self.take("::=") {
                return Err(format!("::= is expected after `{name}`"));
            }
            if self.bodies[index].is_some() {
                return Err(format!("there are two rules `{name}`"));
            }
            self.skip_space(true);
            self.bodies[index] = Some(self.choice(false)?);
            if !self.rest.is_empty() && !self.rest.starts_with(['\n', '\r']) {
                return Err(format!("rule `{name}`: `{}` is not expected here", self.next()?.escape_debug()));
            }
            self.skip_space(true);
        }
        Ok(())
    }

    /// Alternatives; those in parentheses (`nested`) go over line ends.
    fn choice(&mut self, nested: bool) -> Result<Node, String> {
        let mut choices = vec![self.sequence(nested)?];
        while self.take("|") {
            self.skip_space(true);
            choices.push(self.sequence(nested)?);
        }
        Ok(Node::Choice(choices))
    }

    fn sequence(&mut self, nested: bool) -> Result<Node, String> {
        let mut parts = Vec::new();
        loop {
            let part = match self.rest.chars().next() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('(') => self.group()?,
                Some('.') => {
                    self.next()?;
                    Node::Character(Class::any())
                }
                Some('<' | '!') => return Err("tokens (<…>) are not supported; write their text".to_owned()),
                _ => match self.name() {
                    Some(name) => Node::Rule(self.index_of(name)),
                    None => return Ok(Node::Sequence(parts)),
                },
            };
            self.skip_space(nested);
            parts.push(self.repeated(part, nested)?);
        }
    }

    fn group(&mut self) -> Result<Node, String> {
        self.next()?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} parentheses are open"));
        }
        self.skip_space(true);
        let inner = self.choice(true)?;
        self.depth -= 1;
        if self.take(")") { Ok(inner) } else { Err("a `)` is expected".to_owned()) }
    }

    /// `part` with the repetitions that follow it.
    fn repeated(&mut self, mut part: Node, nested: bool) -> Result<Node, String> {
        // Each of a row of operators would be a level of its own.
        for _ in 0..MAX_DEPTH {
            let (least, most) = match self.rest.chars().next() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds()?,
                _ => return Ok(part),
            };
            self.next()?;
            self.skip_space(nested);
            part = Node::Repeat(Box::new(part), least, most);
        }
        Err(format!("more than {MAX_DEPTH} repetitions of repetitions"))
    }

    /// The numbers in braces, up to the brace that ends them.
    fn bounds(&mut self) -> Result<(usize, Option<usize>), String> {
        let wrong = || "repetitions are {n}, {n,} or {n,m}".to_owned();
        let end = self.rest.find('}').ok_or_else(wrong)?;
        let inner = &self.rest[1..end];
        self.rest = &self.rest[end..];
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (least, most) = match inner.split_once(',') {
            None => (number(inner)?, Some(number(inner)?)),
            Some((least, most)) if most.trim().is_empty() => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        match most.unwrap_or(least) {
            most if most < least => Err(wrong()),
            most if most > MAX_REPETITIONS => Err(format!("more than {MAX_REPETITIONS} repetitions")),
            _ => Ok((least, most)),
        }
    }

    fn literal(&mut self) -> Result<Node, String> {
        self.next()?;
        let mut parts = Vec::new();
        while !self.take("\"") {
            let character = self.character()?;
            parts.push(Node::Character(Class::of(&[(character, character)], false)));
        }
        Ok(Node::Sequence(parts))
    }

    fn class(&mut self) -> Result<Node, String> {
        self.next()?;
        let is_negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let from = self.character()?;
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            let to = if is_range && self.take("-") { self.character()? } else { from };
            if to < from {
                return Err(format!("the range {}-{} is empty", from.escape_debug(), to.escape_debug()));
            }
            ranges.push((from, to));
        }
        match (ranges.is_empty(), is_negated) {
            (true, true) => Ok(Node::Character(Class::any())),
            (true, false) => Err("a list of characters is empty".to_owned()),
            _ => Ok(Node::Character(Class::of(&ranges, is_negated))),
        }
    }

    fn character(&mut self) -> Result<char, String> {
        match self.next()? {
            '\\' => match self.next()? {
                'n' => Ok('\n'),
                'r' => Ok('\r'),
                't' => Ok('\t'),
                'x' => self.code(2),
                'u' => self.code(4),
                'U' => self.code(8),
                escaped @ ('\\' | '"' | '[' | ']' | '-') => Ok(escaped),
                other => Err(format!("\\{other} is no escape")),
            },
            character => Ok(character),
        }
    }

    /// The character whose number the next `digits` hexadecimal digits are.
    fn code(&mut self, digits: usize) -> Result<char, String> {
        let text = self.rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = text.and_then(|text| u32::from_str_radix(text, 16).ok()).and_then(char::from_u32);
        let code = code.ok_or_else(|| format!("{digits} hexadecimal digits of a character are expected"))?;
        self.rest = &self.rest[digits..];
        Ok(code)
    }
}
