//! Penalties and biases of tokens: shaders/penalties.wgsl.

use super::Tensor;
use super::argmax::token_file;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PenaltiesParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
    repetition: f32,
    presence: f32,
    frequency: f32,
}

/// The bias of a banned token.
pub const BANNED: f32 = f32::MIN;

/// Threads of a workgroup.
const GROUP: usize = 64;

/// Inputs and strengths of the penalties.
#[derive(Clone, Copy)]
pub struct PenaltyTerms<'a> {
    /// One [`super::Session`].
    pub session: &'a Buffer,
    /// d1 .. dK, of which a row counts those before it.
    pub proposals: &'a Buffer,
    /// Counts of each id, as [`super::TokenCounts`] keeps them.
    pub counts: &'a Buffer,
    /// An f32 for each id; [`BANNED`] bans it.
    pub bias: &'a Buffer,
    /// Divides positive logits and multiplies the others; 1 changes nothing.
    pub repetition: f32,
    /// Taken from a token of the answer, once.
    pub presence: f32,
    /// Taken from a token as often as the answer has it.
    pub frequency: f32,
}

/// The penalties of a sequence's rows, with the operands bound.
pub struct Penalties {
    dispatch: Dispatch,
    limit: usize,
}

impl Penalties {
    /// `adjusted[r, i] = l(logits[r, i]) + bias[id]`, in which l takes the penalties from ids that the text has before row
    /// r's token, uncommitted proposals included; of rows from `first_row` on, and i below `limit`.
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
        step: &Buffer,
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
        let PenaltyTerms { session, proposals, counts, bias, repetition, presence, frequency } = terms;
        let (vocab, limit_, first_row) = (logits.width as u32, limit as u32, first_row as u32);
        let params = PenaltiesParams { vocab, limit: limit_, first_row, repetition, presence, frequency };
        let params = Buffer::uniform(device, "penalties params", &params)?;
        let token = token_file(vocabulary);
        let kernel = device.kernel(&["penalties", "shared/step", "shared/round", token], &[])?;
        let mut operands = vec![&params, step, session, &logits.buffer];
        operands.extend(vocabulary);
        operands.extend([counts, proposals, bias, &adjusted.buffer]);
        Ok(Penalties { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.limit], rows * 16 * self.limit, rows * 4 * self.limit);
        self.dispatch.encode_over(pass, [self.limit.div_ceil(GROUP) as u32, rows as u32, 1], work);
    }
}
