//! Causal attention over the cache: shaders/attention.wgsl and shaders/attention_merge.wgsl.
//! Few rows: each part of the keys is a workgroup, and the parts, if there are several, are merged by a second kernel.
//! Prompts: a workgroup walks all parts itself, since rows alone fill the device and the parts' scratch would be large.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::rope::{KEY_TILE, KvCache};
use super::{AttentionShape, MOST_ROWS, Role, Rows, Tensor};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Kernel, Pass, Plan, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AttentionParams {
    capacity: u32,
    splits: u32,
    scale: f32,
}

/// Pairs of (row, query head) that one workgroup takes, few to many. The pairs share the keys and values that it reads.
const PAIRS: [u32; 3] = [4, 8, 16];
/// The most of them on a GPU, whose compilers run out of registers with 16.
const GPU_PAIRS: u32 = 8;
/// Values, eights of a key and merged parts whose loads are in flight together on a GPU. A CPU waits for none of them.
const GPU_VALUES: u32 = 8;
const GPU_KEY_PIECES: u32 = 2;
const GPU_PARTS: u32 = 8;

/// The scratch's larger half, in messages.
const PARTS: &str = "attention parts";

/// Memory that the parts of one pass are written to. Layers run one after the other and share it.
pub struct AttentionScratch {
    /// Weighted sums of values, `[rows, heads, splits, head_dim]`.
    pub parts: Buffer,
    /// Largest scores and sums of exponentials, `[rows, heads, splits, 2]`.
    pub sums: Buffer,
    splits: usize,
}

impl AttentionScratch {
    /// Room for `MOST_ROWS` rows over `positions` positions.
    ///
    /// Errors: [`crate::Error::Limit`] if the context is too long for one binding.
    pub fn new(device: &Device, plan: &Plan, shape: &AttentionShape, positions: usize) -> Result<AttentionScratch> {
        let [parts, sums] = Self::bytes(plan, shape, positions);
        Ok(AttentionScratch {
            parts: Buffer::storage(device, PARTS, parts)?,
            sums: Buffer::storage(device, "attention sums", sums)?,
            splits: Self::splits(plan, positions),
        })
    }

    /// Whether `new` would find room in one binding.
    ///
    /// Errors: [`crate::Error::Limit`].
    pub fn check(device: &Device, plan: &Plan, shape: &AttentionShape, positions: usize) -> Result<()> {
        Buffer::check(device, PARTS, Self::bytes(plan, shape, positions)[0])
    }

    fn splits(plan: &Plan, positions: usize) -> usize {
        positions.next_multiple_of(KEY_TILE).div_ceil(plan.key_split as usize)
    }

    /// The sizes of the parts and of their sums, in bytes.
    pub fn bytes(plan: &Plan, shape: &AttentionShape, positions: usize) -> [u64; 2] {
        let pairs = (MOST_ROWS * shape.heads * Self::splits(plan, positions)) as u64;
        [pairs * shape.head_dim as u64 * 4, pairs * 8]
    }
}

/// How the first kernel is laid on the device. The variants differ in no rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Variant {
    /// Pairs per workgroup.
    pairs: u32,
    /// Whether a workgroup walks all parts.
    serial: bool,
    /// Whether the queries are a uniform.
    uniform: bool,
}

/// One layer's attention with its operands bound.
pub struct Attention {
    device: Device,
    /// Bound to write parts and to write the whole, each with the queries as storage and as a uniform.
    bound: [[Dispatch; 2]; 2],
    merge: Dispatch,
    kernels: Mutex<HashMap<Variant, Arc<Kernel>>>,
    pieces: Pieces,
    /// Whether each row is of a sequence of its own.
    is_batch: bool,
    /// Rows of queries that a uniform holds; none on GPUs, which read them from a cache.
    uniform_rows: usize,
    shape: AttentionShape,
    plan: Plan,
    /// How many keys a row sees, if not all up to its own.
    window: Option<usize>,
}

impl Attention {
    /// `out[r, h] = Σ_k softmax(q[r, h] · key[k] / √head_dim) · value[k]` over the keys at positions up to the row's; with
    /// `window` over the last so many of them.
    ///
    /// Shapes: `query`, `out` are `[rows, heads · head_dim]`.
    /// Errors: [`crate::Error::Shape`] if they do not fit.
    /// Source: Flash-Decoding, Dao et al. 2023; the online softmax of arXiv:1805.02867.
    #[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new<'a>(
        device: &Device,
        plan: &Plan,
        rows: impl Into<Rows<'a>>,
        shape: &AttentionShape,
        window: Option<usize>,
        cache: &KvCache,
        scratch: &AttentionScratch,
        [query, out]: [&Tensor; 2],
    ) -> Result<Attention> {
        let rows = rows.into();
        let width = shape.heads * shape.head_dim;
        query.expect("attention", "query", MOST_ROWS, width)?;
        out.expect("attention", "out", MOST_ROWS, width)?;
        let params = AttentionParams {
            capacity: cache.capacity as u32,
            splits: scratch.splits as u32,
            scale: (1.0 / (shape.head_dim as f64).sqrt()) as f32,
        };
        let params = Buffer::uniform(device, "attention params", &params)?;
        // A window that nothing falls out of is none.
        let window = window.filter(|&window| window < cache.capacity);
        let merge_constants = [
            ("HEADS", shape.heads as u32),
            ("HEAD_DIM", shape.head_dim as u32),
            ("SPLIT", plan.key_split),
            window_constant(window),
            ("PARTS", if plan.is_for_gpu() { GPU_PARTS } else { 1 }),
        ];
        let merge_files = [&["attention_merge", "shared/attention", "shared/step"], rows.files()].concat();
        let merge = device.kernel(&merge_files, &merge_constants)?;
        let mut operands = vec![&params, rows.step(), &scratch.parts, &scratch.sums, &out.buffer];
        operands.extend(rows.batch());
        let merge = merge.dispatch(device, &operands, [1, 1, 1])?;
        let pieces = Pieces {
            files: [&cache.readers(), rows.files()].concat(),
            constants: [cache.constants(shape), vec![("SPLIT", plan.key_split), window_constant(window)]].concat(),
            gpu: plan.is_for_gpu(),
            head_pieces: (shape.head_dim / 8) as u32,
        };
        // All variants with the queries in the same place have the same bindings.
        let pairs = match rows {
            Rows::One(_) => Self::most_pairs(device, plan, PAIRS[0]),
            Rows::Many { .. } => Self::pairs_of_a_row(device, plan, shape),
        };
        let any = |uniform| {
            let variant = Variant { pairs, serial: true, uniform };
            pieces.compile(device, variant)
        };
        let kernels = [any(false)?, any(true)?];
        let bind = |kernel: &Arc<Kernel>, target| {
            let step = rows.step();
            let mut operands = vec![&params, step, &query.buffer, &cache.keys, &cache.values, target, &scratch.sums];
            operands.extend(rows.batch());
            kernel.dispatch(device, &operands, [1, 1, 1])
        };
        let both = |target| Ok([bind(&kernels[0], target)?, bind(&kernels[1], target)?]);
        let uniform_rows = device.largest_uniform() as usize / (4 * width);
        Ok(Attention {
            device: device.clone(),
            bound: [both(&scratch.parts)?, both(&out.buffer)?],
            merge,
            kernels: Mutex::default(),
            pieces,
            is_batch: rows.batch().is_some(),
            uniform_rows: if device.is_software() { uniform_rows } else { 0 },
            shape: *shape,
            plan: *plan,
            window,
        })
    }

    /// Records it for `rows` rows, none of which lies at or beyond position `end`.
    ///
    /// Errors: [`crate::Error::Compile`] if a variant does not compile.
    pub fn encode(&self, pass: &mut Pass, role: Role, rows: usize, end: usize) -> Result<()> {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        let pairs = (rows * heads / kv_heads) as u32;
        let pairs_wanted = PAIRS.into_iter().find(|&most| pairs <= most).unwrap_or(PAIRS[PAIRS.len() - 1]);
        let per_workgroup = match self.is_batch {
            false => Self::most_pairs(&self.device, &self.plan, pairs_wanted),
            true => Self::pairs_of_a_row(&self.device, &self.plan, &self.shape),
        };
        let splits = self.splits(rows, end);
        // A single part needs no merge, whose result for it is the part's own, bit for bit.
        let serial = role == Role::Prompt || splits <= 1;
        let uniform = rows <= self.uniform_rows;
        let kernel = self.kernel(Variant { pairs: per_workgroup, serial, uniform })?;
        let dispatch = &self.bound[usize::from(serial)][usize::from(uniform)];
        let grid = [kv_heads as u32, pairs.div_ceil(per_workgroup), if serial { 1 } else { splits }];
        let parts = if serial { 0 } else { splits as usize };
        dispatch.encode_with(pass, &kernel, grid, self.work(rows, end, parts));
        if serial {
            return Ok(());
        }
        let width = self.shape.heads * self.shape.head_dim;
        let part_bytes = rows * splits as usize * 4 * (width + 2 * heads);
        let work = Work::of(rows, [heads, splits as usize], part_bytes + 4 * rows * width, 2 * part_bytes / 4);
        self.merge.encode_over(pass, [((width / 4) as u32).div_ceil(64), rows as u32, 1], work);
        Ok(())
    }

    /// Parts of the keys that any workgroup may have to look at.
    fn splits(&self, rows: usize, end: usize) -> u32 {
        let split = self.plan.key_split as usize;
        let all = end.div_ceil(split);
        // The windows of rows that follow each other span so many keys, wherever those begin within a part.
        let span = self.window.map(|window| window + if self.is_batch { 0 } else { rows - 1 });
        span.map_or(all, |span| all.min((span + split - 2) / split + 1)) as u32
    }

    fn kernel(&self, variant: Variant) -> Result<Arc<Kernel>> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let kernel = self.pieces.compile(&self.device, variant)?;
        kernels.insert(variant, kernel.clone());
        Ok(kernel)
    }

    /// What the first kernel has to do. The keys are read once for all rows; the last row ends at `end`, each before it
    /// sees one key less, unless a window moves on with it. Of a batch each row has keys of its own, as many as the longest
    /// at most.
    fn work(&self, rows: usize, end: usize, splits: usize) -> Work {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let width = heads * head_dim;
        let caches = if self.is_batch { rows } else { 1 };
        let seen = self.window.map_or(end, |window| end.min(window));
        let read = end.min(seen + if self.is_batch { 0 } else { rows - 1 });
        let cache_bytes = caches * 2 * kv_heads * read * self.plan.cache.row_bytes(head_dim);
        let out_bytes = 4 * rows * if splits == 0 { width } else { splits * (width + 2 * heads) };
        // Keys as the report groups them: they grow by a few every round.
        let keys = end.next_multiple_of(self.plan.key_split as usize);
        let unseen = if self.is_batch || seen < end { 0 } else { rows * (rows - 1) / 2 };
        let scores = (rows * seen).saturating_sub(unseen);
        Work::of(rows, [heads, keys], cache_bytes + 4 * rows * width + out_bytes, 4 * width * scores).stored()
    }

    /// Pairs per workgroup where all must be of one row: its group of heads, or a part of it that leaves no rest.
    fn pairs_of_a_row(device: &Device, plan: &Plan, shape: &AttentionShape) -> u32 {
        let group = (shape.heads / shape.kv_heads) as u32;
        let most = Self::most_pairs(device, plan, PAIRS[PAIRS.len() - 1]).min(group);
        (1..=most).rev().find(|pairs| group.is_multiple_of(*pairs)).unwrap_or(1)
    }

    /// `pairs`, or as many as the device's workgroup memory has room for.
    fn most_pairs(device: &Device, plan: &Plan, pairs: u32) -> u32 {
        // Scores, and 8 + 2 numbers to reduce them, for each pair.
        let room = device.workgroup_memory() / (4 * (plan.key_split + 10));
        let most = if plan.is_for_gpu() { GPU_PAIRS } else { pairs };
        pairs.min(most).min(room).max(1)
    }
}

/// What the shaders know of the window: 0 is none.
fn window_constant(window: Option<usize>) -> (&'static str, u32) {
    ("WINDOW", window.unwrap_or(0) as u32)
}

/// What all variants of the first kernel share.
struct Pieces {
    /// How the cache is read, and whose the rows are.
    files: Vec<&'static str>,
    constants: Vec<(&'static str, u32)>,
    /// Whether the plan is one for GPUs.
    gpu: bool,
    /// Eights of a head.
    head_pieces: u32,
}

impl Pieces {
    fn compile(&self, device: &Device, variant: Variant) -> Result<Arc<Kernel>> {
        let Variant { pairs, serial, uniform } = variant;
        let mut constants = self.constants.clone();
        let [key_pieces, values] = if self.gpu { [GPU_KEY_PIECES, GPU_VALUES] } else { [1, 1] };
        let key_pieces = if self.head_pieces.is_multiple_of(key_pieces) { key_pieces } else { 1 };
        // The merged values of many pairs leave registers for half of the next ones.
        let values = if serial && pairs > PAIRS[0] { values.div_ceil(2) } else { values };
        constants.extend([("PAIRS", pairs), ("SERIAL", u32::from(serial))]);
        constants.extend([("KEY_PIECES", key_pieces), ("VALUES", values)]);
        let query = if uniform { "query/uniform" } else { "query/storage" };
        if uniform {
            constants.push(("QUERY_PIECES", (device.largest_uniform() / 16) as u32));
        }
        let files =
            [&["attention", "shared/attention", "shared/eight", "shared/step", query], &self.files[..]].concat();
        device.kernel(&files, &constants)
    }
}
