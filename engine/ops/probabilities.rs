//! Probability of drawing each token: shaders/kernels/probabilities.wgsl.

use super::Tensor;
use super::argmax::token_file;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ProbabilitiesParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    width: u32,
}

/// The chances of a pass's output rows, with the operands bound.
pub struct Probabilities {
    dispatch: Dispatch,
    limit: usize,
}

impl Probabilities {
    /// `chances[batch[r].choice, id] = softmax(logits[r, ..limit] / temperature)` over the logits of at least
    /// `thresholds[r]`, 0 for the others; of output rows from `first_row` on. Ids that no logit is of are left alone.
    ///
    /// Shapes: `batch` and `sampling` are [`super::PassRow::buffer`]'s and [`super::TurnSampling::buffer`]'s; `logits`
    /// is `[rows, vocab]`; `chances` `[choices, ids]`; `vocabulary` has the ids of logits that are those of some tokens
    /// only; `thresholds` holds an f32 a row, as [`super::Truncation`] finds them.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    #[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new(
        device: &Device,
        [batch, sampling]: [&Buffer; 2],
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
        };
        let params = Buffer::uniform(device, "probabilities params", &params)?;
        let token = token_file(vocabulary);
        let kept = if thresholds.is_some() { "kept/threshold" } else { "kept/all" };
        let files =
            [&["probabilities", "shared/reduce", "shared/lowest", "shared/sampling", token, kept][..], &OUTPUT_FILES]
                .concat();
        let kernel = device.kernel(&files, &[CHOICES_CONSTANT])?;
        let mut operands = vec![&params, &logits.buffer, &chances.buffer];
        operands.extend(vocabulary.into_iter().chain(thresholds).chain([batch, sampling]));
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
