//! Products by quantised weights, and rows of them: against what their blocks stand for. The blocks are random bits, so
//! that every field takes every value.

use std::ops::Range;

use pard::low_level::gpu::{Device, KernelPlan};
use pard::low_level::ops::{Embedding, Epilogue, Matmul, Matrix, Phase, RowRange, Section, Source, Step, WeightFormat};

use super::matmul::{GPU_PLANS, widen as widen_bounds};
use super::{compare, input, output, read, same_bits, step, submit};
use crate::oracle::blocks::{CASES, Case, case, widen};
use crate::oracle::embedding::embedding;
use crate::oracle::matmul::matmul;
use crate::support::gpu::{cooperative_plan, device, device_with_binding_limit, sweep};
use crate::support::random::Random;

/// Rows of blocks of one format.
pub struct Blocks {
    pub format: WeightFormat,
    pub columns: usize,
    bytes: Vec<u8>,
    /// The values that the blocks represent.
    pub values: Vec<f32>,
}

impl Blocks {
    /// Random bits, with scales of about 2^-5.
    pub fn new(format: WeightFormat, rows: usize, columns: usize, random: &mut Random) -> Blocks {
        let mut bytes: Vec<u8> =
            (0..rows * format.stored_bytes(columns)).map(|_| (random.bits() >> 32) as u8).collect();
        for block in bytes.chunks_exact_mut(format.stored_bytes(format.block_len())) {
            // Either sign, exponents from 2^-7 to 2^-4.
            case(format)
                .halves
                .iter()
                .for_each(|at| block[at + 1] = block[at + 1] & 0x83 | (0x20 + (block[at + 1] & 0x0c)));
        }
        Blocks { format, columns, values: widen(format, &bytes), bytes }
    }

    /// All bytes `fill`, but for the scales of whole blocks.
    pub fn fill_numbers(&mut self, fill: u8) {
        let halves = case(self.format).halves;
        let is_kept = |at: usize| halves.iter().any(|&half| half == at || half + 1 == at);
        for block in self.bytes.chunks_exact_mut(self.format.stored_bytes(self.format.block_len())) {
            block.iter_mut().enumerate().filter(|(at, _)| !is_kept(*at)).for_each(|(_, byte)| *byte = fill);
        }
        self.values = widen(self.format, &self.bytes);
    }

    fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        let width = self.format.stored_bytes(self.columns);
        out.copy_from_slice(&self.bytes[rows.start * width..rows.end * width]);
    }

    pub fn upload(&self, device: &Device, plan: &KernelPlan) -> Matrix {
        stacked(device, plan, &[self])
    }

    /// As gates and ups.
    pub fn upload_pair(&self, device: &Device, plan: &KernelPlan) -> Matrix {
        let shape = [self.rows() / 2, self.columns];
        let read = |rows: Range<usize>, out: &mut [u8]| {
            self.read(rows, out);
            Ok(())
        };
        Matrix::of_pair(device, plan, "weights", self.format, shape, Source::Stored(&read)).expect("a small matrix")
    }
}

/// One matrix of all of `blocks`, one below the other.
fn stacked(device: &Device, plan: &KernelPlan, blocks: &[&Blocks]) -> Matrix {
    let readers: Vec<_> = blocks
        .iter()
        .map(|blocks| {
            |rows: Range<usize>, out: &mut [u8]| {
                blocks.read(rows, out);
                Ok(())
            }
        })
        .collect();
    let sections = blocks.iter().zip(&readers).map(|(blocks, read)| Section {
        format: blocks.format,
        rows: blocks.rows(),
        source: Source::Stored(read),
    });
    let sections: Vec<Section> = sections.collect();
    Matrix::of_sections(device, plan, "weights", blocks[0].columns, &sections).expect("a small matrix")
}

/// The product of `x`, `[rows, columns]`, by the kernel of `role`.
pub fn product(
    device: &Device,
    plan: &KernelPlan,
    matrix: &Matrix,
    finish: Epilogue,
    role: Phase,
    x: &[f32],
) -> Vec<f32> {
    let rows = x.len() / matrix.columns();
    let (x, y) = (input(device, matrix.columns(), x), output(device, rows, matrix.outputs()));
    let step = step(device, Step { rows: rows as u32, ..Step::default() });
    let op = Matmul::new(device, plan, &step, matrix, [&x, &y], finish, RowRange::All).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
    read(device, "matmul", &y, rows)
}

/// Compares a product with the oracle.
fn agrees(plan: &KernelPlan, matrix: &Matrix, values: &[f32], role: Phase, rows: usize, random: &mut Random) {
    let x = random.normals(rows * matrix.columns(), 1.0);
    let mut expected = matmul(&x, values, matrix.columns(), None, None);
    widen_bounds(plan, &mut expected.bound);
    let shape = [matrix.outputs(), matrix.columns()];
    let context = format!("{role:?}, {rows} rows, {shape:?}, {:?}, {plan}", matrix.formats());
    let actual = product(device(), plan, matrix, Epilogue::Store, role, &x);
    compare(device(), "matmul", &context, &actual, &expected);
}

/// Widths of whole blocks, an odd number of them among them.
fn widths(format: WeightFormat) -> [usize; 3] {
    if format.block_len() == 256 { [256, 768, 512] } else { [32, 96, 576] }
}

fn products_over_odd_shapes(plans: &[KernelPlan]) {
    let mut random = Random::new(141);
    for (index, format) in WeightFormat::quantised().enumerate() {
        for (turn, columns) in widths(format).into_iter().enumerate() {
            for (at, plan) in plans.iter().enumerate() {
                if at > 0 && at != 1 + (index + turn) % 3 && !sweep() {
                    continue;
                }
                let outputs = [1, 33, 257][(index + turn + at) % 3];
                let blocks = Blocks::new(format, outputs, columns, &mut random);
                let matrix = blocks.upload(device(), plan);
                for (role, rows) in [(Phase::Decode, 1), (Phase::Decode, [2, 5, 13, 32][turn]), (Phase::Prefill, 33)] {
                    agrees(plan, &matrix, &blocks.values, role, rows, &mut random);
                }
            }
        }
    }
}

#[test]
fn products_by_quantised_weights_agree_with_f64() {
    products_over_odd_shapes(&[&[device().default_plan()][..], &GPU_PLANS].concat());
}

#[test]
fn cooperative_products_by_quantised_weights_agree_with_f64() {
    let Some(plan) = cooperative_plan("cooperative products by quantised weights") else { return };
    products_over_odd_shapes(&[plan]);
    rows_of_several_formats(plan);
}

/// Query, key and value projections often differ in format within one file.
#[test]
fn rows_of_several_formats_are_one_matrix() {
    rows_of_several_formats(device().default_plan());
}

fn rows_of_several_formats(plan: KernelPlan) {
    let mut random = Random::new(142);
    let blocks = [(WeightFormat::Q4K, 96), (WeightFormat::Q6K, 33), (WeightFormat::Q8_0, 7)]
        .map(|(format, rows)| Blocks::new(format, rows, 256, &mut random));
    let matrix = stacked(device(), &plan, &blocks.each_ref());
    assert_eq!(matrix.formats(), [WeightFormat::Q4K, WeightFormat::Q6K, WeightFormat::Q8_0]);
    let values = blocks.each_ref().map(|blocks| blocks.values.as_slice()).concat();
    for (role, rows) in [(Phase::Decode, 1), (Phase::Decode, 13), (Phase::Prefill, 33)] {
        agrees(&plan, &matrix, &values, role, rows, &mut random);
    }
}

#[test]
fn quantised_matrices_in_parts_give_the_same_bits() {
    // Room for the rows of x and of y, not for the smallest of the formats' weights.
    let limited = device_with_binding_limit(70_000);
    let plan = device().default_plan();
    let mut random = Random::new(143);
    for format in WeightFormat::quantised() {
        let blocks = Blocks::new(format, 479, 512, &mut random);
        let (parts, whole) = (blocks.upload(&limited, &plan), blocks.upload(device(), &plan));
        assert!(parts.bytes() > limited.largest_binding(), "{format:?}: in parts");
        for (role, rows) in [(Phase::Decode, 3), (Phase::Prefill, 33)] {
            let x = random.normals(rows * 512, 1.0);
            let [one, other] = [(&limited, &parts), (device(), &whole)]
                .map(|(device, matrix)| product(device, &plan, matrix, Epilogue::Store, role, &x));
            same_bits(&format!("{format:?} in parts"), &one, &other);
        }
    }
}

#[test]
fn memory_is_what_the_format_takes() {
    let mut random = Random::new(144);
    for format in WeightFormat::quantised() {
        let matrix = Blocks::new(format, 256, 768, &mut random).upload(device(), &device().default_plan());
        // Blocks become whole words.
        let block = format.stored_bytes(format.block_len());
        let stored = (256 * format.stored_bytes(768)) as f64;
        let words = stored / block as f64 * block.next_multiple_of(4) as f64;
        let most = if format.block_len() == 256 { words } else { 1.01 * stored };
        assert!((stored..=most).contains(&(matrix.bytes() as f64)), "{format:?}: {}", matrix.bytes());
    }
}

#[test]
fn embeddings_of_quantised_tables_are_exact() {
    let (device, plan) = (device(), device().default_plan());
    let mut random = Random::new(145);
    for format in WeightFormat::quantised() {
        let (vocab, width) = (70, 512);
        let blocks = Blocks::new(format, vocab, width, &mut random);
        let ids = [0, 69, 8, 7, 33, 64, 1];
        let buffer = pard::low_level::gpu::Buffer::with_values(device, "ids", &ids).expect("a small buffer");
        let whole = blocks.upload(device, &plan);
        // Some of its rows as a table of their own.
        let kept: Vec<u32> = (0..vocab as u32).rev().step_by(3).collect();
        let gathered = whole.gather(device, "gathered", &kept).expect("rows there are");
        let kept_values: Vec<f32> =
            kept.iter().flat_map(|&id| &blocks.values[id as usize * width..][..width]).copied().collect();
        for (table, values) in [(&whole, &blocks.values), (&gathered, &kept_values)] {
            let y = output(device, ids.len(), width);
            let op = Embedding::new(device, table, None, &buffer, &y).expect("shapes that fit");
            submit(device, |pass| op.encode(pass, ids.len()));
            let ids = ids.map(|id| id.min(table.rows() as u32 - 1));
            let expected = embedding(values, width, &ids);
            compare(device, "embedding", &format!("{format:?}"), &read(device, "y", &y, ids.len()), &expected);
        }
    }
}

/// Quantised by this crate: as near to the values as the format's steps allow, and for the formats that llama.cpp's Python
/// package quantises, the same bytes.
#[test]
fn values_are_quantised_as_llama_cpp_does() {
    let values: Vec<f32> = lattice(4096);
    for &Case { format, step, quantised: hash, .. } in CASES.iter().filter(|case| case.format.is_quantised()) {
        let mut stored = vec![0; format.stored_bytes(values.len())];
        format.store(&values, &mut stored);
        let back = widen(format, &stored);
        let mut worst = 0.0f32;
        for (values, back) in values.chunks(32).zip(back.chunks(32)) {
            let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let off = values.iter().zip(back).map(|(value, back)| (value - back).abs()).fold(0.0, f32::max);
            worst = worst.max(off / largest);
        }
        assert!(worst <= step && worst > step / 10.0, "{format:?}: {worst} off, a step is {step}");
        let bytes = stored.iter();
        let found = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        assert!(hash.is_none_or(|hash| hash == found), "{format:?}: {found:#x}");
        // Zeros stay zeros, and no scale is divided by.
        let mut stored = vec![0; format.stored_bytes(256)];
        format.store(&[0.0; 256], &mut stored);
        assert!(widen(format, &stored).iter().all(|value| *value == 0.0), "{format:?}");
    }
}

/// Candle's searches for scales are those of an older llama.cpp, but for Q3_K: ours come closer, by what each minimises.
#[test]
fn k_quants_are_as_close_as_candles() {
    use candle_core::quantized::{GgmlDType, QTensor};
    let values: Vec<f32> = lattice(4096).iter().map(|value| value * value * value).collect();
    let tensor = candle_core::Tensor::new(&values[..], &candle_core::Device::Cpu).expect("values");
    for (format, dtype) in [
        (WeightFormat::Q2K, GgmlDType::Q2K),
        (WeightFormat::Q3K, GgmlDType::Q3K),
        (WeightFormat::Q4K, GgmlDType::Q4K),
        (WeightFormat::Q5K, GgmlDType::Q5K),
        (WeightFormat::Q6K, GgmlDType::Q6K),
    ] {
        let theirs = QTensor::quantize(&tensor, dtype).expect("blocks").data().expect("bytes").into_owned();
        let mut ours = vec![0; format.stored_bytes(values.len())];
        format.store(&values, &mut ours);
        let error = |blocks: &[u8]| -> f32 {
            let error = |(back, value): (f32, &f32)| match format {
                WeightFormat::Q2K => value.abs() * (back - value).abs(),
                _ => (back - value).powi(2),
            };
            widen(format, blocks).into_iter().zip(&values).map(error).sum()
        };
        assert!(error(&ours) <= error(&theirs), "{format:?}: {}, candle's {}", error(&ours), error(&theirs));
        assert!(format != WeightFormat::Q3K || ours == theirs);
    }
}

/// `len` values of either sign that any language can make alike: 24 bits of a linear congruential generator.
fn lattice(len: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut value = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
    };
    (0..len).map(|_| value()).collect()
}
