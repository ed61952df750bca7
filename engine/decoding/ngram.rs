//! Prompt-lookup drafting: the tokens that followed an earlier occurrence of the last few are proposed to follow them
//! again. It takes no model and no time, and finds most of a text that is rewritten, quoted or repetitive.
//!
//! Source: Saxena 2023, "Prompt Lookup Decoding"; also in Transformers and vLLM.

use crate::error::{Error, OptionName, Result};

/// The most tokens that are looked up.
pub const MAX_NGRAM: usize = 64;

/// Lengths of the n-grams that are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NgramOptions {
    /// Length tried first, 1 to [`MAX_NGRAM`]; shorter ones follow until one is found.
    pub longest: usize,
    /// Length tried last, 1 to `longest`: few tokens are seldom followed by the same again.
    pub shortest: usize,
}

crate::builder::setters! {
    NgramOptions {
        longest: usize,
        shortest: usize,
    }
}

impl Default for NgramOptions {
    fn default() -> NgramOptions {
        NgramOptions { longest: 3, shortest: 1 }
    }
}

impl NgramOptions {
    /// # Errors
    ///
    /// [`Error::Option`].
    pub(super) fn check(&self) -> Result<()> {
        let NgramOptions { longest, shortest } = *self;
        if shortest == 0 || shortest > longest || longest > MAX_NGRAM {
            let reason = format!("{shortest} to {longest} tokens are not within 1 to {MAX_NGRAM}, the shortest first");
            return Err(Error::Option { option: OptionName::Ngram, reason });
        }
        Ok(())
    }

    /// At most `drafts` tokens that followed the latest earlier occurrence of the end of `tokens`; none if there is none.
    /// An occurrence that reaches the end continues with the proposals themselves, so a repetition is proposed at any
    /// length.
    pub fn propose(&self, tokens: &[u32], drafts: usize) -> Vec<u32> {
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
