//! Samplers of a target and its draft where tokens other than the likeliest are wanted: both choose in the same way, by
//! the same noise, so that the draft proposes what the target will choose; or the draft by noise of its own, where the
//! rejection rule decides on its proposals.

use super::options::{AcceptanceRule, MAX_DRAFTS, Method};
use super::remote::RemoteDraft;
use super::sampling_params::{SamplingParams, noise};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass};
use crate::model::{ModelRunner, Sampler, SamplerTerms, Turns};
use crate::ops::{DrawParams, PenaltyTerms, RejectionTerms, Tensor, TokenCounts, TruncationTerms};

/// Samplers of target and draft.
pub struct Samplers {
    pub target: Sampler,
    pub draft: Option<Sampler>,
    counts: Option<Counts>,
    /// The same on the draft's device, if that is another.
    elsewhere: Option<(Buffer, TokenCounts)>,
}

/// Count of each token, and the kernels that count those a round commits, by its record's slot.
struct Counts {
    counts: Buffer,
    rounds: [TokenCounts; 2],
}

/// The parts of a round that choices are made from and go to.
#[derive(Clone, Copy)]
pub struct SamplerParts<'a> {
    pub method: Method,
    pub target: &'a ModelRunner,
    pub draft: Option<&'a ModelRunner>,
    pub session: &'a Buffer,
    /// t0 .. tK.
    pub choices: &'a Buffer,
    /// d1 .. dK.
    pub proposals: &'a Buffer,
    /// The draft's bookkeeping, if it is on another device.
    pub remote: Option<&'a RemoteDraft>,
    /// By slot.
    pub records: [&'a Buffer; 2],
}

impl Samplers {
    /// For `sampling`, which was checked; none where the likeliest token is taken.
    pub fn new(sampling: &SamplingParams, acceptance: AcceptanceRule, parts: SamplerParts) -> Result<Option<Samplers>> {
        if sampling.is_greedy() {
            return Ok(None);
        }
        let SamplerParts { method, target, draft, session, choices, proposals, remote, records } = parts;
        let model = target.model();
        let (device, vocab) = (model.device(), model.config().vocab_size);
        let temperature = sampling.temperature;
        let basis = Basis::new(device, sampling, vocab)?;
        let remote_basis = remote.map(|remote| Basis::new(&remote.device, sampling, vocab)).transpose()?;
        let draw = |seed| Buffer::uniform(device, "draw params", &DrawParams { temperature, seed });
        let is_drawn = temperature > 0.0;
        let [draw_seed, draft_seed, accept_seed] = [0, 1, 2].map(|index| noise(sampling.seed, index));
        let mut target_terms = basis.terms(sampling, session, proposals);
        let mut draft_terms = match (remote, &remote_basis) {
            (Some(remote), Some(basis)) => basis.terms(sampling, &remote.session, &remote.proposals),
            _ => target_terms,
        };
        let rejects = acceptance == AcceptanceRule::Rejection && is_drawn && draft.is_some();
        let chances = || Tensor::new(device, "chances", 1 + MAX_DRAFTS, vocab);
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
            Method::Pard if sampling.counts() => Turns::OneByOne { rows: MAX_DRAFTS },
            _ => Turns::Together,
        };
        let target = Sampler::new(target, target_terms, Turns::Together, choices)?;
        let proposals = remote.map_or(proposals, |remote| &remote.proposals);
        let draft = draft.map(|draft| Sampler::new(draft, draft_terms, turns, proposals)).transpose()?;
        let elsewhere = match (remote, remote_basis.and_then(|basis| basis.adjusted)) {
            (Some(remote), Some((counts, _))) if sampling.counts() => {
                let kernel = TokenCounts::new(&remote.device, &remote.record, &counts)?;
                Some((counts, kernel))
            }
            _ => None,
        };
        let counts = match basis.adjusted {
            Some((counts, _)) if sampling.counts() => {
                let count = |record| TokenCounts::new(device, record, &counts);
                let [one, other] = records;
                let rounds = [count(one)?, count(other)?];
                Some(Counts { counts, rounds })
            }
            _ => None,
        };
        Ok(Some(Samplers { target, draft, counts, elsewhere }))
    }

    /// Counts anew: `prompt`, and `answer` after it.
    pub fn write_counts(&self, target: &ModelRunner, prompt: &[u32], answer: &[u32]) {
        if let Some(Counts { counts, .. }) = &self.counts {
            let model = target.model();
            counts.write(model.device(), 0, &TokenCounts::of_text(prompt, answer, model.config().vocab_size));
        }
    }

    /// Records the counting of the tokens that a round of `drafts` proposals committed, whose record is in `slot`.
    pub fn count(&self, pass: &mut Pass, slot: usize, drafts: usize) {
        if let Some(Counts { rounds, .. }) = &self.counts {
            rounds[slot].encode(pass, drafts + 1);
        }
    }

    /// Tells the draft's device, if it is another, the tokens that it has not counted yet, of a text of `tokens` that
    /// begins with a prompt of `prompt_tokens`.
    pub fn hand_over(&self, remote: &mut RemoteDraft, target: &ModelRunner, tokens: &[u32], prompt_tokens: usize) {
        if let Some((counts, _)) = &self.elsewhere
            && !remote.record(tokens)
        {
            let (prompt, answer) = tokens.split_at(prompt_tokens.min(tokens.len()));
            let vocab = target.model().config().vocab_size;
            counts.write(&remote.device, 0, &TokenCounts::of_text(prompt, answer, vocab));
        }
    }

    /// Records the counting of the tokens that were handed over.
    pub fn count_elsewhere(&self, pass: &mut Pass) {
        if let Some((_, kernel)) = &self.elsewhere {
            kernel.encode(pass, MAX_DRAFTS + 1);
        }
    }
}

/// Inputs of the samplers on one device.
struct Basis {
    /// Count and bias of each token, if they change logits.
    adjusted: Option<(Buffer, Buffer)>,
    /// Holds [`DrawParams`].
    noise: Buffer,
}

impl Basis {
    fn new(device: &Device, sampling: &SamplingParams, vocab: usize) -> Result<Basis> {
        let adjusted = match sampling.adjusts() {
            false => None,
            true => Some((
                Buffer::storage(device, "token counts", 4 * vocab as u64)?,
                Buffer::with_values(device, "logit bias", &sampling.biases(vocab))?,
            )),
        };
        let draw = DrawParams { temperature: sampling.temperature, seed: noise(sampling.seed, 0) };
        Ok(Basis { adjusted, noise: Buffer::uniform(device, "draw params", &draw)? })
    }

    fn terms<'a>(&'a self, sampling: &SamplingParams, session: &'a Buffer, proposals: &'a Buffer) -> SamplerTerms<'a> {
        let penalties = self.adjusted.as_ref().map(|(counts, bias)| PenaltyTerms {
            session,
            proposals,
            counts,
            bias,
            repetition: sampling.repetition_penalty,
            presence: sampling.presence_penalty,
            frequency: sampling.frequency_penalty,
        });
        let SamplingParams { temperature, top_p, min_p, .. } = *sampling;
        // More than any vocabulary has is all of it.
        let top_k = u32::try_from(sampling.top_k).unwrap_or(0);
        let truncation = sampling.truncates().then_some(TruncationTerms { top_k, top_p, min_p, temperature });
        let draw = (temperature > 0.0).then_some(&self.noise);
        SamplerTerms { penalties, truncation, draw, ..SamplerTerms::default() }
    }
}
