//! The gradients of [`super::super::RmsNorm`]: shaders/kernels/training/rms_norm_gradient.wgsl for its input,
//! shaders/kernels/training/rms_norm_gain_gradient.wgsl and shaders/kernels/training/rms_norm_gain_merge.wgsl for its gain.

use super::super::{RowRange, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RmsNormGradientParams {
    pieces: u32,
    epsilon: f32,
}

/// Runs of rows that are summed side by side for the gain.
const SECTIONS: usize = 64;

/// The gradients of a normalisation, with their operands bound.
pub struct RmsNormGradient {
    input: Dispatch,
    gain: Dispatch,
    merge: Dispatch,
    width: usize,
}

impl RmsNormGradient {
    /// Gradients of `y[r] = x[r] · s[r] · gain`, `s[r] = 1 / √(mean(x[r]²) + ε)`:
    /// `dx[r] += s[r] · (gain · dy[r] − x[r] · s[r]² · mean(gain · dy[r] · x[r]))` and `dgain += Σ dy[r] · x[r] · s[r]`.
    /// With [`RowRange::Outputs`], row 0 of `dy` is row `step.first_output` of `x` and `dx`.
    ///
    /// Shapes: `x`, `dy`, `dx` are `[rows, width]`, `gain` and `dgain` `[1, width]`; `width` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1910.07467, section 4.
    #[expect(clippy::too_many_arguments, reason = "the forward op's operands, and a gradient for each")]
    pub fn new(
        device: &Device,
        step: &Buffer,
        x: &Tensor,
        gain: &Tensor,
        epsilon: f32,
        [dy, dx]: [&Tensor; 2],
        dgain: &Tensor,
        row_set: RowRange,
    ) -> Result<RmsNormGradient> {
        const OP: &str = "rms_norm_gradient";
        if !x.width.is_multiple_of(4) {
            let expected = vec![x.rows, x.width.next_multiple_of(4)];
            return Err(Error::Shape { op: OP, tensor: "x", got: vec![x.rows, x.width], expected });
        }
        gain.expect(OP, "gain", 1, x.width)?;
        dgain.expect(OP, "dgain", 1, x.width)?;
        dx.expect(OP, "dx", x.rows, x.width)?;
        dy.expect(OP, "dy", 1, x.width)?;
        let params = RmsNormGradientParams { pieces: (x.width / 4) as u32, epsilon };
        let params = Buffer::uniform(device, "rms_norm_gradient params", &params)?;
        let scales = Buffer::storage(device, "row scales", (dy.rows * size_of::<f32>()) as u64)?;
        let sums = Buffer::storage(device, "gain sums", (SECTIONS * x.width * size_of::<f32>()) as u64)?;
        // A CPU's barriers cost more than the work they would share out.
        let lanes = if device.is_software() { 8 } else { 64 };
        let sections = ("SECTIONS", SECTIONS as u32);
        let shared = ["shared/rms_norm_gradient", "shared/step"];
        let kernel = |own: &[&'static str], constants: &[(&'static str, u32)]| {
            device.kernel(&[own, &shared].concat(), constants)
        };
        let input = kernel(&["rms_norm_gradient", "shared/reduce"], &[("LANES", lanes), row_set.constant()])?;
        let gain_kernel = kernel(&["rms_norm_gain_gradient"], &[sections, row_set.constant()])?;
        let merge = kernel(&["rms_norm_gain_merge"], &[sections])?;
        let operands = [&params, step, &x.buffer, &gain.buffer, &dy.buffer, &dx.buffer, &scales];
        let workgroups = (x.width / 4).div_ceil(64) as u32;
        Ok(RmsNormGradient {
            input: input.dispatch(device, &operands, [1, 1, 1])?,
            gain: gain_kernel.dispatch(
                device,
                &[&params, step, &x.buffer, &dy.buffer, &scales, &sums],
                [workgroups, SECTIONS as u32, 1],
            )?,
            merge: merge.dispatch(device, &[&params, &sums, &dgain.buffer], [workgroups, 1, 1])?,
            width: x.width,
        })
    }

    /// Records the gradients of `rows` rows (of the row set).
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let values = rows * self.width;
        let work = Work::of(rows, [1, self.width], 4 * (4 * values + self.width + rows), 9 * values);
        self.input.encode_over(pass, [rows as u32, 1, 1], work);
        let sums = SECTIONS * self.width;
        self.gain.encode(pass, Work::of(rows, [1, self.width], 4 * (2 * values + rows + sums), 3 * values));
        self.merge.encode(pass, Work::of(SECTIONS, [1, self.width], 4 * (sums + 2 * self.width), sums));
    }
}
