//! The state of an answer that keeps to a grammar: which tokens may follow, and which are forced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llguidance::Matcher;

use super::thinking::{Stage, ThinkTokens, Thinking};
use crate::error::{Error, Result};

/// What an answer, as far as it is committed, allows next.
pub struct Constraint {
    matcher: Matcher,
    stop_tokens: Arc<[u32]>,
    thoughts: Option<Thoughts>,
    /// Committed tokens.
    committed: usize,
    /// Committed tokens that the matcher has taken: all of them, but thoughts and what follows the end.
    taken: usize,
    spent: Duration,
}

/// Proposals that a grammar allows, and what it allows after each of them.
#[derive(Debug, Default, PartialEq)]
pub struct Walk {
    /// The proposals.
    pub tokens: Vec<u32>,
    /// Number of them that come from the grammar.
    pub forced: usize,
    /// A mask of the vocabulary for each proposal, and for the token after the last; bit i of word j is token 32 j + i.
    pub masks: Vec<u32>,
}

impl Constraint {
    /// The beginning of an answer that keeps to the grammar of `matcher`, after a block of thoughts with these tokens if there
    /// may be one.
    pub(super) fn new(
        matcher: Matcher,
        stop_tokens: Arc<[u32]>,
        thoughts: Option<(Thinking, Arc<ThinkTokens>)>,
    ) -> Constraint {
        let thoughts = thoughts.filter(|(thinking, _)| *thinking != Thinking::None);
        let thoughts = thoughts.map(|(thinking, tokens)| Thoughts { tokens, stages: vec![Stage::first(thinking)] });
        Constraint { matcher, stop_tokens, thoughts, committed: 0, taken: 0, spent: Duration::ZERO }
    }

    /// Begins an answer anew.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`] if the grammar cannot be followed any more.
    pub fn restart(&mut self) -> Result<()> {
        (self.committed, self.taken, self.spent) = (0, 0, Duration::ZERO);
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.stages.truncate(1);
        }
        self.matcher.reset().map_err(fault)
    }

    /// Time that masks, walks and forced tokens took since the answer began.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Takes note of committed tokens, and gives their number.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`] if one of them is not allowed, which happens if all that are allowed are banned, and the number of
    /// tokens before it.
    pub fn commit(&mut self, tokens: &[u32]) -> std::result::Result<usize, (usize, Error)> {
        let begin = Instant::now();
        for (index, &token) in tokens.iter().enumerate() {
            self.take(token).map_err(|error| (index, error))?;
        }
        self.spent += begin.elapsed();
        Ok(tokens.len())
    }

    /// Drops the last `count` committed tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`].
    pub fn roll_back(&mut self, count: usize) -> Result<()> {
        self.committed = self.committed.saturating_sub(count);
        let thoughts = self.thoughts.as_ref().map_or(0, Thoughts::len);
        let surplus = self.taken.saturating_sub(self.committed.saturating_sub(thoughts));
        self.taken -= surplus;
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.stages.truncate(self.committed + 1);
        }
        self.matcher.rollback(surplus).map_err(fault)
    }

    /// Place of the next token before the grammar; none within it.
    fn stage(&self) -> Option<(Stage, &ThinkTokens)> {
        let thoughts = self.thoughts.as_ref().filter(|_| self.taken == 0)?;
        let stage = thoughts.stages.last().copied().filter(|&stage| stage != Stage::Past)?;
        Some((stage, &thoughts.tokens))
    }

    /// The tokens that must come next, `most` at most.
    pub fn forced(&mut self, most: usize) -> Vec<u32> {
        let begin = Instant::now();
        let forced = self.forced_tokens(most);
        self.spent += begin.elapsed();
        forced
    }

    fn forced_tokens(&mut self, most: usize) -> Vec<u32> {
        // Thoughts, or the line end after them, could come as well.
        if self.matcher.is_stopped() || most == 0 || self.stage().is_some() {
            return Vec::new();
        }
        let mut forced = self.matcher.compute_ff_tokens();
        forced.truncate(most);
        let allowed = self.matcher.validate_tokens(&forced).unwrap_or(0);
        forced.truncate(allowed);
        forced
    }

    /// The mask of the next token, for a vocabulary of `ids` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`] if nothing can follow, or finding out what can takes too long.
    pub fn mask(&mut self, ids: usize) -> Result<Vec<u32>> {
        let begin = Instant::now();
        let mask = self.next_mask(ids);
        self.spent += begin.elapsed();
        mask
    }

    fn next_mask(&mut self, ids: usize) -> Result<Vec<u32>> {
        let mut words = match self.stage() {
            Some((Stage::Within, _)) => self.mask_of_thoughts(ids),
            _ => self.mask_of_grammar(ids)?,
        };
        match self.stage() {
            Some((Stage::Before, tokens)) => allow(&mut words, &[tokens.opening]),
            Some((Stage::After, tokens)) => allow(&mut words, &tokens.line_ends),
            _ => {}
        }
        // Bits of the last word that are no tokens.
        if let Some(last) = words.last_mut().filter(|_| !ids.is_multiple_of(32)) {
            *last &= (1 << (ids % 32)) - 1;
        }
        Ok(words)
    }

    /// Everything but the answer's end, which would leave out what is to follow.
    fn mask_of_thoughts(&self, ids: usize) -> Vec<u32> {
        let mut words = vec![u32::MAX; ids.div_ceil(32)];
        for &token in self.stop_tokens.iter() {
            if let Some(word) = words.get_mut(token as usize / 32) {
                *word &= !(1 << (token % 32));
            }
        }
        words
    }

    fn mask_of_grammar(&mut self, ids: usize) -> Result<Vec<u32>> {
        let mask = self.matcher.compute_mask_or_eos().map_err(fault)?;
        let mut words = mask.as_slice().to_vec();
        words.resize(ids.div_ceil(32), 0);
        if self.stop_tokens.first().is_some_and(|&end| mask.is_allowed(end)) {
            allow(&mut words, &self.stop_tokens);
        }
        Ok(words)
    }

    /// Walks along `proposals` as far as they are allowed and not more than `most`, and with forced tokens from there on, if
    /// `extends` says so. The state stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Constraint::mask`].
    pub fn walk(&mut self, proposals: &[u32], most: usize, extends: bool, ids: usize) -> Result<Walk> {
        let begin = Instant::now();
        let walk = self.walk_along(proposals, most, extends, ids);
        self.spent += begin.elapsed();
        walk
    }

    fn walk_along(&mut self, proposals: &[u32], most: usize, extends: bool, ids: usize) -> Result<Walk> {
        let mut walk = Walk::default();
        let (begin, mut forced) = (self.committed, Vec::new());
        let result = loop {
            let mask = match self.next_mask(ids) {
                Ok(mask) => mask,
                Err(error) => break Err(error),
            };
            let allows = |token: u32| mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1);
            let at = walk.tokens.len();
            let proposed = proposals.get(at).copied().filter(|&token| at < most && walk.forced == 0 && allows(token));
            walk.masks.extend(&mask);
            if proposed.is_none() && extends && at < most && forced.is_empty() {
                forced = self.forced_tokens(most - at);
                forced.reverse();
            }
            let Some(token) = proposed.or_else(|| forced.pop()) else { break Ok(walk) };
            walk.forced += usize::from(proposed.is_none());
            walk.tokens.push(token);
            if let Err(error) = self.take(token) {
                break Err(error);
            }
        };
        self.roll_back(self.committed - begin)?;
        result
    }

    /// Goes on by a token: of the thoughts, of the grammar, or one that follows its end.
    fn take(&mut self, token: u32) -> Result<()> {
        let next = self.stage().and_then(|(stage, tokens)| stage.next(token, tokens));
        if let (Some(next), Some(thoughts)) = (next, &mut self.thoughts) {
            thoughts.stages.push(next);
        } else if !self.matcher.is_stopped() {
            self.consume(token)?;
            self.taken += 1;
        }
        self.committed += 1;
        Ok(())
    }

    /// Lets the matcher go on by a token; it knows one of those that end an answer.
    fn consume(&mut self, token: u32) -> Result<()> {
        let token = match self.stop_tokens.contains(&token) {
            true => self.stop_tokens[0],
            false => token,
        };
        self.matcher.consume_token(token).map_err(fault)
    }
}

/// Sets the bits of `tokens` in a mask, as far as it has them.
fn allow(words: &mut [u32], tokens: &[u32]) {
    for &token in tokens {
        if let Some(word) = words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }
}

/// Progress through the block of thoughts that comes before the grammar.
struct Thoughts {
    tokens: Arc<ThinkTokens>,
    /// The stage of each token before the grammar, and of the one after them.
    stages: Vec<Stage>,
}

impl Thoughts {
    /// Number of tokens before the grammar.
    fn len(&self) -> usize {
        self.stages.len() - 1
    }
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Grammar { kind: "grammar", reason: error.to_string().trim().to_owned() }
}
