//! The gradient of the rotation of q and k: shaders/kernels/training/rope_gradient.wgsl, and for heads that are
//! normalised first shaders/kernels/training/rope_head_scales.wgsl and
//! shaders/kernels/training/rope_gain_gradient.wgsl.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::{AttentionShape, Tensor};

/// The normalisation of every head of q and k (Qwen3), with the gradients of its gains.
#[derive(Clone, Copy)]
pub struct GainGradients<'a> {
    /// Input of the normalisation, `[rows, (heads + 2 · kv_heads) · head_dim]`.
    pub qkv: &'a Tensor,
    /// The gains of q's and k's heads, `[1, head_dim]` each.
    pub gains: [&'a Tensor; 2],
    /// Their gradients, which are added to; `[1, head_dim]` each.
    pub gradients: [&'a Tensor; 2],
    /// The normalisation's epsilon.
    pub epsilon: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RopeGradientParams {
    epsilon: f32,
}

/// The gradient of [`crate::ops::Rope`] with its operands bound.
pub struct RopeGradient {
    dispatch: Dispatch,
    /// The heads' scales and the gains' gradients.
    gains: Option<[Dispatch; 2]>,
    shape: AttentionShape,
}

impl RopeGradient {
    /// From the gradients by rotated q, by rotated k and by v, the gradient by qkv, which is stored: the rotation turned
    /// back and, with `norm`, the gradient of each head's normalisation. The gradients of its gains are added to what
    /// is there.
    ///
    /// Shapes: `angles` is `[rows, 2, head_dim / 2]` of f32 (cosines, then sines), row by row; the gradients of q, k and
    /// v are `[rows, heads · head_dim]` and `[rows, kv_heads · head_dim]`; `qkv_gradient` is
    /// `[rows, (heads + 2 · kv_heads) · head_dim]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    /// Source: arXiv:2104.09864 and arXiv:1910.07467, differentiated.
    pub fn new(
        device: &Device,
        step: &Buffer,
        shape: &AttentionShape,
        angles: &Buffer,
        [query_gradient, key_gradient, value_gradient]: [&Tensor; 3],
        qkv_gradient: &Tensor,
        norm: Option<GainGradients>,
    ) -> Result<RopeGradient> {
        const OP: &str = "rope_gradient";
        let AttentionShape { heads, kv_heads, head_dim } = *shape;
        let room = qkv_gradient.rows;
        qkv_gradient.expect(OP, "qkv_gradient", room, shape.qkv_width())?;
        query_gradient.expect(OP, "query_gradient", room, heads * head_dim)?;
        key_gradient.expect(OP, "key_gradient", room, kv_heads * head_dim)?;
        value_gradient.expect(OP, "value_gradient", room, kv_heads * head_dim)?;
        let params = RopeGradientParams { epsilon: norm.map_or(0.0, |norm| norm.epsilon) };
        let params = Buffer::uniform(device, "rope gradient params", &params)?;
        let constants = shape.constants();
        let files = ["rope_gradient", "shared/rope_gradient", "shared/step", "shared/turn_back"];
        let turned = [&query_gradient.buffer, &key_gradient.buffer];
        let (value, target) = (&value_gradient.buffer, &qkv_gradient.buffer);
        let Some(GainGradients { qkv, gains, gradients, epsilon: _ }) = norm else {
            let files = [&files[..], &["rope_norm/none", "rope_norm_gradient/none"]].concat();
            let kernel = device.kernel(&files, &constants)?;
            let operands = [&params, step, angles, turned[0], turned[1], value, target];
            let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;
            return Ok(RopeGradient { dispatch, gains: None, shape: *shape });
        };
        qkv.expect(OP, "qkv", room, shape.qkv_width())?;
        gains[0].expect(OP, "query gain", 1, head_dim)?;
        gains[1].expect(OP, "key gain", 1, head_dim)?;
        gradients[0].expect(OP, "query gain gradient", 1, head_dim)?;
        gradients[1].expect(OP, "key gain gradient", 1, head_dim)?;
        let (qkv, gains, gradients) = (&qkv.buffer, gains.map(|gain| &gain.buffer), gradients.map(|to| &to.buffer));
        let files = [&files[..], &["rope_norm/heads", "rope_norm_gradient/heads"]].concat();
        let kernel = device.kernel(&files, &constants)?;
        let operands = [&params, step, angles, qkv, turned[0], turned[1], value, gains[0], gains[1], target];
        let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;

        let scales_bytes = 4 * (room * (heads + kv_heads)) as u64;
        let scales = Buffer::storage(device, "head scales", scales_bytes)?;
        let files = ["rope_head_scales", "shared/rope_gradient", "shared/step", "rope_norm/heads"];
        let kernel = device.kernel(&files, &constants)?;
        let of_heads = kernel.dispatch(device, &[&params, step, qkv, gains[0], gains[1], &scales], [1, 1, 1])?;
        let files = ["rope_gain_gradient", "shared/rope_gradient", "shared/step", "shared/turn_back"];
        let kernel = device.kernel(&files, &constants)?;
        let operands = [&params, step, angles, qkv, turned[0], turned[1], &scales, gradients[0], gradients[1]];
        let of_gains = kernel.dispatch(device, &operands, [(head_dim / 8) as u32, 2, 1])?;
        Ok(RopeGradient { dispatch, gains: Some([of_heads, of_gains]), shape: *shape })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let (width, turned) = (self.shape.qkv_width(), heads + kv_heads);
        let inputs = 1 + usize::from(self.gains.is_some());
        let work =
            Work::of(rows, [1, width], 4 * rows * ((1 + inputs) * width + head_dim), 3 * rows * turned * head_dim);
        self.dispatch.encode_over(pass, [(rows * (heads + 2 * kv_heads)).div_ceil(64) as u32, 1, 1], work);
        if let Some([scales, gains]) = &self.gains {
            let values = rows * turned * head_dim;
            let work = Work::of(rows, [1, width], 4 * values, 2 * values);
            scales.encode_over(pass, [(rows * turned).div_ceil(64) as u32, 1, 1], work);
            gains.encode(pass, Work::of(rows, [1, width], 4 * (2 * values + rows * head_dim), 6 * values));
        }
    }
}
