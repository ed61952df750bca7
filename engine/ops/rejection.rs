//! The rejection rule of speculative sampling: shaders/kernels/rejection.wgsl.

use super::Tensor;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RejectionParams {
    vocab: u32,
}

/// Distributions that tokens are drawn from.
#[derive(Clone, Copy)]
pub struct RejectionTerms<'a> {
    /// p of each row, `[rows, vocab]`, as [`super::Probabilities`] gives it.
    pub target: &'a Tensor,
    /// q of each proposal, `[proposals, vocab]`.
    pub draft: &'a Tensor,
    /// d1 .. dK, each drawn from its q by other noise.
    pub proposals: &'a Buffer,
}

/// The choices of a target's rows, with the operands bound.
pub struct Rejection {
    dispatch: Dispatch,
    vocab: usize,
}

impl Rejection {
    /// `choices[batch[r].choice]` = the proposal of row r with chance min(1, p / q) of it, else a token drawn from
    /// max(p - q, 0), scaled; drawn from p for the last of the step's output rows. So it is distributed as p.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if p and q are not of the same width.
    /// Source: Leviathan et al. 2023, arXiv:2211.17192.
    pub fn new(
        device: &Device,
        [step, batch, sampling]: [&Buffer; 3],
        terms: RejectionTerms,
        choices: &Buffer,
    ) -> Result<Rejection> {
        let RejectionTerms { target, draft, proposals } = terms;
        draft.expect("rejection", "draft", draft.rows, target.width)?;
        let params = RejectionParams { vocab: target.width as u32 };
        let params = Buffer::uniform(device, "rejection params", &params)?;
        let files = [
            &["rejection", "shared/reduce", "shared/lowest", "shared/step", "shared/gumbel", "shared/sampling"][..],
            &OUTPUT_FILES,
        ]
        .concat();
        let kernel = device.kernel(&files, &[CHOICES_CONSTANT])?;
        let operands = [&params, step, &target.buffer, &draft.buffer, proposals, choices, batch, sampling];
        Ok(Rejection { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, vocab: target.width })
    }

    /// Records it for `rows` rows, which must be the step's `outputs`.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let elements = rows * self.vocab;
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], Work::of(rows, [1, self.vocab], 8 * elements, elements));
    }
}
