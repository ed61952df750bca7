//! `rms_norm_gradient`, `rms_norm_gain_gradient` and `rms_norm_gain_merge` on the device.

use pard::low_level::ops::gradients::RmsNormGradient;
use pard::low_level::ops::{RowRange, Step, Tensor};

use super::finite_differences;
use crate::ops::{compare, input, read, step, submit};
use crate::oracle::gradients::rms_norm::rms_norm_gradient;
use crate::oracle::rms_norm::rms_norm;
use crate::support::gpu::device;
use crate::support::random::Random;

/// A tensor of just `values`: what is added to must not be poison.
fn exact(width: usize, values: &[f32]) -> Tensor {
    let tensor = Tensor::new(device(), "rows", values.len() / width, width).expect("a small tensor");
    tensor.buffer.write(device(), 0, values);
    tensor
}

/// Checks both gradients of `rows` rows; with `first_output`, of those from there on.
fn check(random: &mut Random, [rows, width]: [usize; 2], magnitude: f32, first_output: Option<usize>) {
    let first = first_output.unwrap_or(0);
    let outputs = rows - first;
    let (x, gain) = (random.normals(rows * width, magnitude), random.normals(width, 1.0));
    let (dx, dgain) = (random.normals(rows * width, 0.5), random.normals(width, 0.5));
    let dy = random.normals(outputs * width, 2.0);
    let values = Step { rows: rows as u32, first_output: first as u32, outputs: outputs as u32, ..Step::default() };
    let step = step(device(), values);
    let row_set = if first_output.is_some() { RowRange::Outputs } else { RowRange::All };
    let (x_rows, dy_rows) = (input(device(), width, &x), input(device(), width, &dy));
    let gain_row = exact(width, &gain);
    // Room for as many rows as x has; poison in those that nobody may touch.
    let dx_rows = crate::ops::output(device(), rows, width);
    dx_rows.buffer.write(device(), 0, &dx);
    let dgain_row = exact(width, &dgain);
    let op = RmsNormGradient::new(device(), &step, &x_rows, &gain_row, 1e-6, [&dy_rows, &dx_rows], &dgain_row, row_set)
        .expect("shapes that fit");
    submit(device(), |pass| op.encode(pass, outputs));
    let skip = first * width;
    let [of_input, of_gain] = rms_norm_gradient(&x[skip..], &gain, 1e-6, &dy, &dx[skip..], &dgain);
    let context = format!("[{rows}, {width}], magnitude {magnitude}, {row_set:?} from {first}");
    let actual = read(device(), "rms_norm_gradient", &dx_rows, rows);
    assert_eq!(actual[..skip], dx[..skip], "rows before the first output, {context}");
    compare(device(), "rms_norm_gradient", &context, &actual[skip..], &of_input);
    let actual: Vec<f32> = dgain_row.buffer.read(device(), 0, width).expect("reading back");
    compare(device(), "rms_norm_gain_gradient", &context, &actual, &of_gain);
}

#[test]
fn rms_norm_gradients_agree_with_f64() {
    let mut random = Random::new(71);
    for width in [4, 8, 24, 40, 72, 136, 252, 256, 260, 576, 1000] {
        for rows in [1, 2, 17, 63, 64, 65, 200] {
            check(&mut random, [rows, width], 1.0, None);
        }
    }
    for magnitude in [1e-6, 1e-3, 1e4, 1e8] {
        check(&mut random, [9, 136], magnitude, None);
    }
}

#[test]
fn rms_norm_gradients_of_output_rows_start_at_the_first_output() {
    let mut random = Random::new(72);
    for (rows, first) in [(1, 0), (5, 0), (5, 4), (32, 19), (100, 99), (170, 41)] {
        check(&mut random, [rows, 136], 1.0, Some(first));
    }
}

#[test]
fn rms_norm_gradients_are_those_of_finite_differences() {
    let mut random = Random::new(73);
    let (rows, width) = (3, 12);
    let (x, gain) = (random.normals(rows * width, 1.0), random.normals(width, 1.0));
    let dy = random.normals(rows * width, 1.0);
    let [of_input, of_gain] = rms_norm_gradient(&x, &gain, 1e-2, &dy, &vec![0.0; rows * width], &vec![0.0; width]);
    let loss = |x: &[f64], gain: &[f32]| -> f64 {
        rms_norm(x, gain, 1e-2).values.iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
    };
    let point: Vec<f64> = x.iter().copied().map(f64::from).collect();
    finite_differences("dx", &point, &of_input.values, 1e-5, |moved| loss(moved, &gain));
    // The gain is f32: the loss is linear in it, so steps may be as wide as f32 can tell.
    for index in 0..width {
        let moved = |offset: f32| {
            let mut gain = gain.clone();
            gain[index] += offset;
            (f64::from(gain[index]), loss(&point, &gain))
        };
        let (high, low) = (moved(1.0), moved(-1.0));
        let difference = (high.1 - low.1) / (high.0 - low.0);
        assert!((difference - of_gain.values[index]).abs() < 1e-9, "dgain [{index}]");
    }
}
