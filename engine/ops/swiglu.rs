//! `y = silu(gate) ⊙ up`: shaders/swiglu.wgsl.

use super::{MOST_ROWS, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SwigluParams {
    pieces: u32,
}

/// The feed-forward layer's gate with its operands bound.
pub struct Swiglu {
    dispatch: Dispatch,
    width: usize,
}

impl Swiglu {
    /// `y[r, i] = silu(x[r, i]) · x[r, width + i]`, with `silu(g) = g / (1 + e^-g)`.
    ///
    /// Shapes: `x` is `[rows, 2 · width]` (gate, then up), `y` is `[rows, width]`; `width` is a multiple of 4.
    /// Errors: [`Error::Shape`] if they do not fit.
    /// Source: arXiv:2002.05202.
    pub fn new(device: &Device, x: &Tensor, y: &Tensor) -> Result<Swiglu> {
        x.expect("swiglu", "x", MOST_ROWS, 2 * y.width)?;
        if !y.width.is_multiple_of(4) {
            let expected = vec![y.rows, y.width.next_multiple_of(4)];
            return Err(Error::Shape { op: "swiglu", tensor: "y", got: vec![y.rows, y.width], expected });
        }
        let pieces = (y.width / 4) as u32;
        let kernel = device.kernel(&["swiglu"], &[])?;
        let params = Buffer::uniform(device, "swiglu params", &SwigluParams { pieces })?;
        let dispatch = kernel.dispatch(device, &[&params, &x.buffer, &y.buffer], [1, 1, 1])?;
        Ok(Swiglu { dispatch, width: y.width })
    }

    /// Records the gate for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 12 * rows * self.width, 4 * rows * self.width);
        self.dispatch.encode_over(pass, [((self.width / 4) as u32).div_ceil(64), rows as u32, 1], work);
    }
}
