//! The tokens that may be drawn at all, by top-k, top-p and min-p: shaders/truncation.wgsl.

use super::Tensor;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TruncationParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    top_k: u32,
    top_p: f32,
    min_p_gap: f32,
    temperature: f32,
}

/// Limits on the tokens that may be drawn. A token must pass all three.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruncationTerms {
    /// The likeliest so many; 0: all.
    pub top_k: u32,
    /// The likeliest that have this share of the probability of those that top-k leaves; 1: all.
    pub top_p: f32,
    /// Those that have this share of the likeliest one's probability; 0: all.
    pub min_p: f32,
    /// Probabilities are `softmax(logits / temperature)`.
    pub temperature: f32,
}

/// The truncation of a sequence's rows, with the operands bound.
pub struct Truncation {
    dispatch: Dispatch,
    limit: usize,
    searches: usize,
}

/// Below this the likeliest token has all of the probability, and no f32 divides by less.
pub(super) const MIN_TEMPERATURE: f32 = 1e-6;
/// Further than this below the largest no logit is.
const MAX_GAP: f32 = 1e30;
/// Bits of a weight's two words at most: an f32 has no more than 24 in all, of which high ones may be 0.
const MAX_BITS: u32 = 15;
/// Passes over a row in one search.
const DIGITS: usize = 4;

impl Truncation {
    /// `thresholds[r]` = the lowest logit among `logits[r, ..limit]` that may be drawn, of rows from `first_row` on.
    ///
    /// Shapes: `logits` is `[rows, vocab]`, `thresholds` holds an f32 a row.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1904.09751 for top-p, arXiv:2407.01082 for min-p.
    pub fn new(
        device: &Device,
        terms: TruncationTerms,
        first_row: usize,
        logits: &Tensor,
        limit: usize,
        thresholds: &Buffer,
    ) -> Result<Truncation> {
        if limit == 0 || limit > logits.width {
            let expected = vec![logits.rows, logits.width];
            return Err(Error::Shape { op: "truncation", tensor: "limit", got: vec![logits.rows, limit], expected });
        }
        let TruncationTerms { top_k, top_p, min_p, temperature } = terms;
        let gap = f64::from(temperature) * f64::from(min_p).ln();
        let params = TruncationParams {
            vocab: logits.width as u32,
            limit: limit as u32,
            first_row: first_row as u32,
            top_k: if top_k as usize >= limit { 0 } else { top_k },
            top_p,
            min_p_gap: (gap as f32).max(-MAX_GAP),
            temperature: temperature.max(MIN_TEMPERATURE),
        };
        let searches = usize::from(params.top_k > 0) + usize::from(top_p < 1.0);
        let params = Buffer::uniform(device, "truncation params", &params)?;
        let bits = (32 - limit.next_power_of_two().ilog2()).min(MAX_BITS);
        let kernel = device.kernel(&["truncation"], &[("BITS", bits)])?;
        let dispatch = kernel.dispatch(device, &[&params, &logits.buffer, thresholds], [1, 1, 1])?;
        Ok(Truncation { dispatch, limit, searches })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let reads = rows * self.limit * (1 + DIGITS * self.searches);
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], Work::of(rows, [1, self.limit], 4 * reads, 8 * reads));
    }
}
