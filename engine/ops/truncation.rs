//! The tokens that may be drawn at all, by top-k, top-p and min-p: shaders/kernels/truncation.wgsl.

use super::Tensor;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TruncationParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
}

/// The truncation of a pass's output rows, with the operands bound.
pub struct Truncation {
    dispatch: Dispatch,
    limit: usize,
}

/// Bits of a weight's two words at most: an f32 has no more than 24 in all, of which high ones may be 0.
const MAX_BITS: u32 = 15;
/// Passes over a row: one for the largest logit, and those of two searches.
const READS: usize = 1 + 2 * 4;

impl Truncation {
    /// `thresholds[r]` = the lowest logit among `logits[r, ..limit]` that may be drawn, by top-k, top-p and min-p of the
    /// row's turn; of output rows from `first_row` on.
    ///
    /// Shapes: `batch` and `sampling` are [`super::PassRow::buffer`]'s and [`super::TurnSampling::buffer`]'s, `logits` is
    /// `[rows, vocab]`, `thresholds` holds an f32 a row.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1904.09751 for top-p, arXiv:2407.01082 for min-p.
    pub fn new(
        device: &Device,
        [batch, sampling]: [&Buffer; 2],
        first_row: usize,
        logits: &Tensor,
        limit: usize,
        thresholds: &Buffer,
    ) -> Result<Truncation> {
        if limit == 0 || limit > logits.width {
            let expected = vec![logits.rows, logits.width];
            return Err(Error::Shape { op: "truncation", tensor: "limit", got: vec![logits.rows, limit], expected });
        }
        let params = TruncationParams { vocab: logits.width as u32, limit: limit as u32, first_row: first_row as u32 };
        let params = Buffer::uniform(device, "truncation params", &params)?;
        let bits = (32 - limit.next_power_of_two().ilog2()).min(MAX_BITS);
        let files = [&["truncation", "shared/reduce", "shared/lowest", "shared/sampling"][..], &OUTPUT_FILES].concat();
        let kernel = device.kernel(&files, &[("BITS", bits), CHOICES_CONSTANT])?;
        let operands = [&params, &logits.buffer, thresholds, batch, sampling];
        Ok(Truncation { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let reads = rows * self.limit * READS;
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], Work::of(rows, [1, self.limit], 4 * reads, 8 * reads));
    }
}
