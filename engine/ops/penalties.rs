//! Penalties and biases of tokens: shaders/kernels/penalties.wgsl.

use super::Tensor;
use super::argmax::token_file;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PenaltiesParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    ids: u32,
}

/// The bias of a banned token.
pub const BANNED: f32 = f32::MIN;

/// Threads of a workgroup.
const GROUP: usize = 64;

/// Inputs of the penalties.
#[derive(Clone, Copy)]
pub struct PenaltyTerms<'a> {
    /// [`super::PassRow::buffer`]'s: the rows of the pass.
    pub batch: &'a Buffer,
    /// [`super::TurnSampling::buffer`]'s: the strengths.
    pub sampling: &'a Buffer,
    /// A [`super::Session`] for each slot.
    pub sessions: &'a Buffer,
    /// d1 .. dK of each turn, of which a row counts those before it.
    pub proposals: &'a Buffer,
    /// Counts of each id, as [`super::TokenCounts`] keeps them, for each slot.
    pub counts: &'a Buffer,
    /// An f32 for each id, for each slot; [`BANNED`] bans it.
    pub bias: &'a Buffer,
    /// Ids of a slot.
    pub ids: usize,
}

/// The penalties of a pass's output rows, with the operands bound.
pub struct Penalties {
    dispatch: Dispatch,
    limit: usize,
}

impl Penalties {
    /// `adjusted[r, i] = l(logits[r, i]) + bias[id]`, in which l takes the penalties from ids that the text has before row
    /// r's token, uncommitted proposals included; of output rows from `first_row` on, and i below `limit`. Rows of turns
    /// without penalties and biases are copied.
    ///
    /// Shapes: `logits` and `adjusted` are `[rows, vocab]`; `vocabulary` has the ids of logits that are those of some
    /// tokens only.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1909.05858 for the repetition penalty.
    pub fn new(
        device: &Device,
        terms: PenaltyTerms,
        first_row: usize,
        [logits, adjusted]: [&Tensor; 2],
        limit: usize,
        vocabulary: Option<&Buffer>,
    ) -> Result<Penalties> {
        adjusted.expect("penalties", "adjusted", logits.rows, logits.width)?;
        if limit > logits.width {
            let expected = vec![logits.rows, logits.width];
            return Err(Error::Shape { op: "penalties", tensor: "limit", got: vec![logits.rows, limit], expected });
        }
        let PenaltyTerms { batch, sampling, sessions, proposals, counts, bias, ids } = terms;
        let [vocab, limit_, first_row, ids] = [logits.width, limit, first_row, ids].map(|count| count as u32);
        let params = PenaltiesParams { vocab, limit: limit_, first_row, ids };
        let params = Buffer::uniform(device, "penalties params", &params)?;
        let files = [
            &["penalties", "shared/lowest", "shared/round", "shared/sampling", token_file(vocabulary)][..],
            &OUTPUT_FILES,
        ];
        let kernel = device.kernel(&files.concat(), &[CHOICES_CONSTANT])?;
        let mut operands = vec![&params, sessions, &logits.buffer];
        operands.extend(vocabulary);
        operands.extend([counts, proposals, bias, &adjusted.buffer, batch, sampling]);
        Ok(Penalties { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.limit], rows * 16 * self.limit, rows * 4 * self.limit);
        self.dispatch.encode_over(pass, [self.limit.div_ceil(GROUP) as u32, rows as u32, 1], work);
    }
}
