//! Sampling parameters of the sequences that take part in a round, as kernels read them.

use super::MAX_ROWS;
use crate::error::Result;
use crate::gpu::{Buffer, Device};

/// Sampling parameters of one turn, as shaders/shared/sampling.wgsl lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TurnSampling {
    /// Tokens are drawn from `softmax(logits / temperature)`; 0 takes the likeliest.
    pub temperature: f32,
    /// Seed of the noise that the target's tokens are drawn by.
    pub seed: u32,
    /// Likewise the draft's.
    pub draft_seed: u32,
    /// Seed of the noise that the rejection rule accepts proposals by.
    pub accept_seed: u32,
    /// The likeliest so many may be drawn; 0: all.
    pub top_k: u32,
    /// The likeliest that have this share of the probability of those that top-k leaves; 1: all.
    pub top_p: f32,
    /// Those whose logit is at most this far below the largest, as a negative number: [`TurnSampling::min_p_gap`].
    pub min_p_gap: f32,
    /// Divides positive logits of tokens in the text and multiplies the others; 1 changes nothing.
    pub repetition: f32,
    /// Taken from a token of the answer, once.
    pub presence: f32,
    /// Taken from a token as often as the answer has it.
    pub frequency: f32,
    /// Sum of [`TurnSampling::BIASES`], [`TurnSampling::PENALTIES`] and [`TurnSampling::GRAMMAR`], if they change logits.
    pub changes: u32,
    /// 0: no log-probabilities are wanted; else 1 and the number of the likeliest tokens.
    pub logprobs: u32,
}

impl Default for TurnSampling {
    /// The likeliest token of unchanged logits.
    fn default() -> TurnSampling {
        TurnSampling {
            temperature: 0.0,
            seed: 0,
            draft_seed: 0,
            accept_seed: 0,
            top_k: 0,
            top_p: 1.0,
            min_p_gap: -MAX_GAP,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            changes: 0,
            logprobs: 0,
        }
    }
}

/// Below this the likeliest token has all of the probability, and no f32 divides by less.
const MIN_TEMPERATURE: f32 = 1e-6;
/// Further than this below the largest no logit is.
const MAX_GAP: f32 = 1e30;

impl TurnSampling {
    /// Biases and bans change logits.
    pub const BIASES: u32 = 1;
    /// Penalties of tokens in the text change logits; committed tokens are counted for them.
    pub const PENALTIES: u32 = 2;
    /// A grammar forbids tokens, by the masks of the pass's output rows.
    pub const GRAMMAR: u32 = 4;

    /// The temperature that kernels divide by in place of `temperature`: 0, or large enough to divide by.
    pub fn temperature(temperature: f32) -> f32 {
        if temperature == 0.0 { 0.0 } else { temperature.max(MIN_TEMPERATURE) }
    }

    /// The distance from the largest logit at which a token has `min_p` of the likeliest one's probability.
    pub fn min_p_gap(temperature: f32, min_p: f32) -> f32 {
        ((f64::from(temperature) * f64::from(min_p).ln()) as f32).max(-MAX_GAP)
    }

    /// Creates room for the parameters of a round's turns.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uniform`].
    pub fn buffer(device: &Device) -> Result<Buffer> {
        Buffer::uniform(device, "sampling", &[TurnSampling::default(); MAX_ROWS])
    }
}
