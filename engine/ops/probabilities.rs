//! Probability of drawing each token: shaders/probabilities.wgsl.

use super::Tensor;
use super::argmax::token_file;
use super::truncation::MIN_TEMPERATURE;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ProbabilitiesParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    width: u32,
    temperature: f32,
}

/// The chances of a sequence's rows, with the operands bound.
pub struct Probabilities {
    dispatch: Dispatch,
    limit: usize,
}

impl Probabilities {
    /// `chances[step.first_choice + r, id] = softmax(logits[r, ..limit] / temperature)` over the logits of at least
    /// `thresholds[r]`, 0 for the others; of rows from `first_row` on. Ids that no logit is of are left alone.
    ///
    /// Shapes: `logits` is `[rows, vocab]`; `chances` `[choices, ids]`; `vocabulary` has the ids of logits that are those of
    /// some tokens only; `thresholds` holds an f32 a row, as [`super::Truncation`] finds them.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new(
        device: &Device,
        step: &Buffer,
        temperature: f32,
        first_row: usize,
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        thresholds: Option<&Buffer>,
        chances: &Tensor,
    ) -> Result<Probabilities> {
        if limit == 0 || limit > logits.width || limit > chances.width {
            let (got, expected) = (vec![logits.rows, limit], vec![chances.rows, logits.width.min(chances.width)]);
            return Err(Error::Shape { op: "probabilities", tensor: "limit", got, expected });
        }
        let params = ProbabilitiesParams {
            vocab: logits.width as u32,
            limit: limit as u32,
            first_row: first_row as u32,
            width: chances.width as u32,
            temperature: temperature.max(MIN_TEMPERATURE),
        };
        let params = Buffer::uniform(device, "probabilities params", &params)?;
        let token = token_file(vocabulary);
        let kept = if thresholds.is_some() { "kept/threshold" } else { "kept/all" };
        let kernel = device.kernel(&["probabilities", "shared/step", token, kept], &[])?;
        let mut operands = vec![&params, &logits.buffer, &chances.buffer, step];
        operands.extend(vocabulary.into_iter().chain(thresholds));
        Ok(Probabilities { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let elements = rows * self.limit;
        self.dispatch.encode_over(
            pass,
            [rows as u32, 1, 1],
            Work::of(rows, [1, self.limit], 16 * elements, 8 * elements),
        );
    }
}
