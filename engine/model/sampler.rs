//! How the tokens of a sequence's rows are chosen where the likeliest is not what is wanted: the noise they are drawn by.

use super::sequence::Sequence;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::Argmax;

/// Chooses the tokens of a sequence's output rows, with the operands bound.
pub struct Sampler {
    argmax: Argmax,
}

impl Sampler {
    /// Draws the tokens of `sequence` as `draw` says, which holds [`crate::ops::DrawParams`], and writes them to `choices`.
    ///
    /// **Errors**: [`crate::Error::OutOfMemory`].
    pub fn new(sequence: &Sequence, draw: &Buffer, choices: &Buffer) -> Result<Sampler> {
        let model = sequence.model();
        let (logits, limit) = sequence.scores();
        let listed = model.vocabulary().map(|vocabulary| &vocabulary.buffer);
        let argmax = Argmax::drawing(model.device(), sequence.step(), draw, logits, limit, listed, choices)?;
        Ok(Sampler { argmax })
    }

    /// Records the choice of `outputs` rows, whose logits are there.
    pub(super) fn encode(&self, pass: &mut Pass, outputs: usize) {
        self.argmax.encode(pass, outputs);
    }
}
