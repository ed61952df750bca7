//! Choice of the rounds of a pool's decoders: together in one pass of the target, with how many proposals each, or each
//! in a round of its own. The choice with the highest estimate of total tokens per second is taken.

use super::decoder::Decoder;
use super::options::MAX_DRAFTS;
use super::pace::{Costs, MARGIN, Promise};
use crate::ops::MAX_ROWS;

/// Kind of round that a decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A round of its own.
    Alone,
    /// A round in a pass with others, of so many proposals.
    Together(usize),
}

/// Proposals that a decoder can contribute to a pass with others.
pub struct Candidate {
    /// K at most.
    pub most: usize,
    /// Committed tokens that its draft has to read; 0 if it has none.
    pub unseen: usize,
    /// For each position the chance that its proposal is accepted if those before it are.
    pub chances: [f64; MAX_DRAFTS],
}

impl Candidate {
    /// Rows of the draft's pass for `drafts` proposals.
    fn draft_rows(&self, drafts: usize) -> usize {
        if self.unseen == 0 || drafts == 0 { 0 } else { self.unseen + drafts - 1 }
    }
}

/// Estimate of a pass over several decoders: K of each, tokens and seconds.
struct Shared {
    drafts: Vec<usize>,
    tokens: f64,
    seconds: f64,
}

/// Chooses the kind of round of each of `decoders`.
pub fn choose_ways(decoders: &[&mut Decoder]) -> Vec<Way> {
    let mut ways = vec![Way::Alone; decoders.len()];
    // Those that promise more than a row on their own come first, the fastest before the others.
    let mut joining: Vec<(usize, Option<Promise>)> = (0..decoders.len())
        .filter(|&index| decoders[index].joins())
        .map(|index| (index, decoders[index].promise().filter(|promise| promise.tokens > 1.0)))
        .collect();
    let Some(costs) = decoders.iter().find_map(|decoder| decoder.costs()) else {
        if joining.len() > 1 {
            joining.iter().for_each(|&(index, _)| ways[index] = Way::Together(0));
        }
        return ways;
    };
    let rate_of = |promise: &Option<Promise>| promise.map_or(0.0, |promise| promise.rate());
    joining.sort_by(|(_, one), (_, other)| rate_of(other).total_cmp(&rate_of(one)));
    let offers: Vec<Option<Candidate>> = joining.iter().map(|&(index, _)| decoders[index].offer()).collect();
    let (mut best, mut most) = (None, 0.0);
    let mut alone = Promise { tokens: 0.0, seconds: 0.0 };
    for leaving in 0..=joining.len() {
        let shared = share(costs, &offers[leaving..]);
        let rate = (alone.tokens + shared.tokens) / (alone.seconds + shared.seconds).max(1e-9);
        if rate > most {
            (best, most) = (Some((leaving, shared)), rate);
        }
        let Some((_, Some(promise))) = joining.get(leaving) else { break };
        alone.tokens += promise.tokens;
        alone.seconds += promise.seconds;
    }
    // A single one has a round as any other, which may run ahead.
    if let Some((leaving, shared)) = best.filter(|(leaving, _)| joining.len() - leaving > 1) {
        for (&(index, _), drafts) in joining[leaving..].iter().zip(shared.drafts) {
            ways[index] = Way::Together(drafts);
        }
    }
    ways
}

/// The proposals that are worth most go with the rows of those that `offers` are of, as long as that pays.
fn share(costs: &Costs, offers: &[Option<Candidate>]) -> Shared {
    let count = offers.len();
    let (full, rest) = (count / MAX_ROWS, count % MAX_ROWS);
    let rest = if rest > 0 { costs.target.of(rest as f64) } else { 0.0 };
    let seconds = full as f64 * costs.target.of(MAX_ROWS as f64) + rest;
    let mut best = Shared { drafts: vec![0; count], tokens: count as f64, seconds };
    let mut most = MARGIN * best.tokens / best.seconds.max(1e-9);
    let (mut drafts, mut tokens) = (best.drafts.clone(), best.tokens);
    // The chance that all that each of them proposes is accepted.
    let mut accepted = vec![1.0; count];
    let (mut rows, mut draft_rows) = (count, 0);
    while rows < MAX_ROWS {
        let next = offers.iter().enumerate().filter_map(|(index, offer)| {
            let (offer, proposed) = (offer.as_ref()?, drafts[index]);
            let more = offer.draft_rows(proposed + 1) - offer.draft_rows(proposed);
            let fits = proposed < offer.most && draft_rows + more <= MAX_ROWS;
            fits.then(|| (index, more, accepted[index] * offer.chances[proposed]))
        });
        let Some((index, more, chance)) = next.max_by(|(.., one), (.., other)| one.total_cmp(other)) else { break };
        accepted[index] = chance;
        drafts[index] += 1;
        draft_rows += more;
        rows += 1;
        tokens += chance;
        let drafting = if draft_rows > 0 { costs.draft.of(draft_rows as f64) } else { 0.0 };
        let seconds = costs.target.of(rows as f64) + drafting;
        if tokens / seconds.max(1e-9) > most {
            most = tokens / seconds.max(1e-9);
            best = Shared { drafts: drafts.clone(), tokens, seconds };
        }
    }
    best
}
