//! `attention` and `attention_merge` on the device.

use pard::low_level::gpu::{CacheFormat, Device, KernelPlan};
use pard::low_level::ops::{
    Attention, AttentionScratch, AttentionShape, AttentionVariant, KvCache, PassRow, Phase, Rows, Step, Tensor,
};

use super::{compare, input, output, poison, read, step, submit};
use crate::oracle::attention::{self as oracle, windowed_attention};
use crate::oracle::kv_cache::held;
use crate::support::gpu::{device, plan, sweep};
use crate::support::kv_cache::Layout;
use crate::support::random::Random;

/// A filled cache and scratch of one shape.
pub struct Layer<'a> {
    pub device: &'a Device,
    pub plan: KernelPlan,
    pub shape: AttentionShape,
    /// `[kv_heads, positions, head_dim]`, as the cache holds them.
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    positions: usize,
    window: Option<usize>,
    cache: KvCache,
    scratch: AttentionScratch,
}

impl<'a> Layer<'a> {
    /// Keys and values of deviation 1 for `positions` positions.
    pub fn new(
        device: &'a Device,
        plan: KernelPlan,
        shape: AttentionShape,
        positions: usize,
        random: &mut Random,
    ) -> Self {
        let len = shape.kv_heads * positions * shape.head_dim;
        Self::of(device, plan, shape, positions, random.normals(len, 1.0), random.normals(len, 1.0))
    }

    /// Given keys and values.
    pub fn of(
        device: &'a Device,
        plan: KernelPlan,
        shape: AttentionShape,
        positions: usize,
        keys: Vec<f32>,
        values: Vec<f32>,
    ) -> Self {
        let cache = KvCache::new(device, &plan, &shape, positions).expect("a small cache");
        let scratch = AttentionScratch::new(device, &plan, &shape, positions).expect("small scratch");
        let [keys, values] = [keys, values].map(|values| held(plan.cache, shape.head_dim, &values));
        Self { device, plan, shape, keys, values, positions, window: None, cache, scratch }
    }

    /// The same with an attention window.
    pub fn windowed(self, window: Option<usize>) -> Self {
        Self { window, ..self }
    }

    /// The kernel's rows for `query`, `[rows, heads, head_dim]`, at positions `start..`. What no row may look at is NaN:
    /// positions before the first row's window, later ones, the scratch, the rows beyond.
    pub fn run(&self, role: Phase, query: &[f32], start: usize) -> Vec<f32> {
        let rows = query.len() / (self.shape.heads * self.shape.head_dim);
        self.run_until(role, query, start, start + rows)
    }

    /// The same with a later end than need be, as the host knows it when rounds are in flight.
    fn run_until(&self, role: Phase, query: &[f32], start: usize, end: usize) -> Vec<f32> {
        let (op, out, rows) = self.prepared(query, start);
        submit(self.device, |pass| op.encode(pass, role, rows, end).expect("a kernel that compiles"));
        read(self.device, "attention", &out, rows)
    }

    /// Results of every way to compute a round's rows.
    pub fn run_every_variant(&self, query: &[f32], start: usize) -> Vec<(AttentionVariant, Vec<f32>)> {
        let (op, out, rows) = self.prepared(query, start);
        let run = |variant| {
            for buffer in [&self.scratch.parts, &self.scratch.sums, &out.buffer] {
                poison(self.device, buffer);
            }
            submit(self.device, |pass| {
                op.encode_as(pass, variant, rows, start + rows).expect("a kernel that compiles");
            });
            (variant, read(self.device, "attention", &out, rows))
        };
        op.candidates(rows, start + rows).into_iter().map(run).collect()
    }

    /// The op over what [`Layer::run`] says, where its rows go, and how many they are.
    fn prepared(&self, query: &[f32], start: usize) -> (Attention, Tensor, usize) {
        let (device, width) = (self.device, self.shape.heads * self.shape.head_dim);
        let rows = query.len() / width;
        let first = self.window.map_or(0, |window| (start + 1).saturating_sub(window));
        self.fill(first..start + rows);
        poison(device, &self.scratch.parts);
        poison(device, &self.scratch.sums);
        let step = step(device, Step { start: start as u32, rows: rows as u32, ..Step::default() });
        let (query, out) = (input(device, width, query), output(device, rows, width));
        let (operands, window) = ([&query, &out], self.window);
        let op = Attention::new(device, &self.plan, &step, &self.shape, window, &self.cache, &self.scratch, operands)
            .expect("shapes that fit");
        (op, out, rows)
    }

    /// Writes the positions `filled`, and NaN to the rest.
    fn fill(&self, filled: std::ops::Range<usize>) {
        let (shape, head_dim) = (self.shape, self.shape.head_dim);
        let capacity = self.positions.next_multiple_of(64);
        let spread = |rows: &[f32]| {
            let mut all = vec![f32::NAN; shape.kv_heads * capacity * head_dim];
            for head in 0..shape.kv_heads {
                for position in filled.clone() {
                    let row = &rows[(head * self.positions + position) * head_dim..][..head_dim];
                    all[(head * capacity + position) * head_dim..][..head_dim].copy_from_slice(row);
                }
            }
            all
        };
        let layout = |is_keys| Layout { format: self.plan.cache, is_keys, head_dim };
        self.cache.keys.write(self.device, 0, &layout(true).encoded(&spread(&self.keys)));
        self.cache.values.write(self.device, 0, &layout(false).encoded(&spread(&self.values)));
    }

    fn agrees(&self, role: Phase, rows: usize, start: usize, sharpness: f32, random: &mut Random) {
        let query = random.normals(rows * self.shape.heads * self.shape.head_dim, sharpness);
        self.agrees_for(role, &query, start, &format!("sharpness {sharpness}"));
    }

    fn agrees_for(&self, role: Phase, query: &[f32], start: usize, what: &str) {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let rows = query.len() / (heads * head_dim);
        let key_tile = self.plan.key_split as usize;
        let shape =
            oracle::AttentionShape { rows, heads, kv_heads, head_dim, positions: self.positions, start, key_tile };
        let expected = windowed_attention(shape, self.window, query, &self.keys, &self.values);
        let context = format!("{role:?}, {shape:?}, window {:?}, {}, {what}", self.window, self.plan);
        compare(self.device, "attention", &context, &self.run(role, query, start), &expected);
    }
}

/// Query heads per key-value head, key-value heads, head width.
const SHAPES: [(usize, usize, usize); 8] =
    [(1, 2, 32), (2, 1, 48), (3, 2, 64), (5, 1, 80), (7, 1, 96), (8, 1, 128), (16, 1, 64), (4, 1, 256)];

fn shape((group, kv_heads, head_dim): (usize, usize, usize)) -> AttentionShape {
    AttentionShape { heads: group * kv_heads, kv_heads, head_dim }
}

/// Rows and starts: within a tile of 64, to its edge and past it; the same for a part of 256; several parts.
const ROUNDS: [(usize, usize); 9] =
    [(1, 0), (2, 0), (1, 63), (3, 62), (5, 64), (13, 250), (1, 255), (2, 511), (8, 600)];

#[test]
fn rounds_agree_with_f64() {
    let mut random = Random::new(61);
    for (index, spec) in SHAPES.into_iter().enumerate() {
        for (turn, cache) in CacheFormat::ALL.into_iter().enumerate() {
            if !sweep() && index % 3 != turn && index > 2 {
                continue;
            }
            let layer = Layer::new(device(), plan(cache), shape(spec), 700, &mut random);
            for (rows, start) in ROUNDS {
                layer.agrees(Phase::Decode, rows, start, 1.0, &mut random);
            }
        }
    }
}

#[test]
fn every_group_and_row_count_agrees_with_f64() {
    let mut random = Random::new(62);
    for group in 1..=16 {
        // Few constants make few kernels: other groups in the usual set come with the shapes above.
        if !sweep() && ![1, 6, 16].contains(&group) {
            continue;
        }
        let layer = Layer::new(device(), plan(CacheFormat::F16), shape((group, 1, 32)), 300, &mut random);
        for rows in super::row_counts() {
            layer.agrees(Phase::Decode, rows, 300 - 32 - rows, 1.0, &mut random);
            layer.agrees(Phase::Decode, rows, 0, 1.0, &mut random);
        }
    }
}

#[test]
fn prompts_agree_with_f64() {
    let mut random = Random::new(63);
    for (index, spec) in SHAPES.into_iter().enumerate() {
        for (turn, cache) in CacheFormat::ALL.into_iter().enumerate() {
            if !sweep() && index % 3 != turn {
                continue;
            }
            let layer = Layer::new(device(), plan(cache), shape(spec), 600, &mut random);
            for (rows, start) in [(1, 0), (2, 63), (33, 0), (70, 0), (17, 250), (5, 254), (9, 510), (40, 530)] {
                layer.agrees(Phase::Prefill, rows, start, 1.0, &mut random);
            }
        }
    }
}

/// Windows of one key, within a part of the keys, across its edges, over several parts, and longer than the context.
#[test]
fn windows_agree_with_f64() {
    let mut random = Random::new(68);
    let windows = [1, 7, 64, 65, 256, 257, 300, 5000];
    for (index, spec) in SHAPES.into_iter().enumerate() {
        let chosen = if sweep() { windows.to_vec() } else { vec![windows[index], windows[(index + 3) % 8]] };
        for (turn, window) in chosen.into_iter().enumerate() {
            let cache = CacheFormat::ALL[(index + turn) % 3];
            let layer = Layer::new(device(), plan(cache), shape(spec), 700, &mut random).windowed(Some(window));
            for (rows, start) in ROUNDS.into_iter().chain([(32, 500), (3, 697)]) {
                layer.agrees(Phase::Decode, rows, start, 1.0, &mut random);
            }
            for (rows, start) in [(70, 0), (17, 250), (5, 254), (40, 530)] {
                layer.agrees(Phase::Prefill, rows, start, 1.0, &mut random);
            }
        }
    }
}

#[test]
fn windows_over_other_splits_agree_with_f64() {
    let mut random = Random::new(69);
    for (key_split, window) in [(64, 65), (64, 200), (128, 63), (128, 129)] {
        let plan = KernelPlan { key_split, ..plan(CacheFormat::F16) };
        let layer = Layer::new(device(), plan, shape((3, 2, 64)), 700, &mut random).windowed(Some(window));
        for (rows, start) in ROUNDS {
            layer.agrees(Phase::Decode, rows, start, 1.0, &mut random);
        }
        for (rows, start) in [(70, 0), (9, 510)] {
            layer.agrees(Phase::Prefill, rows, start, 1.0, &mut random);
        }
    }
}

/// A GPU's plan: keys cut finer, parts merged in blocks of 512 keys.
pub fn gpu_plan(cache: CacheFormat) -> KernelPlan {
    KernelPlan { lanes: 32, slices: 8, key_split: 64, ..plan(cache) }
}

#[test]
fn plans_of_gpus_agree_with_f64() {
    let mut random = Random::new(71);
    // Groups that fill a workgroup's pairs with rows, fill it alone, and must be cut or overlap rows.
    let windows = [7, 65, 64, 512, 257, 300, 513, 1];
    for (index, spec) in SHAPES.into_iter().enumerate() {
        for (turn, cache) in CacheFormat::ALL.into_iter().enumerate() {
            if !sweep() && index % 3 != turn {
                continue;
            }
            for window in [None, Some(windows[index])] {
                let layer = Layer::new(device(), gpu_plan(cache), shape(spec), 700, &mut random).windowed(window);
                for (rows, start) in ROUNDS.into_iter().chain([(32, 500), (3, 697)]) {
                    layer.agrees(Phase::Decode, rows, start, 1.0, &mut random);
                }
                for (rows, start) in [(70, 0), (17, 250), (40, 530)] {
                    layer.agrees(Phase::Prefill, rows, start, 1.0, &mut random);
                }
            }
        }
    }
}

/// Contexts of several turns of the merge, and of more parts than the scratch has room for.
#[test]
fn long_contexts_of_gpus_agree_with_f64() {
    let mut random = Random::new(72);
    for (spec, positions, cache) in [
        ((4, 1, 64), 4096, CacheFormat::F16),
        ((7, 2, 64), 4096, CacheFormat::Q8_0),
        ((1, 1, 32), 32_768, CacheFormat::F16),
    ] {
        for window in [None, Some(1500)] {
            let layer = Layer::new(device(), gpu_plan(cache), shape(spec), positions, &mut random).windowed(window);
            for (rows, end) in [(1, positions), (3, positions - 100), (2, positions / 2 + 1)] {
                layer.agrees(Phase::Decode, rows, end - rows, 2.0, &mut random);
            }
            layer.agrees(Phase::Prefill, 5, positions - 7, 2.0, &mut random);
        }
    }
}

/// As long a context as models are made for, whole and through a window.
#[test]
fn contexts_of_32768_agree_with_f64() {
    let mut random = Random::new(70);
    let spec = AttentionShape { heads: 2, kv_heads: 1, head_dim: 32 };
    let positions = 32_768;
    let cases =
        [(CacheFormat::F16, None), (CacheFormat::F32, None), (CacheFormat::Q8_0, None), (CacheFormat::F16, Some(4096))];
    for (cache, window) in cases {
        let layer = Layer::new(device(), plan(cache), spec, positions, &mut random).windowed(window);
        for role in [Phase::Decode, Phase::Prefill] {
            layer.agrees(role, 3, positions - 3, 1.0, &mut random);
            layer.agrees(role, 2, 20_000, 3.0, &mut random);
        }
    }
}

#[test]
fn other_splits_agree_with_f64() {
    let mut random = Random::new(64);
    for key_split in [64, 128] {
        let plan = KernelPlan { key_split, ..plan(CacheFormat::F16) };
        let layer = Layer::new(device(), plan, shape((3, 2, 64)), 700, &mut random);
        for (rows, start) in ROUNDS {
            layer.agrees(Phase::Decode, rows, start, 1.0, &mut random);
        }
        for (rows, start) in [(70, 0), (5, 126), (9, 510)] {
            layer.agrees(Phase::Prefill, rows, start, 1.0, &mut random);
        }
    }
}

#[test]
fn sharp_flat_and_large_attention_agrees_with_f64() {
    let mut random = Random::new(65);
    let spec = shape((3, 2, 64));
    for cache in CacheFormat::ALL {
        let positions = 600;
        let len = spec.kv_heads * positions * spec.head_dim;
        for role in [Phase::Decode, Phase::Prefill] {
            let layer = Layer::new(device(), plan(cache), spec, positions, &mut random);
            // Scores of some hundreds, of which one key takes all; scores of 0, which all share.
            for sharpness in [0.0, 1e-20, 30.0, 1e3] {
                layer.agrees(role, 5, 590, sharpness, &mut random);
            }
            for (key, value) in [(0.0, 1.0), (1e-4, 1e-4), (100.0, 6e4)] {
                let (keys, values) = (random.normals(len, key), random.normals(len, value / 6.0));
                let layer = Layer::of(device(), plan(cache), spec, positions, keys, values);
                layer.agrees(role, 3, 513, 1.0, &mut random);
            }
            // The key that takes all stands first, last, and at the edges of parts.
            for place in [0, 255, 256, 511, 512, 592] {
                let mut keys = random.normals(len, 0.1);
                for head in keys.chunks_mut(positions * spec.head_dim) {
                    head[place * spec.head_dim..][..spec.head_dim].fill(20.0);
                }
                let layer = Layer::of(device(), plan(cache), spec, positions, keys, random.normals(len, 1.0));
                let query = vec![1.0; 3 * spec.heads * spec.head_dim];
                layer.agrees_for(role, &query, 590, &format!("the key at {place}"));
            }
        }
    }
}

#[test]
fn an_end_later_than_need_be_changes_nothing() {
    let mut random = Random::new(66);
    for window in [None, Some(7), Some(257)] {
        let layer = Layer::new(device(), plan(CacheFormat::F16), shape((3, 2, 64)), 700, &mut random).windowed(window);
        for (rows, start) in [(1, 0), (5, 64), (13, 250)] {
            let query = random.normals(rows * 6 * 64, 1.0);
            let expected = layer.run(Phase::Decode, &query, start);
            for end in [start + rows + 32, 513, 700] {
                super::same_bits("a later end", &layer.run_until(Phase::Decode, &query, start, end), &expected);
            }
        }
    }
}

/// A batch's rows, against each alone on a cache that holds its slot alone.
#[test]
fn rows_of_several_sequences_have_the_bits_of_each_alone() {
    let mut random = Random::new(67);
    // Groups that fill a workgroup's pairs, fall short of them, and must be cut.
    let specs = [(3, 2, 64), (16, 1, 32), (7, 1, 96), (40, 1, 32), (1, 2, 128)];
    let windows = [65, 1, 300, 256, 7];
    let cases = (0..10)
        .map(|turn| (turn % 5 + turn / 5, specs[turn % 5]))
        .flat_map(|(index, spec)| [(index, spec, None), (index, spec, Some(windows[index % 5]))]);
    for (index, spec, window) in cases {
        let (shape, cache) = (shape(spec), CacheFormat::ALL[index % 3]);
        let plan = if index % 2 == 0 { plan(cache) } else { gpu_plan(cache) };
        let (positions, slots, width) = (640, 4, shape.heads * shape.head_dim);
        let mut random_bytes = |is_keys| {
            let values = random.normals(slots * shape.kv_heads * positions * shape.head_dim, 1.0);
            Layout { format: cache, is_keys, head_dim: shape.head_dim }.encoded(&values)
        };
        let (keys, values) = (random_bytes(true), random_bytes(false));
        let scratch = AttentionScratch::new(device(), &plan, &shape, positions).expect("small scratch");
        let many = KvCache::with_slots(device(), &plan, &shape, slots, positions).expect("a small cache");
        many.keys.write(device(), 0, &keys);
        many.values.write(device(), 0, &values);
        let at = [(600, 3), (0, 1), (255, 0), (256, 2)];
        let query = random.normals(at.len() * width, 2.0);
        let run = |cache: &KvCache, rows: Rows, query: &[f32], end: usize| {
            poison(device(), &scratch.parts);
            poison(device(), &scratch.sums);
            let rows_count = query.len() / width;
            let (query, out) = (input(device(), width, query), output(device(), rows_count, width));
            let op = Attention::new(device(), &plan, rows, &shape, window, cache, &scratch, [&query, &out]);
            let op = op.expect("shapes that fit");
            submit(device(), |pass| op.encode(pass, Phase::Decode, rows_count, end).expect("a kernel that compiles"));
            read(device(), "attention", &out, rows_count)
        };
        let alone = |row: usize| {
            let ((position, slot), part) = (at[row], keys.len() / slots);
            let one = KvCache::new(device(), &plan, &shape, positions).expect("a small cache");
            one.keys.write(device(), 0, &keys[slot * part..][..part]);
            one.values.write(device(), 0, &values[slot * part..][..part]);
            let step = step(device(), Step { start: position as u32, rows: 1, ..Step::default() });
            run(&one, Rows::One(&step), &query[row * width..][..width], position + 1)
        };
        let expected: Vec<f32> = (0..at.len()).flat_map(alone).collect();
        let batch = PassRow::buffer(device()).expect("a small buffer");
        let row = |(position, slot): (u32, u32)| PassRow { position, slot, ..PassRow::default() };
        let rows: Vec<PassRow> = at.iter().map(|&(position, slot)| row((position as u32, slot as u32))).collect();
        // All rows, and those of a single part.
        for (chosen, end) in [(0..4, 601), (0..4, positions), (1..3, 256)] {
            let step = step(device(), Step { rows: chosen.len() as u32, ..Step::default() });
            batch.write(device(), 0, &rows[chosen.clone()]);
            let some = |values: &[f32]| values[chosen.start * width..chosen.end * width].to_vec();
            let got = run(&many, Rows::Many { step: &step, batch: &batch }, &some(&query), end);
            let context = format!("{shape:?}, window {window:?}, rows {chosen:?} before {end}");
            super::same_bits(&context, &got, &some(&expected));
        }
        // One sequence in a slot that is not the first.
        let step = step(device(), Step { start: 256, rows: 1, slot: 2, ..Step::default() });
        let got = run(&many, Rows::One(&step), &query[3 * width..], 257);
        super::same_bits(&format!("{shape:?}, one sequence in slot 2"), &got, &expected[3 * width..]);
    }
}
