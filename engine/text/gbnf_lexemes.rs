//! Grammars in GBNF as grammars of llguidance.
//!
//! A GBNF grammar is one of characters. llguidance cuts a text into lexemes first, each as long as it can be, so that a
//! lexeme that could go on hides what may follow it in its place. What is free of recursion becomes a lexeme as a whole where
//! that cannot happen, and is cut into smaller ones where it can, down to single characters. A grammar that is free of
//! recursion is one lexeme. Texts of the result are those of the grammar, no more and no less.

use std::collections::{HashMap, HashSet};

use super::gbnf::{Node, Rules, Set};

/// The longest lexeme, in characters of the rules that it is made of, and all of them.
const MAX_SIZE: usize = 20_000;
const MAX_TOTAL: usize = 200_000;
/// Rules within rules of a lexeme.
const MAX_HEIGHT: usize = 100;
/// The largest automaton of a lexeme.
const MAX_POSITIONS: usize = 2_000;
const MAX_EDGES: usize = 50_000;
/// Pairs of lexemes that are compared at most; a pair of their positions counts for some.
const MAX_PAIRS: usize = 2_000_000;
const POSITIONS: usize = 4;

/// The grammar `text`, in llguidance's form of Lark.
///
/// # Errors
///
/// The reason, with the line or the rule at fault.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let grammar = Grammar::new(Rules::parse(text)?);
    let rules = grammar.separated(grammar.with_lexemes())?;
    let mut lexemes = HashMap::new();
    let mut lark = format!("start: r{}\n", grammar.root);
    for (rule, body) in rules.iter().enumerate() {
        let text = body.as_ref().map(|body| grammar.lark(body, &mut lexemes));
        lark.extend(text.map(|text| format!("r{rule}: {text}\n")));
    }
    let mut lexemes: Vec<(String, usize)> = lexemes.into_iter().collect();
    lexemes.sort_by_key(|(_, number)| *number);
    lark.extend(lexemes.into_iter().map(|(regex, number)| format!("L{number}: {regex}\n")));
    Ok(lark)
}

impl Node {
    fn each_rule(&self, take: &mut impl FnMut(usize)) {
        match self {
            Node::Rule(rule) => take(*rule),
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().for_each(|part| part.each_rule(take)),
            Node::Repeat(inner, ..) => inner.each_rule(take),
            Node::Character(_) | Node::Lexeme(_) => {}
        }
    }

    fn each_lexeme(&mut self, take: &mut impl FnMut(&mut Node)) {
        match self {
            Node::Lexeme(_) => take(self),
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter_mut().for_each(|part| part.each_lexeme(take)),
            Node::Repeat(inner, ..) => inner.each_lexeme(take),
            Node::Character(_) | Node::Rule(_) => {}
        }
    }
}

struct Grammar {
    bodies: Vec<Node>,
    root: usize,
    /// Of each rule that is free of recursion, and not too large for a lexeme: rules within rules, and characters.
    sizes: Vec<Option<(usize, usize)>>,
    starts: Vec<Start>,
}

/// How the texts of a part begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Start {
    /// One of them is empty.
    is_nullable: bool,
    /// Their first characters.
    first: Set,
}

impl Start {
    /// That of a part before one with the start `next`.
    fn then(self, next: Start) -> Start {
        let first = if self.is_nullable { self.first.union(next.first) } else { self.first };
        Start { is_nullable: self.is_nullable && next.is_nullable, first }
    }
}

/// The rules that are needed, some parts of which are lexemes.
type LexemeRules = Vec<Option<Node>>;

impl Grammar {
    fn new(Rules { bodies, root }: Rules) -> Grammar {
        let (sizes, starts) = (vec![None; bodies.len()], vec![Start::default(); bodies.len()]);
        let mut grammar = Grammar { bodies, root, sizes, starts };
        // A rule is measured after those that it is made of; those of a circle never are.
        while (0..grammar.bodies.len()).filter(|&rule| grammar.measure(rule)).count() > 0 {}
        grammar
    }

    /// Takes note of the size and the start of a rule, as far as they are known. Returns `true` if more is than before.
    fn measure(&mut self, rule: usize) -> bool {
        let size = self.size(&self.bodies[rule]).map(|(height, size)| (height + 1, size));
        let size = size.filter(|&(height, size)| height <= MAX_HEIGHT && size <= MAX_SIZE);
        let start = self.start(&self.bodies[rule]);
        let is_new = size != self.sizes[rule] || start != self.starts[rule];
        (self.sizes[rule], self.starts[rule]) = (size, start);
        is_new
    }

    fn size(&self, node: &Node) -> Option<(usize, usize)> {
        match node {
            Node::Character(class) => Some((0, 1 + class.regex.len() / 16)),
            Node::Rule(rule) => self.sizes[*rule],
            Node::Repeat(inner, ..) | Node::Lexeme(inner) => self.size(inner),
            Node::Sequence(parts) | Node::Choice(parts) => {
                parts.iter().try_fold((0, 0_usize), |(height, sum), part| {
                    let (other, size) = self.size(part)?;
                    Some((height.max(other), sum.saturating_add(size)))
                })
            }
        }
    }

    fn start(&self, node: &Node) -> Start {
        match node {
            Node::Character(class) => Start { is_nullable: false, first: class.set },
            Node::Rule(rule) => self.starts[*rule],
            Node::Lexeme(inner) => self.start(inner),
            Node::Repeat(_, _, Some(0)) => Start { is_nullable: true, first: Set::default() },
            Node::Repeat(inner, least, _) => {
                let Start { is_nullable, first } = self.start(inner);
                Start { is_nullable: is_nullable || *least == 0, first }
            }
            Node::Sequence(parts) => {
                let empty = Start { is_nullable: true, first: Set::default() };
                parts.iter().fold(empty, |whole, part| whole.then(self.start(part)))
            }
            Node::Choice(parts) => parts.iter().map(|part| self.start(part)).fold(Start::default(), |one, other| {
                Start { is_nullable: one.is_nullable || other.is_nullable, first: one.first.union(other.first) }
            }),
        }
    }

    /// The rules that are needed, with all that is free of recursion in lexemes, as large as they can be.
    fn with_lexemes(&self) -> LexemeRules {
        let mut rules = vec![None; self.bodies.len()];
        let mut needed = vec![self.root];
        while let Some(rule) = needed.pop() {
            if rules[rule].is_none() {
                let body = self.in_lexemes(&self.bodies[rule]);
                body.each_rule(&mut |rule| needed.push(rule));
                rules[rule] = Some(body);
            }
        }
        rules
    }

    fn in_lexemes(&self, node: &Node) -> Node {
        if self.size(node).is_some_and(|(_, size)| size <= MAX_SIZE) {
            return Node::Lexeme(Box::new(node.clone()));
        }
        match node {
            Node::Sequence(parts) => {
                let mut joined: Vec<Node> = Vec::new();
                let mut room = 0;
                for part in parts {
                    match (self.size(part), joined.last_mut()) {
                        (Some((_, size)), Some(Node::Lexeme(last))) if size <= room => {
                            if let Node::Sequence(parts) = &mut **last {
                                parts.push(part.clone());
                            }
                            room -= size;
                        }
                        (Some((_, size)), _) if size <= MAX_SIZE => {
                            joined.push(Node::Lexeme(Box::new(Node::Sequence(vec![part.clone()]))));
                            room = MAX_SIZE - size;
                        }
                        _ => joined.push(self.in_lexemes(part)),
                    }
                }
                Node::Sequence(joined)
            }
            Node::Choice(parts) => Node::Choice(parts.iter().map(|part| self.in_lexemes(part)).collect()),
            Node::Repeat(inner, least, most) => Node::Repeat(Box::new(self.in_lexemes(inner)), *least, *most),
            Node::Character(_) | Node::Rule(_) | Node::Lexeme(_) => node.clone(),
        }
    }

    /// The same with lexemes cut until none can hide what follows another, or itself.
    fn separated(&self, mut rules: LexemeRules) -> Result<LexemeRules, String> {
        if matches!(rules[self.root], Some(Node::Lexeme(_))) {
            return Ok(rules);
        }
        let too_large = || "it is too large".to_owned();
        let mut total = 0;
        for body in rules.iter_mut().flatten() {
            body.each_lexeme(&mut |lexeme| total += self.size(lexeme).map_or(0, |(_, size)| size));
        }
        if total > MAX_TOTAL {
            return Err(too_large());
        }
        let mut left = MAX_PAIRS;
        loop {
            let follows = self.follows(&rules);
            let mut automata = Vec::with_capacity(follows.len());
            for body in rules.iter_mut().flatten() {
                body.each_lexeme(&mut |lexeme| automata.push(self.automaton(lexeme)));
            }
            // Too large a lexeme is cut without a look at the others.
            let mut hides: Vec<bool> = automata.iter().map(Option::is_none).collect();
            for (one, &follow) in automata.iter().zip(&follows) {
                for (other, hides) in automata.iter().zip(&mut hides) {
                    if let (Some(one), Some(other), false) = (one, other, *hides) {
                        *hides = one.is_hidden_by(follow, other, &mut left);
                    }
                    if left == 0 {
                        return Err(too_large());
                    }
                }
            }
            let (mut hides, mut is_cut) = (hides.into_iter(), false);
            for body in rules.iter_mut().flatten() {
                body.each_lexeme(&mut |lexeme| {
                    if hides.next() == Some(true)
                        && let Some(parts) = self.cut(lexeme)
                    {
                        *lexeme = parts;
                        is_cut = true;
                    }
                });
            }
            if !is_cut {
                return Ok(rules);
            }
        }
    }

    /// The parts of a lexeme; none of a single character.
    fn cut(&self, node: &Node) -> Option<Node> {
        let lexeme = |node: &Node| Node::Lexeme(Box::new(node.clone()));
        match node {
            Node::Lexeme(inner) => self.cut(inner),
            Node::Character(_) => None,
            Node::Rule(rule) => self.cut(&self.bodies[*rule]),
            // Its end is what may go on.
            Node::Sequence(parts) => match &parts[..] {
                [] => None,
                [part] => self.cut(part),
                [parts @ .., last] => Some(Node::Sequence(vec![lexeme(&Node::Sequence(parts.to_vec())), lexeme(last)])),
            },
            Node::Choice(parts) => match &parts[..] {
                [part] => self.cut(part),
                parts => Some(Node::Choice(parts.iter().map(lexeme).collect())),
            },
            Node::Repeat(inner, least, most) => Some(Node::Repeat(Box::new(lexeme(inner)), *least, *most)),
        }
    }

    /// The characters that may follow each lexeme, in the order of [`Node::each_lexeme`].
    fn follows(&self, rules: &LexemeRules) -> Vec<Set> {
        let mut of_rules = vec![Set::default(); rules.len()];
        loop {
            let (before, mut of_lexemes) = (of_rules.clone(), Vec::new());
            for (rule, body) in rules.iter().enumerate() {
                if let Some(body) = body {
                    self.follow(body, before[rule], &mut of_rules, &mut of_lexemes);
                }
            }
            if of_rules == before {
                return of_lexemes;
            }
        }
    }

    fn follow(&self, node: &Node, follow: Set, of_rules: &mut [Set], of_lexemes: &mut Vec<Set>) {
        match node {
            Node::Character(_) => {}
            Node::Lexeme(_) => of_lexemes.push(follow),
            Node::Rule(rule) => of_rules[*rule] = of_rules[*rule].union(follow),
            Node::Choice(parts) => parts.iter().for_each(|part| self.follow(part, follow, of_rules, of_lexemes)),
            Node::Sequence(parts) => {
                let mut after = vec![follow; parts.len()];
                for index in (1..parts.len()).rev() {
                    let next = Start { is_nullable: false, first: after[index] };
                    after[index - 1] = self.start(&parts[index]).then(next).first;
                }
                for (part, follow) in parts.iter().zip(after) {
                    self.follow(part, follow, of_rules, of_lexemes);
                }
            }
            Node::Repeat(inner, _, most) => {
                let again = if most.is_some_and(|most| most < 2) { Set::default() } else { self.start(inner).first };
                self.follow(inner, follow.union(again), of_rules, of_lexemes);
            }
        }
    }

    /// The automaton of a part that is free of recursion; none if it is too large.
    fn automaton(&self, node: &Node) -> Option<Automaton> {
        let mut automaton = Automaton { start: self.start(node).first, ..Automaton::default() };
        let ends = self.build(node, &mut automaton)?;
        (automaton.first, automaton.last) = (ends.first, ends.last);
        Some(automaton)
    }

    fn build(&self, node: &Node, automaton: &mut Automaton) -> Option<Ends> {
        match node {
            Node::Character(class) => {
                let position = automaton.sets.len();
                automaton.sets.push(class.set);
                automaton.next.push(Vec::new());
                let ends = Ends { is_nullable: false, first: vec![position], last: vec![position] };
                (position < MAX_POSITIONS && automaton.edges < MAX_EDGES).then_some(ends)
            }
            Node::Rule(rule) => self.build(&self.bodies[*rule], automaton),
            Node::Lexeme(inner) => self.build(inner, automaton),
            Node::Choice(parts) => parts.iter().try_fold(Ends::default(), |whole, part| {
                let part = self.build(part, automaton)?;
                Some(Ends {
                    is_nullable: whole.is_nullable || part.is_nullable,
                    first: [whole.first, part.first].concat(),
                    last: [whole.last, part.last].concat(),
                })
            }),
            Node::Sequence(parts) => parts.iter().try_fold(Ends::empty(), |whole, part| {
                let part = self.build(part, automaton)?;
                Some(whole.then(part, automaton))
            }),
            Node::Repeat(inner, least, most) => {
                let mut whole = Ends::empty();
                let mut before: Vec<usize> = Vec::new();
                for copy in 0..most.unwrap_or((*least).max(1)) {
                    let part = self.build(inner, automaton)?;
                    automaton.connect(&before, &part.first);
                    if most.is_none() {
                        automaton.connect(&part.last, &part.first);
                    }
                    // A copy that may be empty is as well left out, and those after it.
                    if copy + 1 >= *least || part.is_nullable {
                        whole.last.extend(&part.last);
                    }
                    if copy == 0 {
                        whole = Ends { is_nullable: *least == 0 || part.is_nullable, first: part.first, ..whole };
                    }
                    before = part.last;
                }
                Some(whole)
            }
        }
    }

    fn lark(&self, node: &Node, lexemes: &mut HashMap<String, usize>) -> String {
        match node {
            Node::Rule(rule) => format!("r{rule}"),
            Node::Sequence(parts) if parts.is_empty() => "\"\"".to_owned(),
            Node::Sequence(parts) => parts.iter().map(|part| self.lark(part, lexemes)).collect::<Vec<_>>().join(" "),
            Node::Choice(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.lark(part, lexemes)).collect();
                format!("({})", parts.join(" | "))
            }
            Node::Repeat(inner, least, most) => format!("({}){}", self.lark(inner, lexemes), bounds(*least, *most)),
            Node::Character(_) | Node::Lexeme(_) => {
                let Start { is_nullable, first } = self.start(node);
                if first.is_empty() {
                    return "\"\"".to_owned();
                }
                let regex = format!("/{}/", self.regex(node));
                // No lexeme is empty.
                let regex = if is_nullable { format!("{regex} & /(?s:.+)/") } else { regex };
                let next = lexemes.len();
                let number = *lexemes.entry(regex).or_insert(next);
                if is_nullable { format!("L{number}?") } else { format!("L{number}") }
            }
        }
    }

    fn regex(&self, node: &Node) -> String {
        match node {
            Node::Character(class) => class.regex.clone(),
            Node::Rule(rule) => self.regex(&self.bodies[*rule]),
            Node::Lexeme(inner) => self.regex(inner),
            Node::Sequence(parts) => parts.iter().map(|part| self.regex(part)).collect(),
            Node::Choice(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.regex(part)).collect();
                format!("(?:{})", parts.join("|"))
            }
            Node::Repeat(inner, least, most) => format!("(?:{}){}", self.regex(inner), bounds(*least, *most)),
        }
    }
}

fn bounds(least: usize, most: Option<usize>) -> String {
    format!("{{{least},{}}}", most.map_or_else(String::new, |most| most.to_string()))
}

/// Positions of characters in the texts of a lexeme, and which may follow which.
#[derive(Default)]
struct Automaton {
    sets: Vec<Set>,
    next: Vec<Vec<usize>>,
    /// Number of pairs that may follow each other.
    edges: usize,
    /// The characters of all first positions.
    start: Set,
    first: Vec<usize>,
    last: Vec<usize>,
}

/// The positions that a part begins and ends with.
#[derive(Default)]
struct Ends {
    is_nullable: bool,
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Ends {
    fn empty() -> Ends {
        Ends { is_nullable: true, ..Ends::default() }
    }

    fn then(mut self, part: Ends, automaton: &mut Automaton) -> Ends {
        automaton.connect(&self.last, &part.first);
        if self.is_nullable {
            self.first.extend(&part.first);
        }
        let last = if part.is_nullable { [self.last, part.last].concat() } else { part.last };
        Ends { is_nullable: self.is_nullable && part.is_nullable, first: self.first, last }
    }
}

impl Automaton {
    fn connect(&mut self, from: &[usize], to: &[usize]) {
        self.edges += from.len() * to.len();
        // A larger one is given up at its next position.
        for &position in from.iter().take_while(|_| self.edges < MAX_EDGES) {
            self.next[position].extend(to);
        }
    }

    /// Returns `true` if a text of this lexeme, which a character of `follow` may follow, is the beginning of one of `other`
    /// that goes on with such a character. Takes the pairs of positions that it compares off `left`.
    fn is_hidden_by(&self, follow: Set, other: &Automaton, left: &mut usize) -> bool {
        *left = left.saturating_sub(1);
        if follow.is_empty() || self.start.both(other.start).is_empty() {
            return false;
        }
        let (mut seen, mut pairs) = (HashSet::new(), Vec::new());
        let mut push = |pairs: &mut Vec<(usize, usize)>, ours: &[usize], theirs: &[usize]| {
            for pair in ours.iter().flat_map(|&one| theirs.iter().map(move |&another| (one, another))) {
                let fits = !self.sets[pair.0].both(other.sets[pair.1]).is_empty();
                *left = left.saturating_sub(POSITIONS);
                if *left > 0 && fits && seen.insert(pair) {
                    pairs.push(pair);
                }
            }
        };
        push(&mut pairs, &self.first, &other.first);
        while let Some((one, another)) = pairs.pop() {
            let goes_on = other.next[another].iter().any(|&next| !other.sets[next].both(follow).is_empty());
            if goes_on && self.last.contains(&one) {
                return true;
            }
            push(&mut pairs, &self.next[one], &other.next[another]);
        }
        false
    }
}
