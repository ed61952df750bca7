//! Projection of the target's states, for a draft that reads them, while it is trained.

use super::parameter::{Parameter, Source};
use super::shared::Shared;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::TargetLayers;
use crate::checkpoint::hugging_face::TARGET_PROJECTION;
use crate::error::Result;
use crate::gpu::{Device, KernelPlan};
use crate::ops::gradients::WeightGradient;
use crate::ops::{Epilogue, Matmul, RowRange, Tensor};

/// Projection of the target's states, which is added to the embeddings.
pub struct Projection {
    /// `[hidden, layers · target's hidden]`.
    pub parameter: Parameter,
    /// States that each row reads, times the projection's factor.
    pub states: Tensor,
    /// Adds the projection to the embeddings.
    pub product: Matmul,
    pub gradient: WeightGradient,
}

impl Projection {
    /// Begins with the values of `checkpoint` if that is a draft that has them, and else with zeros: the draft is then
    /// what it would be without a projection.
    ///
    /// # Errors
    ///
    /// Those of reading the checkpoint; [`crate::Error::OutOfMemory`], [`crate::Error::Limit`].
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        checkpoint: &dyn Checkpoint,
        target: &TargetLayers,
        shared: &Shared,
        embedded: &Tensor,
    ) -> Result<Projection> {
        let shape = [embedded.width, target.width()];
        let name = TARGET_PROJECTION.to_owned();
        let parameter = match checkpoint.expect(TARGET_PROJECTION, &shape) {
            Ok(_) => {
                let source = Source { from: name.clone(), to: name };
                Parameter::matrix(device, plan, checkpoint, vec![(source, shape[0])], shape[1])?
            }
            Err(_) => {
                Parameter::of_matrix(device, plan, vec![(name, shape[0])], shape[1], &vec![0.0; shape[0] * shape[1]])?
            }
        };
        let states = Tensor::new(device, "target's states", embedded.rows, shape[1])?;
        let (matrix, gradients) = parameter.as_matrix();
        let (step, gradient) = (&shared.step, &shared.gradients.hidden);
        Ok(Projection {
            product: Matmul::new(device, plan, step, matrix, [&states, embedded], Epilogue::Add, RowRange::All)?,
            gradient: WeightGradient::new(device, step, matrix, [&states, gradient], gradients)?,
            parameter,
            states,
        })
    }
}
