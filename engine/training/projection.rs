//! What a draft that reads its target's states makes of them, while it is trained.

use super::network::Shared;
use super::parameter::{Parameter, Source};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::TargetLayers;
use crate::error::Result;
use crate::gpu::{Device, KernelPlan};
use crate::model::TARGET_PROJECTION;
use crate::ops::gradients::WeightGradient;
use crate::ops::{Epilogue, Matmul, RowRange, Tensor};

/// What is made of the target's states, and added to the embeddings.
pub struct Projection {
    /// `[hidden, layers · target's hidden]`.
    pub parameter: Parameter,
    /// What each row reads; nothing, of masks.
    pub states: Tensor,
    /// Adds it to the embeddings.
    pub product: Matmul,
    pub gradient: WeightGradient,
}

impl Projection {
    /// It begins with what `checkpoint` has of it if that is a draft's, and else with zeros: the draft is then what it would
    /// be without.
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
