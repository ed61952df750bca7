//! `quantise_rows` on the device.

use pard_engine::gpu::Device;
use pard_engine::ops::{MOST_ROWS, QuantiseRows, Tensor};

use super::{input, poison, submit};
use crate::oracle::quantise_rows::{Rest, error, largest, unpack};
use crate::support::gpu::device;
use crate::support::random::Random;

/// The integers of the first `rows` rows of `x`, row by row, padding included.
pub fn run(device: &Device, x: &Tensor, planes: u32, rows: usize) -> Vec<Vec<u32>> {
    let op = QuantiseRows::new(device, x, planes).expect("shapes that fit");
    let buffer = QuantiseRows::rows_of(device, x).expect("a small buffer");
    poison(device, buffer);
    submit(device, |pass| op.encode(pass, rows));
    let block = 4 * (2 * planes as usize + 1);
    let blocks = x.width.div_ceil(64) * 2;
    let words: Vec<u32> = buffer.read(device, 0, blocks * MOST_ROWS * block).expect("words");
    let of_row = |row: usize| words.chunks(block).skip(row).step_by(MOST_ROWS).flatten().copied().collect();
    (0..rows).map(of_row).collect()
}

/// Rows whose blocks are unlike each other: of all magnitudes, one value far above the others, zeros, one value alone.
fn rows(random: &mut Random, rows: usize, width: usize) -> Vec<f32> {
    let mut values = random.normals(rows * width, 1.0);
    for (index, block) in values.chunks_mut(32).enumerate() {
        match index % 7 {
            0 => block.iter_mut().for_each(|value| *value *= 1e20),
            1 => block.iter_mut().for_each(|value| *value *= 1e-20),
            2 => block[index % 32] = 3e4,
            3 => block.fill(0.0),
            4 => block.iter_mut().skip(1).for_each(|value| *value = 0.0),
            5 => block.fill(-2.5),
            _ => {}
        }
    }
    values
}

#[test]
fn values_are_within_the_bound_and_sums_are_theirs() {
    let mut random = Random::new(161);
    for (planes, width) in [(2, 32), (1, 32), (2, 96), (1, 576), (2, 576), (2, 4096)] {
        for count in [1, 5, MOST_ROWS] {
            let values = rows(&mut random, count, width);
            let x = input(device(), width, &values);
            let mut worst = 0.0f64;
            for (row, words) in run(device(), &x, planes, count).iter().enumerate() {
                let exact = &values[row * width..][..width];
                let (found, rest) = unpack(words, planes as usize);
                for (index, (&found, &exact)) in found.iter().zip(exact).enumerate() {
                    let most = largest(exact_block(&values[row * width..][..width], index))[0];
                    let off = (found - f64::from(exact)).abs();
                    assert!(off <= error(planes) * most, "{planes} bytes, row {row}, {index}: {found} for {exact}");
                    worst = worst.max(if most > 0.0 { off / most } else { 0.0 });
                }
                for (index, (block, Rest { size, sums, total })) in found.chunks(32).zip(rest).enumerate() {
                    let steps = |some: &[f64]| match size {
                        0.0 => 0,
                        _ => some.iter().map(|value| (value / f64::from(size)).round() as i32).sum::<i32>(),
                    };
                    assert_eq!(sums, [steps(&block[..16]), steps(&block[16..])], "{planes} bytes, block {index}");
                    let expected = f64::from(sums[0] + sums[1]) * f64::from(size);
                    assert!((f64::from(total) - expected).abs() <= 2e-7 * expected.abs(), "{total} for {expected}");
                }
                // Past the row there is nothing to add.
                assert!(found[width..].iter().all(|value| *value == 0.0), "{planes} bytes, width {width}");
            }
            // Half a step is reached, or the bound says nothing.
            assert!(count < 5 || worst > error(planes) / 2.0, "{planes} bytes: {worst}");
        }
    }
}

fn exact_block(row: &[f32], index: usize) -> &[f32] {
    &row[index / 32 * 32..][..32]
}

#[test]
fn values_too_small_to_divide_by_are_zeros() {
    let x = input(device(), 64, &[1e-32; 64]);
    let (found, rest) = unpack(&run(device(), &x, 2, 1)[0], 2);
    assert!(found.iter().all(|value| *value == 0.0) && rest.iter().all(|rest| rest.size == 0.0), "{found:?}");
}
