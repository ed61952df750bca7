//! Causal attention over the cache: shaders/kernels/attention.wgsl and shaders/kernels/attention_merge.wgsl.
//! Few rows: a workgroup takes a part of the keys, or on a GPU with workgroups enough a block of parts, and what they
//! leave, if there are several, is merged by a second kernel.
//! Prompts: a workgroup walks all parts itself, since rows alone fill the device and the parts' scratch would be large.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kv_cache::{KEY_TILE, KvCache};
use super::{AttentionShape, MAX_ROWS, Phase, Rows, Tensor};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Kernel, KernelPlan, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AttentionParams {
    capacity: u32,
    entries: u32,
    scale: f32,
}

/// Pairs of (row, query head) that one workgroup takes on a CPU, few to many. The pairs share the keys and values that it
/// reads.
const PAIRS: [u32; 3] = [4, 8, 16];
/// The most of them on a GPU, and the most that a lane sums values of: registers end there.
const GPU_PAIRS: u32 = 8;
const GPU_LANE_PAIRS: u32 = 4;
/// Keys whose scores a workgroup of a GPU makes before it reads values, if it walks as many.
const GPU_UNIT: u32 = 128;
/// Merged spans whose loads a lane has in flight on a GPU. A CPU waits for none of them.
const GPU_AHEAD: u32 = 8;
/// Workgroups that keep the memory of a large GPU busy, each with loads of 4 KiB in flight.
const BUSY_WORKGROUPS: u32 = 512;
/// Rows times parts that the scratch has room for on a GPU; where there are more, workgroups walk blocks.
const GPU_ENTRIES: usize = 1024;
/// Invocations of a workgroup that merges the parts of blocks, and the most blocks that it takes side by side.
const MERGE_WIDTH: u32 = 256;
const MERGE_SLOTS: u32 = 16;

/// The scratch's larger half, in messages.
const PARTS: &str = "attention parts";

/// Memory that the parts of one pass are written to. Layers run one after the other and share it.
pub struct AttentionScratch {
    /// Weighted sums of values, `[rows, heads, entries of a row, head_dim]`.
    pub parts: Buffer,
    /// Largest scores and sums of exponentials, `[rows, heads, entries of a row, 2]`.
    pub sums: Buffer,
    /// Rows times parts or blocks that there is room for.
    entries: usize,
}

impl AttentionScratch {
    /// Room for `MAX_ROWS` rows over `positions` positions.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`] if the context is too long for one binding.
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        shape: &AttentionShape,
        positions: usize,
    ) -> Result<AttentionScratch> {
        let [parts, sums] = Self::bytes(plan, shape, positions);
        Ok(AttentionScratch {
            parts: Buffer::storage(device, PARTS, parts)?,
            sums: Buffer::storage(device, "attention sums", sums)?,
            entries: Self::entries(plan, positions),
        })
    }

    /// Checks that the parts of `new` fit in one binding.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`].
    pub fn check(device: &Device, plan: &KernelPlan, shape: &AttentionShape, positions: usize) -> Result<()> {
        Buffer::check(device, PARTS, Self::bytes(plan, shape, positions)[0])
    }

    fn entries(plan: &KernelPlan, positions: usize) -> usize {
        let spans = |keys: u32| MAX_ROWS * positions.next_multiple_of(KEY_TILE).div_ceil(keys as usize);
        let parts = spans(plan.key_split);
        if plan.is_for_gpu() { spans(plan.key_block()).max(parts.min(GPU_ENTRIES)) } else { parts }
    }

    /// The sizes of the parts and of their sums, in bytes.
    pub fn bytes(plan: &KernelPlan, shape: &AttentionShape, positions: usize) -> [u64; 2] {
        let pairs = (shape.heads * Self::entries(plan, positions)) as u64;
        [pairs * shape.head_dim as u64 * 4, pairs * 8]
    }
}

/// The keys that a workgroup of the first kernel walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Span {
    /// [`KernelPlan::key_split`].
    Part,
    /// [`KernelPlan::key_block`].
    Block,
    /// All that its rows see.
    All,
}

impl Span {
    /// Returns the number of keys at most: 0 if all.
    fn keys(self, plan: &KernelPlan) -> u32 {
        match self {
            Span::Part => plan.key_split,
            Span::Block => plan.key_block(),
            Span::All => 0,
        }
    }
}

/// Launch configuration of the first kernel. All variants round alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionVariant {
    /// Pairs of (row, query head) per workgroup.
    pairs: u32,
    /// Keys that a workgroup walks.
    span: Span,
    /// `true` if the queries are bound as a uniform.
    uniform: bool,
    loads: Loads,
}

/// Loads that a lane of the first kernel has in flight, and the source of its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Loads {
    /// Eights of keys.
    keys: u32,
    values: u32,
    /// `true` if workgroup memory holds the queries.
    hold: bool,
}

impl Loads {
    /// For a CPU, which waits for none of them.
    const CPU: Loads = Loads { keys: 1, values: 1, hold: false };
    /// For subgroups of 64, whose lanes share loads of the same value and have registers to spare.
    const WIDE: Loads = Loads { keys: 8, values: 16, hold: false };
    /// For subgroups of whatever size the compiler chooses, which share such loads as well.
    const VARIED: Loads = Loads { keys: 4, values: 8, hold: false };
    /// For subgroups whose lanes load each for itself.
    const FIXED: Loads = Loads { keys: 4, values: 8, hold: true };

    /// Returns the loads that suit `device`'s compiler.
    fn of(device: &Device, plan: &KernelPlan, span: Span) -> Loads {
        let loads = match device.subgroup_sizes() {
            _ if !plan.is_for_gpu() => Loads::CPU,
            Some((_, 64..)) => Loads::WIDE,
            Some((least, most)) if least < most => Loads::VARIED,
            _ => Loads::FIXED,
        };
        // The longest walk has the fewest registers left.
        match (loads, span) {
            (Loads::WIDE, Span::All) => Loads { values: 8, ..loads },
            (Loads::VARIED, Span::All) => Loads { keys: 2, values: 2, ..loads },
            _ => loads,
        }
    }
}

/// One layer's attention with its operands bound.
pub struct Attention {
    device: Device,
    /// Bound to write parts and to write the whole, each with the queries as storage and as a uniform.
    bound: [[Dispatch; 2]; 2],
    /// Merges of parts and of blocks: the same on a CPU.
    merges: [Dispatch; 2],
    kernels: Mutex<HashMap<AttentionVariant, Arc<Kernel>>>,
    pieces: Pieces,
    /// `true` if each row belongs to a sequence of its own.
    is_batch: bool,
    /// Rows of queries that a uniform holds; none on GPUs, which read them from a cache.
    uniform_rows: usize,
    /// [`AttentionScratch`]'s.
    entries: usize,
    shape: AttentionShape,
    plan: KernelPlan,
    /// Keys that a row sees, if not all up to its own.
    window: Option<usize>,
}

impl Attention {
    /// `out[r, h] = Σ_k softmax(q[r, h] · key[k] / √head_dim) · value[k]` over the keys at positions up to the row's; with
    /// `window` over the last so many of them.
    ///
    /// Shapes: `query`, `out` are `[rows, heads · head_dim]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    /// Source: Flash-Decoding, Dao et al. 2023; the online softmax of arXiv:1805.02867.
    #[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new<'a>(
        device: &Device,
        plan: &KernelPlan,
        rows: impl Into<Rows<'a>>,
        shape: &AttentionShape,
        window: Option<usize>,
        cache: &KvCache,
        scratch: &AttentionScratch,
        [query, out]: [&Tensor; 2],
    ) -> Result<Attention> {
        let rows = rows.into();
        let width = shape.heads * shape.head_dim;
        query.expect("attention", "query", MAX_ROWS, width)?;
        out.expect("attention", "out", MAX_ROWS, width)?;
        let params = AttentionParams {
            capacity: cache.capacity as u32,
            entries: scratch.entries as u32,
            scale: (1.0 / (shape.head_dim as f64).sqrt()) as f32,
        };
        let params = Buffer::uniform(device, "attention params", &params)?;
        // A window that nothing falls out of is none.
        let window = window.filter(|&window| window < cache.capacity);
        let keys = vec![("SPLIT", plan.key_split), ("KEY_BLOCK", plan.key_block()), window_constant(window)];
        let merge_files =
            [&["attention_merge", "shared/attention", "shared/lowest", "shared/step"], rows.files()].concat();
        let mut operands = vec![&params, rows.step(), &scratch.parts, &scratch.sums, &out.buffer];
        operands.extend(rows.batch());
        let merge = |span: Span| {
            let constants = [&merge_constants(plan, shape, span)[..], &keys].concat();
            device.kernel(&merge_files, &constants)?.dispatch(device, &operands, [1, 1, 1])
        };
        let merges = [merge(Span::Part)?, merge(Span::Block)?];
        let pieces = Pieces {
            files: [&cache.readers(), rows.files()].concat(),
            constants: [cache.constants(shape), keys].concat(),
            plan: *plan,
            head_pieces: (shape.head_dim / 8) as u32,
        };
        // All variants with the queries in the same place have the same bindings.
        let pairs = Self::pairs(device, plan, shape, rows.batch().is_some(), 1);
        let any = |uniform| {
            let loads = Loads::of(device, plan, Span::All);
            let variant = AttentionVariant { pairs, span: Span::All, uniform, loads };
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
            merges,
            kernels: Mutex::default(),
            pieces,
            is_batch: rows.batch().is_some(),
            uniform_rows: if device.is_software() { uniform_rows } else { 0 },
            entries: scratch.entries,
            shape: *shape,
            plan: *plan,
            window,
        })
    }

    /// Records it for `rows` rows, none of which lies at or beyond position `end`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`] if a variant does not compile.
    pub fn encode(&self, pass: &mut Pass, role: Phase, rows: usize, end: usize) -> Result<()> {
        let pairs = Self::pairs(&self.device, &self.plan, &self.shape, self.is_batch, rows);
        let span = match role {
            Phase::Prefill => Span::All,
            Phase::Decode => self.span(rows, end, self.workgroups(rows, pairs)),
        };
        let loads = Loads::of(&self.device, &self.plan, span);
        self.encode_as(pass, AttentionVariant { pairs, span, uniform: rows <= self.uniform_rows, loads }, rows, end)
    }

    /// The same by one of the [`Attention::candidates`] for as many rows before `end`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`] if it does not compile.
    pub fn encode_as(&self, pass: &mut Pass, variant: AttentionVariant, rows: usize, end: usize) -> Result<()> {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let (width, keys) = (heads * head_dim, variant.span.keys(&self.plan));
        let kernel = self.kernel(variant)?;
        let is_whole = variant.span == Span::All;
        let dispatch = &self.bound[usize::from(is_whole)][usize::from(variant.uniform)];
        let spans = if is_whole { 1 } else { self.spans(rows, end, keys) };
        let groups = self.workgroups(rows, variant.pairs) / kv_heads as u32;
        let parts = if is_whole { 0 } else { spans as usize };
        dispatch.encode_with(pass, &kernel, [kv_heads as u32, groups, spans], self.work(rows, end, parts));
        if is_whole {
            return Ok(());
        }
        let part_bytes = rows * parts * 4 * (width + 2 * heads);
        let work = Work::of(rows, [heads, parts], part_bytes + 4 * rows * width, 2 * part_bytes / 4);
        let (merge, x) = match keys < self.plan.key_block() {
            true => (&self.merges[0], heads as u32),
            false => (&self.merges[1], ((width / 4) as u32).div_ceil(64)),
        };
        merge.encode_over(pass, [x, rows as u32, 1], work);
        Ok(())
    }

    /// The ways to compute `rows` rows before position `end`, all with the same bits.
    pub fn candidates(&self, rows: usize, end: usize) -> Vec<AttentionVariant> {
        let usual = Self::pairs(&self.device, &self.plan, &self.shape, self.is_batch, rows);
        let fits = |span: &Span| {
            *span == Span::All || rows * self.spans(rows, end, span.keys(&self.plan)) as usize <= self.entries
        };
        let all_loads = match self.plan.is_for_gpu() {
            true => &[Loads::WIDE, Loads::VARIED, Loads::FIXED][..],
            false => &[Loads::CPU],
        };
        let mut candidates = Vec::new();
        for span in [Span::Part, Span::Block, Span::All].into_iter().filter(fits) {
            for pairs in if usual == 1 { vec![1] } else { vec![usual, 1] } {
                candidates.extend(all_loads.iter().map(|&loads| AttentionVariant {
                    pairs,
                    span,
                    uniform: false,
                    loads,
                }));
            }
        }
        candidates
    }

    /// Workgroups for each span of `rows` rows, if each takes `pairs`.
    fn workgroups(&self, rows: usize, pairs: u32) -> u32 {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        kv_heads as u32 * ((rows * heads / kv_heads) as u32).div_ceil(pairs)
    }

    /// Chooses the keys that a workgroup walks, given `groups` workgroups for each span.
    fn span(&self, rows: usize, end: usize, groups: u32) -> Span {
        let [parts, blocks] = [self.plan.key_split, self.plan.key_block()].map(|keys| self.spans(rows, end, keys));
        // A single span needs no merge, whose result for it is the span's own, bit for bit.
        if parts <= unit(&self.plan, Span::All) / self.plan.key_split {
            return Span::All;
        }
        if !self.plan.is_for_gpu() {
            return Span::Part;
        }
        let has_room = rows * parts as usize <= self.entries;
        match blocks {
            _ if has_room && groups * blocks < BUSY_WORKGROUPS => Span::Part,
            0 | 1 => Span::All,
            _ => Span::Block,
        }
    }

    /// Spans of `keys` keys that any workgroup may have to look at.
    fn spans(&self, rows: usize, end: usize, keys: u32) -> u32 {
        let keys = keys as usize;
        let all = end.div_ceil(keys);
        // The windows of rows that follow each other span so many keys, wherever those begin within a part.
        let span = self.window.map(|window| window + if self.is_batch { 0 } else { rows - 1 });
        span.map_or(all, |span| all.min((span + keys - 2) / keys + 1)) as u32
    }

    fn kernel(&self, variant: AttentionVariant) -> Result<Arc<Kernel>> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let kernel = self.pieces.compile(&self.device, variant)?;
        kernels.insert(variant, kernel.clone());
        Ok(kernel)
    }

    /// Work of the first kernel. The keys are read once for all rows. The last row ends at `end`, and each row before it
    /// sees one key less, unless a window moves on with it. In a batch each row has keys of its own, as many as the
    /// longest at most.
    fn work(&self, rows: usize, end: usize, spans: usize) -> Work {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let width = heads * head_dim;
        let caches = if self.is_batch { rows } else { 1 };
        let seen = self.window.map_or(end, |window| end.min(window));
        let read = end.min(seen + if self.is_batch { 0 } else { rows - 1 });
        let cache_bytes = caches * 2 * kv_heads * read * self.plan.cache.row_bytes(head_dim);
        let out_bytes = 4 * rows * if spans == 0 { width } else { spans * (width + 2 * heads) };
        // Keys as the report groups them: they grow by a few every round.
        let keys = end.next_multiple_of(self.plan.key_split as usize);
        let unseen = if self.is_batch || seen < end { 0 } else { rows * (rows - 1) / 2 };
        let scores = (rows * seen).saturating_sub(unseen);
        Work::of(rows, [heads, keys], cache_bytes + 4 * rows * width + out_bytes, 4 * width * scores).stored()
    }

    /// Pairs per workgroup for `rows` rows. In a batch all must be of one row.
    fn pairs(device: &Device, plan: &KernelPlan, shape: &AttentionShape, is_batch: bool, rows: usize) -> u32 {
        let group = (shape.heads / shape.kv_heads) as u32;
        let rows = rows.min(MAX_ROWS) as u32;
        // Scores, their partial sums, the merge's factors, and on some GPUs the query, for each pair.
        let unit = unit(plan, Span::All);
        let numbers = unit + PARTIALS + unit / plan.key_split * 2 * (PARTIALS + 1) + 3;
        let numbers = numbers + if plan.is_for_gpu() { shape.head_dim as u32 } else { 0 };
        let room = (device.workgroup_memory() / (4 * numbers)).max(1);
        let lane_pairs = GPU_LANE_PAIRS * (256 / shape.head_dim as u32).max(1);
        let wanted = PAIRS.into_iter().find(|&most| rows * group <= most).unwrap_or(PAIRS[PAIRS.len() - 1]);
        let most = room.min(match (plan.is_for_gpu(), is_batch) {
            (true, _) => GPU_PAIRS.min(lane_pairs),
            (false, true) => PAIRS[PAIRS.len() - 1],
            (false, false) => wanted,
        });
        let of_a_group = (1..=most.min(group)).rev().find(|pairs| group.is_multiple_of(*pairs)).unwrap_or(1);
        match plan.is_for_gpu() {
            _ if is_batch => of_a_group,
            false => most,
            // Whole groups, whose queries lie at known distances; or a part of one that leaves no rest.
            true if group < most => group * rows.next_power_of_two().min(most / group),
            true if 2 * of_a_group > most => of_a_group,
            true => most,
        }
    }
}

/// Returns the window as a shader constant: 0 is none.
fn window_constant(window: Option<usize>) -> (&'static str, u32) {
    ("WINDOW", window.unwrap_or(0) as u32)
}

/// Lanes that reduce the scores of a pair.
const PARTIALS: u32 = 8;

/// Keys whose scores a workgroup that walks `span` makes at once.
fn unit(plan: &KernelPlan, span: Span) -> u32 {
    match span {
        Span::Block | Span::All if plan.is_for_gpu() => plan.key_split.max(GPU_UNIT),
        _ => plan.key_split,
    }
}

/// Returns the constants of the merge kernel for workgroups that walk `span`.
fn merge_constants(plan: &KernelPlan, shape: &AttentionShape, span: Span) -> [(&'static str, u32); 6] {
    let chunks = (shape.head_dim / 4) as u32;
    let slots = if span.keys(plan) < plan.key_block() { MERGE_SLOTS.min(MERGE_WIDTH / chunks) } else { 1 };
    let width = if slots == 1 { 64 } else { (slots * chunks).next_multiple_of(64) };
    [
        ("HEADS", shape.heads as u32),
        ("HEAD_DIM", shape.head_dim as u32),
        ("SPAN", span.keys(plan)),
        ("AHEAD", if plan.is_for_gpu() { GPU_AHEAD } else { 1 }),
        ("SLOTS", slots),
        ("WIDTH", width),
    ]
}

/// Parts that all variants of the first kernel share.
struct Pieces {
    /// Files for the format of the cache and for the rows' sequences.
    files: Vec<&'static str>,
    constants: Vec<(&'static str, u32)>,
    plan: KernelPlan,
    /// Eights of a head.
    head_pieces: u32,
}

impl Pieces {
    fn compile(&self, device: &Device, variant: AttentionVariant) -> Result<Arc<Kernel>> {
        let AttentionVariant { pairs, span, uniform, loads } = variant;
        let mut constants = self.constants.clone();
        let unit = unit(&self.plan, span);
        let keys = if self.plan.is_for_gpu() { (unit / KEY_TILE as u32).min(2).min(loads.keys) } else { 1 };
        let most = loads.keys / keys;
        let key_pieces = (1..=most).rev().find(|pieces| self.head_pieces.is_multiple_of(*pieces)).unwrap_or(1);
        constants.extend([("PAIRS", pairs), ("SPAN", span.keys(&self.plan)), ("UNIT", unit)]);
        constants.extend([("KEYS", keys), ("KEY_PIECES", key_pieces), ("VALUES", loads.values)]);
        constants.push(("HOLD", u32::from(loads.hold)));
        let query = if uniform { "query/uniform" } else { "query/storage" };
        if uniform {
            constants.push(("QUERY_PIECES", (device.largest_uniform() / 16) as u32));
        }
        let files = [
            &["attention", "shared/attention", "shared/lowest", "shared/eight", "shared/step", query],
            &self.files[..],
        ]
        .concat();
        device.kernel(&files, &constants)
    }
}
