//! The measure that counts: tokens per round on prompts that were not learnt from, through the engine itself.

use std::sync::Arc;

use crate::decoding::{Draft, DraftLength, Method, Sequence, SequenceOptions};
use crate::error::Result;
use crate::model::Weights;

/// Acceptance of a draft's proposals by its target.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptanceRate {
    /// Mean tokens that a round commits, the target's own included.
    pub tokens_per_round: f64,
    /// For each position of the draft, the share of rounds in which it was accepted.
    pub accepted: Vec<f64>,
}

/// Lets `target` and `draft` answer `prompts` with up to `max_tokens` tokens each, `drafts` proposed per round, and
/// ends early when `keep_going` says so. An answer ends at a token of `stop_tokens`.
///
/// # Errors
///
/// Those of [`Sequence`].
pub fn acceptance(
    target: &Arc<Weights>,
    draft: &Draft,
    prompts: &[Vec<u32>],
    stop_tokens: &[u32],
    [drafts, max_tokens]: [usize; 2],
    keep_going: &dyn Fn() -> bool,
) -> Result<AcceptanceRate> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
    let context = longest + max_tokens + 1;
    let (method, fixed) = (Method::Pard, DraftLength::Fixed(drafts));
    let options = SequenceOptions { method, drafts: fixed, context, ..SequenceOptions::default() };
    let mut sequence = Sequence::new(target, Some(draft), options)?;
    let (mut rounds, mut tokens, mut accepted) = (0, 0, vec![0.0; drafts]);
    for prompt in prompts {
        sequence.start_while(prompt, keep_going)?;
        while keep_going() && sequence.tokens().len() < prompt.len() + max_tokens {
            if sequence.round()?.iter().any(|id| stop_tokens.contains(id)) {
                break;
            }
        }
        let statistics = sequence.statistics();
        rounds += statistics.rounds;
        tokens += statistics.committed_tokens;
        for (sum, share) in accepted.iter_mut().zip(statistics.accepted_per_position()) {
            *sum += share * statistics.rounds as f64;
        }
        if !keep_going() {
            break;
        }
    }
    let rounds = rounds.max(1) as f64;
    let accepted = accepted.into_iter().map(|sum| sum / rounds).collect();
    Ok(AcceptanceRate { tokens_per_round: tokens as f64 / rounds, accepted })
}
