//! Choice of tokens where it is not simply the likeliest: penalties, biases and grammars change the logits, truncation limits
//! the tokens that may be drawn, and noise or the rejection rule draws one. The output rows of a pass go through it together,
//! whichever sequences they are of; each goes by the sampling parameters of its own.

use std::collections::HashMap;
use std::ops::{BitOr, Range};

use super::runner::ModelRunner;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::{
    Argmax, CHOICES, Constrain, Draw, LogProbabilities, MAX_ROWS, ModelRole, Penalties, PenaltyTerms, Probabilities,
    Rejection, RejectionTerms, Tensor, Truncation,
};

/// Stages that the choice of a pass's tokens goes through, if any of its sequences needs them. Without any, the
/// likeliest are taken. A row that does not need a stage leaves it as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Stages {
    /// Penalties and biases change logits.
    pub adjusts: bool,
    /// Grammars forbid tokens; then `adjusts` is set, too.
    pub constrains: bool,
    /// Some tokens are left out of the draw.
    pub truncates: bool,
    /// Tokens are drawn by noise.
    pub draws: bool,
    /// Proposals are accepted by the rejection rule. The sequence has the pass to itself.
    pub rejects: bool,
}

impl BitOr for Stages {
    type Output = Stages;

    fn bitor(self, other: Stages) -> Stages {
        Stages {
            adjusts: self.adjusts || other.adjusts,
            constrains: self.constrains || other.constrains,
            truncates: self.truncates || other.truncates,
            draws: self.draws || other.draws,
            rejects: self.rejects || other.rejects,
        }
    }
}

/// Buffers that choices are made from, on one device.
#[derive(Clone, Copy)]
pub struct SamplerBuffers<'a> {
    /// [`crate::ops::TurnSampling::buffer`]'s.
    pub sampling: &'a Buffer,
    /// A [`crate::ops::Session`] for each slot.
    pub sessions: &'a Buffer,
    /// d1 .. dK of each turn.
    pub proposals: &'a Buffer,
    /// For each slot, the count of each token and its bias, if any sequence changes logits.
    pub adjustments: Option<[&'a Buffer; 2]>,
    /// [`crate::ops::Constrain::masks`]', if any sequence keeps to a grammar.
    pub masks: Option<&'a Buffer>,
    /// Destination of the choices.
    pub choices: &'a Buffer,
    /// Probabilities that the draft drew its proposals with, if they are accepted by them.
    pub draft_chances: Option<&'a Tensor>,
}

/// Chooses the tokens of a model's output rows. Operands are bound on first use.
pub struct Sampler {
    role: ModelRole,
    /// Tokens of the target's vocabulary.
    ids: usize,
    adjusted: Option<Tensor>,
    thresholds: Option<Buffer>,
    chances: Option<Tensor>,
    bound: HashMap<(Stages, usize), Bound>,
}

/// The stages from one output row on.
struct Bound {
    penalties: Option<Penalties>,
    constrain: Option<Constrain>,
    truncation: Option<Truncation>,
    chances: Option<Probabilities>,
    choice: Choice,
}

enum Choice {
    Argmax(Argmax),
    Rejection(Rejection),
}

impl Sampler {
    /// For the rows of a target, whose vocabulary has `ids` tokens, or of its draft.
    pub fn new(role: ModelRole, ids: usize) -> Sampler {
        Sampler { role, ids, adjusted: None, thresholds: None, chances: None, bound: HashMap::new() }
    }

    /// Forgets what was bound, as some of the buffers have been replaced.
    pub fn unbind(&mut self) {
        self.bound.clear();
    }

    /// Probabilities of the tokens of the last rows, if proposals are accepted by them.
    pub fn chances(&self) -> Option<&Tensor> {
        self.chances.as_ref()
    }

    /// Binds `stages` for output rows of `runner` from each of the rows `firsts` on.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`], [`crate::Error::Compile`].
    pub fn prepare(
        &mut self,
        runner: &ModelRunner,
        buffers: SamplerBuffers,
        stages: Stages,
        firsts: impl Iterator<Item = usize>,
    ) -> Result<()> {
        self.allocate(runner, stages)?;
        if stages == Stages::default() {
            return Ok(());
        }
        for first in firsts {
            if !self.bound.contains_key(&(stages, first)) {
                let bound = self.bind(runner, buffers, stages, first)?;
                self.bound.insert((stages, first), bound);
            }
        }
        Ok(())
    }

    /// Allocates what `stages` write to.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`].
    pub fn allocate(&mut self, runner: &ModelRunner, stages: Stages) -> Result<()> {
        let (device, logits) = (runner.model().device(), runner.scores().0);
        if stages.adjusts && self.adjusted.is_none() {
            self.adjusted = Some(Tensor::new(device, "adjusted logits", MAX_ROWS, logits.width)?);
        }
        if stages.truncates && self.thresholds.is_none() {
            self.thresholds = Some(Buffer::storage(device, "thresholds", 4 * MAX_ROWS as u64)?);
        }
        if stages.rejects && self.chances.is_none() {
            self.chances = Some(Tensor::new(device, "chances", CHOICES, self.ids)?);
        }
        Ok(())
    }

    fn bind(&self, runner: &ModelRunner, buffers: SamplerBuffers, stages: Stages, first: usize) -> Result<Bound> {
        let model = runner.model();
        let (device, vocabulary) = (model.device(), model.vocabulary().map(|vocabulary| &vocabulary.buffer));
        let ([step, _, batch], (logits, limit)) = (runner.inputs(), runner.scores());
        let SamplerBuffers { sampling, sessions, proposals, adjustments, masks, choices, draft_chances } = buffers;
        let adjusted = self.adjusted.as_ref().filter(|_| stages.adjusts);
        let scores = adjusted.unwrap_or(logits);
        let thresholds = self.thresholds.as_ref().filter(|_| stages.truncates);
        let penalties = adjusted.zip(adjustments).map(|(adjusted, [counts, bias])| {
            let ids = self.ids;
            let terms = PenaltyTerms { batch, sampling, sessions, proposals, counts, bias, ids };
            Penalties::new(device, terms, first, [logits, adjusted], limit, vocabulary)
        });
        let constrain = masks
            .filter(|_| stages.constrains)
            .map(|masks| Constrain::new(device, [batch, sampling], masks, self.ids, first, scores, limit, vocabulary));
        let truncation =
            thresholds.map(|thresholds| Truncation::new(device, [batch, sampling], first, scores, limit, thresholds));
        let own_chances = self.chances.as_ref().filter(|_| stages.rejects);
        let chances = own_chances.map(|chances| {
            let inputs = [batch, sampling];
            Probabilities::new(device, inputs, first, scores, limit, vocabulary, thresholds, chances)
        });
        let choice = match (self.role, own_chances, draft_chances) {
            (ModelRole::Target, Some(target), Some(draft)) => {
                let terms = RejectionTerms { target, draft, proposals };
                Choice::Rejection(Rejection::new(device, [step, batch, sampling], terms, choices)?)
            }
            _ => {
                let draw = stages.draws.then_some(Draw { sampling, role: self.role, thresholds });
                let inputs = [step, batch];
                Choice::Argmax(Argmax::new(device, inputs, draw, first, scores, limit, vocabulary, choices)?)
            }
        };
        Ok(Bound {
            penalties: penalties.transpose()?,
            constrain: constrain.transpose()?,
            truncation: truncation.transpose()?,
            chances: chances.transpose()?,
            choice,
        })
    }

    /// Records the choice of the tokens of the output rows `rows` of `runner`, whose logits are there. The stages were
    /// prepared for them.
    pub fn encode(&self, runner: &ModelRunner, pass: &mut Pass, stages: Stages, rows: Range<usize>) {
        if stages == Stages::default() {
            return runner.choose_likeliest(pass, rows.end);
        }
        self.bound[&(stages, rows.start)].encode(pass, rows.len());
    }
}

impl Bound {
    fn encode(&self, pass: &mut Pass, rows: usize) {
        if let Some(penalties) = &self.penalties {
            penalties.encode(pass, rows);
        }
        if let Some(constrain) = &self.constrain {
            constrain.encode(pass, rows);
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

/// Binds the log-probabilities under `runner` of the tokens that its output rows chose, as [`LogProbabilities::new`] has
/// them, for `top` likeliest tokens at most, behind the word `first_word` of `record`.
///
/// # Errors
///
/// [`crate::Error::Compile`].
pub fn log_probabilities(
    runner: &ModelRunner,
    sampling: &Buffer,
    choices: &Buffer,
    record: &Buffer,
    [first_word, top]: [usize; 2],
) -> Result<LogProbabilities> {
    let (logits, limit) = runner.scores();
    let model = runner.model();
    let vocabulary = model.vocabulary().map(|vocabulary| &vocabulary.buffer);
    let ([_, _, batch], place) = (runner.inputs(), [first_word, top]);
    LogProbabilities::new(model.device(), [batch, sampling], logits, limit, vocabulary, choices, record, place)
}
