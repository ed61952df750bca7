//! Prompt-lookup drafting: what followed the last few tokens where they stood before is proposed to follow them again. It
//! takes no model and no time, and finds most of a text that is rewritten, quoted or repetitive.
//!
//! Source: Saxena 2023, "Prompt Lookup Decoding"; also in Transformers and vLLM.

use crate::error::{Error, Result};

/// The most tokens that are looked up.
pub const MOST_NGRAM: usize = 64;

/// How many of the newest tokens are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NgramOptions {
    /// As many at first, 1 to [`MOST_NGRAM`]; then fewer, as long as they are nowhere found.
    pub longest: usize,
    /// And so many at last, 1 to `longest`: what follows a few tokens is seldom the same again.
    pub shortest: usize,
}

impl Default for NgramOptions {
    fn default() -> NgramOptions {
        NgramOptions { longest: 3, shortest: 1 }
    }
}

impl NgramOptions {
    /// **Errors**: [`Error::Option`].
    pub(super) fn check(&self) -> Result<()> {
        let NgramOptions { longest, shortest } = *self;
        if shortest == 0 || shortest > longest || longest > MOST_NGRAM {
            let reason = format!("{shortest} to {longest} tokens are not within 1 to {MOST_NGRAM}, the shortest first");
            return Err(Error::Option { option: "n-gram", reason });
        }
        Ok(())
    }

    /// At most `drafts` tokens that followed the latest earlier occurrence of the end of `tokens`; none if there is none. An
    /// occurrence that reaches to the end goes on with what is proposed, so that a repetition is proposed at any length.
    pub(super) fn propose(&self, tokens: &[u32], drafts: usize) -> Vec<u32> {
        let found = (self.shortest..=self.longest).rev().find_map(|len| {
            let begin = tokens.len().checked_sub(len)?;
            let wanted = &tokens[begin..];
            (0..begin).rev().find(|&at| tokens[at..at + len] == *wanted).map(|at| at + len)
        });
        let Some(next) = found else { return Vec::new() };
        let mut proposals: Vec<u32> = Vec::with_capacity(drafts);
        for at in next..next + drafts {
            proposals.push(tokens.get(at).copied().unwrap_or_else(|| proposals[at - tokens.len()]));
        }
        proposals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins_and_of_equals_the_latest() {
        let options = NgramOptions::default();
        // [2, 3] stands at 1 and at 5; [9, 2, 3] nowhere else but at the end.
        let text = [1, 2, 3, 4, 8, 2, 3, 5, 6, 9, 2, 3];
        assert_eq!(options.propose(&text, 3), [5, 6, 9]);
        // [1, 2, 3] at the beginning is longer than [2, 3] later on.
        assert_eq!(options.propose(&[1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], 2), [4, 8]);
        assert_eq!(NgramOptions { longest: 2, shortest: 1 }.propose(&[1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], 2), [5, 1]);
    }

    #[test]
    fn what_was_never_there_proposes_nothing() {
        assert_eq!(NgramOptions::default().propose(&[1, 2, 3, 4], 8), []);
        assert_eq!(NgramOptions::default().propose(&[1], 8), []);
        assert_eq!(NgramOptions::default().propose(&[1, 1], 0), []);
        // One token alone is not enough where two are asked for.
        assert_eq!(NgramOptions { longest: 3, shortest: 2 }.propose(&[1, 2, 3, 2], 8), []);
        assert_eq!(NgramOptions::default().propose(&[1, 2, 3, 2], 1), [3]);
    }

    #[test]
    fn a_repetition_goes_on_as_long_as_it_may() {
        assert_eq!(NgramOptions::default().propose(&[9, 1, 2, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
        assert_eq!(NgramOptions::default().propose(&[7, 7], 4), [7, 7, 7, 7]);
    }
}
