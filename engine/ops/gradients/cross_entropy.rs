//! The loss and its gradient: shaders/kernels/training/cross_entropy.wgsl.

use super::super::Tensor;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct CrossEntropyParams {
    vocab: u32,
}

/// Expected prediction of a row, with the weights of its losses.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Label {
    /// The token, or [`Label::NONE`].
    pub id: u32,
    /// Weight of the cross-entropy; without a token it counts as 0.
    pub weight: f32,
    /// Weight of the divergence from the teacher; ignored without a teacher.
    pub divergence_weight: f32,
}

impl Label {
    /// The id of a row without a token to predict.
    pub const NONE: u32 = u32::MAX;
}

/// Loss of a row, before any weight.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RowLoss {
    /// `−ln p(id)`; 0 without a token.
    pub cross_entropy: f32,
    /// `KL(teacher || draft)`; 0 without a teacher.
    pub divergence: f32,
    /// The largest logit's index, the lowest among equals.
    pub choice: u32,
    /// The teacher's; without a teacher the label's id.
    pub teacher_choice: u32,
}

/// A loss with its operands bound.
pub struct CrossEntropy {
    dispatch: Dispatch,
    vocab: usize,
    has_teacher: bool,
}

impl CrossEntropy {
    /// Replaces `logits[r]` by `weight · (softmax(logits[r]) − onehot(id)) + divergence_weight · (softmax(logits[r]) −
    /// softmax(teacher[r]))` and records the row's losses, for the step's output rows. Row `r` of the logits has the label
    /// and the loss `step.first_output + r`.
    ///
    /// Shapes: `logits` and `teacher` are `[rows, vocab]`; `labels` holds [`Label`]s with ids below `vocab`, `losses`
    /// [`RowLoss`]es.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: for the divergence arXiv:1503.02531.
    pub fn new(
        device: &Device,
        step: &Buffer,
        logits: &Tensor,
        teacher: Option<&Tensor>,
        labels: &Buffer,
        losses: &Buffer,
    ) -> Result<CrossEntropy> {
        if logits.width == 0 {
            let expected = vec![logits.rows, 1];
            return Err(Error::Shape { op: "cross_entropy", tensor: "logits", got: vec![logits.rows, 0], expected });
        }
        if let Some(teacher) = teacher {
            teacher.expect("cross_entropy", "teacher", logits.rows, logits.width)?;
        }
        // A row is long and the rows of a chunk are few, so a GPU takes all the lanes that WebGPU promises.
        let lanes = if device.is_software() { 8 } else { 256 };
        let file = if teacher.is_some() { "teacher/logits" } else { "teacher/none" };
        let kernel = device
            .kernel(&["cross_entropy", "shared/reduce", "shared/lowest", "shared/step", file], &[("LANES", lanes)])?;
        let params = CrossEntropyParams { vocab: logits.width as u32 };
        let params = Buffer::uniform(device, "cross_entropy params", &params)?;
        let mut operands = vec![&params, step, &logits.buffer, labels, losses];
        operands.extend(teacher.map(|teacher| &teacher.buffer));
        let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;
        Ok(CrossEntropy { dispatch, vocab: logits.width, has_teacher: teacher.is_some() })
    }

    /// Records the loss of `rows` rows, at least the step's `outputs`.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let (values, turns) = (rows * self.vocab, 1 + usize::from(self.has_teacher));
        let bytes = 4 * values * (1 + turns) + rows * (size_of::<Label>() + size_of::<RowLoss>());
        let work = Work::of(rows, [1, self.vocab], bytes, 8 * turns * values);
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], work);
    }
}
