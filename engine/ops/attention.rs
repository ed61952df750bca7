//! Causal attention over the cache: shaders/attention.wgsl and shaders/attention_merge.wgsl.
//! Few rows: each part of the keys is a workgroup, and the parts are merged by a second kernel. Prompts: a workgroup
//! walks all parts itself, since rows alone fill the device and the parts' scratch would be large.

use std::sync::{Arc, OnceLock};

use super::rope::{KEY_TILE, KvCache};
use super::{AttentionShape, MOST_ROWS, Role, Tensor};
use crate::error::Result;
use crate::gpu::{Buffer, CacheFormat, Device, Dispatch, Kernel, Pass, Plan, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AttentionParams {
    capacity: u32,
    splits: u32,
    scale: f32,
}

/// Pairs of (row, query head) that one workgroup takes, few to many. The pairs share the keys and values that it reads.
const PAIRS: [u32; 3] = [4, 8, 16];

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

    /// The sizes of the parts and of their sums.
    fn bytes(plan: &Plan, shape: &AttentionShape, positions: usize) -> [u64; 2] {
        let pairs = (MOST_ROWS * shape.heads * Self::splits(plan, positions)) as u64;
        [pairs * shape.head_dim as u64 * 4, pairs * 8]
    }
}

/// One layer's attention with its operands bound.
pub struct Attention {
    device: Device,
    round: Dispatch,
    merge: Dispatch,
    prompt: Dispatch,
    round_kernels: [OnceLock<Arc<Kernel>>; PAIRS.len()],
    prompt_kernel: Arc<Kernel>,
    files: [&'static str; 4],
    shape: AttentionShape,
    plan: Plan,
}

impl Attention {
    /// `out[r, h] = Σ_k softmax(q[r, h] · key[k] / √head_dim) · value[k]` over the keys at positions up to the row's.
    ///
    /// Shapes: `query`, `out` are `[rows, heads · head_dim]`.
    /// Errors: [`crate::Error::Shape`] if they do not fit.
    /// Source: Flash-Decoding, Dao et al. 2023; the online softmax of arXiv:1805.02867.
    pub fn new(
        device: &Device,
        plan: &Plan,
        step: &Buffer,
        shape: &AttentionShape,
        cache: &KvCache,
        scratch: &AttentionScratch,
        [query, out]: [&Tensor; 2],
    ) -> Result<Attention> {
        let width = shape.heads * shape.head_dim;
        query.expect("attention", "query", MOST_ROWS, width)?;
        out.expect("attention", "out", MOST_ROWS, width)?;
        let params = AttentionParams {
            capacity: cache.capacity as u32,
            splits: scratch.splits as u32,
            scale: (1.0 / (shape.head_dim as f64).sqrt()) as f32,
        };
        let params = Buffer::uniform(device, "attention params", &params)?;
        let read = match cache.format {
            CacheFormat::F16 => "cache/read_f16",
            CacheFormat::F32 => "cache/read_f32",
        };
        let files = ["attention", "shared/eight", "shared/step", read];
        let most_pairs = PAIRS[PAIRS.len() - 1];
        let prompt_kernel = kernel(device, plan, shape, &files, Self::most_pairs(device, plan, most_pairs), true)?;
        let merge_constants =
            [("HEADS", shape.heads as u32), ("HEAD_DIM", shape.head_dim as u32), ("SPLIT", plan.key_split)];
        let merge = device.kernel(&["attention_merge", "shared/step"], &merge_constants)?;
        let operands = |target| [&params, step, &query.buffer, &cache.keys, &cache.values, target, &scratch.sums];
        Ok(Attention {
            device: device.clone(),
            round: prompt_kernel.dispatch(device, &operands(&scratch.parts), [1, 1, 1])?,
            prompt: prompt_kernel.dispatch(device, &operands(&out.buffer), [1, 1, 1])?,
            merge: merge.dispatch(device, &[&params, step, &scratch.parts, &scratch.sums, &out.buffer], [1, 1, 1])?,
            round_kernels: Default::default(),
            prompt_kernel,
            files,
            shape: *shape,
            plan: *plan,
        })
    }

    /// Records it for `rows` rows, none of which lies at or beyond position `end`.
    ///
    /// Errors: [`crate::Error::Gpu`] if a variant does not compile.
    pub fn encode(&self, pass: &mut Pass, role: Role, rows: usize, end: usize) -> Result<()> {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        let pairs = (rows * heads / kv_heads) as u32;
        if role == Role::Prompt {
            let per_workgroup = Self::most_pairs(&self.device, &self.plan, PAIRS[PAIRS.len() - 1]);
            let grid = [kv_heads as u32, pairs.div_ceil(per_workgroup), 1];
            self.prompt.encode_with(pass, &self.prompt_kernel, grid, self.work(rows, end, 0));
            return Ok(());
        }
        let variant = PAIRS.iter().position(|&most| pairs <= most).unwrap_or(PAIRS.len() - 1);
        let per_workgroup = Self::most_pairs(&self.device, &self.plan, PAIRS[variant]);
        let kernel = match self.round_kernels[variant].get() {
            Some(kernel) => kernel,
            None => {
                let made = kernel(&self.device, &self.plan, &self.shape, &self.files, per_workgroup, false)?;
                self.round_kernels[variant].get_or_init(|| made)
            }
        };
        let splits = (end as u32).div_ceil(self.plan.key_split);
        let grid = [kv_heads as u32, pairs.div_ceil(per_workgroup), splits];
        self.round.encode_with(pass, kernel, grid, self.work(rows, end, splits as usize));
        let width = self.shape.heads * self.shape.head_dim;
        let part_bytes = rows * splits as usize * 4 * (width + 2 * heads);
        let work = Work::of(rows, [heads, splits as usize], part_bytes + 4 * rows * width, 2 * part_bytes / 4);
        self.merge.encode_over(pass, [((width / 2) as u32).div_ceil(64), rows as u32, 1], work);
        Ok(())
    }

    /// What the first kernel has to do. The keys are read once for all rows; the last row ends at `end`, each before it
    /// sees one key less.
    fn work(&self, rows: usize, end: usize, splits: usize) -> Work {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let width = heads * head_dim;
        let cache_bytes = 2 * kv_heads * head_dim * end * self.plan.cache.bytes();
        let out_bytes = 4 * rows * if splits == 0 { width } else { splits * (width + 2 * heads) };
        let scores = (rows * end).saturating_sub(rows * (rows - 1) / 2);
        Work::of(rows, [heads, end], cache_bytes + 4 * rows * width + out_bytes, 4 * width * scores).stored()
    }

    /// `pairs`, or as many as the device's workgroup memory has room for.
    fn most_pairs(device: &Device, plan: &Plan, pairs: u32) -> u32 {
        // Scores, and 8 + 2 numbers to reduce them, for each pair.
        let room = device.workgroup_memory() / (4 * (plan.key_split + 10));
        pairs.min(room).max(1)
    }
}

fn kernel(
    device: &Device,
    plan: &Plan,
    shape: &AttentionShape,
    files: &[&'static str],
    pairs: u32,
    serial: bool,
) -> Result<Arc<Kernel>> {
    let mut constants = shape.constants().to_vec();
    constants.extend([("SPLIT", plan.key_split), ("PAIRS", pairs), ("SERIAL", u32::from(serial))]);
    device.kernel(files, &constants)
}
