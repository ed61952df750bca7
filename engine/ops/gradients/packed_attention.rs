//! Attention over the packed rows of a training step, and its gradients: shaders/kernels/training/packed_attention*.wgsl.
//! No probability is stored: the gradients compute the softmax anew from each row's `log_sum`.

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};
use crate::ops::{AttentionShape, KvCache, Tensor};

/// Visibility of one row of a packed step: the rows that it sees and those that see it (shaders/shared/training_row.wgsl).
/// A sample's real rows come first, then its mask chains, in ascending order of the real rows that they hang at.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TrainingRow {
    /// It sees the real rows `context_first..context_end` of its sample; a real row is itself the last of them.
    pub context_first: u32,
    /// End of those rows.
    pub context_end: u32,
    /// It sees the masks `chain_first..=` itself of its chain; a real row none, so that this is the row after it.
    pub chain_first: u32,
    /// It is seen by `real_first..real_end`: a real row by real rows, a mask by the masks of its chain; first itself.
    pub real_first: u32,
    /// End of those rows.
    pub real_end: u32,
    /// A real row is seen by `later_first..later_end`: the masks of all chains that hang at it or after it.
    pub later_first: u32,
    /// End of those rows; `later_first` for a mask, which has none.
    pub later_end: u32,
    /// Its position in the sample's text.
    pub position: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PackedAttentionParams {
    capacity: u32,
    scale: f32,
}

/// Pairs of (row, query head), and keys, that a workgroup takes at once.
const TILE: usize = 32;

/// Eights of a head that a workgroup sums up.
const PART: usize = 16;

/// Files that the kernels share, besides the cache's.
const SHARED: [&str; 6] =
    ["shared/packed_attention", "shared/lowest", "shared/eight", "shared/step", "shared/training_row", "query/storage"];

/// Parts that the kernels share: the rows' visibility, queries, keys and values.
struct Seen {
    params: Buffer,
    constants: Vec<(&'static str, u32)>,
    readers: [&'static str; 2],
    shape: AttentionShape,
}

impl Seen {
    /// Checks the operands of `op`: each tensor's name, itself and its width.
    fn new(
        device: &Device,
        op: &'static str,
        shape: &AttentionShape,
        rows: &Buffer,
        cache: &KvCache,
        tensors: &[(&'static str, &Tensor, usize)],
    ) -> Result<Seen> {
        let room = rows.bytes() as usize / size_of::<TrainingRow>();
        for (name, tensor, width) in tensors {
            tensor.expect(op, name, room, *width)?;
        }
        if cache.capacity < room {
            return Err(Error::Shape { op, tensor: "cache", got: vec![cache.capacity], expected: vec![room] });
        }
        let scale = (1.0 / (shape.head_dim as f64).sqrt()) as f32;
        let params = PackedAttentionParams { capacity: cache.capacity as u32, scale };
        let params = Buffer::uniform(device, "packed attention params", &params)?;
        Ok(Seen { params, constants: cache.constants(shape), readers: cache.readers(), shape: *shape })
    }

    /// The kernel of `files` and the shared ones, with the shared operands bound before `operands`.
    fn dispatch(
        &self,
        device: &Device,
        files: &[&'static str],
        [step, query, rows]: [&Buffer; 3],
        cache: &KvCache,
        operands: &[&Buffer],
    ) -> Result<Dispatch> {
        let files = [files, &SHARED, &self.readers].concat();
        let kernel = device.kernel(&files, &self.constants)?;
        let shared = [&self.params, step, query, &cache.keys, &cache.values, rows];
        kernel.dispatch(device, &[&shared, operands].concat(), [1, 1, 1])
    }

    /// Workgroups for `lines` pairs or keys of each key-value head.
    fn grid(&self, lines: usize) -> [u32; 3] {
        let parts = (self.shape.head_dim / 8).div_ceil(PART);
        [self.shape.kv_heads as u32, lines.div_ceil(TILE) as u32, parts as u32]
    }

    /// `queries` rows of all query heads and `keys` rows of all key heads. What a row sees is known to the device
    /// alone, so that flops are not counted.
    fn work(&self, rows: usize, queries: usize, keys: usize) -> Work {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        Work::of(rows, [heads, rows], 4 * rows * head_dim * (queries * heads + keys * kv_heads), 0)
    }
}

/// Attention of a training step's rows with its operands bound.
pub struct PackedAttention {
    seen: Seen,
    dispatch: Dispatch,
}

impl PackedAttention {
    /// `out[r, h] = Σ_k softmax(q[r, h] · key[k] / √head_dim) · value[k]` over the keys `k` that `rows[r]` sees, and
    /// `log_sums[r, h] = ln Σ_k exp(score)`.
    ///
    /// Shapes: `rows` is `[rows]` of [`TrainingRow`]; `query`, `out` are `[rows, heads · head_dim]`, `log_sums` is
    /// `[rows, heads]`; row r's key and value lie at position r of `cache`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: the online softmax of arXiv:1805.02867; the mask of arXiv:2504.18583.
    pub fn new(
        device: &Device,
        step: &Buffer,
        shape: &AttentionShape,
        rows: &Buffer,
        cache: &KvCache,
        [query, out]: [&Tensor; 2],
        log_sums: &Tensor,
    ) -> Result<PackedAttention> {
        let width = shape.heads * shape.head_dim;
        let tensors = [("query", query, width), ("out", out, width), ("log_sums", log_sums, shape.heads)];
        let seen = Seen::new(device, "packed_attention", shape, rows, cache, &tensors)?;
        let shared = [step, &query.buffer, rows];
        let dispatch = seen.dispatch(device, &["packed_attention"], shared, cache, &[&out.buffer, &log_sums.buffer])?;
        Ok(PackedAttention { seen, dispatch })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let AttentionShape { heads, kv_heads, .. } = self.seen.shape;
        self.dispatch.encode_over(pass, self.seen.grid(rows * heads / kv_heads), self.seen.work(rows, 2, 2));
    }
}

/// The gradients of [`PackedAttention`] with their operands bound.
pub struct PackedAttentionGradient {
    seen: Seen,
    sums: Dispatch,
    query: Dispatch,
    key: Dispatch,
}

impl PackedAttentionGradient {
    /// From `output_gradient`, the gradient by `out`, those by the rotated queries and keys and by the values. With p
    /// the softmax's weights and `ds = p · (dout · value − dout · out) / √head_dim`:
    /// `dquery[r, h] = Σ_k ds · key[k]`, `dkey[k] = Σ_(r, h) ds · q[r, h]`, `dvalue[k] = Σ_(r, h) p · dout[r, h]`.
    ///
    /// Shapes: as [`PackedAttention::new`]; `output_gradient` and `query_gradient` are `[rows, heads · head_dim]`,
    /// `key_gradient` and `value_gradient` `[rows, kv_heads · head_dim]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4.
    #[expect(clippy::too_many_arguments, reason = "operands and results of one op")]
    pub fn new(
        device: &Device,
        step: &Buffer,
        shape: &AttentionShape,
        rows: &Buffer,
        cache: &KvCache,
        [query, out]: [&Tensor; 2],
        log_sums: &Tensor,
        output_gradient: &Tensor,
        [query_gradient, key_gradient, value_gradient]: [&Tensor; 3],
    ) -> Result<PackedAttentionGradient> {
        let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let tensors = [
            ("query", query, width),
            ("out", out, width),
            ("log_sums", log_sums, shape.heads),
            ("output_gradient", output_gradient, width),
            ("query_gradient", query_gradient, width),
            ("key_gradient", key_gradient, kv_width),
            ("value_gradient", value_gradient, kv_width),
        ];
        let seen = Seen::new(device, "packed_attention_gradient", shape, rows, cache, &tensors)?;
        let room = rows.bytes() / size_of::<TrainingRow>() as u64;
        let sums_buffer = Buffer::storage(device, "attention sums", 8 * room * shape.heads as u64)?;
        let kernel = device.kernel(
            &["packed_attention_sums", "shared/eight", "shared/step"],
            &[("HEADS", shape.heads as u32), ("HEAD_DIM", shape.head_dim as u32)],
        )?;
        let given = &output_gradient.buffer;
        let operands = [step, &out.buffer, given, &log_sums.buffer, &sums_buffer];
        let sums = kernel.dispatch(device, &operands, [1, 1, 1])?;
        let bind = |name, results: &[&Buffer]| {
            let files = [name, "shared/packed_attention_gradient"];
            let operands = [&[given, &sums_buffer], results].concat();
            seen.dispatch(device, &files, [step, &query.buffer, rows], cache, &operands)
        };
        let query = bind("packed_attention_query_gradient", &[&query_gradient.buffer])?;
        let key = bind("packed_attention_key_gradient", &[&key_gradient.buffer, &value_gradient.buffer])?;
        Ok(PackedAttentionGradient { seen, sums, query, key })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let AttentionShape { heads, kv_heads, head_dim } = self.seen.shape;
        let pairs = rows * heads;
        let work = Work::of(rows, [1, heads * head_dim], 4 * pairs * (2 * head_dim + 3), 2 * pairs * head_dim);
        self.sums.encode_over(pass, [pairs.div_ceil(64) as u32, 1, 1], work);
        self.query.encode_over(pass, self.seen.grid(pairs / kv_heads), self.seen.work(rows, 3, 2));
        self.key.encode_over(pass, self.seen.grid(rows), self.seen.work(rows, 2, 4));
    }
}
