//! `rope` on the device: q, and k and v as the cache holds them afterwards.

use pard::low_level::gpu::{Buffer, CacheFormat, Device, KernelPlan};
use pard::low_level::ops::{AttentionShape, KvCache, PassRow, Rope, RopeGains, Rows, Step};

use super::{POISON, compare, input, output, poison, read, row_counts, step, submit, vector};
use crate::comparison::flushed;
use crate::oracle::Expected;
use crate::oracle::kv_cache::quantised;
use crate::oracle::rope::rope;
use crate::support::gpu::{device, plan, sweep};
use crate::support::kv_cache::Layout;
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

/// Output of one run: rows of q, and the whole of the caches, NaN where nothing was written.
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
    plan: &KernelPlan,
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
    let layout = |is_keys| Layout { format: plan.cache, is_keys, head_dim: shape.head_dim };
    Rotated {
        query: read(device, "rope", &query, rows),
        keys: layout(true).decoded(&bytes_of(device, &cache.keys)),
        values: layout(false).decoded(&bytes_of(device, &cache.values)),
        capacity,
    }
}

fn bytes_of(device: &Device, buffer: &Buffer) -> Vec<u8> {
    buffer.read(device, 0, buffer.bytes() as usize).expect("reading back")
}

/// `expected` as the cache may hold it: a half-precision value is clamped, and rounded either way, since WGSL does not
/// say which; that is 2^-10 of it, or 2^-24 below f16's normal range. In 8 bits it is off by half the largest of its block
/// over 127, but for roundings that may tip a value over to the next number, and what is too small for a scale.
fn stored(expected: Expected, format: CacheFormat, head_dim: usize) -> Expected {
    let mut stored = Expected::default();
    match format {
        CacheFormat::F32 => return expected,
        CacheFormat::Q8_0 => {
            let block = CacheFormat::block(head_dim);
            for (values, bounds) in expected.values.chunks(block).zip(expected.bound.chunks(block)) {
                let largest = values.iter().zip(bounds).map(|(value, bound)| value.abs() + bound).fold(0.0, f64::max);
                for (value, bound) in values.iter().zip(bounds) {
                    stored.push(*value, bound + largest / 254.0 * (1.0 + 1e-4) + 1.1e-30);
                }
            }
            return stored;
        }
        CacheFormat::F16 => {}
    }
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
    let expected = stored(rotated(keys_at..values_at, kv_heads, &key_gain), cache, head_dim);
    compare(device(), "rope", &format!("k, {context}"), &keys, &expected);
    let values = cached_rows("rope, v", shape, &got.values, got.capacity, start, rows);
    let mut expected = Expected::default();
    for value in part(&qkv, width, values_at..width) {
        expected.push(f64::from(value), flushed(f64::from(value)));
    }
    compare(device(), "rope", &format!("v, {context}"), &values, &stored(expected, cache, head_dim));
}

#[test]
fn rope_agrees_with_f64() {
    for (index, shape) in SHAPES.into_iter().enumerate() {
        for cache in CacheFormat::ALL {
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
    for cache in CacheFormat::ALL {
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

/// Values are not turned, and keys are not by an angle of 0, so that every stored bit is known: but where a value lies
/// within rounding of the middle of two numbers.
#[test]
fn an_8_bit_cache_holds_the_nearest_numbers() {
    let mut random = Random::new(53);
    for (heads, kv_heads, head_dim) in [(2, 1, 32), (3, 3, 48), (4, 2, 64), (1, 1, 96), (2, 2, 128), (1, 1, 256)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let (rows, start, width, half) = (9, 60, shape.qkv_width(), head_dim / 2);
        let upright = Angles { cos: vec![1.0; 70 * half], sin: vec![0.0; 70 * half] };
        let mut qkv = random.normals(rows * width, 1.0);
        // Blocks of zeros, of numbers too small for a scale, of one number, and of large ones.
        for (row, factor) in [(1, 0.0), (2, 1e-34), (3, 1e-20), (4, 1e30)] {
            qkv[row * width..(row + 1) * width].iter_mut().for_each(|value| *value *= factor);
        }
        qkv[5 * width..6 * width].fill(-0.7);
        let device = device();
        let cache = KvCache::new(device, &plan(CacheFormat::Q8_0), &shape, 128).expect("a small cache");
        let table = Buffer::with_values(device, "angles", &upright.interleaved(head_dim)).expect("a small table");
        let step = step(device, Step { start: start as u32, rows: rows as u32, ..Step::default() });
        let (input, query) = (input(device, width, &qkv), output(device, rows, heads * head_dim));
        let op = Rope::new(device, &step, &shape, &table, [&input, &query], &cache, None).expect("shapes that fit");
        submit(device, |pass| op.encode(pass, rows));
        for (is_keys, buffer) in [(true, &cache.keys), (false, &cache.values)] {
            let layout = Layout { format: CacheFormat::Q8_0, is_keys, head_dim };
            let stored = layout.rows(&bytes_of(device, buffer));
            for row in 0..rows {
                for head in 0..kv_heads {
                    let column = (heads + if is_keys { 0 } else { kv_heads } + head) * head_dim;
                    let values = &qkv[row * width + column..][..head_dim];
                    let context = format!("{shape:?}, keys: {is_keys}, row {row}, head {head}");
                    holds_the_nearest(&context, values, &stored[head * 128 + start + row]);
                }
            }
        }
    }
}

/// `stored` are the words of numbers, and the scales, of a row of one head.
fn holds_the_nearest(context: &str, values: &[f32], stored: &[u32]) {
    let (words, scales) = stored.split_at(values.len() / 4);
    let numbers: Vec<i8> = words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| byte as i8).collect();
    let block = values.len() / scales.len();
    assert_eq!(block, if values.len().is_multiple_of(32) { 32 } else { 16 }, "{context}");
    for ((values, numbers), &scale) in values.chunks(block).zip(numbers.chunks(block)).zip(scales) {
        let (expected, expected_scale) = quantised(values);
        // WGSL fixes no rounding mode.
        let off = scale.abs_diff(expected_scale.to_bits());
        assert!(off <= 1, "{context}: the scale {} is {off} units from {expected_scale}", f32::from_bits(scale));
        for ((value, &number), expected) in values.iter().zip(numbers).zip(expected) {
            let exact = if expected_scale == 0.0 { 0.0 } else { f64::from(*value) / f64::from(expected_scale) };
            let is_tie = (exact.fract().abs() - 0.5).abs() < 1e-4;
            let is_right = number == expected || is_tie && (f64::from(number) - exact).abs() < 0.51;
            assert!(is_right, "{context}: {value} is {exact} scales, and held as {number}");
        }
    }
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
    let normed = Some(RopeGains { query: &gain, key: &gain, epsilon: 1e-6 });
    for (format, gains) in [(CacheFormat::F16, None), (CacheFormat::F32, normed), (CacheFormat::Q8_0, normed)] {
        let batch = PassRow::buffer(device()).expect("a small buffer");
        let row = |(position, slot): (usize, usize)| PassRow {
            position: position as u32,
            slot: slot as u32,
            ..PassRow::default()
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
        let layout = |is_keys| Layout { format, is_keys, head_dim: shape.head_dim };
        let keys = layout(true).decoded(&bytes_of(device(), &cache.keys));
        let values = layout(false).decoded(&bytes_of(device(), &cache.values));
        let query = read(device(), "rope", &query, at.len());
        for (index, (position, slot)) in at.into_iter().enumerate() {
            let alone = run(device(), &plan(format), shape, &angles, &qkv[index * width..][..width], position, gains);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&query[index * alone.query.len()..][..alone.query.len()]), bits(&alone.query));
            assert_eq!(bits(&values[slot * len..][..len]), bits(&alone.values), "{format:?}, values of slot {slot}");
            assert_eq!(bits(&keys[slot * len..][..len]), bits(&alone.keys), "{format:?}, keys of slot {slot}");
        }
    }
}
