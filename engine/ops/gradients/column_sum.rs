//! `sums[o] += Σ dy[m, o]`, the gradient of a bias: shaders/kernels/training/column_sum.wgsl.

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::Tensor;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ColumnSumParams {
    width: u32,
}

/// The sums of a tensor's columns, with their operands bound.
pub struct ColumnSum {
    dispatch: Dispatch,
    workgroups: u32,
    width: usize,
}

impl ColumnSum {
    /// `sums[o] += Σ dy[m, o]` over the step's rows.
    ///
    /// Shapes: `dy` is `[rows, width]`, `sums` holds `width` values of f32, and at most 3 more.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(device: &Device, step: &Buffer, dy: &Tensor, sums: &Buffer) -> Result<ColumnSum> {
        let got = sums.bytes() as usize / size_of::<f32>();
        if got != dy.width.next_multiple_of(4) {
            let expected = vec![dy.width];
            return Err(Error::Shape { op: "column_sum", tensor: "sums", got: vec![got], expected });
        }
        // A CPU runs eight invocations at a time, and its barriers cost more than they share out.
        let [columns, slices] = if device.is_software() { [8, 1] } else { [8, 8] };
        let constants = [("COLUMNS", columns), ("SLICES", slices)];
        let kernel = device.kernel(&["column_sum", "shared/step"], &constants)?;
        let params = ColumnSumParams { width: dy.width as u32 };
        let params = Buffer::uniform(device, "column_sum params", &params)?;
        let dispatch = kernel.dispatch(device, &[&params, step, &dy.buffer, sums], [1, 1, 1])?;
        Ok(ColumnSum { dispatch, workgroups: (dy.width as u32).div_ceil(columns), width: dy.width })
    }

    /// Records the sums over `rows` rows, which must be the step's.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 4 * (rows + 2) * self.width, rows * self.width);
        self.dispatch.encode_over(pass, [self.workgroups, 1, 1], work);
    }
}
