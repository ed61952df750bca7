//! `quantise_rows` on the device, and products by what it makes of rows.

use pard_engine::gpu::{Plan, QuantisedProducts};
use pard_engine::ops::{Finish, MOST_ROWS, QuantiseRows, Role};

use super::matmul::GPU_PLANS;
use super::quantised::{Blocks, product, quantised};
use super::{compare, input, submit};
use crate::oracle::matmul::matmul;
use crate::support::gpu::device;
use crate::support::random::Random;

/// Values that share a step.
pub const BLOCK: usize = 32;

/// The largest integer of a value of so many bytes.
pub fn steps(planes: u32) -> f64 {
    if planes == 2 { 127.0 * 256.0 + 127.0 } else { 127.0 }
}

/// A block of a row as the device has it.
struct Rounded {
    integers: Vec<i64>,
    step: f32,
    sums: [i64; 2],
    total: f32,
}

/// The device's blocks of `x`, `[rows, width]`, row by row.
fn rounded(planes: u32, x: &[f32], width: usize) -> Vec<Rounded> {
    let rows = x.len() / width;
    let tensor = input(device(), width, x);
    let op = QuantiseRows::new(device(), planes, &tensor).expect("rows that fit");
    submit(device(), |pass| op.encode(pass, rows));
    let words: Vec<u32> = op.rows().read(device(), 0, (op.rows().bytes() / 4) as usize).expect("reading back");
    let block_words = 4 * (2 * planes as usize + 1);
    let block = |row: usize, block: usize| {
        let words = &words[(block * MOST_ROWS + row) * block_words..][..block_words];
        // Byte j of word 2p + e of a plane is that of value 8p + 2j + e.
        let byte = |plane: usize, value: usize| {
            let (piece, within) = (value / 8, value % 8);
            let word = words[8 * plane + 2 * piece + within % 2];
            i64::from((word >> (8 * (within / 2))) as u8 as i8)
        };
        let integer = |value| match planes {
            2 => 256 * byte(0, value) + byte(1, value),
            _ => byte(0, value),
        };
        let rest = &words[8 * planes as usize..];
        Rounded {
            integers: (0..BLOCK).map(integer).collect(),
            step: f32::from_bits(rest[0]),
            sums: [rest[1], rest[2]].map(|sum| i64::from(sum as i32)),
            total: f32::from_bits(rest[3]),
        }
    };
    (0..rows).flat_map(|row| (0..width / BLOCK).map(move |at| (row, at))).map(|(row, at)| block(row, at)).collect()
}

#[test]
fn rounded_values_are_half_a_step_off_at_most() {
    let mut random = Random::new(171);
    for planes in [1, 2] {
        for (width, rows, magnitude) in [(32, 1, 1.0), (96, 5, 1e-20), (576, 32, 1e30), (1024, 3, 1.0)] {
            let mut x = random.normals(rows * width, magnitude);
            // A block of zeros, one of values that count for nothing, and one with a single large value.
            x[..BLOCK].fill(0.0);
            if rows > 1 {
                x[width..width + BLOCK].fill(1e-35);
                x[width + BLOCK] = 1e4 * magnitude;
            }
            for (block, (values, rounded)) in x.chunks(BLOCK).zip(rounded(planes, &x, width)).enumerate() {
                let context = format!("{planes} planes, [{rows}, {width}], block {block}");
                let largest = values.iter().fold(0.0, |most, value| f64::from(value.abs()).max(most));
                for (value, integer) in values.iter().zip(&rounded.integers) {
                    let off = (f64::from(*value) - *integer as f64 * f64::from(rounded.step)).abs();
                    // Half a step, and what the step and the quotient lose in f32.
                    let bound = largest * (0.5 / steps(planes) + 2f64.powi(-21)) + 1e-30;
                    assert!(off <= bound, "{context}: {value} is {off} off");
                }
                let sum = |range: std::ops::Range<usize>| rounded.integers[range].iter().sum::<i64>();
                assert_eq!(rounded.sums, [sum(0..16), sum(16..32)], "{context}");
                let total = sum(0..32) as f64 * f64::from(rounded.step);
                assert!((total - f64::from(rounded.total)).abs() <= total.abs() * 2f64.powi(-22), "{context}");
            }
        }
    }
}

/// What the kernel makes of rounded rows: only the sums of whole blocks round.
#[test]
fn products_of_rounded_rows_agree_with_f64() {
    let mut random = Random::new(172);
    for (index, format) in quantised().enumerate() {
        for planes in [1, 2] {
            let plan = Plan {
                quantised: QuantisedProducts::Integer { planes },
                ..[device().default_plan(), GPU_PLANS[0], GPU_PLANS[1]][(index + planes as usize) % 3]
            };
            let columns = if format.block_len() == 256 { [256, 768] } else { [96, 576] }[index % 2];
            let (outputs, rows) = (83, [1, 13, 32][index % 3]);
            let blocks = Blocks::new(format, outputs, columns, &mut random);
            let x = random.normals(rows * columns, 1.0);
            let integers = rounded(planes, &x, columns);
            let near: Vec<f64> = integers
                .iter()
                .flat_map(|block| block.integers.iter().map(|&integer| integer as f64 * f64::from(block.step)))
                .collect();
            let mut expected = matmul(&near, &blocks.values, columns, None, None);
            add_minima(&mut expected.bound, &x, &blocks);
            let matrix = blocks.upload(device(), &plan);
            let actual = product(device(), &plan, &matrix, Finish::Store, Role::Round, &x);
            compare(device(), "matmul_integer", &format!("{rows} rows, {format:?}, {plan}"), &actual, &expected);
        }
    }
}

/// Adds to the bounds of a product of `x` what may be lost where a format's scaled integers and its minima are summed by
/// themselves and nearly cancel: each is at most 4 times the largest weight of a block of these, whose integers take most
/// values there are.
pub fn add_minima(bounds: &mut [f64], x: &[f32], blocks: &Blocks) {
    let columns = blocks.columns;
    let roundings = (4 * columns / BLOCK + 64) as f64 * 2f64.powi(-24);
    each_block(bounds, x, blocks, |x, weights| {
        let largest = weights.iter().fold(0.0, |most, weight| f64::from(weight.abs()).max(most));
        let sizes: f64 = x.iter().map(|value| f64::from(value.abs())).sum();
        roundings * 4.0 * largest * sizes
    });
    assert!(columns.is_multiple_of(BLOCK));
}

/// Adds to the bounds of a product of `x` what rounding it to integers of `planes` bytes may lose.
pub fn add_rounding(bounds: &mut [f64], planes: u32, x: &[f32], blocks: &Blocks) {
    each_block(bounds, x, blocks, |x, weights| {
        let largest = x.iter().fold(0.0, |most, value| f64::from(value.abs()).max(most));
        let sizes: f64 = weights.iter().map(|weight| f64::from(weight.abs())).sum();
        largest * (0.5 / steps(planes) + 2f64.powi(-21)) * sizes
    });
}

/// Adds `loss` of each pair of blocks of a row of `x` and a row of weights to the bound of their product.
fn each_block(bounds: &mut [f64], x: &[f32], blocks: &Blocks, loss: impl Fn(&[f32], &[f32]) -> f64) {
    let columns = blocks.columns;
    let pairs = x.chunks(columns).flat_map(|x| blocks.values.chunks(columns).map(move |weights| (x, weights)));
    for (bound, (x, weights)) in bounds.iter_mut().zip(pairs) {
        *bound += x.chunks(BLOCK).zip(weights.chunks(BLOCK)).map(|(x, weights)| loss(x, weights)).sum::<f64>();
    }
}
