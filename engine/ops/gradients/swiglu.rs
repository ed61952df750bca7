//! `y = silu(gate) · up` and its gradient: shaders/kernels/training/swiglu.wgsl and
//! shaders/kernels/training/swiglu_gradient.wgsl.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::Tensor;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SwigluParams {
    width: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SwigluGradientParams {
    width: u32,
}

/// Invocations of a workgroup, one for each value.
const THREADS: u32 = 64;

/// The feed-forward layer's activation by itself, with its operands bound.
pub struct Swiglu {
    dispatch: Dispatch,
    width: usize,
}

impl Swiglu {
    /// `y[m, i] = silu(x[m, i]) · x[m, width + i]`, `silu(g) = g / (1 + e^-g)`. Unlike [`crate::ops::Epilogue::Swiglu`] it
    /// leaves gates and ups, which [`SwigluGradient`] needs.
    ///
    /// Shapes: `x` is `[rows, 2 · width]`, each row its gates and then its ups; `y` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    /// Source: arXiv:2002.05202.
    pub fn new(device: &Device, [x, y]: [&Tensor; 2]) -> Result<Swiglu> {
        x.expect("swiglu", "x", y.rows, 2 * y.width)?;
        let kernel = device.kernel(&["swiglu", "epilogue/swiglu"], &[("THREADS", THREADS)])?;
        let params = Buffer::uniform(device, "swiglu params", &SwigluParams { width: y.width as u32 })?;
        let dispatch = kernel.dispatch(device, &[&params, &x.buffer, &y.buffer], [1, 1, 1])?;
        Ok(Swiglu { dispatch, width: y.width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 12 * rows * self.width, 5 * rows * self.width);
        self.dispatch.encode_over(pass, grid(rows, self.width), work);
    }
}

/// The gradient of [`Swiglu`] by gates and ups, with its operands bound.
pub struct SwigluGradient {
    dispatch: Dispatch,
    width: usize,
}

impl SwigluGradient {
    /// For a gate `g` and an up `u` of `x`, with `σ = 1 / (1 + e^-g)`: `dg = dy · u · σ · (1 + g · (1 - σ))` and
    /// `du = dy · g · σ`.
    ///
    /// Shapes: `x`, `dx` are `[rows, 2 · width]`, each row its gates and then its ups; `dy` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    /// Source: the derivative of arXiv:2002.05202's formula.
    pub fn new(device: &Device, [x, dy, dx]: [&Tensor; 3]) -> Result<SwigluGradient> {
        x.expect("swiglu_gradient", "x", dy.rows, 2 * dy.width)?;
        dx.expect("swiglu_gradient", "dx", dy.rows, 2 * dy.width)?;
        let kernel = device.kernel(&["swiglu_gradient"], &[("THREADS", THREADS)])?;
        let params = SwigluGradientParams { width: dy.width as u32 };
        let params = Buffer::uniform(device, "swiglu_gradient params", &params)?;
        let dispatch = kernel.dispatch(device, &[&params, &x.buffer, &dy.buffer, &dx.buffer], [1, 1, 1])?;
        Ok(SwigluGradient { dispatch, width: dy.width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 20 * rows * self.width, 12 * rows * self.width);
        self.dispatch.encode_over(pass, grid(rows, self.width), work);
    }
}

/// Workgroups over rows of `width` values.
fn grid(rows: usize, width: usize) -> [u32; 3] {
    [(width as u32).div_ceil(THREADS), rows as u32, 1]
}
