//! `matmul_rows`, `matmul_tile` and `matmul_cooperative` on the device.

use pard::Error;
use pard::low_level::gpu::{CacheFormat, Device, KernelPlan, MatmulPath, QuantisedProducts};
use pard::low_level::ops::{Epilogue, MAX_ROWS, Matmul, Matrix, Phase, RowRange, Source, Step, WeightFormat};

use super::integer::INTEGER_PLANS;
use super::{OUTPUTS, ROW_COUNTS, WIDTHS, compare, input, output, read, row_counts, same_bits, step, submit, vector};
use crate::oracle::Expected;
use crate::oracle::matmul::matmul;
use crate::oracle::swiglu::swiglu;
use crate::support::gpu::{cooperative_plan, device, device_with_binding_limit, sweep};
use crate::support::random::Random;

/// Those of floats.
pub const FORMATS: [WeightFormat; 3] = [WeightFormat::Bf16, WeightFormat::F16, WeightFormat::F32];

/// Plans of the GPU classes, which the software adapter can run as well.
pub const GPU_PLANS: [KernelPlan; 3] = [
    KernelPlan {
        lanes: 32,
        slices: 8,
        key_split: 256,
        cache: CacheFormat::F16,
        products: MatmulPath::Plain,
        quantised: QuantisedProducts::Float,
    },
    KernelPlan {
        lanes: 64,
        slices: 4,
        key_split: 128,
        cache: CacheFormat::F32,
        products: MatmulPath::Plain,
        quantised: QuantisedProducts::Float,
    },
    KernelPlan {
        lanes: 8,
        slices: 4,
        key_split: 64,
        cache: CacheFormat::Q8_0,
        products: MatmulPath::Plain,
        quantised: QuantisedProducts::Float,
    },
];

/// [`Epilogue`] without its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Store,
    Add,
    Bias,
}

/// All of them.
pub const ENDINGS: [Ending; 3] = [Ending::Store, Ending::Add, Ending::Bias];

/// Numbers that `format` holds exactly.
pub fn values_in(format: WeightFormat, random: &mut Random, len: usize, deviation: f32) -> Vec<f32> {
    let rounded = |value: f32| match format {
        WeightFormat::Bf16 => half::bf16::from_f32(value).to_f32(),
        WeightFormat::F16 => half::f16::from_f32(value).to_f32(),
        _ => value,
    };
    random.normals(len, deviation).into_iter().map(rounded).collect()
}

/// Uploads `values`, `[rows, columns]`.
pub fn upload(device: &Device, plan: &KernelPlan, format: WeightFormat, shape: [usize; 2], values: &[f32]) -> Matrix {
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&values[range.start * shape[1]..range.end * shape[1]]);
        Ok(())
    };
    Matrix::upload(device, plan, "weights", format, shape, &source).expect("a small matrix")
}

/// A product ready to run, and what it should give.
pub struct Product<'a> {
    pub device: &'a Device,
    pub plan: KernelPlan,
    pub matrix: Matrix,
    pub values: Vec<f32>,
    pub bias: Vec<f32>,
    pub ending: Ending,
    pub row_set: RowRange,
}

impl<'a> Product<'a> {
    /// Random weights of deviation 1.
    pub fn new(
        device: &'a Device,
        plan: KernelPlan,
        format: WeightFormat,
        [outputs, depth]: [usize; 2],
        ending: Ending,
        random: &mut Random,
    ) -> Self {
        let values = values_in(format, random, outputs * depth, 1.0);
        Self::of(device, plan, format, [outputs, depth], ending, values, random.normals(outputs, 1.0))
    }

    /// Given weights and bias.
    pub fn of(
        device: &'a Device,
        plan: KernelPlan,
        format: WeightFormat,
        shape: [usize; 2],
        ending: Ending,
        values: Vec<f32>,
        bias: Vec<f32>,
    ) -> Self {
        let matrix = upload(device, &plan, format, shape, &values);
        Self { device, plan, matrix, values, bias, ending, row_set: RowRange::All }
    }

    /// The kernel's rows for `x`, `[rows, depth]`; `residual`, `[rows, outputs]`, is there before an `Add`.
    pub fn run(&self, role: Phase, x: &[f32], residual: &[f32]) -> Vec<f32> {
        let (device, outputs, depth) = (self.device, self.matrix.rows(), self.matrix.columns());
        let rows = x.len() / depth;
        // The count that is not meant is another number.
        let step_values = match self.row_set {
            RowRange::All => Step { rows: rows as u32, outputs: rows as u32 + 3, ..Step::default() },
            RowRange::Outputs => Step { rows: 40, first_output: 5, outputs: rows as u32, ..Step::default() },
        };
        let step = step(device, step_values);
        let x = input(device, depth, x);
        let (y, bias) = (output(device, rows, outputs), vector(device, &self.bias));
        let finish = match self.ending {
            Ending::Store => Epilogue::Store,
            Ending::Bias => Epilogue::Bias(&bias),
            Ending::Add => {
                y.buffer.write(device, 0, residual);
                Epilogue::Add
            }
        };
        let op = Matmul::new(device, &self.plan, &step, &self.matrix, [&x, &y], finish, self.row_set)
            .expect("shapes that fit");
        submit(device, |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
        read(device, "matmul", &y, rows)
    }

    /// Compares the kernel with the oracle, for rows of the given magnitude.
    fn agrees(&self, role: Phase, rows: usize, magnitude: f32, random: &mut Random) {
        let (outputs, depth) = (self.matrix.rows(), self.matrix.columns());
        let x = random.normals(rows * depth, magnitude);
        let residual = random.normals(rows * outputs, magnitude);
        self.agrees_for(role, &x, &residual, &format!("magnitude {magnitude}"));
    }

    fn agrees_for(&self, role: Phase, x: &[f32], residual: &[f32], what: &str) {
        let (outputs, depth) = (self.matrix.rows(), self.matrix.columns());
        let bias = (self.ending == Ending::Bias).then_some(self.bias.as_slice());
        let before = (self.ending == Ending::Add).then_some(residual);
        let mut expected = matmul(x, &self.values, depth, bias, before);
        widen(&self.plan, &mut expected.bound);
        let context = format!(
            "{role:?}, {} rows, [{outputs}, {depth}], {:?}, {:?}, {:?}, {}, {what}",
            x.len() / depth,
            self.matrix.formats(),
            self.ending,
            self.row_set,
            self.plan
        );
        compare(self.device, "matmul", &context, &self.run(role, x, residual), &expected);
    }
}

/// Widens a plain product's bounds to those of `plan`'s.
pub fn widen(plan: &KernelPlan, bounds: &mut [f64]) {
    if plan.products != MatmulPath::Plain {
        // Each term is up to three products, all of them added up; what two halves of f16 leave out of a value, 2^-22 of
        // it, is less than the roundings of the shortest sum, of 8 terms.
        bounds.iter_mut().for_each(|bound| *bound *= 3.0);
    }
}

/// Gates and ups, multiplied and then joined by SwiGLU.
pub struct GateUp {
    plan: KernelPlan,
    weights: Matrix,
    values: Vec<f32>,
}

impl GateUp {
    /// Random weights for `outputs` outputs.
    pub fn new(plan: KernelPlan, format: WeightFormat, [outputs, depth]: [usize; 2], random: &mut Random) -> Self {
        let values = values_in(format, random, 2 * outputs * depth, 0.3);
        let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&values[range.start * depth..range.end * depth]);
            Ok(())
        };
        let weights = Matrix::of_pair(device(), &plan, "weights", format, [outputs, depth], Source::Values(&source));
        let weights = weights.expect("a small matrix");
        assert_eq!((weights.outputs(), weights.rows()), (outputs, 2 * outputs));
        Self { plan, weights, values }
    }

    /// The kernel's rows for `x`, `[rows, depth]`.
    pub fn run(&self, role: Phase, x: &[f32]) -> Vec<f32> {
        let (outputs, depth) = (self.weights.outputs(), self.weights.columns());
        let rows = x.len() / depth;
        let (input, y) = (input(device(), depth, x), output(device(), rows, outputs));
        let step = step(device(), Step { rows: rows as u32, ..Step::default() });
        let op = Matmul::new(device(), &self.plan, &step, &self.weights, [&input, &y], Epilogue::Swiglu, RowRange::All)
            .expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
        read(device(), "swiglu", &y, rows)
    }

    /// Compares the kernel with the oracle.
    fn agrees(&self, role: Phase, rows: usize, random: &mut Random) {
        let (outputs, depth) = (self.weights.outputs(), self.weights.columns());
        let x = random.normals(rows * depth, 1.0);
        let mut products = matmul(&x, &self.values, depth, None, None);
        widen(&self.plan, &mut products.bound);
        let expected = swiglu_of(&products, outputs);
        let (format, plan) = (self.weights.formats(), self.plan);
        let context = format!("{role:?}, {rows} rows, [{outputs}, {depth}], {format:?}, {plan}");
        compare(device(), "swiglu", &context, &self.run(role, &x), &expected);
    }
}

/// SwiGLU of rows of products, gates and then ups, `outputs` each. The products' errors reach the result through silu's slope,
/// 1.1 at most, and through the product with the other.
pub fn swiglu_of(products: &Expected, outputs: usize) -> Expected {
    let mut expected = swiglu(&products.values, outputs);
    for (row, bounds) in expected.bound.chunks_mut(outputs).enumerate() {
        for (out, bound) in bounds.iter_mut().enumerate() {
            let [gate, up] = [0, outputs].map(|half| row * 2 * outputs + half + out);
            let [gate_error, up_error] = [gate, up].map(|at| products.bound[at]);
            let [gate, up] = [gate, up].map(|at| products.values[at].abs());
            *bound += 1.1 * gate_error * (up + up_error) + gate * up_error;
        }
    }
    expected
}

/// Every shape with some of the variants, turning; in a sweep with all of them.
fn every_case(mut case: impl FnMut([usize; 2], WeightFormat, Ending, usize)) {
    let shapes = OUTPUTS.iter().flat_map(|&outputs| WIDTHS.map(|depth| [outputs, depth]));
    for (index, shape) in shapes.enumerate() {
        if sweep() {
            for format in FORMATS {
                ENDINGS.iter().for_each(|&ending| case(shape, format, ending, index));
            }
        } else {
            case(shape, FORMATS[index % 3], ENDINGS[index / 3 % 3], index);
        }
    }
}

#[test]
fn rows_agree_with_f64_over_odd_shapes() {
    rows_over_odd_shapes(device().default_plan());
}

fn rows_over_odd_shapes(plan: KernelPlan) {
    let mut random = Random::new(51);
    every_case(|shape, format, ending, index| {
        let product = Product::new(device(), plan, format, shape, ending, &mut random);
        let rows = if sweep() { row_counts() } else { vec![ROW_COUNTS[index % 8]] };
        rows.into_iter().for_each(|rows| product.agrees(Phase::Decode, rows, 1.0, &mut random));
    });
}

#[test]
fn every_row_count_format_and_ending_agrees_with_f64() {
    every_row_count_format_and_ending(device().default_plan());
}

fn every_row_count_format_and_ending(plan: KernelPlan) {
    let mut random = Random::new(52);
    for (index, rows) in row_counts().into_iter().enumerate() {
        for turn in 0..if sweep() { 9 } else { 3 } {
            let (format, ending) = (FORMATS[turn % 3], ENDINGS[(index + turn + turn / 3) % 3]);
            Product::new(device(), plan, format, [65, 136], ending, &mut random).agrees(
                Phase::Decode,
                rows,
                1.0,
                &mut random,
            );
        }
    }
}

#[test]
fn prompts_agree_with_f64_over_odd_shapes() {
    prompts_over_odd_shapes(device().default_plan());
}

fn prompts_over_odd_shapes(plan: KernelPlan) {
    let mut random = Random::new(53);
    every_case(|shape, format, ending, index| {
        let product = Product::new(device(), plan, format, shape, ending, &mut random);
        let all = [1, 7, 15, 16, 17, 31, 33, 70];
        let rows = if sweep() { all.to_vec() } else { vec![all[index % 8], all[(index + 3) % 8]] };
        rows.into_iter().for_each(|rows| product.agrees(Phase::Prefill, rows, 1.0, &mut random));
    });
}

/// Where rows are read as a uniform, these take several windows of it, the last one not full; or it holds none of them.
#[test]
fn more_rows_than_a_uniform_holds_agree_with_f64() {
    let mut random = Random::new(59);
    for (index, depth) in [2048, 4104, 16_392].into_iter().enumerate() {
        let plan = device().default_plan();
        let product = Product::new(device(), plan, FORMATS[index], [41, depth], ENDINGS[index], &mut random);
        for (role, rows) in [(Phase::Decode, 13), (Phase::Decode, MAX_ROWS), (Phase::Prefill, 37)] {
            product.agrees(role, rows, 1.0, &mut random);
        }
    }
}

#[test]
fn output_rows_are_counted_by_the_steps_outputs() {
    output_rows(device().default_plan());
}

fn output_rows(plan: KernelPlan) {
    let mut random = Random::new(54);
    for (rows, ending) in [(1, Ending::Store), (5, Ending::Add), (13, Ending::Store), (32, Ending::Bias)] {
        let product = Product::new(device(), plan, WeightFormat::Bf16, [307, 72], ending, &mut random);
        Product { row_set: RowRange::Outputs, ..product }.agrees(Phase::Decode, rows, 1.0, &mut random);
    }
}

/// The host may dispatch for more rows than the device finds that there are.
#[test]
fn turns_past_the_last_row_write_nothing() {
    let mut random = Random::new(58);
    let plans = [device().default_plan(), GPU_PLANS[0], INTEGER_PLANS[0], INTEGER_PLANS[3]];
    for (plan, format) in
        plans.into_iter().zip([WeightFormat::Bf16, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q8_0])
    {
        let product = Product::new(device(), plan, format, [70, 256], Ending::Store, &mut random);
        let step = step(device(), Step { rows: 3, ..Step::default() });
        let (x, y) = (input(device(), 256, &random.normals(MAX_ROWS * 256, 1.0)), output(device(), MAX_ROWS, 70));
        let op = Matmul::new(device(), &plan, &step, &product.matrix, [&x, &y], Epilogue::Store, RowRange::All);
        let op = op.expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, Phase::Decode, MAX_ROWS).expect("a kernel that compiles"));
        read(device(), "matmul", &y, 3);
    }
}

#[test]
fn plans_of_the_gpu_classes_agree_with_f64() {
    let mut random = Random::new(55);
    for (index, plan) in GPU_PLANS.into_iter().enumerate() {
        // Fewer pieces than slices, as many, and no multiple of them.
        for (turn, depth) in [8, 24, 64, 72, 576].into_iter().enumerate() {
            let (format, ending) = (FORMATS[(index + turn) % 3], ENDINGS[turn % 3]);
            let product = Product::new(device(), plan, format, [257, depth], ending, &mut random);
            let rows = if sweep() { row_counts() } else { vec![[1, 2, 13, 5, 32][turn]] };
            rows.into_iter().for_each(|rows| product.agrees(Phase::Decode, rows, 1.0, &mut random));
            product.agrees(Phase::Prefill, 33, 1.0, &mut random);
        }
    }
}

#[test]
fn tiny_large_and_equal_values_agree_with_f64() {
    tiny_large_and_equal_values(device().default_plan());
}

fn tiny_large_and_equal_values(plan: KernelPlan) {
    let mut random = Random::new(56);
    let (shape, rows) = ([33, 136], 3);
    for role in [Phase::Decode, Phase::Prefill] {
        for ending in ENDINGS {
            for (format, weight, magnitude) in [
                (WeightFormat::Bf16, 1e-15, 1e-25),
                (WeightFormat::Bf16, 1e15, 1e15),
                (WeightFormat::Bf16, 1e-3, 1e10),
                (WeightFormat::F16, 1e4, 1e-15),
                (WeightFormat::F32, 1e-30, 1e-5),
                (WeightFormat::F32, 1e18, 1e15),
            ] {
                let values = values_in(format, &mut random, shape[0] * shape[1], weight);
                let bias = random.normals(shape[0], weight * magnitude);
                let product = Product::of(device(), plan, format, shape, ending, values, bias);
                product.agrees(role, rows, magnitude, &mut random);
            }
            for value in [0.0, 1.0, -3.0] {
                let [values, bias] = [shape[0] * shape[1], shape[0]].map(|len| vec![value; len]);
                let product = Product::of(device(), plan, WeightFormat::F16, shape, ending, values, bias);
                let [x, residual] = [rows * shape[1], rows * shape[0]].map(|len| vec![value; len]);
                product.agrees_for(role, &x, &residual, &format!("all {value}"));
                let random_x = random.normals(rows * shape[1], 1.0);
                product.agrees_for(role, &random_x, &residual, &format!("weights all {value}"));
            }
        }
    }
}

#[test]
fn gate_and_up_agree_with_f64() {
    gate_and_up([device().default_plan()].into_iter().chain(GPU_PLANS));
}

fn gate_and_up(plans: impl IntoIterator<Item = KernelPlan>) {
    let mut random = Random::new(61);
    for (turn, (plan, outputs)) in plans.into_iter().zip([65, 136, 31, 257]).enumerate() {
        for (format, depth) in FORMATS.into_iter().zip([72, 136, 8]) {
            let product = GateUp::new(plan, format, [outputs, depth], &mut random);
            for (role, rows) in
                [(Phase::Decode, 1), (Phase::Decode, 2 + turn), (Phase::Decode, 32), (Phase::Prefill, 33)]
            {
                product.agrees(role, rows, &mut random);
            }
        }
    }
}

/// Half-precision weights below 2^-14 are subnormal, and models do have them: no driver may take them for zeros.
#[test]
fn half_precision_subnormals_count() {
    half_precision_subnormals(device().default_plan());
}

fn half_precision_subnormals(plan: KernelPlan) {
    let mut random = Random::new(57);
    let values: Vec<f32> = (1..=16 * 40).map(|bits| half::f16::from_bits(bits).to_f32()).collect();
    let product = Product::of(device(), plan, WeightFormat::F16, [16, 40], Ending::Store, values, vec![]);
    product.agrees(Phase::Decode, 2, 1.0, &mut random);
    product.agrees(Phase::Prefill, 2, 1.0, &mut random);
}

#[test]
fn a_matrix_in_parts_gives_the_same_bits() {
    a_matrix_in_parts(device().default_plan());
}

fn a_matrix_in_parts(plan: KernelPlan) {
    let limited = device_with_binding_limit(50_000);
    let shape = [257, 136];
    for (format, ending) in FORMATS.into_iter().zip(ENDINGS) {
        let product = |device| Product::new(device, plan, format, shape, ending, &mut Random::new(58));
        let (parts, whole) = (product(&limited), product(device()));
        assert!(parts.matrix.bytes() > limited.largest_binding(), "in parts");
        let mut random = Random::new(59);
        for (role, rows) in [(Phase::Decode, 2), (Phase::Decode, 13), (Phase::Prefill, 33)] {
            let (x, residual) = (random.normals(rows * shape[1], 1.0), random.normals(rows * shape[0], 1.0));
            parts.agrees_for(role, &x, &residual, "in parts");
            same_bits("in parts", &parts.run(role, &x, &residual), &whole.run(role, &x, &residual));
        }
    }
}

#[test]
fn a_matrix_whose_smallest_part_is_too_large_is_refused() {
    let limited = device_with_binding_limit(4096);
    let refused = Matrix::upload(&limited, &limited.default_plan(), "wide", WeightFormat::F32, [64, 1000], &|_, _| {
        panic!("nothing may be read")
    });
    assert!(matches!(refused.map(drop), Err(Error::Limit { limit: 4096, .. })));
}

/// A grid holds 65,535 workgroups in x; more are folded into y. One lane makes that many of a small matrix.
#[test]
fn more_workgroups_than_a_grid_is_wide() {
    let plan = KernelPlan { lanes: 1, ..device().default_plan() };
    let mut random = Random::new(60);
    let shape = [4 * 65_535 + 9, 8];
    let product = Product::new(device(), plan, WeightFormat::Bf16, shape, Ending::Store, &mut random);
    product.agrees(Phase::Decode, 2, 1.0, &mut random);
    product.agrees(Phase::Prefill, 2, 1.0, &mut random);
}

#[test]
fn cooperative_products_agree_with_f64() {
    let Some(plan) = cooperative_plan("cooperative products against f64") else { return };
    rows_over_odd_shapes(plan);
    every_row_count_format_and_ending(plan);
    prompts_over_odd_shapes(plan);
    output_rows(plan);
    tiny_large_and_equal_values(plan);
    half_precision_subnormals(plan);
    a_matrix_in_parts(plan);
    rows_of_unlike_magnitudes(plan);
    gate_and_up([8, 32].map(|lanes| KernelPlan { lanes, ..plan }));
    // Weights interleaved as on a GPU.
    let mut random = Random::new(61);
    for (format, ending) in FORMATS.into_iter().zip(ENDINGS) {
        let product = Product::new(device(), KernelPlan { lanes: 32, ..plan }, format, [257, 136], ending, &mut random);
        product.agrees(Phase::Decode, 13, 1.0, &mut random);
        product.agrees(Phase::Prefill, 33, 1.0, &mut random);
    }
}

/// Rows of weights, and rows of x in turn, that differ by a factor of 10^30: each has a scale of its own.
fn rows_of_unlike_magnitudes(plan: KernelPlan) {
    let mut random = Random::new(62);
    let (outputs, depth, rows) = (33, 136, 9);
    let factor = |row: usize| [1e-15f32, 1.0, 1e15][row % 3];
    for (format, ending) in [(WeightFormat::Bf16, Ending::Store), (WeightFormat::F32, Ending::Add)] {
        let mut values = random.normals(outputs * depth, 1.0);
        for (row, values) in values.chunks_mut(depth).enumerate() {
            values.iter_mut().for_each(|value| *value *= factor(row));
        }
        if format == WeightFormat::Bf16 {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        }
        let product = Product::of(device(), plan, format, [outputs, depth], ending, values, vec![]);
        let mut x = random.normals(rows * depth, 1.0);
        for (row, x) in x.chunks_mut(depth).enumerate() {
            x.iter_mut().for_each(|value| *value *= factor(row + 1));
        }
        let residual = random.normals(rows * outputs, 1.0);
        product.agrees_for(Phase::Decode, &x, &residual, "rows of unlike magnitudes");
        product.agrees_for(Phase::Prefill, &x, &residual, "rows of unlike magnitudes");
    }
}

#[test]
fn a_kept_residual_gives_the_bits_of_one_that_is_added_to() {
    let mut random = Random::new(57);
    for (format, role, rows) in [(WeightFormat::Bf16, Phase::Decode, 5), (WeightFormat::F32, Phase::Prefill, 70)] {
        let [outputs, depth] = [65, 136];
        let plan = device().default_plan();
        let product = Product::new(device(), plan, format, [outputs, depth], Ending::Add, &mut random);
        let (x, before) = (random.normals(rows * depth, 1.0), random.normals(rows * outputs, 1.0));
        let added = product.run(role, &x, &before);
        let step = step(device(), Step { rows: rows as u32, ..Step::default() });
        let (x, residual) = (input(device(), depth, &x), input(device(), outputs, &before));
        let y = output(device(), rows, outputs);
        let finish = Epilogue::Residual(&residual);
        let op = Matmul::new(device(), &plan, &step, &product.matrix, [&x, &y], finish, RowRange::All);
        let op = op.expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
        same_bits(&format!("{format:?}, {role:?}"), &read(device(), "matmul", &y, rows), &added);
        assert_eq!(read(device(), "matmul", &residual, residual.rows)[..before.len()], before[..]);
    }
}
