//! Hidden states of its target that a draft reads beside tokens: the target-dependent mode of PARD-2, arXiv:2605.08632.
//!
//! While the target runs, states of its rows become features, which the draft's projection brings to the draft's width at
//! once. They are kept by slot and position, as caches hold keys and values, and the draft adds to each of its embeddings
//! that of the token before.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::pass_hook::{Batching, PassHook};
use super::runner::{ModelRunner, integer_bytes, prompt_rows};
use crate::checkpoint::config::{Config, HiddenState, StateForm, TargetLayers};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, KernelPlan, Pass};
use crate::ops::{Epilogue, Keep, KeptStates, Matmul, Phase, Recall, Remember, RowRange, StateNorm, Tensor};

/// Use of hidden states by a pass.
#[derive(Clone, Copy)]
pub enum Hook<'a> {
    /// None.
    Nothing,
    /// A target's pass puts states of its rows into these features.
    Collect(&'a Features),
    /// A target's pass keeps states of its rows for the draft.
    Keep(&'a TargetStates),
    /// A draft's pass reads what was kept.
    Recall(&'a TargetStates),
}

impl Hook<'_> {
    fn features(&self) -> Option<&Features> {
        match self {
            Hook::Collect(features) => Some(features),
            Hook::Keep(states) => Some(&states.features),
            Hook::Nothing | Hook::Recall(_) => None,
        }
    }

    fn collect(&self, pass: &mut Pass, after: usize, rows: usize) {
        let parts = self.features().into_iter().flat_map(|features| &features.parts);
        parts.filter(|(layers, _)| *layers == after).for_each(|(_, remember)| remember.encode(pass, rows));
    }
}

impl PassHook for Hook<'_> {
    fn before_layers(&self, pass: &mut Pass, batching: Batching, rows: usize) {
        if let Hook::Recall(states) = self {
            states.kept().ops(batching).recall.encode(pass, rows);
        }
        self.collect(pass, 0, rows);
    }

    fn after_layer(&self, pass: &mut Pass, layer: usize, rows: usize) {
        self.collect(pass, layer + 1, rows);
    }

    fn after_layers(&self, pass: &mut Pass, phase: Phase, batching: Batching, rows: usize) -> Result<()> {
        if let Hook::Keep(states) = self {
            states.projection.encode(pass, phase, rows)?;
            states.kept().ops(batching).keep.encode(pass, rows);
        }
        Ok(())
    }
}

/// States of a target's rows, side by side as a draft's projection reads them.
pub struct Features {
    /// Each state, and the number of layers after which it is there.
    parts: Vec<(usize, Remember)>,
    /// `[rows, layers · hidden]`.
    rows: Tensor,
}

impl Features {
    /// Room for the states of the passes of `target` that `read` names, each times `scale`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the target has no such states; [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn new(target: &ModelRunner, read: &TargetLayers, scale: f32) -> Result<Features> {
        let (device, config) = (target.model().device(), target.model().config());
        let misfit = || Error::Shape {
            op: "remember",
            tensor: "target",
            got: vec![config.layers, config.hidden_size],
            expected: vec![read.layers.len(), read.hidden_size],
        };
        let states = read.states(config.layers).map_err(|_| misfit())?;
        if read.hidden_size != config.hidden_size {
            return Err(misfit());
        }
        let rows = Tensor::new(device, "target's features", target.prompt_rows(), read.width())?;
        let ones = match read.form {
            StateForm::Pard2 => None,
            StateForm::Normalised => Some(Tensor::vector(device, "ones", &vec![1.0; config.hidden_size])?),
        };
        let epsilon = config.norm_epsilon as f32;
        let part = |(part, state): (usize, &HiddenState)| {
            let (after, gain) = match state {
                HiddenState::After(layers) => (*layers, ones.as_ref()),
                HiddenState::Normed => (config.layers, Some(&target.model().final_norm)),
            };
            let norm = gain.map(|gain| StateNorm { gain, epsilon });
            Ok((after, Remember::new(device, target.hidden(), norm, scale, &rows, part)?))
        };
        let parts = states.iter().enumerate().map(part).collect::<Result<_>>()?;
        Ok(Features { parts, rows })
    }

    /// The features of the rows of the last pass.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }
}

/// Runs `tokens` as a prompt of `runner` from position 0 on, and copies what the layers make of each, before the final norm, to
/// the rows `first..` of `states`; and its features, if some are asked for, to the same rows of another tensor.
///
/// # Errors
///
/// [`Error::ContextFull`] if they do not fit the caches, [`Error::TokenRange`]; as
/// [`Device::check`](crate::gpu::GpuContext::check).
pub fn read_states(
    runner: &ModelRunner,
    tokens: &[u32],
    states: &Tensor,
    first: usize,
    features: Option<(&Features, &Tensor)>,
) -> Result<()> {
    let rows = runner.prompt_rows();
    let hook = features.map_or(Hook::Nothing, |(features, _)| Hook::Collect(features));
    let collected = features.map(|(features, to)| (features.rows(), to));
    for (chunk, at) in tokens.chunks(rows).zip((0..).step_by(rows)) {
        runner.run_hooked(0, Phase::Prefill, chunk, at, 0, &hook)?;
        for (from, to) in [(runner.hidden(), states)].into_iter().chain(collected) {
            let row_bytes = (to.width * size_of::<f32>()) as u64;
            let (offset, bytes) = ((first + at) as u64 * row_bytes, chunk.len() as u64 * row_bytes);
            to.buffer.copy_from(runner.model().device(), &from.buffer, offset, bytes);
        }
    }
    Ok(())
}

/// The states that a target's passes keep for one draft.
pub struct TargetStates {
    features: Features,
    projection: Matmul,
    projected: Tensor,
    /// What the first token of a sequence reads, before which there is none: the bias.
    first: Vec<f32>,
    /// `true` if masks read what the last token reads.
    repeats: bool,
    positions: usize,
    kept: RwLock<Kept>,
}

/// Kept states, and the ops that write and read them.
struct Kept {
    states: KeptStates,
    one: KeptOps,
    /// For passes over rows of several sequences, once there are such.
    many: Option<KeptOps>,
}

struct KeptOps {
    keep: Keep,
    recall: Recall,
}

impl Kept {
    fn ops(&self, batching: Batching) -> &KeptOps {
        match (batching, &self.many) {
            (Batching::Many, Some(many)) => many,
            _ => &self.one,
        }
    }
}

/// The two models, and the buffer with the [`crate::ops::Session`] of each slot.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// Its passes keep states.
    pub target: &'a ModelRunner,
    /// Its passes read them.
    pub draft: &'a ModelRunner,
    /// How far the target has been, by slot.
    pub sessions: &'a Buffer,
}

impl TargetStates {
    /// Room for the states of one sequence of `positions` positions; none if the draft reads no states.
    ///
    /// # Errors
    ///
    /// As [`Features::new`].
    pub fn new(pair: Pair, positions: usize) -> Result<Option<TargetStates>> {
        let draft = pair.draft.model();
        let (Some(read), Some(own)) = (&draft.config().target_layers, &draft.projection) else { return Ok(None) };
        let device = pair.target.model().device();
        let features = Features::new(pair.target, read, read.scale)?;
        let width = draft.config().hidden_size;
        let projected = Tensor::new(device, "projected states", pair.target.prompt_rows(), width)?;
        let bias = own.bias.as_ref().map(|bias| Tensor::vector(device, "projection's bias", bias)).transpose()?;
        let epilogue = bias.as_ref().map_or(Epilogue::Store, Epilogue::Bias);
        let (step, operands) = (pair.target.step(), [&features.rows, &projected]);
        let projection = Matmul::new(device, draft.plan(), step, &own.matrix, operands, epilogue, RowRange::All)?;
        let first = own.bias.clone().unwrap_or_else(|| vec![0.0; width]);
        let repeats = read.form == StateForm::Pard2;
        let states = KeptStates::new(device, [1, positions], &first)?;
        let one = KeptOps::new(pair, Batching::One, &projected, &states, repeats)?;
        let kept = RwLock::new(Kept { states, one, many: None });
        Ok(Some(TargetStates { features, projection, projected, first, repeats, positions, kept }))
    }

    fn kept(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `slots` sequences. What is kept stays.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] or [`Error::OutOfMemory`] if it does not fit the device; all is as before then.
    pub fn reserve(&self, pair: Pair, slots: usize) -> Result<()> {
        // A pass that was recorded with what is kept is submitted before that is copied.
        let _turns = [pair.target.turn(), pair.draft.turn()];
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.states.slots() >= slots {
            return Ok(());
        }
        let device = pair.target.model().device();
        let states = KeptStates::new(device, [slots, self.positions], &self.first)?;
        states.copy_from(device, &kept.states);
        let bind = |batching| KeptOps::new(pair, batching, &self.projected, &states, self.repeats);
        let one = bind(Batching::One)?;
        let many = kept.many.is_some().then(|| bind(Batching::Many)).transpose()?;
        *kept = Kept { states, one, many };
        Ok(())
    }

    /// Binds what passes over several sequences need, on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`].
    pub fn prepare_many(&self, pair: Pair) -> Result<()> {
        if self.kept().many.is_none() {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            kept.many = Some(KeptOps::new(pair, Batching::Many, &self.projected, &kept.states, self.repeats)?);
        }
        Ok(())
    }

    /// What is kept for slot `slot` of the first `rows` tokens. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_slot(&self, device: &Device, slot: usize, rows: usize) -> Result<Vec<f32>> {
        self.kept().states.read_slot(device, slot, TargetStates::kept_rows(rows))
    }

    /// Sets what [`TargetStates::read_slot`] read.
    pub fn write_slot(&self, device: &Device, slot: usize, states: &[f32]) {
        self.kept().states.write_slot(device, slot, states);
    }

    /// Values that [`TargetStates::read_slot`] reads.
    pub fn slot_values(&self, rows: usize) -> usize {
        TargetStates::kept_rows(rows) * self.kept().states.width()
    }

    /// Rows that are kept of `rows` tokens: the first token reads one, too.
    fn kept_rows(rows: usize) -> usize {
        rows + 1
    }

    /// Device memory that features take beside a draft of `config`, where a row of its target costs `target_row`
    /// multiplications.
    pub(super) fn scratch_bytes(device: &Device, plan: &KernelPlan, config: &Config, target_row: u64) -> u64 {
        let Some(read) = &config.target_layers else { return 0 };
        let tensor = |width: usize| Buffer::rows_bytes(device, 4 * (prompt_rows(target_row) * width) as u64);
        tensor(read.width()) + tensor(config.hidden_size) + integer_bytes(plan, &[read.width()])
    }
}

impl KeptOps {
    fn new(pair: Pair, batching: Batching, projected: &Tensor, kept: &KeptStates, repeats: bool) -> Result<KeptOps> {
        let Pair { target, draft, sessions } = pair;
        let device = target.model().device();
        Ok(KeptOps {
            keep: Keep::new(device, target.rows(batching), projected, kept)?,
            recall: Recall::new(device, draft.rows(batching), sessions, kept, repeats, draft.hidden())?,
        })
    }
}
