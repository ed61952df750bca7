//! Choice of the passes of a step: which sequences share one, with how many proposals each. The choice with the highest
//! estimate of total tokens per second is taken. It is made from data alone, and no text depends on it.

use super::options::MAX_DRAFTS;
use super::pace::{Costs, MARGIN, Promise};
use super::proposer::Proposer;
use crate::ops::MAX_ROWS;

/// What is known of a sequence before its round.
pub struct Candidate {
    /// Set if it has to have a pass of its own: its text depends on K.
    pub is_solitary: bool,
    /// Estimate of a round of its own, if costs are known.
    pub alone: Option<Promise>,
    /// Proposals that it can contribute to a pass with others, if costs are known.
    pub offer: Option<Offer>,
}

/// Proposals that a sequence can contribute to a pass with others.
pub struct Offer {
    /// Source of the proposals.
    pub proposer: Proposer,
    /// K at most.
    pub most: usize,
    /// Committed tokens that its draft has to read, if it has one.
    pub unread: usize,
    /// For each position the chance that its proposal is accepted if those before it are.
    pub chances: [f64; MAX_DRAFTS],
}

/// A sequence's place in a pass: its index among the candidates, and K; none if the sequence chooses it for itself.
pub type Assignment = (usize, Option<usize>);

/// Estimate of a pass over several sequences: K of each, tokens and seconds.
struct Estimate {
    drafts: Vec<usize>,
    tokens: f64,
    seconds: f64,
}

/// The passes of a step, each with its sequences.
pub fn plan_step(candidates: &[Candidate], costs: Option<&Costs>) -> Vec<Vec<Assignment>> {
    let joint = joint_drafts(candidates, costs);
    let mut passes: Vec<Vec<Assignment>> = Vec::new();
    for index in (0..candidates.len()).filter(|&index| joint[index].is_none()) {
        passes.push(vec![(index, None)]);
    }
    let together: Vec<Assignment> =
        joint.iter().enumerate().filter_map(|(index, &drafts)| Some((index, Some(drafts?)))).collect();
    passes.extend(together.chunks(MAX_ROWS).map(<[Assignment]>::to_vec));
    passes
}

/// For each candidate, K in a pass with others; none if it has a pass of its own.
fn joint_drafts(candidates: &[Candidate], costs: Option<&Costs>) -> Vec<Option<usize>> {
    let mut joint = vec![None; candidates.len()];
    // Those that promise more than a row on their own come first, the fastest before the others.
    let mut joining: Vec<(usize, Option<Promise>)> = (0..candidates.len())
        .filter(|&index| !candidates[index].is_solitary)
        .map(|index| (index, candidates[index].alone.filter(|promise| promise.tokens > 1.0)))
        .collect();
    if joining.len() < 2 {
        return joint;
    }
    let Some(costs) = costs else {
        joining.iter().for_each(|&(index, _)| joint[index] = Some(0));
        return joint;
    };
    let rate_of = |promise: &Option<Promise>| promise.map_or(0.0, |promise| promise.rate());
    joining.sort_by(|(_, one), (_, other)| rate_of(other).total_cmp(&rate_of(one)));
    let offers: Vec<Option<&Offer>> = joining.iter().map(|&(index, _)| candidates[index].offer.as_ref()).collect();
    let (mut best, mut most) = (None, 0.0);
    let mut alone = Promise { tokens: 0.0, seconds: 0.0 };
    for leaving in 0..=joining.len() {
        let shared = fill_pass(costs, &offers[leaving..]);
        let rate = (alone.tokens + shared.tokens) / (alone.seconds + shared.seconds).max(1e-9);
        if rate > most {
            (best, most) = (Some((leaving, shared)), rate);
        }
        let Some((_, Some(promise))) = joining.get(leaving) else { break };
        alone.tokens += promise.tokens;
        alone.seconds += promise.seconds;
    }
    // A single one chooses K for itself.
    if let Some((leaving, shared)) = best.filter(|(leaving, _)| joining.len() - leaving > 1) {
        for (&(index, _), drafts) in joining[leaving..].iter().zip(shared.drafts) {
            joint[index] = Some(drafts);
        }
    }
    joint
}

/// A pass over a row of each of those that `offers` are of, with the proposals that are worth most, as long as that pays.
fn fill_pass(costs: &Costs, offers: &[Option<&Offer>]) -> Estimate {
    let count = offers.len();
    let (full, rest) = (count / MAX_ROWS, count % MAX_ROWS);
    let rest = if rest > 0 { costs.target.of(rest as f64) } else { 0.0 };
    let seconds = full as f64 * costs.target.of(MAX_ROWS as f64) + rest;
    let mut best = Estimate { drafts: vec![0; count], tokens: count as f64, seconds };
    let mut most = MARGIN * best.tokens / best.seconds.max(1e-9);
    let (mut drafts, mut tokens) = (best.drafts.clone(), best.tokens);
    // The chance that all that each of them proposes is accepted.
    let mut accepted = vec![1.0; count];
    let mut rows = count;
    while rows < MAX_ROWS {
        let first_pass = draft_rows(offers, &drafts, 0);
        let next = offers.iter().enumerate().filter_map(|(index, offer)| {
            let (offer, proposed) = ((*offer)?, drafts[index]);
            let rows_of = |drafts| offer.proposer.draft_pass(0, drafts, offer.unread).map_or(0, |(rows, _)| rows);
            let fits = proposed < offer.most && first_pass + rows_of(proposed + 1) - rows_of(proposed) <= MAX_ROWS;
            fits.then(|| (index, accepted[index] * offer.chances[proposed]))
        });
        let Some((index, chance)) = next.max_by(|(.., one), (.., other)| one.total_cmp(other)) else { break };
        accepted[index] = chance;
        drafts[index] += 1;
        rows += 1;
        tokens += chance;
        let passes = (0..MAX_DRAFTS).map(|pass_index| draft_rows(offers, &drafts, pass_index));
        let drafting: f64 = passes.take_while(|&rows| rows > 0).map(|rows| costs.draft.of(rows as f64)).sum();
        let seconds = costs.target.of(rows as f64) + drafting;
        if tokens / seconds.max(1e-9) > most {
            most = tokens / seconds.max(1e-9);
            best = Estimate { drafts: drafts.clone(), tokens, seconds };
        }
    }
    best
}

/// Rows of the draft's pass `pass_index` if each of those that `offers` are of makes `drafts` proposals.
fn draft_rows(offers: &[Option<&Offer>], drafts: &[usize], pass_index: usize) -> usize {
    let rows = offers.iter().zip(drafts).filter_map(|(offer, &drafts)| {
        let offer = (*offer)?;
        offer.proposer.draft_pass(pass_index, drafts, offer.unread)
    });
    rows.map(|(rows, _)| rows).sum()
}
