//! `quantise_rows` on the device.

use pard::low_level::gpu::{Device, Pass};
use pard::low_level::ops::{MAX_ROWS, QuantiseRows, RmsNorm, RowRange, Step, Tensor};

use super::{input, output, poison, read, submit, vector};
use crate::oracle::quantise_rows::{Rest, error, largest, unpack};
use crate::support::gpu::device;
use crate::support::random::Random;

/// The integers of the first `rows` rows of `x`, row by row, padding included.
pub fn run(device: &Device, x: &Tensor, planes: u32, rows: usize) -> Vec<Vec<u32>> {
    let op = QuantiseRows::new(device, x, planes).expect("shapes that fit");
    written(device, x, planes, rows, |pass| op.encode(pass, rows))
}

/// The integers of the first `rows` rows of `x` that `encode` has written.
fn written(device: &Device, x: &Tensor, planes: u32, rows: usize, encode: impl FnOnce(&mut Pass)) -> Vec<Vec<u32>> {
    let buffer = QuantiseRows::rows_of(device, x).expect("a small buffer");
    poison(device, buffer);
    submit(device, encode);
    let block = 4 * (2 * planes as usize + 1);
    let blocks = x.width.div_ceil(64) * 2;
    let words: Vec<u32> = buffer.read(device, 0, blocks * MAX_ROWS * block).expect("words");
    let of_row = |row: usize| words.chunks(block).skip(row).step_by(MAX_ROWS).flatten().copied().collect();
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
        for count in [1, 5, MAX_ROWS] {
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

#[test]
fn a_normalisation_writes_the_integers_of_its_rows() {
    let mut random = Random::new(162);
    for (planes, width) in [(2, 32), (1, 96), (2, 576), (1, 4096)] {
        for first_output in [None, Some(3)] {
            // More rows than there is room for as integers, as prompts have.
            let (count, outputs) = (70, 70 - first_output.unwrap_or(0));
            let row_set = if first_output.is_some() { RowRange::Outputs } else { RowRange::All };
            let first = first_output.unwrap_or(0) as u32;
            let step = Step { rows: count, first_output: first, outputs: outputs as u32, ..Step::default() };
            let step = super::step(device(), step);
            let x = input(device(), width, &rows(&mut random, count as usize, width));
            let gain = vector(device(), &random.normals(width, 1.0));
            let (plain, y) = (output(device(), outputs, width), output(device(), outputs, width));
            let op = RmsNorm::new(device(), &step, [&x, &plain], &gain, 1e-5, row_set).expect("shapes that fit");
            submit(device(), |pass| op.encode(pass, outputs));
            let op = RmsNorm::quantising(device(), &step, [&x, &y], &gain, 1e-5, row_set, Some(planes));
            let op = op.expect("shapes that fit");
            let found = written(device(), &y, planes, MAX_ROWS, |pass| op.encode(pass, outputs));
            let context = format!("{planes} bytes, width {width}, from {first_output:?}");
            assert_eq!(
                read(device(), "rms_norm", &y, outputs),
                read(device(), "rms_norm", &plain, outputs),
                "{context}"
            );
            assert_eq!(found, run(device(), &plain, planes, MAX_ROWS), "{context}");
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
