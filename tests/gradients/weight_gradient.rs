//! `weight_gradient` on the device, and how matrices are written and read back.

use pard::low_level::gpu::{Buffer, Device, KernelPlan};
use pard::low_level::ops::gradients::WeightGradient;
use pard::low_level::ops::{Matrix, Step, WeightFormat};

use super::{finite_differences, loss, wide};
use crate::ops::matmul::{FORMATS, GPU_PLANS, upload, values_in};
use crate::ops::{OUTPUTS, WIDTHS, compare, input, same_bits, step, submit};
use crate::oracle::gradients::weight_gradient::weight_gradient;
use crate::support::gpu::{device, device_with_binding_limit};
use crate::support::random::Random;

/// All words of `buffer`.
fn words(device: &Device, buffer: &Buffer) -> Vec<f32> {
    buffer.read(device, 0, buffer.bytes() as usize / 4).expect("reading back")
}

/// The kernel's sums, `[outputs, columns]`, added to `before`. They are written and read as a matrix of their own, whose
/// padding must stay zero.
fn run(device: &Device, plan: &KernelPlan, matrix: &Matrix, [x, dy]: [&[f32]; 2], before: &[f32]) -> Vec<f32> {
    let (outputs, columns) = (matrix.outputs(), matrix.columns());
    let rows = x.len() / columns;
    let step = step(device, Step { rows: rows as u32, outputs: rows as u32 + 3, ..Step::default() });
    let [x, dy] = [(columns, x), (outputs, dy)].map(|(width, values)| input(device, width, values));
    let gradients = matrix.gradients(device).expect("small gradients");
    let held = upload(device, plan, WeightFormat::F32, [outputs, columns], before);
    let lens = |buffers: &[&Buffer]| buffers.iter().map(|buffer| buffer.bytes()).collect::<Vec<_>>();
    assert_eq!(lens(&held.buffers().collect::<Vec<_>>()), lens(&gradients.iter().collect::<Vec<_>>()));
    for (held, gradient) in held.buffers().zip(&gradients) {
        assert!(words(device, gradient).iter().all(|&value| value == 0.0), "zeros");
        gradient.write(device, 0, &words(device, held));
    }
    let op = WeightGradient::new(device, &step, matrix, [&x, &dy], &gradients).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, rows));
    for (held, gradient) in held.buffers().zip(&gradients) {
        held.write(device, 0, &words(device, gradient));
    }
    let sums = held.read_rows(device).expect("reading back");
    held.write_rows(device, &vec![1.0; outputs * columns]).expect("as many values");
    let others = upload(device, plan, WeightFormat::F32, [outputs, columns], &vec![1.0; outputs * columns]);
    for ((held, gradient), ones) in held.buffers().zip(&gradients).zip(others.buffers()) {
        let ones = words(device, ones);
        assert_eq!(words(device, held), ones, "written anew");
        let padding = words(device, gradient).into_iter().zip(ones).filter(|(_, one)| *one == 0.0);
        assert!(padding.into_iter().all(|(value, _)| value == 0.0), "padding was touched");
    }
    sums
}

fn agrees(plan: &KernelPlan, format: WeightFormat, shape: [usize; 2], rows: usize, random: &mut Random) {
    let [outputs, depth] = shape;
    let matrix = upload(device(), plan, format, shape, &vec![1.0; outputs * depth]);
    let [x, dy, before] = [rows * depth, rows * outputs, outputs * depth].map(|len| random.normals(len, 1.0));
    let context = format!("{rows} rows, {shape:?}, {format:?}, {plan}");
    let actual = run(device(), plan, &matrix, [&x, &dy], &before);
    compare(device(), "weight_gradient", &context, &actual, &weight_gradient(&x, &dy, shape, &before));
}

#[test]
fn weight_gradient_agrees_with_f64_over_odd_shapes() {
    let mut random = Random::new(111);
    let shapes = OUTPUTS.iter().flat_map(|&outputs| WIDTHS.map(|depth| [outputs, depth]));
    for (index, shape) in shapes.enumerate() {
        let rows = [1, 7, 8, 9, 31, 33, 70][index / 3 % 7];
        agrees(&device().default_plan(), FORMATS[index % 3], shape, rows, &mut random);
    }
}

#[test]
fn weight_gradient_agrees_with_f64_by_plans_of_the_gpu_classes() {
    let mut random = Random::new(112);
    let one_lane = KernelPlan { lanes: 1, ..device().default_plan() };
    for plan in GPU_PLANS.into_iter().chain([one_lane]) {
        for depth in [8, 72, 576] {
            agrees(&plan, WeightFormat::F32, [257, depth], 33, &mut random);
        }
    }
}

#[test]
fn weight_gradient_of_a_matrix_in_parts_gives_the_same_bits() {
    let limited = device_with_binding_limit(50_000);
    let (plan, shape, rows) = (device().default_plan(), [257, 136], 19);
    let mut random = Random::new(113);
    let weights = vec![1.0; shape[0] * shape[1]];
    let [x, dy, before] = [rows * shape[1], rows * shape[0], weights.len()].map(|len| random.normals(len, 1.0));
    let [parts, whole] = [&limited, device()].map(|device| {
        let matrix = upload(device, &plan, WeightFormat::F32, shape, &weights);
        assert_eq!(matrix.buffers().count() > 1, device.largest_binding() == 50_000);
        run(device, &plan, &matrix, [&x, &dy], &before)
    });
    same_bits("in parts", &parts, &whole);
}

#[test]
fn matrices_are_read_back_as_they_were_written() {
    let limited = device_with_binding_limit(70_000);
    let mut random = Random::new(114);
    let plans = [device().default_plan()].into_iter().chain(GPU_PLANS);
    for (index, plan) in plans.enumerate() {
        for shape in [[1, 8], [31, 24], [33, 40], [257, 136], [64, 136]] {
            let format = FORMATS[(index + shape[0]) % 3];
            for device in [device(), &limited] {
                let [first, second] = [0, 1].map(|_| values_in(format, &mut random, shape[0] * shape[1], 1.0));
                let matrix = upload(device, &plan, format, shape, &first);
                let context = format!("{shape:?}, {format:?}, {plan}, {} parts", matrix.buffers().count());
                same_bits(&context, &matrix.read_rows(device).expect("reading back"), &first);
                matrix.write_rows(device, &second).expect("as many values");
                same_bits(&context, &matrix.read_rows(device).expect("reading back"), &second);
                assert!(matrix.write_rows(device, &second[1..]).is_err(), "a value is missing");
            }
        }
    }
}

#[test]
fn weight_gradient_is_the_products() {
    let mut random = Random::new(115);
    let (outputs, depth, rows) = (5, 3, 4);
    let [x, dy] = [depth, outputs].map(|width| random.normals(rows * width, 1.0));
    let weights = random.normals(outputs * depth, 1.0);
    let gradient = weight_gradient(&x, &dy, [outputs, depth], &vec![0.0; weights.len()]);
    finite_differences("weight_gradient", &wide(&weights), &gradient.values, 1e-5, |weights| {
        let x = x.chunks(depth);
        let y =
            x.flat_map(|x| weights.chunks(depth).map(move |w| w.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()));
        loss(&y.collect::<Vec<f64>>(), &dy)
    });
}
