//! Rotation of q and k, and k and v into the cache: shaders/kernels/rope.wgsl. Also the cache itself.

use super::{MAX_ROWS, Rows, Tensor};
use crate::error::Result;
use crate::gpu::{Buffer, CacheFormat, Device, Dispatch, KernelPlan, Pass, Work};

/// Positions whose keys lie side by side; attention's lanes, one a key.
pub(super) const KEY_TILE: usize = 64;

/// The cache's first half, in messages.
const KEYS: &str = "key cache";

/// The keys and values of one layer, for one sequence or for several, each in a slot of its own. How many of them are
/// valid is the session's business.
pub struct KvCache {
    /// `[slots, kv_heads, capacity / 64, head_dim / 8, 64, 8]`, with the capacity a multiple of 64; in 8 bits
    /// `[slots, kv_heads, capacity / 64, words, 64]`, where the words of a row are its numbers, four in one, and then its
    /// scales.
    pub keys: Buffer,
    /// `[slots, kv_heads, capacity, head_dim]`; in 8 bits `[slots, kv_heads, capacity, words]`.
    pub values: Buffer,
    pub(super) capacity: usize,
    pub(super) format: CacheFormat,
}

impl KvCache {
    /// Room for at least `positions` positions.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`] if it is too large for the device.
    pub fn new(device: &Device, plan: &KernelPlan, shape: &AttentionShape, positions: usize) -> Result<KvCache> {
        KvCache::with_slots(device, plan, shape, 1, positions)
    }

    /// Room for at least `positions` positions of each of `slots` sequences.
    ///
    /// # Errors
    ///
    /// As [`KvCache::new`].
    pub fn with_slots(
        device: &Device,
        plan: &KernelPlan,
        shape: &AttentionShape,
        slots: usize,
        positions: usize,
    ) -> Result<KvCache> {
        let capacity = positions.next_multiple_of(KEY_TILE);
        let bytes = slots as u64 * KvCache::bytes(plan.cache, shape, positions) / 2;
        Ok(KvCache {
            keys: Buffer::storage(device, KEYS, bytes)?,
            values: Buffer::storage(device, "value cache", bytes)?,
            capacity,
            format: plan.cache,
        })
    }

    /// Checks that the keys of `with_slots`, and so its values, fit in one binding.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`].
    pub fn check(
        device: &Device,
        plan: &KernelPlan,
        shape: &AttentionShape,
        slots: usize,
        positions: usize,
    ) -> Result<()> {
        Buffer::check(device, KEYS, (slots as u64).saturating_mul(KvCache::bytes(plan.cache, shape, positions) / 2))
    }

    /// Device memory that a slot of `positions` positions takes.
    pub fn bytes(format: CacheFormat, shape: &AttentionShape, positions: usize) -> u64 {
        let capacity = positions.next_multiple_of(KEY_TILE);
        2 * (shape.kv_heads * capacity * format.row_bytes(shape.head_dim)) as u64
    }

    /// The shader files that read it.
    pub(super) fn readers(&self) -> [&'static str; 2] {
        match self.format {
            CacheFormat::F16 => ["cache/read_f16", "cache/keys"],
            CacheFormat::F32 => ["cache/read_f32", "cache/keys"],
            CacheFormat::Q8_0 => ["cache/read_q8_0", "cache/q8_0"],
        }
    }

    /// The shader files that write it.
    fn writers(&self) -> [&'static str; 2] {
        match self.format {
            CacheFormat::F16 => ["cache/write_f16", "cache/keys"],
            CacheFormat::F32 => ["cache/write_f32", "cache/keys"],
            CacheFormat::Q8_0 => ["cache/write_q8_0", "cache/q8_0"],
        }
    }

    /// Returns the constants of the cache and of `shape` for those files and the kernels that they are parts of.
    pub(super) fn constants(&self, shape: &AttentionShape) -> Vec<(&'static str, u32)> {
        let block = (self.format == CacheFormat::Q8_0).then(|| ("BLOCK", CacheFormat::block(shape.head_dim) as u32));
        shape.constants().into_iter().chain(block).collect()
    }
}

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
