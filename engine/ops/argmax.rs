//! The largest logit of each row, with noise where a token is to be drawn: shaders/kernels/argmax.wgsl and
//! shaders/kernels/argmax_merge.wgsl.

use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use super::{ModelRole, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ArgmaxParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ArgmaxMergeParams {
    sections: u32,
    first_row: u32,
}

/// Logits that one workgroup looks through.
const SECTION: usize = 2048;

/// A choice per row, with its operands bound.
pub struct Argmax {
    candidates: Dispatch,
    merge: Dispatch,
    limit: usize,
}

/// How rows draw their tokens.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// Holds [`super::TurnSampling::buffer`]'s parameters: a row's noise is that of the turn's seed, the position after
    /// its own, and the id.
    pub sampling: &'a Buffer,
    /// Model whose rows draw, which says by which seed.
    pub role: ModelRole,
    /// The lowest logit of each row that may be drawn, as [`super::Truncation`] finds it.
    pub thresholds: Option<&'a Buffer>,
}

impl Argmax {
    /// `choices[batch[r].choice] = argmax(logits[r, ..limit])`, the lowest index among equals, for the output rows r from
    /// `first_row` on. With `draw`, `argmax(logits[r, ..limit] + temperature · g)`, which draws from
    /// `softmax(logits[r, ..limit] / temperature)`: g is Gumbel noise of the turn's seed, the token's position and its id.
    ///
    /// Where the logits are those of some tokens only, `vocabulary` has the ids of those, ascending, and the choice is
    /// `vocabulary[argmax]`.
    ///
    /// Shapes: `batch` is [`super::PassRow::buffer`]'s, `logits` is `[rows, vocab]`, `vocabulary` `[vocab]` of u32,
    /// `choices` holds u32; `limit` is at most `vocab`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: of the noise, Maddison et al. 2014, arXiv:1411.0030.
    #[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new(
        device: &Device,
        [step, batch]: [&Buffer; 2],
        draw: Option<Draw>,
        first_row: usize,
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        choices: &Buffer,
    ) -> Result<Argmax> {
        if limit == 0 || limit > logits.width {
            let expected = vec![logits.rows, logits.width];
            return Err(Error::Shape { op: "argmax", tensor: "limit", got: vec![logits.rows, limit], expected });
        }
        if let Some(vocabulary) = vocabulary.filter(|vocabulary| vocabulary.bytes() < 4 * limit as u64) {
            let got = vec![(vocabulary.bytes() / 4) as usize];
            return Err(Error::Shape { op: "argmax", tensor: "vocabulary", got, expected: vec![limit] });
        }
        let sections = limit.div_ceil(SECTION);
        let candidates = Buffer::storage(device, "argmax candidates", (logits.rows * sections * 8) as u64)?;
        let first_row = first_row as u32;
        let params = ArgmaxParams { vocab: logits.width as u32, limit: limit as u32, first_row };
        let params = Buffer::uniform(device, "argmax params", &params)?;
        let merge_params = ArgmaxMergeParams { sections: sections as u32, first_row };
        let merge_params = Buffer::uniform(device, "argmax_merge params", &merge_params)?;
        let token = token_file(vocabulary);
        let mut operands = vec![&params, &logits.buffer, &candidates];
        let mut files = vec!["argmax", "shared/reduce", "shared/lowest"];
        let mut constants = vec![("SECTION", SECTION as u32)];
        match draw {
            None => files.push("noise/none"),
            Some(Draw { sampling, role, thresholds }) => {
                let kept = if thresholds.is_some() { "kept/threshold" } else { "kept/all" };
                // Noise is of the token's id.
                files.extend(["noise/gumbel", "shared/gumbel", kept, token, "shared/sampling"]);
                files.extend(OUTPUT_FILES);
                constants.extend([role.constant(), CHOICES_CONSTANT]);
                operands.extend(vocabulary.into_iter().chain(thresholds).chain([batch, sampling]));
            }
        }
        let kernel = device.kernel(&files, &constants)?;
        let merge_files = ["argmax_merge", "shared/step", token, "shared/batch", "shared/pass_row"];
        let merge = device.kernel(&merge_files, &[])?;
        let mut merge_operands = vec![&merge_params, step, &candidates, choices];
        merge_operands.extend(vocabulary.into_iter().chain([batch]));
        Ok(Argmax {
            candidates: kernel.dispatch(device, &operands, [1, 1, 1])?,
            merge: merge.dispatch(device, &merge_operands, [1, 1, 1])?,
            limit,
        })
    }

    /// Records the choice for `rows` output rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let sections = self.limit.div_ceil(SECTION);
        let work = Work::of(rows, [1, self.limit], rows * (4 * self.limit + 8 * sections), rows * self.limit);
        self.candidates.encode_over(pass, [sections as u32, rows as u32, 1], work);
        let work = Work::of(rows, [1, sections], rows * (8 * sections + 4), rows * sections);
        self.merge.encode(pass, work);
    }
}

/// The shader file that says which ids logits are of: all up to a limit, or those that are listed.
pub(super) fn token_file(vocabulary: Option<&Buffer>) -> &'static str {
    if vocabulary.is_some() { "choice/listed" } else { "choice/plain" }
}
