//! `dW[o] += Σ dy[m, o] · x[m]`: shaders/kernels/training/weight_gradient.wgsl.

use crate::error::{Error, Result};
use crate::formats::PIECE;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::Tensor;
use crate::ops::matrix::Matrix;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct WeightGradientParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    stride: u32,
}

/// Weight rows and pieces of columns that an invocation holds.
const BLOCKS: u32 = 4;
const PIECES: u32 = 2;

/// A product's input and the gradients of its result and weights, bound.
pub struct WeightGradient {
    parts: Vec<(Dispatch, usize)>,
    lanes: u32,
    columns: usize,
}

impl WeightGradient {
    /// `dW[o, c] += Σ dy[m, o] · x[m, c]` over the step's rows, for `y[m] = W · x[m]`. The gradients lie as the weights
    /// do, so that the two can be walked side by side; those of rows that only pad the matrix are left alone.
    ///
    /// Shapes: `x` is `[rows, columns]`, `dy` is `[rows, outputs of W]`; `gradients` is what [`Matrix::gradients`]
    /// makes; `W` is no pair.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        step: &Buffer,
        weights: &Matrix,
        [x, dy]: [&Tensor; 2],
        gradients: &[Buffer],
    ) -> Result<WeightGradient> {
        let columns = weights.columns();
        weights.expect_single("weight_gradient")?;
        dy.expect("weight_gradient", "dy", 1, weights.outputs())?;
        x.expect("weight_gradient", "x", dy.rows, columns)?;
        let got: Vec<usize> = gradients.iter().map(|part| part.bytes() as usize / size_of::<f32>()).collect();
        let expected: Vec<usize> = weights.part_lens().collect();
        if got != expected {
            return Err(Error::Shape { op: "weight_gradient", tensor: "gradients", got, expected });
        }
        let constants = [("BLOCKS", BLOCKS), ("PIECES", PIECES), ("LANES", weights.lanes())];
        let kernel = device.kernel(&["weight_gradient", "shared/eight", "shared/step"], &constants)?;
        let parts = weights.parts().iter().zip(gradients).map(|(part, gradients)| {
            let params = WeightGradientParams {
                pieces: (columns / PIECE) as u32,
                rows_out: part.outputs as u32,
                first_out: part.first as u32,
                stride: weights.outputs() as u32,
            };
            let params = Buffer::uniform(device, "weight_gradient params", &params)?;
            let operands = [&params, step, &x.buffer, &dy.buffer, gradients];
            Ok((kernel.dispatch(device, &operands, [1, 1, 1])?, part.outputs))
        });
        Ok(WeightGradient { parts: parts.collect::<Result<_>>()?, lanes: weights.lanes(), columns })
    }

    /// Records the gradient of `rows` rows, which must be the step's.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        for (part, outputs) in &self.parts {
            let weights = outputs * self.columns;
            let bytes = 4 * (2 * weights + rows * (outputs + self.columns));
            let work = Work::of(rows, [*outputs, self.columns], bytes, 2 * rows * weights).stored();
            let blocks = (*outputs as u32).div_ceil(self.lanes * BLOCKS);
            let pieces = (self.columns / PIECE) as u32;
            part.encode_over(pass, [blocks, pieces.div_ceil(PIECES), 1], work);
        }
    }
}
