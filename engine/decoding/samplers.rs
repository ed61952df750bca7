//! What chooses the tokens of a target and its draft where the likeliest is not what is wanted: both in the same way, by
//! the same noise, so that the draft proposes what the target will choose; or the draft by noise of its own, where the
//! rejection rule decides what becomes of its proposals.

use super::options::{Acceptance, MOST_DRAFTS, Method};
use super::sampling::{SamplingOptions, noise};
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::model::{Sampler, SamplerTerms, Sequence, Turns};
use crate::ops::{DrawParams, PenaltyTerms, RejectionTerms, Tensor, TokenCounts, TruncationTerms};

/// What chooses the tokens of target and draft.
pub struct Samplers {
    pub target: Sampler,
    pub draft: Option<Sampler>,
    counts: Option<Counts>,
}

/// What each token counts, and what counts those that a round commits, by its record's slot.
struct Counts {
    counts: Buffer,
    rounds: [TokenCounts; 2],
}

/// The parts of a round that choices are made from and go to.
#[derive(Clone, Copy)]
pub struct SamplerParts<'a> {
    pub method: Method,
    pub target: &'a Sequence,
    pub draft: Option<&'a Sequence>,
    pub session: &'a Buffer,
    /// t0 .. tK.
    pub choices: &'a Buffer,
    /// d1 .. dK.
    pub proposals: &'a Buffer,
    /// By slot.
    pub records: [&'a Buffer; 2],
}

impl Samplers {
    /// For `sampling`, which was checked; none where the likeliest token is taken.
    pub fn new(sampling: &SamplingOptions, acceptance: Acceptance, parts: SamplerParts) -> Result<Option<Samplers>> {
        if sampling.is_greedy() {
            return Ok(None);
        }
        let SamplerParts { method, target, draft, session, choices, proposals, records } = parts;
        let model = target.model();
        let (device, vocab) = (model.device(), model.config().vocab_size);
        let adjusted = match sampling.adjusts() {
            false => None,
            true => Some((
                Buffer::storage(device, "token counts", 4 * vocab as u64)?,
                Buffer::with_values(device, "logit bias", &sampling.biases(vocab))?,
            )),
        };
        let penalties = adjusted.as_ref().map(|(counts, bias)| PenaltyTerms {
            session,
            proposals,
            counts,
            bias,
            repetition: sampling.repetition_penalty,
            presence: sampling.presence_penalty,
            frequency: sampling.frequency_penalty,
        });
        let SamplingOptions { temperature, top_p, min_p, .. } = *sampling;
        // More than any vocabulary has is all of it.
        let top_k = u32::try_from(sampling.top_k).unwrap_or(0);
        let truncation = sampling.truncates().then_some(TruncationTerms { top_k, top_p, min_p, temperature });
        let draw = |seed| Buffer::uniform(device, "draw params", &DrawParams { temperature, seed });
        let is_drawn = temperature > 0.0;
        let [draw_seed, draft_seed, accept_seed] = [0, 1, 2].map(|index| noise(sampling.seed, index));
        let noise = draw(draw_seed)?;
        let terms = SamplerTerms { penalties, truncation, draw: is_drawn.then_some(&noise), ..SamplerTerms::default() };
        let (mut target_terms, mut draft_terms) = (terms, terms);
        let rejects = acceptance == Acceptance::Rejection && is_drawn && draft.is_some();
        let chances = || Tensor::new(device, "chances", 1 + MOST_DRAFTS, vocab);
        let rejection = match rejects {
            false => None,
            true => Some((chances()?, chances()?, draw(draft_seed)?)),
        };
        if let Some((target, draft, draft_noise)) = &rejection {
            (draft_terms.draw, draft_terms.chances) = (Some(draft_noise), Some((draft, temperature)));
            target_terms.chances = Some((target, temperature));
            target_terms.rejection = Some(RejectionTerms { target, draft, proposals, draw_seed, accept_seed });
        }
        // A parallel draft's rows are there before any of them has chosen.
        let turns = match method {
            Method::Pard if sampling.counts() => Turns::OneByOne { rows: MOST_DRAFTS },
            _ => Turns::Together,
        };
        let target = Sampler::new(target, target_terms, Turns::Together, choices)?;
        let draft = draft.map(|draft| Sampler::new(draft, draft_terms, turns, proposals)).transpose()?;
        let counts = match adjusted {
            Some((counts, _)) if sampling.counts() => {
                let count = |record| TokenCounts::new(device, record, &counts);
                let [one, other] = records;
                let rounds = [count(one)?, count(other)?];
                Some(Counts { counts, rounds })
            }
            _ => None,
        };
        Ok(Some(Samplers { target, draft, counts }))
    }

    /// Counts anew: `prompt` and what was written after it.
    pub fn write_counts(&self, target: &Sequence, prompt: &[u32], answer: &[u32]) {
        if let Some(Counts { counts, .. }) = &self.counts {
            let model = target.model();
            counts.write(model.device(), 0, &TokenCounts::of_text(prompt, answer, model.config().vocab_size));
        }
    }

    /// Records the counting of what a round of `drafts` proposals committed, whose record is in `slot`.
    pub fn count(&self, pass: &mut Pass, slot: usize, drafts: usize) {
        if let Some(Counts { rounds, .. }) = &self.counts {
            rounds[slot].encode(pass, drafts + 1);
        }
    }
}
