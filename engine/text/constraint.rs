//! The state of an answer that keeps to a grammar: which tokens may follow, and which are forced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llguidance::Matcher;

use crate::error::{Error, Result};

/// What an answer, as far as it is committed, allows next.
pub struct Constraint {
    matcher: Matcher,
    stop_tokens: Arc<[u32]>,
    /// Committed tokens.
    committed: usize,
    /// Committed tokens that the matcher has taken: all of them, but what follows the end.
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
    pub(super) fn new(matcher: Matcher, stop_tokens: Arc<[u32]>) -> Constraint {
        Constraint { matcher, stop_tokens, committed: 0, taken: 0, spent: Duration::ZERO }
    }

    /// Begins an answer anew.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`] if the grammar cannot be followed any more.
    pub fn restart(&mut self) -> Result<()> {
        (self.committed, self.taken, self.spent) = (0, 0, Duration::ZERO);
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
            self.taken += usize::from(self.take(token).map_err(|error| (index, error))?);
            self.committed += 1;
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
        let surplus = self.taken.saturating_sub(self.committed);
        self.taken -= surplus;
        self.matcher.rollback(surplus).map_err(fault)
    }

    /// The tokens that must come next, `most` at most.
    pub fn forced(&mut self, most: usize) -> Vec<u32> {
        let begin = Instant::now();
        let forced = self.forced_tokens(most);
        self.spent += begin.elapsed();
        forced
    }

    fn forced_tokens(&mut self, most: usize) -> Vec<u32> {
        if self.matcher.is_stopped() || most == 0 {
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
        let mask = self.matcher.compute_mask_or_eos().map_err(fault)?;
        let mut words = mask.as_slice().to_vec();
        words.resize(ids.div_ceil(32), 0);
        if self.stop_tokens.first().is_some_and(|&end| mask.is_allowed(end)) {
            for &token in self.stop_tokens.iter().filter(|&&token| (token as usize) < ids) {
                words[token as usize / 32] |= 1 << (token % 32);
            }
        }
        // Bits of the last word that are no tokens.
        if let Some(last) = words.last_mut().filter(|_| !ids.is_multiple_of(32)) {
            *last &= (1 << (ids % 32)) - 1;
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
        let (mut taken, mut forced) = (0, Vec::new());
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
            match self.take(token) {
                Ok(was_taken) => taken += usize::from(was_taken),
                Err(error) => break Err(error),
            }
        };
        self.matcher.rollback(taken).map_err(fault)?;
        result
    }

    /// Goes on by a token; gives false for one that follows the end of the grammar, or ends the answer by another token than
    /// the one that the matcher knows.
    fn take(&mut self, token: u32) -> Result<bool> {
        if self.matcher.is_stopped() {
            return Ok(false);
        }
        let token = match self.stop_tokens.contains(&token) {
            true => self.stop_tokens[0],
            false => token,
        };
        self.matcher.consume_token(token).map_err(fault)?;
        Ok(true)
    }
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Grammar { kind: "grammar", reason: error.to_string().trim().to_owned() }
}
