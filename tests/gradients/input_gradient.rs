//! `input_gradient` on the device.

use pard::low_level::gpu::{Device, KernelPlan};
use pard::low_level::ops::gradients::{Accumulate, InputGradient};
use pard::low_level::ops::{Matrix, RowRange, Step, WeightFormat};

use super::{finite_differences, loss, wide};
use crate::ops::matmul::{FORMATS, GPU_PLANS, upload, values_in};
use crate::ops::{OUTPUTS, WIDTHS, compare, input, output, read, same_bits, step, submit};
use crate::oracle::gradients::input_gradient::input_gradient;
use crate::oracle::matmul::matmul;
use crate::support::gpu::{device, device_with_binding_limit};
use crate::support::random::Random;

/// The kernel's rows for `dy`; `before`, if given, is what they are added to.
fn run(device: &Device, matrix: &Matrix, dy: &[f32], before: Option<&[f32]>, row_set: RowRange) -> Vec<f32> {
    let rows = dy.len() / matrix.outputs();
    // The count that is not meant is another number.
    let counts = match row_set {
        RowRange::All => Step { rows: rows as u32, outputs: rows as u32 + 3, ..Step::default() },
        RowRange::Outputs => Step { rows: 40, first_output: 5, outputs: rows as u32, ..Step::default() },
    };
    let step = step(device, counts);
    let (dy, dx) = (input(device, matrix.outputs(), dy), output(device, rows, matrix.columns()));
    let accumulate = match before {
        Some(before) => {
            dx.buffer.write(device, 0, before);
            Accumulate::Add
        }
        None => Accumulate::Store,
    };
    let op = InputGradient::new(device, &step, matrix, [&dy, &dx], accumulate, row_set).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, rows));
    read(device, "input_gradient", &dx, rows)
}

fn agrees(plan: &KernelPlan, format: WeightFormat, shape: [usize; 2], rows: usize, index: usize, random: &mut Random) {
    let [outputs, depth] = shape;
    let weights = values_in(format, random, outputs * depth, 1.0);
    let matrix = upload(device(), plan, format, shape, &weights);
    let (dy, dx) = (random.normals(rows * outputs, 1.0), random.normals(rows * depth, 1.0));
    let before = (index % 2 == 1).then_some(dx.as_slice());
    let row_set = if index % 3 == 1 { RowRange::Outputs } else { RowRange::All };
    let expected = input_gradient(&dy, &weights, depth, before);
    let context = format!("{rows} rows, {shape:?}, {format:?}, added {}, {row_set:?}, {plan}", before.is_some());
    compare(device(), "input_gradient", &context, &run(device(), &matrix, &dy, before, row_set), &expected);
}

#[test]
fn input_gradient_agrees_with_f64_over_odd_shapes() {
    let mut random = Random::new(101);
    let shapes = OUTPUTS.iter().flat_map(|&outputs| WIDTHS.map(|depth| [outputs, depth]));
    for (index, shape) in shapes.enumerate() {
        let rows = [1, 7, 8, 9, 31, 33, 70][index / 3 % 7];
        agrees(&device().default_plan(), FORMATS[index % 3], shape, rows, index, &mut random);
    }
}

#[test]
fn input_gradient_agrees_with_f64_by_plans_of_the_gpu_classes() {
    let mut random = Random::new(102);
    let one_lane = KernelPlan { lanes: 1, ..device().default_plan() };
    for (index, plan) in GPU_PLANS.into_iter().chain([one_lane]).enumerate() {
        for (turn, depth) in [8, 72, 576].into_iter().enumerate() {
            agrees(&plan, FORMATS[(index + turn) % 3], [257, depth], 33, index + turn, &mut random);
        }
    }
}

#[test]
fn input_gradient_of_a_matrix_in_parts_gives_the_same_bits() {
    let limited = device_with_binding_limit(50_000);
    let (plan, shape, rows) = (device().default_plan(), [257, 136], 19);
    let mut random = Random::new(103);
    for format in FORMATS {
        let weights = values_in(format, &mut random, shape[0] * shape[1], 1.0);
        let parts = upload(&limited, &plan, format, shape, &weights);
        assert!(parts.bytes() > limited.largest_binding(), "in parts");
        let whole = upload(device(), &plan, format, shape, &weights);
        let (dy, dx) = (random.normals(rows * shape[0], 1.0), random.normals(rows * shape[1], 1.0));
        for before in [None, Some(dx.as_slice())] {
            let expected = run(device(), &whole, &dy, before, RowRange::All);
            same_bits("in parts", &run(&limited, &parts, &dy, before, RowRange::All), &expected);
        }
    }
}

#[test]
fn a_row_of_an_input_gradient_does_not_depend_on_the_others() {
    let mut random = Random::new(104);
    let (shape, rows) = ([65, 72], 21);
    let weights = random.normals(shape[0] * shape[1], 1.0);
    let matrix = upload(device(), &device().default_plan(), WeightFormat::F32, shape, &weights);
    let dy = random.normals(rows * shape[0], 1.0);
    let together = run(device(), &matrix, &dy, None, RowRange::All);
    for (row, (dy, dx)) in dy.chunks(shape[0]).zip(together.chunks(shape[1])).enumerate() {
        same_bits(&format!("row {row}"), &run(device(), &matrix, dy, None, RowRange::All), dx);
    }
}

#[test]
fn input_gradient_is_the_products() {
    let mut random = Random::new(105);
    let (outputs, depth, rows) = (5, 3, 4);
    let [x, dy] = [depth, outputs].map(|width| random.normals(rows * width, 1.0));
    let weights = random.normals(outputs * depth, 1.0);
    let gradient = input_gradient(&dy, &weights, depth, None);
    finite_differences("input_gradient", &wide(&x), &gradient.values, 1e-5, |x| {
        loss(&matmul(x, &weights, depth, None, None).values, &dy)
    });
}
