//! Cost of a generation and gain of speculation.

use std::time::Duration;

/// Counts and times of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of them that the target's caches already held, as [`super::Sequence::resume`] leaves them.
    pub reused_tokens: usize,
    /// Tokens the rounds committed, those cut off after a stop included.
    pub committed_tokens: usize,
    /// Rounds: target passes after the prompt.
    pub rounds: usize,
    /// Rounds in which n-grams proposed in the draft's place.
    pub ngram_rounds: usize,
    /// Proposals that a grammar forced.
    pub forced: usize,
    /// Rounds with an i-th proposal, by i.
    pub proposed: Vec<usize>,
    /// Rounds in which the i-th proposal was accepted, by i.
    pub accepted: Vec<usize>,
    /// Time that the host worked on the grammar, within `decode`.
    pub grammar: Duration,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for all rounds.
    pub decode: Duration,
}

/// Counts and time of one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundStatistics {
    /// Proposals: K.
    pub proposed: usize,
    /// Number of them that were accepted.
    pub accepted: usize,
    /// Time that the caller waited for it.
    pub time: Duration,
}

impl Statistics {
    /// Counts one round of `drafts` proposals that committed `committed` tokens.
    pub(super) fn count(&mut self, drafts: usize, committed: usize, time: Duration) {
        self.rounds += 1;
        self.committed_tokens += committed;
        self.decode += time;
        let positions = self.accepted.len().max(drafts);
        self.proposed.resize(positions, 0);
        self.accepted.resize(positions, 0);
        self.proposed[..drafts].iter_mut().for_each(|count| *count += 1);
        self.accepted[..committed.saturating_sub(1)].iter_mut().for_each(|count| *count += 1);
    }

    /// Mean tokens a round commits, the target's own included: 1 without speculation, K + 1 at most.
    pub fn tokens_per_round(&self) -> f64 {
        self.committed_tokens as f64 / self.rounds.max(1) as f64
    }

    /// For each position of the draft, the share of the rounds with such a proposal in which it was accepted.
    pub fn accepted_per_position(&self) -> Vec<f64> {
        let shares = self.accepted.iter().zip(&self.proposed);
        shares.map(|(&accepted, &proposed)| accepted as f64 / proposed.max(1) as f64).collect()
    }

    /// Mean K of all rounds, those without proposals included.
    pub fn mean_drafts(&self) -> f64 {
        self.proposed.iter().sum::<usize>() as f64 / self.rounds.max(1) as f64
    }

    /// Rounds without proposals.
    pub fn plain_rounds(&self) -> usize {
        self.rounds - self.proposed.first().copied().unwrap_or(0)
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
        self.reused_tokens += other.reused_tokens;
        self.committed_tokens += other.committed_tokens;
        self.rounds += other.rounds;
        self.ngram_rounds += other.ngram_rounds;
        self.forced += other.forced;
        for (sums, counts) in [(&mut self.proposed, &other.proposed), (&mut self.accepted, &other.accepted)] {
            sums.resize(sums.len().max(counts.len()), 0);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        self.grammar += other.grammar;
        self.prefill += other.prefill;
        self.decode += other.decode;
    }
}
