//! AdamW over all parameters, with their gradients clipped together.

use super::parameter::Parameter;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Pass};
use crate::ops::gradients::{AdamW, AdamWStep, GradientNorm, MomentFormat};

/// Options of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerOptions {
    /// Learning rate of each step, before any schedule.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Maximum norm of all gradients together.
    pub clip: f64,
    /// Storage format of the moments.
    pub moments: MomentFormat,
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        OptimizerOptions { learning_rate: 3e-5, weight_decay: 0.0, clip: 1.0, moments: MomentFormat::F32 }
    }
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.95;
const EPSILON: f64 = 1e-8;

/// The optimiser, bound to its parameters.
pub struct Optimizer {
    device: Device,
    options: OptimizerOptions,
    step: Buffer,
    norm: GradientNorm,
    moves: Vec<AdamW>,
}

impl Optimizer {
    /// For `parameters`, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new<'a>(
        device: &Device,
        parameters: impl Iterator<Item = &'a Parameter>,
        options: OptimizerOptions,
    ) -> Result<Optimizer> {
        let buffers: Vec<_> = parameters.flat_map(Parameter::buffers).collect();
        let gradients: Vec<_> = buffers.iter().map(|&([_, gradient], len)| (gradient, len)).collect();
        let norm = GradientNorm::new(device, &gradients)?;
        let step = Buffer::uniform(device, "adamw step", &[0u32; size_of::<AdamWStep>() / 4])?;
        let moves = buffers
            .iter()
            .map(|&(pair, len)| AdamW::new(device, &step, norm.norm(), pair, len, options.moments))
            .collect::<Result<_>>()?;
        Ok(Optimizer { device: device.clone(), options, step, norm, moves })
    }

    /// Step `number` (1, 2, ..) at `rate` times the learning rate; gradients become zero. Returns their norm.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] if a gradient is no number, before anything is changed; as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn step(&self, number: u64, rate: f64) -> Result<f32> {
        let OptimizerOptions { learning_rate, weight_decay, clip, .. } = self.options;
        let correction = |beta: f64| (1.0 - beta.powf(number as f64)) as f32;
        let step = AdamWStep {
            learning_rate: (learning_rate * rate) as f32,
            beta1: BETA1 as f32,
            beta2: BETA2 as f32,
            epsilon: EPSILON as f32,
            weight_decay: weight_decay as f32,
            correction1: correction(BETA1),
            correction2: correction(BETA2),
            clip: clip as f32,
            number: number as u32,
        };
        self.step.write(&self.device, 0, &[step]);
        Pass::submit(&self.device, None, |pass| {
            pass.section("optimise");
            self.norm.encode(pass);
            Ok(())
        })?;
        let norm = self.norm.norm().read::<f32>(&self.device, 0, 1)?[0];
        if !norm.is_finite() {
            return Err(Error::Diverged { step: number });
        }
        Pass::submit(&self.device, None, |pass| {
            pass.section("optimise");
            self.moves.iter().for_each(|parameter| parameter.encode(pass));
            Ok(())
        })?;
        Ok(norm)
    }

    /// The moments of every buffer, for a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn moments(&self) -> Result<Vec<[Vec<f32>; 2]>> {
        self.moves.iter().map(|parameter| parameter.moments(&self.device)).collect()
    }

    /// Takes the moments up again.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they belong to other parameters.
    pub fn set_moments(&self, index: usize, moments: [&[f32]; 2]) -> Result<()> {
        self.moves[index].set_moments(&self.device, moments)
    }
}
