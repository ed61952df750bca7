//! What a generation cost and what speculation bought.

use std::time::Duration;

/// Counts and times of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens the rounds committed, those cut off after a stop included.
    pub committed_tokens: usize,
    /// Rounds: target passes after the prompt.
    pub rounds: usize,
    /// In how many rounds the i-th proposal was accepted.
    pub accepted: Vec<usize>,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for all rounds.
    pub decode: Duration,
}

impl Statistics {
    /// Counts one round of `drafts` proposals that committed `committed` tokens.
    pub(super) fn count(&mut self, drafts: usize, committed: usize, time: Duration) {
        self.rounds += 1;
        self.committed_tokens += committed;
        self.decode += time;
        self.accepted.resize(self.accepted.len().max(drafts), 0);
        for accepted in &mut self.accepted[..committed - 1] {
            *accepted += 1;
        }
    }

    /// Mean tokens a round commits, the target's own included: 1 without speculation, K + 1 at most.
    pub fn tokens_per_round(&self) -> f64 {
        self.committed_tokens as f64 / self.rounds.max(1) as f64
    }

    /// For each position of the draft, the share of rounds in which it was accepted.
    pub fn accepted_per_position(&self) -> Vec<f64> {
        self.accepted.iter().map(|&count| count as f64 / self.rounds.max(1) as f64).collect()
    }

    /// Tokens committed per second of decoding, the prompt's time left out.
    pub fn tokens_per_second(&self) -> f64 {
        self.committed_tokens as f64 / self.decode.as_secs_f64().max(1e-9)
    }
}

impl std::ops::AddAssign<&Statistics> for Statistics {
    /// Adds another answer's counts and times.
    fn add_assign(&mut self, other: &Statistics) {
        self.prompt_tokens += other.prompt_tokens;
        self.committed_tokens += other.committed_tokens;
        self.rounds += other.rounds;
        self.accepted.resize(self.accepted.len().max(other.accepted.len()), 0);
        for (sum, count) in self.accepted.iter_mut().zip(&other.accepted) {
            *sum += count;
        }
        self.prefill += other.prefill;
        self.decode += other.decode;
    }
}
