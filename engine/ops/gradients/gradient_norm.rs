//! The norm of all gradients together: shaders/kernels/training/gradient_norm.wgsl and
//! shaders/kernels/training/gradient_norm_merge.wgsl.

use super::super::matmul::fold;
use super::expect_pieces;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GradientNormParams {
    pieces: u32,
    sections: u32,
    first: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GradientNormMergeParams {
    sections: u32,
}

/// Pieces of 4 values that one workgroup sums.
const SECTION: u32 = 4096;

/// `√(Σ g²)` over several gradients.
pub struct GradientNorm {
    /// With the number of values of each.
    buffers: Vec<(Dispatch, usize)>,
    merge: Dispatch,
    sections: usize,
    norm: Buffer,
}

impl GradientNorm {
    /// The Euclidean norm of `gradients`, buffers of f32 with the number of values of each.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if a buffer holds fewer values, or if they are no multiple of 4.
    pub fn new(device: &Device, gradients: &[(&Buffer, usize)]) -> Result<GradientNorm> {
        let (mut shapes, mut sections) = (Vec::new(), 0);
        for (buffer, values) in gradients {
            let pieces = expect_pieces("gradient_norm", "gradient", buffer, *values)?;
            let params = GradientNormParams { pieces, sections: pieces.div_ceil(SECTION), first: sections };
            sections += params.sections;
            shapes.push(params);
        }
        let sums = Buffer::storage(device, "gradient_norm sums", 4 * u64::from(sections))?;
        let norm = Buffer::storage(device, "gradient norm", 4)?;
        let kernel = device.kernel(&["gradient_norm", "shared/reduce"], &[("SECTION", SECTION)])?;
        let merge = device.kernel(&["gradient_norm_merge", "shared/reduce"], &[])?;
        let bind = |((buffer, values), params): (&(&Buffer, usize), GradientNormParams)| {
            let [x, y] = fold(params.sections);
            let params = Buffer::uniform(device, "gradient_norm params", &params)?;
            Ok((kernel.dispatch(device, &[&params, buffer, &sums], [x, y, 1])?, *values))
        };
        let buffers = gradients.iter().zip(shapes).map(bind).collect::<Result<_>>()?;
        let params = Buffer::uniform(device, "gradient_norm_merge params", &GradientNormMergeParams { sections })?;
        let merge = merge.dispatch(device, &[&params, &sums, &norm], [1, 1, 1])?;
        Ok(GradientNorm { buffers, merge, sections: sections as usize, norm })
    }

    /// One f32. Reading it back tells whether any gradient is no number.
    pub fn norm(&self) -> &Buffer {
        &self.norm
    }

    /// Records the norm.
    pub fn encode(&self, pass: &mut Pass) {
        for (dispatch, values) in &self.buffers {
            dispatch.encode(pass, Work::of(1, [1, *values], 4 * values, 2 * values).stored());
        }
        self.merge.encode(pass, Work::of(1, [1, self.sections], 4 * (self.sections + 1), self.sections));
    }
}
