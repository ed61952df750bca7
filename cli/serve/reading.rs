//! Choice of the prompts that are read between two rounds of the others: first come, first served, as far as rounds may be
//! kept waiting.

use std::time::Duration;

/// Target duration of the reading between two rounds.
const TURN: Duration = Duration::from_millis(250);
/// Tokens of a turn at first, at least and at most.
const FIRST: usize = 64;
const LEAST: usize = 32;
const MOST: usize = 1 << 14;
/// Largest growth of a turn's tokens over those that were read.
const GROWTH: usize = 4;

/// Number of prompt tokens read in a turn: as many as this device reads in the time that rounds may be kept waiting.
pub struct PromptBudget {
    tokens: usize,
}

impl PromptBudget {
    pub fn new() -> PromptBudget {
        PromptBudget { tokens: FIRST }
    }

    /// Tokens to read of each of the prompts that have `unread` tokens left, the oldest first. It is read to its end before
    /// another begins, and another begins only if what is left of the turn is enough for all of it: a piece costs a pass
    /// over the weights, however short it is.
    pub fn pieces(&self, unread: &[usize]) -> Vec<usize> {
        let mut pieces = vec![0; unread.len()];
        let mut left = self.tokens;
        for (piece, &unread) in pieces.iter_mut().zip(unread).filter(|(_, unread)| **unread > 0) {
            if unread > left && left < self.tokens {
                break;
            }
            *piece = unread.min(left);
            left -= *piece;
        }
        pieces
    }

    /// Takes note that `tokens` tokens were read in `time`.
    pub fn took(&mut self, tokens: usize, time: Duration) {
        let affordable = (tokens as f64 * TURN.as_secs_f64() / time.as_secs_f64().max(1e-6)) as usize;
        self.tokens = match time > TURN {
            true => affordable.max(LEAST),
            // A short piece, most of whose time is that of any pass, does not lower a number that it affords.
            false => affordable.min(GROWTH * tokens).clamp(self.tokens, MOST),
        };
    }
}
