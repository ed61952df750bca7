//! `rope_gradient`, `rope_head_scales` and `rope_gain_gradient` on the device; the chain of rotation and attention, of
//! the oracles against finite differences and of the kernels against the oracles.

use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::ops::gradients::{GainGradients, PackedAttention, PackedAttentionGradient, RopeGradient};
use pard::low_level::ops::{AttentionShape, KvCache, Rope, Step};

use super::training_rows::{Packed, layouts};
use crate::comparison::relative_error;
use crate::ops::{compare, input, output, read, step, submit};
use crate::oracle::Expected;
use crate::oracle::gradients::packed_attention::{Given, packed_attention, packed_attention_gradient};
use crate::oracle::gradients::rope::{Norm, rope_gradient};
use crate::oracle::rope::rope;
use crate::support::gpu::{device, plan};
use crate::support::random::Random;

const SHAPES: [AttentionShape; 6] = [
    AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 },
    AttentionShape { heads: 4, kv_heads: 2, head_dim: 128 },
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 16 },
    AttentionShape { heads: 3, kv_heads: 1, head_dim: 48 },
    AttentionShape { heads: 2, kv_heads: 2, head_dim: 80 },
    AttentionShape { heads: 2, kv_heads: 1, head_dim: 256 },
];

const EPSILON: f32 = 1e-6;

/// Cosines and sines of random angles, `[rows, head_dim / 2]`.
fn angles(random: &mut Random, rows: usize, head_dim: usize) -> (Vec<f32>, Vec<f32>) {
    let angles = random.normals(rows * head_dim / 2, 3.0);
    (angles.iter().map(|angle| angle.cos()).collect(), angles.iter().map(|angle| angle.sin()).collect())
}

/// `[rows, 2, head_dim / 2]`.
fn table(cos: &[f32], sin: &[f32], half: usize) -> Buffer {
    let rows = cos.chunks(half).zip(sin.chunks(half));
    let values: Vec<f32> = rows.flat_map(|(cos, sin)| [cos, sin].concat()).collect();
    Buffer::with_values(device(), "angles", &values).expect("a small table")
}

#[test]
fn rope_gradient_agrees_with_f64() {
    let mut random = Random::new(91);
    for shape in SHAPES {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        for (rows, magnitude) in [(1, 1.0), (2, 1e-3), (7, 1.0), (50, 1e3), (130, 1.0)] {
            let (cos, sin) = angles(&mut random, rows, head_dim);
            let qkv = random.normals(rows * shape.qkv_width(), magnitude);
            let gains = [(); 2].map(|()| random.normals(head_dim, 1.0));
            let before = [(); 2].map(|()| random.normals(head_dim, 1.0));
            let given = [heads, kv_heads, kv_heads].map(|heads| random.normals(rows * heads * head_dim, 1.0));
            for normed in [false, true] {
                let context = format!("{shape:?}, {rows} rows, magnitude {magnitude}, normed {normed}");
                let norm = Norm { qkv: &qkv, gains: [&gains[0], &gains[1]], epsilon: EPSILON };
                let slices = given.each_ref().map(|values| values.as_slice());
                let (expected, by_gains) = rope_gradient(shape, (&cos, &sin), slices, normed.then_some(norm));

                let step = step(device(), Step { rows: rows as u32, ..Step::default() });
                let widths = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
                let tensors: [_; 3] = std::array::from_fn(|i| input(device(), widths[i], &given[i]));
                let (qkv, result) =
                    (input(device(), shape.qkv_width(), &qkv), output(device(), rows, shape.qkv_width()));
                let gains = gains.each_ref().map(|gain| input(device(), head_dim, gain));
                let sums = before.each_ref().map(|values| input(device(), head_dim, values));
                let norm = normed.then_some(GainGradients {
                    qkv: &qkv,
                    gains: gains.each_ref(),
                    gradients: sums.each_ref(),
                    epsilon: EPSILON,
                });
                let angles = table(&cos, &sin, head_dim / 2);
                let op = RopeGradient::new(device(), &step, &shape, &angles, tensors.each_ref(), &result, norm);
                let op = op.expect("shapes that fit");
                submit(device(), |pass| op.encode(pass, rows));
                let got = read(device(), "rope_gradient", &result, rows);
                compare(device(), "rope_gradient", &context, &got, &expected);
                for ((sum, before), gain) in sums.iter().zip(&before).zip(by_gains) {
                    let got: Vec<f32> = sum.buffer.read(device(), 0, head_dim).expect("reading back");
                    let mut expected = Expected::default();
                    for ((value, bound), &before) in gain.values.iter().zip(&gain.bound).zip(before) {
                        let value = value + f64::from(before);
                        expected.push(value, bound + 2f64.powi(-23) * value.abs());
                    }
                    compare(device(), "rope_gain_gradient", &context, &got, &expected);
                }
            }
        }
    }
}

/// Rotation and attention of a packed step in f64, and the gradients of `Σ weights · out`.
struct Chain<'a> {
    shape: AttentionShape,
    seen: Vec<Vec<usize>>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    weights: &'a [f64],
    normed: bool,
}

impl Chain<'_> {
    /// Rotated q, rotated k, v.
    fn rotated(&self, qkv: &[f64], gains: [&[f32]; 2]) -> [Vec<f64>; 3] {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let positions: Vec<u32> = (0..self.seen.len() as u32).collect();
        let columns = |from: usize, heads: usize| -> Vec<f64> {
            let rows = qkv.chunks(self.shape.qkv_width());
            rows.flat_map(|row| &row[from * head_dim..][..heads * head_dim]).copied().collect()
        };
        let turn = |x: Vec<f64>, heads, gain| {
            rope(&x, heads, head_dim, &positions, (&self.cos, &self.sin), self.normed.then_some((gain, EPSILON))).values
        };
        [
            turn(columns(0, heads), heads, gains[0]),
            turn(columns(heads, kv_heads), kv_heads, gains[1]),
            columns(heads + kv_heads, kv_heads),
        ]
    }

    fn loss(&self, qkv: &[f64], gains: [&[f32]; 2]) -> f64 {
        let [query, keys, values] = self.rotated(qkv, gains);
        let given = Given { shape: self.shape, seen: &self.seen, query: &query, keys: &keys, values: &values };
        packed_attention(given).0.values.iter().zip(self.weights).map(|(out, weight)| out * weight).sum()
    }

    /// By qkv and by both gains.
    fn gradients(&self, qkv: &[f64], gains: [&[f32]; 2]) -> (Vec<f64>, [Vec<f64>; 2]) {
        let [query, keys, values] = self.rotated(qkv, gains);
        let given = Given { shape: self.shape, seen: &self.seen, query: &query, keys: &keys, values: &values };
        let (out, log_sums) = packed_attention(given);
        let by = packed_attention_gradient(given, &out.values, &log_sums.values, self.weights);
        let by = by.each_ref().map(|by| by.values.as_slice());
        let norm = self.normed.then_some(Norm { qkv, gains, epsilon: EPSILON });
        let (by_qkv, by_gains) = rope_gradient(self.shape, (&self.cos, &self.sin), by, norm);
        (by_qkv.values, by_gains.map(|by| by.values))
    }
}

#[test]
fn analytic_gradients_are_finite_differences() {
    let mut random = Random::new(92);
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6 };
    let packed = Packed::new(&[vec![2, 0, 1, 1, 0], vec![0], vec![1, 0]]);
    let seen = packed.seen();
    let rows = seen.len();
    let (cos, sin) = angles(&mut random, rows, shape.head_dim);
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    let weights = wide(random.normals(rows * shape.heads * shape.head_dim, 1.0));
    let mut qkv = wide(random.normals(rows * shape.qkv_width(), 1.0));
    let mut gains = [(); 2].map(|()| random.bf16_normals(shape.head_dim, 1.0));
    for normed in [false, true] {
        let (cos, sin, seen) = (cos.clone(), sin.clone(), seen.clone());
        let chain = Chain { shape, seen, cos, sin, weights: &weights, normed };
        let (by_qkv, by_gains) = chain.gradients(&qkv, [&gains[0], &gains[1]]);
        let step = 1e-5;
        for at in 0..qkv.len() {
            let before = qkv[at];
            let mut loss = |value| {
                qkv[at] = value;
                chain.loss(&qkv, [&gains[0], &gains[1]])
            };
            let slope = (loss(before + step) - loss(before - step)) / (2.0 * step);
            qkv[at] = before;
            // Truncation is of the order of step^2, rounding of 1e-16 / step.
            let error = (slope - by_qkv[at]).abs();
            assert!(error < 1e-7 * (1.0 + slope.abs()), "qkv[{at}], normed {normed}: {slope} and {}", by_qkv[at]);
        }
        // Gains are f32: their step is a power of two that they take exactly.
        let step = 2f32.powi(-11);
        for at in 0..if normed { 2 * shape.head_dim } else { 0 } {
            let (which, at) = (at / shape.head_dim, at % shape.head_dim);
            let before = gains[which][at];
            let mut loss = |value| {
                gains[which][at] = value;
                chain.loss(&qkv, [&gains[0], &gains[1]])
            };
            let slope = (loss(before + step) - loss(before - step)) / (2.0 * f64::from(step));
            gains[which][at] = before;
            let error = (slope - by_gains[which][at]).abs();
            assert!(error < 1e-5 * (1.0 + slope.abs()), "gain {which}[{at}]: {slope} and {}", by_gains[which][at]);
        }
    }
}

/// The engine's own rotation into its own cache, attention, and back.
#[test]
fn the_chain_of_kernels_gives_the_chain_of_oracles() {
    let mut random = Random::new(93);
    let shape = SHAPES[0];
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (_, packed) = layouts(&mut random).pop().expect("a layout");
    let rows = packed.rows.len();
    let (cos, sin) = angles(&mut random, rows, head_dim);
    let values = random.normals(rows * shape.qkv_width(), 1.0);
    let gradient = random.normals(rows * heads * head_dim, 1.0);
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
    let (weights, angles) = (wide(&gradient), table(&cos, &sin, head_dim / 2));
    let chain = Chain { shape, seen: packed.seen(), cos, sin, weights: &weights, normed: false };
    let expected: Vec<f32> = chain.gradients(&wide(&values), [&[], &[]]).0.iter().map(|&value| value as f32).collect();

    let device = device();
    let step = step(device, Step { rows: rows as u32, ..Step::default() });
    let training_rows = Buffer::with_values(device, "rows", &packed.rows).expect("a small buffer");
    let cache = KvCache::new(device, &plan(CacheFormat::F32), &shape, rows).expect("a small cache");
    let (qkv, gradient) = (input(device, shape.qkv_width(), &values), input(device, heads * head_dim, &gradient));
    let [query, out, by_query] = [(); 3].map(|()| output(device, rows, heads * head_dim));
    let [by_key, by_value] = [(); 2].map(|()| output(device, rows, kv_heads * head_dim));
    let (log_sums, by_qkv) = (output(device, rows, heads), output(device, rows, shape.qkv_width()));
    let by = [&by_query, &by_key, &by_value];
    let tensors = [&query, &out];
    let turn = Rope::new(device, &step, &shape, &angles, [&qkv, &query], &cache, None).expect("shapes that fit");
    let attend = PackedAttention::new(device, &step, &shape, &training_rows, &cache, tensors, &log_sums);
    let attend = attend.expect("shapes that fit");
    let back =
        PackedAttentionGradient::new(device, &step, &shape, &training_rows, &cache, tensors, &log_sums, &gradient, by);
    let back = back.expect("shapes that fit");
    let turn_back = RopeGradient::new(device, &step, &shape, &angles, by, &by_qkv, None).expect("shapes that fit");
    submit(device, |pass| {
        turn.encode(pass, rows);
        attend.encode(pass, rows);
        back.encode(pass, rows);
        turn_back.encode(pass, rows);
    });
    let error = relative_error(&read(device, "the chain", &by_qkv, rows), &expected);
    assert!(error < 1e-5, "relative error {error:e}");
}
