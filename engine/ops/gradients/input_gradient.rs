//! `dx[m] = Wᵀ · dy[m]`: shaders/kernels/training/input_gradient.wgsl.

use crate::error::Result;
use crate::formats::PIECE;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::matrix::Matrix;
use crate::ops::{RowRange, Tensor};

/// Operation on a finished gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// It is stored.
    Store,
    /// It is added to what is there: the gradient of something that was used more than once.
    Add,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct InputGradientParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    stride: u32,
    add: u32,
}

/// A matrix with the gradients of its product and of its input bound.
pub struct InputGradient {
    parts: Vec<Part>,
    workgroups: u32,
    /// Rows that an invocation holds.
    rows: u32,
    columns: usize,
    accumulate: Accumulate,
}

/// A part of the matrix, bound.
struct Part {
    dispatch: Dispatch,
    outputs: usize,
    row_bytes: usize,
}

impl InputGradient {
    /// `dx[m] = Wᵀ · dy[m]`, stored or added, for `y[m] = W · x[m]`. With [`RowRange::Outputs`], the rows are the first
    /// `step.outputs` of both.
    ///
    /// Shapes: `dy` is `[rows, outputs of W]`, `dx` is `[rows, columns]`, both with room for whatever is encoded; `W` is no
    /// pair.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        step: &Buffer,
        weights: &Matrix,
        [dy, dx]: [&Tensor; 2],
        accumulate: Accumulate,
        row_set: RowRange,
    ) -> Result<InputGradient> {
        let columns = weights.columns();
        weights.expect_single("input_gradient")?;
        dy.expect("input_gradient", "dy", 1, weights.outputs())?;
        dx.expect("input_gradient", "dx", dy.rows, columns)?;
        // A CPU's invocations run eight at a time; it holds sums in its cache as well as in registers.
        let [threads, rows] = if device.is_software() { [8, 16] } else { [32, 8] };
        let constants = [("ROWS", rows), ("THREADS", threads), ("LANES", weights.lanes()), row_set.constant()];
        let pieces = (columns / PIECE) as u32;
        let parts = weights.parts().iter().map(|part| {
            let params = InputGradientParams {
                pieces,
                rows_out: part.outputs as u32,
                first_out: part.first as u32,
                stride: weights.outputs() as u32,
                add: u32::from(part.first > 0 || accumulate == Accumulate::Add),
            };
            let params = Buffer::uniform(device, "input_gradient params", &params)?;
            let operands = [&params, step, &part.buffer, &dy.buffer, &dx.buffer];
            let shared = ["input_gradient", "shared/eight", "shared/step", "shared/weight"];
            let files = [&shared[..], part.format.shaders()].concat();
            let dispatch = device.kernel(&files, &constants)?.dispatch(device, &operands, [1, 1, 1])?;
            Ok(Part { dispatch, outputs: part.outputs, row_bytes: part.format.row_bytes(columns) })
        });
        Ok(InputGradient {
            parts: parts.collect::<Result<_>>()?,
            workgroups: pieces.div_ceil(threads),
            rows,
            columns,
            accumulate,
        })
    }

    /// Records the gradients of `rows` rows (of the row set).
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        for (index, Part { dispatch, outputs, row_bytes }) in self.parts.iter().enumerate() {
            let reads_dx = usize::from(index > 0 || self.accumulate == Accumulate::Add);
            let weights = outputs * self.columns;
            let bytes = outputs * row_bytes + 4 * rows * (outputs + self.columns * (1 + reads_dx));
            let work = Work::of(rows, [*outputs, self.columns], bytes, 2 * rows * weights).stored();
            dispatch.encode_over(pass, [self.workgroups, (rows as u32).div_ceil(self.rows), 1], work);
        }
    }
}
