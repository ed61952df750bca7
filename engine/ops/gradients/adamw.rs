//! The optimiser: shaders/kernels/training/adamw.wgsl.

use super::super::matmul::fold;
use super::expect_pieces;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AdamWParams {
    pieces: u32,
}

/// The numbers of one step of the optimiser, shared by all parameters.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamWStep {
    /// Learning rate; it scales the weight decay too.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// `1 − beta1ᵗ` for step `t` of 1, 2, ..
    pub correction1: f32,
    /// `1 − beta2ᵗ`.
    pub correction2: f32,
    /// The largest norm that gradients may have; longer ones are shortened to it.
    pub clip: f32,
    /// `t`, which seeds the rounding of moments.
    pub number: u32,
}

/// Storage format of the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MomentFormat {
    /// IEEE single precision.
    #[default]
    F32,
    /// 16-bit brain float, rounded stochastically but the same way every time: half the memory.
    Bf16,
}

impl MomentFormat {
    fn file(self) -> &'static str {
        match self {
            MomentFormat::F32 => "moments/f32",
            MomentFormat::Bf16 => "moments/bf16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            MomentFormat::F32 => 4,
            MomentFormat::Bf16 => 2,
        }
    }
}

/// AdamW for one parameter, with its operands bound.
pub struct AdamW {
    dispatch: Dispatch,
    moments: [Buffer; 2],
    format: MomentFormat,
    values: usize,
}

impl AdamW {
    /// A step of AdamW on `parameter`, whose `gradient` is shortened by `min(1, clip / norm)` first and zeroed in the end.
    /// The moments begin as zeros.
    ///
    /// Shapes: `parameter` and `gradient` hold `values` f32, a multiple of 4; `step` holds an [`AdamWStep`], `norm` an f32.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit, [`Error::OutOfMemory`].
    /// Source: arXiv:1711.05101, algorithm 2.
    pub fn new(
        device: &Device,
        step: &Buffer,
        norm: &Buffer,
        [parameter, gradient]: [&Buffer; 2],
        values: usize,
        format: MomentFormat,
    ) -> Result<AdamW> {
        let pieces = expect_pieces("adamw", "parameter", parameter, values)?;
        expect_pieces("adamw", "gradient", gradient, values)?;
        let moment = |label| Buffer::storage(device, label, (values * format.bytes()) as u64);
        let moments = [moment("first moment")?, moment("second moment")?];
        let params = Buffer::uniform(device, "adamw params", &AdamWParams { pieces })?;
        let kernel = device.kernel(&["adamw", format.file()], &[])?;
        let operands = [&params, step, norm, parameter, gradient, &moments[0], &moments[1]];
        let [x, y] = fold(pieces.div_ceil(64));
        Ok(AdamW { dispatch: kernel.dispatch(device, &operands, [x, y, 1])?, moments, format, values })
    }

    /// Records the step.
    pub fn encode(&self, pass: &mut Pass) {
        let bytes = self.values * (16 + 4 * self.format.bytes());
        self.dispatch.encode(pass, Work::of(1, [1, self.values], bytes, 14 * self.values).stored());
    }

    /// Reads the first and the second moment back, for a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn moments(&self, device: &Device) -> Result<[Vec<f32>; 2]> {
        let read = |buffer: &Buffer| match self.format {
            MomentFormat::F32 => buffer.read(device, 0, self.values),
            MomentFormat::Bf16 => {
                let bits: Vec<u16> = buffer.read(device, 0, self.values)?;
                Ok(bits.into_iter().map(|bits| half::bf16::from_bits(bits).to_f32()).collect())
            }
        };
        Ok([read(&self.moments[0])?, read(&self.moments[1])?])
    }

    /// Takes the moments up from a checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they are not as many as the parameter's values.
    pub fn set_moments(&self, device: &Device, moments: [&[f32]; 2]) -> Result<()> {
        for (buffer, values) in self.moments.iter().zip(moments) {
            if values.len() != self.values {
                let (got, expected) = (vec![values.len()], vec![self.values]);
                return Err(Error::Shape { op: "adamw", tensor: "moments", got, expected });
            }
            match self.format {
                MomentFormat::F32 => buffer.write(device, 0, values),
                MomentFormat::Bf16 => {
                    let bits: Vec<u16> = values.iter().map(|&value| half::bf16::from_f32(value).to_bits()).collect();
                    buffer.write(device, 0, &bits);
                }
            }
        }
        Ok(())
    }
}
