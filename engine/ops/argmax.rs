//! The largest logit of each row, with noise where a token is to be drawn: shaders/argmax.wgsl and
//! shaders/argmax_merge.wgsl.

use super::{Rows, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ArgmaxParams {
    vocab: u32,
    limit: u32,
    first_row: u32,
}

/// Sampling parameters of one sequence, as shaders/draw/one.wgsl lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct DrawParams {
    /// Tokens are drawn from `softmax(logits / temperature)`; 0 takes the likeliest.
    pub temperature: f32,
    /// Seed of the noise.
    pub seed: u32,
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

/// Options for choosing the tokens of one sequence's rows.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// Holds [`DrawParams`]: a row's noise is that of the seed, the position after its own, and the id. Without it the
    /// likeliest is taken.
    pub noise: Option<&'a Buffer>,
    /// The lowest logit of each row that may be drawn, as [`super::Truncation`] finds it; only with noise.
    pub thresholds: Option<&'a Buffer>,
    /// The first row of those that choose.
    pub first_row: usize,
}

/// Options for choosing tokens, of a batch or of one sequence.
#[derive(Clone, Copy)]
enum Choice<'a> {
    /// By the noise of each row of a batch: the buffer is [`Rows::buffer`]'s.
    OfBatch(&'a Buffer),
    OfSequence(Draw<'a>),
}

impl Argmax {
    /// `choices[step.first_choice + r] = argmax(logits[r, ..limit])`, the lowest index among equals, for the step's
    /// output rows. For the rows of a batch, `argmax(logits[r, ..limit] + temperature[r] · g)`, which draws from
    /// `softmax(logits[r, ..limit] / temperature[r])`: g is Gumbel noise of the row's seed, its position and the id.
    ///
    /// Where the logits are those of some tokens only, `vocabulary` has the ids of those, ascending, and the choice is
    /// `vocabulary[argmax]`.
    ///
    /// Shapes: `logits` is `[rows, vocab]`, `vocabulary` `[vocab]` of u32, `choices` holds u32; `limit` is at most `vocab`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: of the noise, Maddison et al. 2014, arXiv:1411.0030.
    pub fn new<'a>(
        device: &Device,
        rows: impl Into<Rows<'a>>,
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        choices: &Buffer,
    ) -> Result<Argmax> {
        let rows = rows.into();
        let likeliest = Draw { noise: None, thresholds: None, first_row: 0 };
        let choice = rows.batch().map_or(Choice::OfSequence(likeliest), Choice::OfBatch);
        Argmax::build(device, rows.step(), choice, logits, limit, vocabulary, choices)
    }

    /// The same for rows of one sequence, drawn as `draw` says, from its first row on.
    ///
    /// Shapes and errors: as [`Argmax::new`].
    pub fn drawing(
        device: &Device,
        step: &Buffer,
        draw: Draw,
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        choices: &Buffer,
    ) -> Result<Argmax> {
        Argmax::build(device, step, Choice::OfSequence(draw), logits, limit, vocabulary, choices)
    }

    fn build(
        device: &Device,
        step: &Buffer,
        choice: Choice,
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
        let first_row = match choice {
            Choice::OfBatch(_) => 0,
            Choice::OfSequence(draw) => draw.first_row as u32,
        };
        let params = ArgmaxParams { vocab: logits.width as u32, limit: limit as u32, first_row };
        let params = Buffer::uniform(device, "argmax params", &params)?;
        let merge_params = ArgmaxMergeParams { sections: sections as u32, first_row };
        let merge_params = Buffer::uniform(device, "argmax_merge params", &merge_params)?;
        let token = token_file(vocabulary);
        let mut operands = vec![&params, &logits.buffer, &candidates];
        let mut files = vec!["argmax"];
        match choice {
            // Noise is of the token's id.
            Choice::OfBatch(batch) => {
                files.extend(["noise/gumbel", "shared/gumbel", "kept/all", "draw/many", "shared/batch", token]);
                operands.extend(vocabulary.into_iter().chain([batch]));
            }
            Choice::OfSequence(Draw { noise: None, .. }) => files.push("noise/none"),
            Choice::OfSequence(Draw { noise: Some(noise), thresholds, .. }) => {
                let kept = if thresholds.is_some() { "kept/threshold" } else { "kept/all" };
                files.extend(["noise/gumbel", "shared/gumbel", kept, "draw/one", "shared/step", token]);
                operands.extend(vocabulary.into_iter().chain([step, noise]).chain(thresholds));
            }
        }
        let kernel = device.kernel(&files, &[("SECTION", SECTION as u32)])?;
        let merge = device.kernel(&["argmax_merge", "shared/step", token], &[])?;
        let mut merge_operands = vec![&merge_params, step, &candidates, choices];
        merge_operands.extend(vocabulary);
        Ok(Argmax {
            candidates: kernel.dispatch(device, &operands, [1, 1, 1])?,
            merge: merge.dispatch(device, &merge_operands, [1, 1, 1])?,
            limit,
        })
    }

    /// Records the choice for `rows` rows, which must be the step's `outputs`.
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
