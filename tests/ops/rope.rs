//! `rope` on the device: q, and k and v as the cache holds them afterwards.

use pard_engine::gpu::{Buffer, CacheFormat, Device, Plan};
use pard_engine::ops::{AttentionShape, BatchRow, KvCache, Rope, RopeGains, Rows, Step};

use super::{POISON, compare, input, output, poison, read, row_counts, step, submit, vector};
use crate::comparison::flushed;
use crate::oracle::Expected;
use crate::oracle::rope::rope;
use crate::support::gpu::{device, plan, sweep};
use crate::support::random::Random;

/// Heads, heads of k and v, head width: every width that a model has, and groups of 1 to 16.
const SHAPES: [AttentionShape; 8] = [
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 32 },
    AttentionShape { heads: 3, kv_heads: 1, head_dim: 48 },
    AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 },
    AttentionShape { heads: 4, kv_heads: 4, head_dim: 80 },
    AttentionShape { heads: 14, kv_heads: 2, head_dim: 64 },
    AttentionShape { heads: 16, kv_heads: 1, head_dim: 96 },
    AttentionShape { heads: 16, kv_heads: 8, head_dim: 128 },
    AttentionShape { heads: 2, kv_heads: 1, head_dim: 256 },
];

/// What one run leaves: rows of q, and the whole of the caches, NaN where nothing was written.
pub struct Rotated {
    pub query: Vec<f32>,
    /// `[kv_heads, capacity, head_dim]`.
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    pub capacity: usize,
}

/// Cosines and sines, `[positions, head_dim / 2]` each.
pub struct Angles {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Angles {
    /// Random angles: a wrong position or frequency shows.
    pub fn random(random: &mut Random, positions: usize, head_dim: usize) -> Self {
        let angles = random.normals(positions * head_dim / 2, 3.0);
        Self { cos: angles.iter().map(|a| a.cos()).collect(), sin: angles.iter().map(|a| a.sin()).collect() }
    }

    /// `[positions, 2, head_dim / 2]`.
    fn interleaved(&self, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        self.cos.chunks(half).zip(self.sin.chunks(half)).flat_map(|(cos, sin)| [cos, sin].concat()).collect()
    }
}

/// The kernel's results for `qkv` at positions `start..`.
pub fn run(
    device: &Device,
    plan: &Plan,
    shape: AttentionShape,
    angles: &Angles,
    qkv: &[f32],
    start: usize,
    gains: Option<RopeGains>,
) -> Rotated {
    let rows = qkv.len() / shape.qkv_width();
    let capacity = (2 * angles.cos.len() / shape.head_dim).next_multiple_of(64);
    let cache = KvCache::new(device, plan, &shape, capacity).expect("a small cache");
    poison(device, &cache.keys);
    poison(device, &cache.values);
    let angles = Buffer::with_values(device, "angles", &angles.interleaved(shape.head_dim)).expect("a small table");
    let step = step(device, Step { start: start as u32, rows: rows as u32, ..Step::default() });
    let qkv = input(device, shape.qkv_width(), qkv);
    let query = output(device, rows, shape.heads * shape.head_dim);
    let op = Rope::new(device, &step, &shape, &angles, [&qkv, &query], &cache, gains).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, rows));
    let len = shape.kv_heads * capacity * shape.head_dim;
    let stored = read_cache(device, &cache.keys, plan.cache, len);
    let keys = (0..len).map(|at| {
        let (head, position, dim) =
            (at / (capacity * shape.head_dim), at / shape.head_dim % capacity, at % shape.head_dim);
        stored[key_index(shape, capacity, head, position, dim)]
    });
    Rotated {
        query: read(device, "rope", &query, rows),
        keys: keys.collect(),
        values: read_cache(device, &cache.values, plan.cache, len),
        capacity,
    }
}

/// Where the cache keeps a key's element: pieces of 8 dimensions, 64 positions side by side.
pub fn key_index(shape: AttentionShape, capacity: usize, head: usize, position: usize, dim: usize) -> usize {
    let tile = head * (capacity / 64) + position / 64;
    ((tile * (shape.head_dim / 8) + dim / 8) * 64 + position % 64) * 8 + dim % 8
}

/// `len` values, widened; what is untouched poison stays it, bit for bit.
fn read_cache(device: &Device, buffer: &Buffer, format: CacheFormat, len: usize) -> Vec<f32> {
    match format {
        CacheFormat::F32 => buffer.read(device, 0, len).expect("reading back"),
        CacheFormat::F16 => {
            let halves: Vec<u16> = buffer.read(device, 0, len).expect("reading back");
            let widen =
                |bits| if bits == u16::MAX { f32::from_bits(POISON) } else { half::f16::from_bits(bits).to_f32() };
            halves.into_iter().map(widen).collect()
        }
    }
}

/// `expected` as the cache may hold it: a half-precision value is clamped, and rounded either way, since WGSL does not
/// say which; that is 2^-10 of it, or 2^-24 below f16's normal range.
fn stored(expected: Expected, format: CacheFormat) -> Expected {
    if format == CacheFormat::F32 {
        return expected;
    }
    let mut stored = Expected::default();
    for (value, bound) in expected.values.into_iter().zip(expected.bound) {
        let clamped = value.clamp(-65504.0, 65504.0);
        stored.push(clamped, bound + (clamped.abs() + bound) * 2f64.powi(-10) + 2f64.powi(-24));
    }
    stored
}

/// The columns of one part of qkv: `[rows, heads, head_dim]`.
fn part(qkv: &[f32], width: usize, columns: std::ops::Range<usize>) -> Vec<f32> {
    qkv.chunks(width).flat_map(|row| &row[columns.clone()]).copied().collect()
}

/// `[kv_heads, capacity, head_dim]` to `[rows, kv_heads, head_dim]`, after checking that no other position was written.
fn cached_rows(op: &str, shape: AttentionShape, cache: &[f32], capacity: usize, start: usize, rows: usize) -> Vec<f32> {
    let row = |head: usize, position: usize| &cache[(head * capacity + position) * shape.head_dim..][..shape.head_dim];
    for head in 0..shape.kv_heads {
        for position in (0..start).chain(start + rows..capacity) {
            assert!(
                row(head, position).iter().all(|value| value.to_bits() == POISON),
                "{op}: position {position} of head {head} was written by rows {start}..{}",
                start + rows
            );
        }
    }
    (start..start + rows)
        .flat_map(|position| (0..shape.kv_heads).flat_map(move |head| row(head, position)))
        .copied()
        .collect()
}

fn agrees(shape: AttentionShape, cache: CacheFormat, rows: usize, start: usize, normed: bool, magnitude: f32) {
    let mut random = Random::new((rows * 1000 + start) as u64);
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let angles = Angles::random(&mut random, start + rows + 3, head_dim);
    let width = shape.qkv_width();
    let qkv = random.normals(rows * width, magnitude);
    let [query_gain, key_gain] = [0, 1].map(|_| random.normals(head_dim, 1.0));
    let epsilon = 1e-6;
    let [query, key] = [&query_gain, &key_gain].map(|gain| vector(device(), gain));
    let gains = normed.then_some(RopeGains { query: &query, key: &key, epsilon });
    let got = run(device(), &plan(cache), shape, &angles, &qkv, start, gains);

    let positions: Vec<u32> = (start as u32..).take(rows).collect();
    let context = format!("{shape:?}, {cache:?}, {rows} rows from {start}, normed {normed}, magnitude {magnitude}");
    let rotated = |columns, heads, gain: &[f32]| {
        let x = part(&qkv, width, columns);
        let norm = normed.then_some((gain, epsilon));
        rope(&x, heads, head_dim, &positions, (&angles.cos, &angles.sin), norm)
    };
    let (keys_at, values_at) = (heads * head_dim, (heads + kv_heads) * head_dim);
    compare(device(), "rope", &format!("q, {context}"), &got.query, &rotated(0..keys_at, heads, &query_gain));
    let keys = cached_rows("rope, k", shape, &got.keys, got.capacity, start, rows);
    let expected = stored(rotated(keys_at..values_at, kv_heads, &key_gain), cache);
    compare(device(), "rope", &format!("k, {context}"), &keys, &expected);
    let values = cached_rows("rope, v", shape, &got.values, got.capacity, start, rows);
    let mut expected = Expected::default();
    for value in part(&qkv, width, values_at..width) {
        expected.push(f64::from(value), flushed(f64::from(value)));
    }
    compare(device(), "rope", &format!("v, {context}"), &values, &stored(expected, cache));
}

#[test]
fn rope_agrees_with_f64() {
    for (index, shape) in SHAPES.into_iter().enumerate() {
        for cache in [CacheFormat::F16, CacheFormat::F32] {
            for normed in [false, true] {
                if !sweep() && index % 2 == usize::from(normed) && index > 1 {
                    continue;
                }
                let mut cases: Vec<_> = row_counts().into_iter().map(|rows| (rows, 62 - rows)).collect();
                cases.extend([(1, 0), (1, 63), (1, 64), (5, 62), (13, 120), (100, 0), (70, 61)]);
                for (rows, start) in cases {
                    agrees(shape, cache, rows, start, normed, 1.0);
                }
            }
        }
    }
}

#[test]
fn tiny_and_large_heads_agree_with_f64() {
    let shape = AttentionShape { heads: 3, kv_heads: 1, head_dim: 64 };
    for cache in [CacheFormat::F16, CacheFormat::F32] {
        for normed in [false, true] {
            // Up to what a half can hold, and far beyond it; the norm's squares stay within f32.
            for magnitude in [0.0, 1e-30, 1e-7, 1e3, 1e6, 1e10] {
                agrees(shape, cache, 5, 30, normed, magnitude);
            }
        }
    }
}

#[test]
fn a_half_precision_cache_clamps() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 32 };
    let upright = Angles { cos: vec![1.0; 16], sin: vec![0.0; 16] };
    let mut qkv = vec![1e6; shape.qkv_width()];
    qkv[33] = -1e30;
    qkv[65] = -65504.0;
    let got = run(device(), &plan(CacheFormat::F16), shape, &upright, &qkv, 0, None);
    assert_eq!((got.keys[0], got.keys[1]), (65504.0, -65504.0));
    assert_eq!((got.values[0], got.values[1]), (65504.0, -65504.0));
    assert_eq!(got.query, [1e6; 32]);
}

/// A batch's rows leave what each would leave alone, in their own slots and nowhere else.
#[test]
fn rows_of_several_sequences_go_to_their_slots() {
    let mut random = Random::new(52);
    let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 64 };
    let (slots, positions, width) = (3, 128, shape.qkv_width());
    let angles = Angles::random(&mut random, positions, shape.head_dim);
    let table = Buffer::with_values(device(), "angles", &angles.interleaved(shape.head_dim)).expect("a small table");
    let gain = vector(device(), &random.normals(shape.head_dim, 1.0));
    let at = [(100, 2), (0, 0), (63, 1)];
    let qkv = random.normals(at.len() * width, 1.0);
    for (format, gains) in
        [(CacheFormat::F16, None), (CacheFormat::F32, Some(RopeGains { query: &gain, key: &gain, epsilon: 1e-6 }))]
    {
        let batch = Rows::buffer(device()).expect("a small buffer");
        let row = |(position, slot): (usize, usize)| BatchRow {
            position: position as u32,
            slot: slot as u32,
            ..BatchRow::default()
        };
        batch.write(device(), 0, &at.map(row));
        let step = step(device(), Step { rows: at.len() as u32, ..Step::default() });
        let cache = KvCache::with_slots(device(), &plan(format), &shape, slots, positions).expect("a small cache");
        poison(device(), &cache.keys);
        poison(device(), &cache.values);
        let (rows, query) = (input(device(), width, &qkv), output(device(), at.len(), shape.heads * shape.head_dim));
        let many = Rows::Many { step: &step, batch: &batch };
        let op = Rope::new(device(), many, &shape, &table, [&rows, &query], &cache, gains).expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, at.len()));
        let len = shape.kv_heads * positions * shape.head_dim;
        let keys = read_cache(device(), &cache.keys, format, slots * len);
        let values = read_cache(device(), &cache.values, format, slots * len);
        let query = read(device(), "rope", &query, at.len());
        for (index, (position, slot)) in at.into_iter().enumerate() {
            let alone = run(device(), &plan(format), shape, &angles, &qkv[index * width..][..width], position, gains);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&query[index * alone.query.len()..][..alone.query.len()]), bits(&alone.query));
            assert_eq!(bits(&values[slot * len..][..len]), bits(&alone.values), "{format:?}, values of slot {slot}");
            let stored = (0..len).map(|at| {
                let (head, position, dim) =
                    (at / (positions * shape.head_dim), at / shape.head_dim % positions, at % shape.head_dim);
                keys[slot * len + key_index(shape, positions, head, position, dim)]
            });
            assert_eq!(bits(&stored.collect::<Vec<_>>()), bits(&alone.keys), "{format:?}, keys of slot {slot}");
        }
    }
}
