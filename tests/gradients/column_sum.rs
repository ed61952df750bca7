//! `column_sum` on the device.

use pard::low_level::ops::Step;
use pard::low_level::ops::gradients::ColumnSum;

use super::{finite_differences, loss, wide};
use crate::ops::{compare, input, step, submit, words};
use crate::oracle::gradients::column_sum::column_sum;
use crate::oracle::matmul::matmul;
use crate::support::gpu::device;
use crate::support::random::Random;

#[test]
fn column_sum_agrees_with_f64() {
    let mut random = Random::new(121);
    for width in [1, 3, 7, 8, 9, 64, 65, 257, 1000] {
        for rows in [1, 2, 7, 8, 9, 33, 100] {
            for magnitude in [1e-30, 1.0, 1e10] {
                let (dy, before) = (random.normals(rows * width, magnitude), random.normals(width, magnitude));
                let step = step(device(), Step { rows: rows as u32, outputs: rows as u32 + 3, ..Step::default() });
                let bits: Vec<u32> = before.iter().map(|value| value.to_bits()).collect();
                let sums = words(device(), width, &bits);
                let op = ColumnSum::new(device(), &step, &input(device(), width, &dy), &sums).expect("shapes that fit");
                submit(device(), |pass| op.encode(pass, rows));
                let actual: Vec<f32> = sums.read(device(), 0, width).expect("reading back");
                let context = format!("[{rows}, {width}], magnitude {magnitude}");
                compare(device(), "column_sum", &context, &actual, &column_sum(&dy, &before));
            }
        }
    }
}

#[test]
fn column_sum_is_the_gradient_of_a_bias() {
    let mut random = Random::new(122);
    let (outputs, depth, rows) = (5, 3, 4);
    let [x, dy] = [depth, outputs].map(|width| random.normals(rows * width, 1.0));
    let (weights, bias) = (random.normals(outputs * depth, 1.0), random.normals(outputs, 1.0));
    let y = matmul(&x, &weights, depth, None, None).values;
    finite_differences("column_sum", &wide(&bias), &column_sum(&dy, &[0.0; 5]).values, 1e-5, |bias| {
        loss(&y.chunks(outputs).flat_map(|y| y.iter().zip(bias).map(|(y, bias)| y + bias)).collect::<Vec<_>>(), &dy)
    });
}
