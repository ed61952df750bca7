//! The oracles themselves: worked by hand where that is short, met by plain f32 code (so no bound is too tight), and
//! refusing what a faulty kernel would give (so no bound is too loose).

use pard::checkpoint::config::RopeScaling;

use crate::comparison::{check, verdict};
use crate::oracle::Expected;
use crate::oracle::argmax::argmax;
use crate::oracle::attention::{AttentionShape, attention, half_rounded, windowed_attention};
use crate::oracle::embedding::embedding;
use crate::oracle::matmul::matmul;
use crate::oracle::rms_norm::rms_norm;
use crate::oracle::rope::rope;
use crate::oracle::rotary_table::rotary_table;
use crate::oracle::swiglu::swiglu;
use crate::support::random::Random;

const WIDTHS: [usize; 10] = [1, 3, 4, 63, 64, 65, 255, 256, 257, 1000];
const MAGNITUDES: [f32; 3] = [1e-15, 1.0, 1e10];

fn accept(op: &str, context: &str, actual: &[f32], expected: &Expected) {
    check(op, context, actual, &expected.values, &expected.bound);
}

fn reject(fault: &str, actual: &[f32], expected: &Expected) {
    let verdict = verdict(fault, "", actual, &expected.values, &expected.bound);
    assert!(verdict.is_err(), "{fault} went unseen");
}

fn narrowed(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn embedding_is_exact() {
    let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(embedding(&table, 2, &[2, 0, 2]).values, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    assert_eq!(embedding(&table, 2, &[1]).bound, [0.0, 0.0]);
    assert_eq!(embedding(&[1e-40], 1, &[0]).bound, [f64::from(1e-40f32)]);
}

#[test]
fn matmul_by_hand() {
    let (x, weight) = ([1.0f32, 2.0, 3.0, -1.0], [1.0, 10.0, 100.0, 1000.0, -1.0, 0.5]);
    assert_eq!(matmul(&x, &weight, 2, None, None).values, [21.0, 2100.0, 0.0, -7.0, -700.0, -3.5]);
    let residual = [0.5f32; 6];
    let sum = matmul(&x, &weight, 2, Some(&[1.0, 2.0, 3.0]), Some(&residual)).values;
    assert_eq!(sum, [22.5, 2102.5, 3.5, -5.5, -697.5, 0.0]);
}

#[test]
fn matmul_bounds_hold_for_plain_f32() {
    let mut random = Random::new(1);
    for depth in WIDTHS {
        for magnitude in MAGNITUDES {
            let (rows, outputs) = (3, 5);
            let x = random.normals(rows * depth, magnitude);
            let weight = random.bf16_normals(outputs * depth, 1.0);
            let bias = random.bf16_normals(outputs, magnitude);
            let residual = random.normals(rows * outputs, magnitude);
            let expected = matmul(&x, &weight, depth, Some(&bias), Some(&residual));
            let got: Vec<f32> = (0..rows * outputs)
                .map(|i| {
                    let (x, weight) = (&x[i / outputs * depth..][..depth], &weight[i % outputs * depth..][..depth]);
                    dot(x, weight) + bias[i % outputs] + residual[i]
                })
                .collect();
            accept("matmul", &format!("depth {depth}, magnitude {magnitude}"), &got, &expected);
            let without_last =
                matmul(&x, &[&weight[..outputs * depth - 1], &[0.0]].concat(), depth, Some(&bias), Some(&residual));
            reject("a matmul short of one product", &narrowed(&without_last.values), &expected);
        }
    }
}

#[test]
fn rms_norm_by_hand() {
    let y = rms_norm(&[3.0f32, 4.0, 0.0, 0.0], &[1.0, 2.0], 0.0);
    let scale = 1.0 / 12.5f64.sqrt();
    assert_eq!(y.values[..2], [3.0 * scale, 8.0 * scale]);
    assert!(y.values[2].is_nan(), "zeros without an epsilon");
    assert_eq!(rms_norm(&[0.0f32; 2], &[1.0, 2.0], 1e-6).values, [0.0, 0.0]);
    let constant = rms_norm(&[2.0f32; 4], &[1.0; 4], 5.0).values;
    assert!(constant.iter().all(|y| (y - 2.0 / 3.0).abs() < 1e-15), "{constant:?}");
}

#[test]
fn rms_norm_bounds_hold_for_plain_f32() {
    let mut random = Random::new(2);
    for width in WIDTHS {
        for magnitude in MAGNITUDES {
            let (x, gain) = (random.normals(2 * width, magnitude), random.bf16_normals(width, 1.0));
            let expected = rms_norm(&x, &gain, 1e-5);
            let plain = |eps: f32, gain_shift: usize| -> Vec<f32> {
                x.chunks_exact(width)
                    .flat_map(|row| {
                        let scale = 1.0 / (dot(row, row) / width as f32 + eps).sqrt();
                        let gain = &gain;
                        row.iter().enumerate().map(move |(i, x)| x * scale * gain[(i + gain_shift) % width])
                    })
                    .collect()
            };
            accept("rms_norm", &format!("width {width}, magnitude {magnitude}"), &plain(1e-5, 0), &expected);
            if magnitude == 1.0 {
                reject("another epsilon", &plain(1e-2, 0), &expected);
            }
            if width > 1 {
                reject("a shifted gain", &plain(1e-5, 1), &expected);
            }
        }
    }
}

#[test]
fn swiglu_bounds_hold_for_plain_f32() {
    let by_hand = swiglu(&[0.0f32, 1.0, 5.0, 2.0], 2).values;
    assert_eq!(by_hand, [0.0, 2.0 / (1.0 + (-1f64).exp())]);
    let mut random = Random::new(3);
    let width = 257;
    for magnitude in [1e-30, 1e-3, 1.0, 8.0, 60.0] {
        let x = random.normals(3 * 2 * width, magnitude);
        let expected = swiglu(&x, width);
        let plain = |silu: fn(f32) -> f32, up_shift: usize| -> Vec<f32> {
            x.chunks_exact(2 * width)
                .flat_map(|row| (0..width).map(move |i| silu(row[i]) * row[width + (i + up_shift) % width]))
                .collect()
        };
        let context = format!("magnitude {magnitude}");
        accept("swiglu", &context, &plain(|x| x / (1.0 + (-x).exp()), 0), &expected);
        accept(
            "swiglu",
            &context,
            &plain(|x| if x < 0.0 { x * x.exp() / (1.0 + x.exp()) } else { x / (1.0 + (-x).exp()) }, 0),
            &expected,
        );
        if magnitude > 1e-20 {
            reject("another row's up", &plain(|x| x / (1.0 + (-x).exp()), 1), &expected);
            reject("no sigmoid", &plain(|x| x, 0), &expected);
        }
    }
}

#[test]
fn rotary_table_by_hand() {
    let plain = rotary_table(100.0, &RopeScaling::None, &[], 4, 3);
    assert_eq!(plain.cos, [1.0, 1.0, 1f64.cos(), 0.1f64.cos(), 2f64.cos(), 0.2f64.cos()]);
    assert_eq!(plain.sin[2..], [1f64.sin(), 0.1f64.sin(), 2f64.sin(), 0.2f64.sin()]);
    let linear = rotary_table(100.0, &RopeScaling::Linear { factor: 2.0 }, &[], 4, 2);
    assert_eq!(linear.sin[2..], [0.5f64.sin(), 0.05f64.sin()]);
    let factors = rotary_table(100.0, &RopeScaling::Factors, &[1.0, 4.0], 4, 2);
    assert_eq!(factors.sin[2..], [1f64.sin(), 0.025f64.sin()]);
}

/// Llama 3.1's own figures, against Hugging Face's formula spelt with wavelengths.
#[test]
fn llama3_scaling_keeps_blends_and_divides() {
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
    let table = rotary_table(500_000.0, &scaling, &[], 128, 2);
    let mut regions = [0; 3];
    for i in 0..64 {
        let frequency = 500_000f64.powf(-(i as f64) / 64.0);
        let wavelength = std::f64::consts::TAU / frequency;
        let (region, expected) = if wavelength < 8192.0 / 4.0 {
            (0, frequency)
        } else if wavelength > 8192.0 {
            (2, frequency / 8.0)
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
            (1, (1.0 - smooth) * frequency / 8.0 + smooth * frequency)
        };
        regions[region] += 1;
        assert!((table.sin[64 + i] - expected.sin()).abs() < 1e-14, "frequency {i}");
    }
    assert!(regions.iter().all(|&frequencies| frequencies > 0), "{regions:?}");
}

#[test]
fn rope_pairs_halves_and_keeps_lengths() {
    let (cos, sin) = ([1.0f32, 1.0, 0.6, 0.0], [0.0f32, 0.0, 0.8, 1.0]);
    let y = rope(&[1.0f32, 2.0, 3.0, 4.0], 1, 4, &[1], (&cos, &sin), None).values;
    let (c, s) = (f64::from(0.6f32), f64::from(0.8f32));
    assert_eq!(y, [c - 3.0 * s, -4.0, 3.0 * c + s, 2.0]);
    assert_eq!(rope(&[1.0f32, 2.0, 3.0, 4.0], 1, 4, &[0], (&cos, &sin), None).values, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn rope_bounds_hold_for_plain_f32() {
    let mut random = Random::new(4);
    let (heads, positions) = (3, [0u32, 5, 6, 40]);
    for head_dim in [32, 64, 80, 128, 256] {
        let half = head_dim / 2;
        let table = rotary_table(1e4, &RopeScaling::None, &[], head_dim, 41);
        let (cos, sin) = (narrowed(&table.cos), narrowed(&table.sin));
        let (x, gain) = (random.normals(positions.len() * heads * head_dim, 3.0), random.bf16_normals(head_dim, 1.0));
        for norm in [None, Some((gain.as_slice(), 1e-6f32))] {
            let expected = rope(&x, heads, head_dim, &positions, (&cos, &sin), norm);
            let plain = |position_shift: usize, pair_step: usize| -> Vec<f32> {
                let mut y = vec![f32::NAN; x.len()];
                for (index, head) in x.chunks_exact(head_dim).enumerate() {
                    let scale = norm.map_or(1.0, |(_, eps)| 1.0 / (dot(head, head) / head_dim as f32 + eps).sqrt());
                    let input = |i: usize| head[i] * scale * norm.map_or(1.0, |(gain, _)| gain[i]);
                    let row = (positions[index / heads] as usize + position_shift) % 41 * half;
                    for i in 0..half {
                        let (low, high) = if pair_step == 1 { (2 * i, 2 * i + 1) } else { (i, i + half) };
                        let (cos, sin) = (cos[row + i], sin[row + i]);
                        y[index * head_dim + low] = input(low) * cos - input(high) * sin;
                        y[index * head_dim + high] = input(high) * cos + input(low) * sin;
                    }
                }
                y
            };
            accept("rope", &format!("head_dim {head_dim}, norm {}", norm.is_some()), &plain(0, half), &expected);
            reject("positions one too far", &plain(1, half), &expected);
            reject("neighbours paired", &plain(0, 1), &expected);
        }
    }
}

/// Online softmax in f32, over the keys `first..=start + row + extra`.
fn plain_attention(
    shape: AttentionShape,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    first: usize,
    extra: usize,
) -> Vec<f32> {
    let AttentionShape { rows, heads, kv_heads, head_dim, positions, start, key_tile } = shape;
    let mut y = Vec::new();
    for row in 0..rows {
        for head in 0..heads {
            let query = &q[(row * heads + head) * head_dim..][..head_dim];
            let cache = head / (heads / kv_heads) * positions;
            let row_of = |array: &'_ [f32], key: usize| array[(cache + key) * head_dim..][..head_dim].to_vec();
            let seen: Vec<usize> = (first..=start + row + extra).collect();
            let (mut maximum, mut total, mut sum) = (-1e30f32, 0f32, vec![0f32; head_dim]);
            for tile in seen.chunks(key_tile) {
                let scores: Vec<f32> =
                    tile.iter().map(|&key| dot(query, &row_of(keys, key)) * (1.0 / (head_dim as f32).sqrt())).collect();
                let raised = scores.iter().copied().fold(maximum, f32::max);
                let rescale = (maximum - raised).exp();
                maximum = raised;
                total *= rescale;
                sum.iter_mut().for_each(|sum| *sum *= rescale);
                for (&key, score) in tile.iter().zip(scores) {
                    let weight = (score - maximum).exp();
                    total += weight;
                    sum.iter_mut().zip(row_of(values, key)).for_each(|(sum, value)| *sum += weight * value);
                }
            }
            y.extend(sum.iter().map(|sum| sum / total));
        }
    }
    y
}

#[test]
fn attention_by_hand() {
    // One key: its value. Two equal keys: the mean. The cache's spare position holds NaN and is never read.
    let shape = AttentionShape { rows: 2, heads: 2, kv_heads: 1, head_dim: 1, positions: 3, start: 0, key_tile: 1 };
    let y = attention(shape, &[1.0f32, 2.0, 3.0, 4.0], &[0.5f32, 0.5, f32::NAN], &[10.0, 20.0, f32::NAN]);
    assert_eq!(y.values, [10.0, 10.0, 15.0, 15.0]);
    // Scores 0 and ln 3 after the scale of 1/√4.
    let shape = AttentionShape { rows: 1, heads: 1, kv_heads: 1, head_dim: 4, positions: 2, start: 1, key_tile: 1 };
    let keys = [0.0, 0.0, 0.0, 0.0, 2.0 * 3f64.ln(), 0.0, 0.0, 0.0];
    let y = attention(shape, &[1.0f64, 0.0, 0.0, 0.0], &keys, &[4.0, 0.0, 0.0, 1.0, 8.0, 0.0, 0.0, 1.0]).values;
    assert!((y[0] - 7.0).abs() < 1e-14 && y[1] == 0.0 && (y[3] - 1.0).abs() < 1e-15, "{y:?}");
    // A window of one key is the row's own value, one of two the mean of the last two, one of all is none.
    let shape = AttentionShape { rows: 3, heads: 1, kv_heads: 1, head_dim: 1, positions: 3, start: 0, key_tile: 1 };
    for (window, expected) in [(1, [3.0, 6.0, 12.0]), (2, [3.0, 4.5, 9.0]), (3, [3.0, 4.5, 7.0]), (9, [3.0, 4.5, 7.0])]
    {
        let y = windowed_attention(shape, Some(window), &[1.0f32; 3], &[0.0f32; 3], &[3.0, 6.0, 12.0]).values;
        assert!(y.iter().zip(expected).all(|(y, expected)| (y - expected).abs() < 1e-14), "{window}: {y:?}");
    }
}

#[test]
fn attention_bounds_hold_for_plain_f32() {
    let mut random = Random::new(5);
    for (heads, kv_heads, head_dim) in [(1, 1, 32), (3, 1, 64), (4, 2, 80), (4, 4, 256)] {
        for (rows, start) in [(1, 0), (2, 0), (1, 1), (5, 62), (13, 200), (2, 1000)] {
            for (key_tile, sharpness) in [(1, 1.0), (32, 1.0), (64, 30.0)] {
                let positions = start + rows + 2;
                let shape = AttentionShape { rows, heads, kv_heads, head_dim, positions, start, key_tile };
                let q = random.normals(rows * heads * head_dim, sharpness);
                let keys = half_rounded(&random.normals(kv_heads * positions * head_dim, 1.0));
                let values = half_rounded(&random.normals(kv_heads * positions * head_dim, 1.0));
                let expected = attention(shape, &q, &keys, &values);
                let context = format!("{shape:?}, sharpness {sharpness}");
                accept("attention", &context, &plain_attention(shape, &q, &keys, &values, 0, 0), &expected);
                // With a rescaling for every key the bound cannot tell one key of a thousand.
                if sharpness == 1.0 && key_tile > 1 {
                    reject("a key too many", &plain_attention(shape, &q, &keys, &values, 0, 1), &expected);
                    if start > 0 {
                        reject("the first key left out", &plain_attention(shape, &q, &keys, &values, 1, 0), &expected);
                        let double = narrowed(&q.iter().map(|&q| 2.0 * f64::from(q)).collect::<Vec<_>>());
                        reject("another scale", &plain_attention(shape, &double, &keys, &values, 0, 0), &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_16_bit_cache_moves_attention_by_about_its_precision() {
    let mut random = Random::new(6);
    let shape = AttentionShape { rows: 3, heads: 2, kv_heads: 1, head_dim: 64, positions: 50, start: 47, key_tile: 32 };
    let q = random.normals(3 * 2 * 64, 1.0);
    let (keys, values) = (random.normals(50 * 64, 1.0), random.normals(50 * 64, 1.0));
    let exact = narrowed(&attention(shape, &q, &keys, &values).values);
    let rounded = narrowed(&attention(shape, &q, &half_rounded(&keys), &half_rounded(&values)).values);
    let error = crate::comparison::relative_error(&rounded, &exact);
    assert!((1e-5..2e-3).contains(&error), "{error:e}");
    assert_eq!(half_rounded(&[1.0, 65504.0, 1.0 + 2f32.powi(-12)]), [1.0, 65504.0, 1.0]);
}

#[test]
fn argmax_takes_the_lowest_of_equals() {
    assert_eq!(argmax(&[1.0f32, 3.0, 3.0, 2.0, -5.0, -5.0, -7.0, -5.0], 4), [1, 0]);
    assert_eq!(argmax(&[0.0f32, -0.0], 2), [0]);
    assert_eq!(argmax(&[f32::NEG_INFINITY, -1e30], 2), [1]);
}
