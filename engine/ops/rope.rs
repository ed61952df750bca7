//! Rotation of q and k, and k and v into the cache: shaders/kernels/rope.wgsl.

use super::kv_cache::{KEY_TILE, KvCache};
use super::{MAX_ROWS, Rows, Tensor};
use crate::error::Result;
use crate::gpu::{Buffer, CacheFormat, Device, Dispatch, Pass, Work};

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, a multiple of 16.
    pub head_dim: usize,
}

impl AttentionShape {
    pub(super) fn constants(&self) -> [(&'static str, u32); 4] {
        [
            ("HEADS", self.heads as u32),
            ("KV_HEADS", self.kv_heads as u32),
            ("HEAD_DIM", self.head_dim as u32),
            ("KEY_TILE", KEY_TILE as u32),
        ]
    }

    /// Width of q, k and v together.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Gains of the normalisation of every head of q and k, `[1, head_dim]` each (Qwen3).
#[derive(Clone, Copy)]
pub struct RopeGains<'a> {
    /// For q.
    pub query: &'a Tensor,
    /// For k.
    pub key: &'a Tensor,
    /// The normalisation's epsilon.
    pub epsilon: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RopeParams {
    capacity: u32,
    epsilon: f32,
}

/// Rotation and cache append with their operands bound.
pub struct Rope {
    dispatch: Dispatch,
    shape: AttentionShape,
    cache: CacheFormat,
}

impl Rope {
    /// Rotates q and k by the angles of their positions, q into `query`, k and v into the cache; with `gains`, each
    /// head of q and k is normalised first.
    ///
    /// Shapes: `angles` is `[positions, 2, head_dim / 2]` of f32 (cosines, then sines) for every position of the cache;
    /// `qkv` is `[rows, (heads + 2 · kv_heads) · head_dim]`, `query` is `[rows, heads · head_dim]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    /// Source: arXiv:2104.09864, in the pairing of Hugging Face's checkpoints.
    pub fn new<'a>(
        device: &Device,
        rows: impl Into<Rows<'a>>,
        shape: &AttentionShape,
        angles: &Buffer,
        [qkv, query]: [&Tensor; 2],
        cache: &KvCache,
        gains: Option<RopeGains>,
    ) -> Result<Rope> {
        let rows = rows.into();
        qkv.expect("rope", "qkv", MAX_ROWS, shape.qkv_width())?;
        query.expect("rope", "query", MAX_ROWS, shape.heads * shape.head_dim)?;
        let params = RopeParams { capacity: cache.capacity as u32, epsilon: gains.map_or(0.0, |gains| gains.epsilon) };
        let params = Buffer::uniform(device, "rope params", &params)?;
        let mut operands = vec![&params, rows.step(), angles, &qkv.buffer, &cache.keys, &cache.values, &query.buffer];
        if let Some(gains) = gains {
            gains.query.expect("rope", "query gain", 1, shape.head_dim)?;
            gains.key.expect("rope", "key gain", 1, shape.head_dim)?;
            operands.extend([&gains.query.buffer, &gains.key.buffer]);
        }
        operands.extend(rows.batch());
        let norm = if gains.is_some() { "rope_norm/heads" } else { "rope_norm/none" };
        let files = [&["rope", "shared/eight", "shared/step", norm], &cache.writers()[..], rows.files()].concat();
        let kernel = device.kernel(&files, &cache.constants(shape))?;
        let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;
        Ok(Rope { dispatch, shape: *shape, cache: cache.format })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let width = self.shape.qkv_width();
        let cached = 2 * kv_heads * self.cache.row_bytes(head_dim);
        let row_bytes = 4 * width + 4 * heads * head_dim + cached + 4 * head_dim;
        let work = Work::of(rows, [1, width], rows * row_bytes, 3 * rows * (heads + kv_heads) * head_dim);
        self.dispatch.encode_over(pass, [(width / 16).div_ceil(64) as u32, rows as u32, 1], work);
    }
}
