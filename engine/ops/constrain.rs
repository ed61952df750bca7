//! Tokens that grammars forbid: shaders/kernels/constrain.wgsl.

use super::argmax::token_file;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use super::{MAX_ROWS, Tensor, TurnSampling};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ConstrainParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    words: u32,
}

/// Threads of a workgroup.
const GROUP: usize = 64;

/// The masks of a pass's output rows, with the operands bound.
pub struct Constrain {
    dispatch: Dispatch,
    limit: usize,
}

impl Constrain {
    /// `scores[r, i]` = the lowest number there is, if bit `id` of `masks[r]` is not set; of output rows from `first_row` on
    /// whose turn asks for it, and i below `limit`.
    ///
    /// Shapes: `batch` and `sampling` are [`super::PassRow::buffer`]'s and [`super::TurnSampling::buffer`]'s; `masks` is
    /// [`Constrain::masks`]'s, for a vocabulary of `ids` tokens; `scores` is `[rows, vocab]`; `vocabulary` has the ids of
    /// logits that are those of some tokens only.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new(
        device: &Device,
        [batch, sampling]: [&Buffer; 2],
        masks: &Buffer,
        ids: usize,
        first_row: usize,
        scores: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
    ) -> Result<Constrain> {
        if limit > scores.width {
            let expected = vec![scores.rows, scores.width];
            return Err(Error::Shape { op: "constrain", tensor: "limit", got: vec![scores.rows, limit], expected });
        }
        let [vocab, limit_, first_row, words] =
            [scores.width, limit, first_row, Constrain::words(ids)].map(|count| count as u32);
        let params = ConstrainParams { vocab, limit: limit_, first_row, words };
        let params = Buffer::uniform(device, "constrain params", &params)?;
        let files = [&["constrain", "shared/lowest", "shared/sampling", token_file(vocabulary)][..], &OUTPUT_FILES];
        let kernel = device.kernel(&files.concat(), &[("GRAMMAR", TurnSampling::GRAMMAR), CHOICES_CONSTANT])?;
        let mut operands = vec![&params, masks, &scores.buffer];
        operands.extend(vocabulary);
        operands.extend([batch, sampling]);
        Ok(Constrain { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit })
    }

    /// Words of a row's mask, for a vocabulary of `ids` tokens.
    pub fn words(ids: usize) -> usize {
        ids.div_ceil(32)
    }

    /// Creates room for the masks of a pass's output rows, for a vocabulary of `ids` tokens.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn masks(device: &Device, ids: usize) -> Result<Buffer> {
        Buffer::storage(device, "grammar masks", (4 * MAX_ROWS * Constrain::words(ids)) as u64)
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.limit], rows * 4 * self.limit, 0);
        self.dispatch.encode_over(pass, [self.limit.div_ceil(GROUP) as u32, rows as u32, 1], work);
    }
}
