//! Choice of a sequence's tokens where it is not simply the likeliest: penalties and biases change the logits,
//! truncation limits the tokens that may be drawn, and noise or the rejection rule draws one.

use super::runner::ModelRunner;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::{
    Argmax, Draw, LogProbabilities, MAX_ROWS, Penalties, PenaltyTerms, Probabilities, Rejection, RejectionTerms,
    Tensor, Truncation, TruncationTerms,
};

/// Parameters of the choice of tokens.
#[derive(Clone, Copy, Default)]
pub struct SamplerTerms<'a> {
    /// Changes logits first.
    pub penalties: Option<PenaltyTerms<'a>>,
    /// Leaves some tokens out of the draw.
    pub truncation: Option<TruncationTerms>,
    /// Holds [`crate::ops::DrawParams`]; without it the likeliest is taken.
    pub draw: Option<&'a Buffer>,
    /// Destination of the probability of each token, `[choices, vocab]`, and the temperature.
    pub chances: Option<(&'a Tensor, f32)>,
    /// Chooses in place of `draw`, by the chances.
    pub rejection: Option<RejectionTerms<'a>>,
}

/// In what order the rows of a pass choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// All at once.
    Together,
    /// One after the other: each counts what those before it chose. A parallel draft's rows do.
    OneByOne {
        /// As many as there can be.
        rows: usize,
    },
}

/// Chooses the tokens of a sequence's output rows, with the operands bound.
pub struct Sampler {
    /// One for all rows, or one for each.
    turns: Vec<Turn>,
}

struct Turn {
    penalties: Option<Penalties>,
    truncation: Option<Truncation>,
    chances: Option<Probabilities>,
    choice: Choice,
}

enum Choice {
    Argmax(Argmax),
    Rejection(Rejection),
}

impl Sampler {
    /// Chooses the tokens of `sequence` by `terms`, and writes them to `choices`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`].
    pub fn new(sequence: &ModelRunner, terms: SamplerTerms, turns: Turns, choices: &Buffer) -> Result<Sampler> {
        let (model, step) = (sequence.model(), sequence.step());
        let device = model.device();
        let (logits, limit) = sequence.scores();
        let vocabulary = model.vocabulary().map(|vocabulary| &vocabulary.buffer);
        let adjusted = match terms.penalties {
            None => None,
            Some(_) => Some(Tensor::new(device, "adjusted logits", MAX_ROWS, logits.width)?),
        };
        let scores = adjusted.as_ref().unwrap_or(logits);
        let thresholds = match terms.truncation {
            None => None,
            Some(_) => Some(Buffer::storage(device, "thresholds", 4 * MAX_ROWS as u64)?),
        };
        let thresholds = thresholds.as_ref();
        let turn = |first_row| -> Result<Turn> {
            let penalties = terms
                .penalties
                .map(|terms| Penalties::new(device, step, terms, first_row, [logits, scores], limit, vocabulary));
            let truncation = terms
                .truncation
                .zip(thresholds)
                .map(|(terms, thresholds)| Truncation::new(device, terms, first_row, scores, limit, thresholds));
            let chances = terms.chances.map(|(chances, temperature)| {
                Probabilities::new(device, step, temperature, first_row, scores, limit, vocabulary, thresholds, chances)
            });
            let draw = Draw { noise: terms.draw, thresholds, first_row };
            let choice = match terms.rejection {
                Some(terms) => Choice::Rejection(Rejection::new(device, step, terms, choices)?),
                None => Choice::Argmax(Argmax::drawing(device, step, draw, scores, limit, vocabulary, choices)?),
            };
            Ok(Turn {
                penalties: penalties.transpose()?,
                truncation: truncation.transpose()?,
                chances: chances.transpose()?,
                choice,
            })
        };
        let rows = match turns {
            Turns::Together => 1,
            Turns::OneByOne { rows } => rows,
        };
        Ok(Sampler { turns: (0..rows).map(turn).collect::<Result<_>>()? })
    }

    /// Records the choice of `outputs` rows, whose logits are there.
    pub(super) fn encode(&self, pass: &mut Pass, outputs: usize) {
        match &self.turns[..] {
            [all] => all.encode(pass, outputs),
            turns => turns.iter().take(outputs).for_each(|turn| turn.encode(pass, 1)),
        }
    }
}

impl Turn {
    fn encode(&self, pass: &mut Pass, rows: usize) {
        if let Some(penalties) = &self.penalties {
            penalties.encode(pass, rows);
        }
        if let Some(truncation) = &self.truncation {
            truncation.encode(pass, rows);
        }
        if let Some(chances) = &self.chances {
            chances.encode(pass, rows);
        }
        match &self.choice {
            Choice::Argmax(argmax) => argmax.encode(pass, rows),
            Choice::Rejection(rejection) => rejection.encode(pass, rows),
        }
    }
}

/// Log-probabilities under `sequence` of the tokens that `record` reports, as by [`LogProbabilities::new`].
///
/// # Errors
///
/// [`crate::Error::Shape`] if `top` is more than there are tokens.
pub fn log_probabilities(
    sequence: &ModelRunner,
    record: &Buffer,
    first_word: usize,
    top: usize,
) -> Result<LogProbabilities> {
    let (logits, limit) = sequence.scores();
    let model = sequence.model();
    let vocabulary = model.vocabulary().map(|vocabulary| &vocabulary.buffer);
    LogProbabilities::new(model.device(), logits, limit, vocabulary, record, first_word, top)
}
