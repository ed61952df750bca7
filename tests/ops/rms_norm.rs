//! `rms_norm` on the device.

use pard::low_level::gpu::Device;
use pard::low_level::ops::{RmsNorm, RowRange, Step};

use super::{compare, input, output, read, row_counts, step, submit, vector};
use crate::oracle::rms_norm::rms_norm;
use crate::support::gpu::{device, sweep};
use crate::support::random::Random;

const WIDTHS: [usize; 11] = [4, 8, 24, 40, 72, 136, 252, 256, 260, 576, 1000];

/// The kernel's rows: of all of `x`, or of those from `first_output` on.
pub fn run(device: &Device, x: &[f32], gain: &[f32], epsilon: f32, first_output: Option<usize>) -> Vec<f32> {
    let (width, rows) = (gain.len(), x.len() / gain.len());
    let outputs = rows - first_output.unwrap_or(0);
    let row_set = if first_output.is_some() { RowRange::Outputs } else { RowRange::All };
    let step = step(
        device,
        Step {
            rows: rows as u32,
            first_output: first_output.unwrap_or(rows - 1) as u32,
            outputs: outputs as u32,
            ..Step::default()
        },
    );
    let (x, y) = (input(device, width, x), output(device, outputs, width));
    let op = RmsNorm::new(device, &step, [&x, &y], &vector(device, gain), epsilon, row_set).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, outputs));
    read(device, "rms_norm", &y, outputs)
}

#[test]
fn rms_norm_agrees_with_f64() {
    let mut random = Random::new(31);
    for width in WIDTHS {
        for rows in row_counts().into_iter().chain([100]) {
            let magnitudes: &[f32] = if sweep() { &[1e-15, 1e-3, 1.0, 1e4, 1e10] } else { &[1e-15, 1.0, 1e10] };
            for &magnitude in magnitudes {
                for epsilon in [1e-5, 1e-6] {
                    let (x, gain) = (random.normals(rows * width, magnitude), random.normals(width, 1.0));
                    let context = format!("[{rows}, {width}], magnitude {magnitude}, epsilon {epsilon}");
                    let actual = run(device(), &x, &gain, epsilon, None);
                    compare(device(), "rms_norm", &context, &actual, &rms_norm(&x, &gain, epsilon));
                }
            }
        }
    }
}

#[test]
fn output_rows_start_at_the_first_output() {
    let mut random = Random::new(32);
    let width = 136;
    let gain = random.normals(width, 1.0);
    for (rows, first_output) in [(1, 0), (5, 0), (5, 4), (32, 19), (100, 99), (70, 41)] {
        let x = random.normals(rows * width, 1.0);
        let actual = run(device(), &x, &gain, 1e-5, Some(first_output));
        let expected = rms_norm(&x[first_output * width..], &gain, 1e-5);
        compare(device(), "rms_norm", &format!("outputs {first_output}.. of {rows}"), &actual, &expected);
    }
}

#[test]
fn rms_norm_of_zeros_and_of_equal_values() {
    for width in WIDTHS {
        let gain = Random::new(33).normals(width, 1.0);
        assert!(run(device(), &vec![0.0; 3 * width], &gain, 1e-6, None).iter().all(|&y| y == 0.0), "zeros, {width}");
        for value in [1e-20, -1.0, 3e4] {
            let x = vec![value; 3 * width];
            let actual = run(device(), &x, &gain, 1e-6, None);
            compare(device(), "rms_norm", &format!("all {value}, {width}"), &actual, &rms_norm(&x, &gain, 1e-6));
        }
        // One element that outweighs all others, wherever it stands.
        for at in [0, width / 2, width - 1] {
            let mut x = vec![1e-3; width];
            x[at] = 1e3;
            let actual = run(device(), &x, &gain, 1e-6, None);
            compare(device(), "rms_norm", &format!("a spike at {at} of {width}"), &actual, &rms_norm(&x, &gain, 1e-6));
        }
    }
}
