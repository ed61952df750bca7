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
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ArgmaxMergeParams {
    sections: u32,
}

/// Logits that one workgroup looks through.
const SECTION: usize = 2048;

/// A choice per row, with its operands bound.
pub struct Argmax {
    candidates: Dispatch,
    merge: Dispatch,
    limit: usize,
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
    /// Errors: [`Error::Shape`] if they do not fit.
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
        let params = ArgmaxParams { vocab: logits.width as u32, limit: limit as u32 };
        let params = Buffer::uniform(device, "argmax params", &params)?;
        let merge_params = ArgmaxMergeParams { sections: sections as u32 };
        let merge_params = Buffer::uniform(device, "argmax_merge params", &merge_params)?;
        let files: &[&str] = match rows {
            Rows::One(_) => &["argmax", "noise/none"],
            Rows::Many { .. } => &["argmax", "noise/gumbel", "shared/batch"],
        };
        let kernel = device.kernel(files, &[("SECTION", SECTION as u32)])?;
        let choice = if vocabulary.is_some() { "choice/listed" } else { "choice/plain" };
        let merge = device.kernel(&["argmax_merge", "shared/step", choice], &[])?;
        let mut operands = vec![&params, &logits.buffer, &candidates];
        operands.extend(rows.batch());
        let mut merge_operands = vec![&merge_params, rows.step(), &candidates, choices];
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
