//! `matmul_integer` on the device: products by quantised weights, of random bits.

use pard::WeightFormat;
use pard::low_level::gpu::{CacheFormat, KernelPlan, MatmulPath, QuantisedProducts};
use pard::low_level::ops::{Epilogue, Matrix, Phase};

use super::quantised::{Blocks, product};
use super::{compare, input, quantise_rows, row_counts};
use crate::oracle::Expected;
use crate::oracle::matmul_integer::matmul_integer;
use crate::oracle::quantise_rows::{error, largest, unpack};
use crate::oracle::swiglu::swiglu;
use crate::support::gpu::{device, sweep};
use crate::support::random::Random;

const fn plan([lanes, slices]: [u32; 2], cache: CacheFormat, planes: u32) -> KernelPlan {
    let quantised = QuantisedProducts::Integer { planes };
    KernelPlan { lanes, slices, key_split: 256, cache, products: MatmulPath::Plain, quantised }
}

/// Plans of the GPU classes, and one of a CPU.
pub const INTEGER_PLANS: [KernelPlan; 4] = [
    plan([32, 8], CacheFormat::F16, 2),
    plan([32, 4], CacheFormat::F16, 1),
    plan([64, 4], CacheFormat::F32, 2),
    plan([8, 1], CacheFormat::Q8_0, 2),
];

/// `x` as the device rounds it, `[rows, columns]`.
fn rounded(plan: &KernelPlan, columns: usize, x: &[f32]) -> Vec<f64> {
    let QuantisedProducts::Integer { planes } = plan.quantised else { panic!("{plan} rounds nothing") };
    let rows = quantise_rows::run(device(), &input(device(), columns, x), planes, x.len() / columns);
    rows.iter().flat_map(|words| unpack(words, planes as usize).0[..columns].to_vec()).collect()
}

/// Adds the error of x's rounding to the bounds: for each block, the maximum error of a value times the weights.
fn widen(plan: &KernelPlan, x: &[f32], weights: &[f32], columns: usize, bounds: &mut [f64]) {
    let QuantisedProducts::Integer { planes } = plan.quantised else { panic!("{plan} rounds nothing") };
    let sizes = |weights: &[f32]| -> Vec<f64> {
        weights.chunks(32).map(|block| block.iter().map(|&weight| f64::from(weight).abs()).sum()).collect()
    };
    let sizes: Vec<Vec<f64>> = weights.chunks(columns).map(sizes).collect();
    for (x, bounds) in x.chunks(columns).zip(bounds.chunks_mut(sizes.len())) {
        let most = largest(x);
        for (bound, sizes) in bounds.iter_mut().zip(&sizes) {
            *bound += error(planes) * most.iter().zip(sizes).map(|(most, size)| most * size).sum::<f64>();
        }
    }
}

/// Compares the product of some rows with that of the rounded rows, and with that of the exact ones.
fn agrees(plan: &KernelPlan, matrix: &Matrix, weights: &[f32], rows: usize, random: &mut Random) {
    let columns = matrix.columns();
    let x = random.normals(rows * columns, 1.0);
    let actual = product(device(), plan, matrix, Epilogue::Store, Phase::Decode, &x);
    let context = format!("{rows} rows, [{}, {columns}], {:?}, {plan}", matrix.outputs(), matrix.formats());
    let of_rounded = matmul_integer(&rounded(plan, columns, &x), weights, columns);
    compare(device(), "matmul_integer", &context, &actual, &of_rounded);
    let exact: Vec<f64> = x.iter().map(|&value| f64::from(value)).collect();
    let mut of_exact = matmul_integer(&exact, weights, columns);
    widen(plan, &x, weights, columns, &mut of_exact.bound);
    compare(device(), "matmul_integer", &format!("{context}, of exact x"), &actual, &of_exact);
}

#[test]
fn integer_products_agree_with_f64() {
    let mut random = Random::new(171);
    for (index, format) in WeightFormat::quantised().enumerate() {
        // An odd number of blocks among them.
        let widths = if format.block_len() == 256 { [256, 768, 512] } else { [32, 96, 576] };
        for (turn, columns) in widths.into_iter().enumerate() {
            for (at, plan) in INTEGER_PLANS.iter().enumerate() {
                if at != (index + turn) % 4 && !sweep() {
                    continue;
                }
                let outputs = [1, 33, 257][(index + turn + at) % 3];
                let blocks = Blocks::new(format, outputs, columns, &mut random);
                let matrix = blocks.upload(device(), plan);
                let rows = if sweep() { row_counts() } else { vec![[1, 13, 32][turn], [8, 2, 17][turn]] };
                rows.into_iter().for_each(|rows| agrees(plan, &matrix, &blocks.values, rows, &mut random));
            }
        }
    }
}

#[test]
fn gates_and_ups_are_joined() {
    let mut random = Random::new(172);
    let (outputs, columns, rows) = (33, 256, 5);
    for (plan, format) in INTEGER_PLANS.iter().zip(WeightFormat::quantised()) {
        let blocks = Blocks::new(format, 2 * outputs, columns, &mut random);
        let x = random.normals(rows * columns, 0.1);
        let matrix = blocks.upload_pair(device(), plan);
        let actual = product(device(), plan, &matrix, Epilogue::Swiglu, Phase::Decode, &x);
        let products = matmul_integer(&rounded(plan, columns, &x), &blocks.values, columns);
        let mut expected: Expected = swiglu(&products.values, outputs);
        for (row, bounds) in expected.bound.chunks_mut(outputs).enumerate() {
            for (out, bound) in bounds.iter_mut().enumerate() {
                let [gate, up] = [0, outputs].map(|half| row * 2 * outputs + half + out);
                let [gate_error, up_error] = [gate, up].map(|at| products.bound[at]);
                let [gate, up] = [gate, up].map(|at| products.values[at].abs());
                *bound += 1.1 * gate_error * (up + up_error) + gate * up_error;
            }
        }
        compare(device(), "swiglu", &format!("{format:?}, {plan}"), &actual, &expected);
    }
}

/// Sums that reach the largest magnitudes that there are do not overflow.
#[test]
fn the_largest_sums_fit() {
    let columns = 256;
    let x: Vec<f32> = vec![32_639.0; columns];
    for format in WeightFormat::quantised() {
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let mut blocks = Blocks::new(format, 8, columns, &mut Random::new(173));
            blocks.fill_numbers(fill);
            let plan = &INTEGER_PLANS[0];
            let matrix = blocks.upload(device(), plan);
            let actual = product(device(), plan, &matrix, Epilogue::Store, Phase::Decode, &x);
            let expected = matmul_integer(&rounded(plan, columns, &x), &blocks.values, columns);
            compare(device(), "matmul_integer", &format!("{format:?} of {fill:#x}"), &actual, &expected);
        }
    }
}
