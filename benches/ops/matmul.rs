//! `matmul_rows` and `matmul_tile`: every matrix of a layer and the head in BF16, the largest of a layer in each format;
//! `quantise_rows` and `matmul_integer`: the largest of a layer in Q8_0.

use std::ops::Range;

use pard::Result;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::{KernelPlan, QuantisedProducts};
use pard::low_level::ops::{Epilogue, MAX_ROWS, Matmul, Matrix, Phase, QuantiseRows, RowRange, Tensor, WeightFormat};

use crate::bench::{Bench, Case, PROMPT_ROWS, cold_copies, each};
use crate::oracle;
use crate::support::random::Random;

/// Rows of a verification of 0 to 31 drafts.
const ROW_COUNTS: [usize; 7] = [1, 2, 4, 8, 13, 16, 32];
/// Weight rows whose products are checked.
const CHECKED: usize = 32;

/// Both kernels on every matrix of `config`.
pub fn all(bench: &Bench, config: &Config) -> Result<()> {
    let hidden = config.hidden_size;
    let matrices = [
        ("qkv", [config.query_size() + 2 * config.key_value_size(), hidden]),
        ("output", [hidden, config.query_size()]),
        ("gate_up", [2 * config.feed_forward_size, hidden]),
        ("down", [hidden, config.feed_forward_size]),
        ("head", [config.vocab_size, hidden]),
    ];
    for (name, shape) in matrices {
        product(bench, name, shape, WeightFormat::Bf16)?;
        if name == "gate_up" {
            product(bench, name, shape, WeightFormat::F16)?;
            product(bench, name, shape, WeightFormat::F32)?;
            integer(bench, name, shape)?;
        }
    }
    Ok(())
}

/// Weight rows: integers of 8 bits over 1024, which every format holds exactly.
pub fn weights(rows: Range<usize>, out: &mut [f32]) -> Result<()> {
    let columns = out.len() / rows.len();
    for (row, out) in rows.zip(out.chunks_mut(columns)) {
        let mut random = Random::new(row as u64);
        for eight in out.chunks_mut(8) {
            for (value, byte) in eight.iter_mut().zip(random.bits().to_le_bytes()) {
                *value = f32::from(byte as i8) / 1024.0;
            }
        }
    }
    Ok(())
}

/// `quantise_rows` and `matmul_integer` by Q8_0 weights, whatever the adapter's plan.
fn integer(bench: &Bench, name: &str, [outputs, depth]: [usize; 2]) -> Result<()> {
    let [rounding, multiplying] = ["quantise_rows", "matmul_integer"].map(|kernel| bench.wants(kernel));
    if !rounding && !multiplying {
        return Ok(());
    }
    let (device, format, most) = (&bench.device, WeightFormat::Q8_0, MAX_ROWS);
    let plan = KernelPlan { quantised: QuantisedProducts::Integer { planes: 2 }, ..bench.plan };
    let input = Random::new(2).normals(most * depth, 1.0);
    let (x, y) = (bench.tensor(depth, &input)?, Tensor::new(device, "output", most, outputs)?);
    let quantise = &QuantiseRows::new(device, &x, 2)?;
    let block_bytes = 2 * 32 + 16;
    let cases = ROW_COUNTS.map(|rows| Case {
        kernel: "quantise_rows",
        what: format!("width {depth}, 16 bits"),
        rows,
        bytes: rows * (4 * depth + depth / 32 * block_bytes),
        flops: 0,
        state: bench.at(0, rows),
        record: each(move |pass| quantise.encode(pass, rows)),
    });
    if rounding {
        bench.time(&cases)?;
    }
    if !multiplying {
        return Ok(());
    }
    let matmuls = (0..cold_copies((outputs * format.row_bytes(depth)) as u64))
        .map(|_| {
            let matrix = Matrix::upload(device, &plan, name, format, [outputs, depth], &weights)?;
            Matmul::new(device, &plan, &bench.step, &matrix, [&x, &y], Epilogue::Store, RowRange::All)
        })
        .collect::<Result<Vec<_>>>()?;
    let cases = ROW_COUNTS.map(|rows| Case {
        kernel: "quantise_rows + matmul_integer",
        what: format!("{name} {outputs} x {depth}, {}", format.name()),
        rows,
        bytes: outputs * format.row_bytes(depth) + rows * (depth + outputs) * 4,
        flops: 2 * outputs * depth * rows,
        state: bench.at(0, rows),
        record: Box::new({
            let matmuls = &matmuls;
            move |pass, repetition| matmuls[repetition % matmuls.len()].encode(pass, Phase::Decode, rows)
        }),
    });
    let mut row = vec![0.0; depth];
    weights(outputs - 1..outputs, &mut row)?;
    let mut blocks = vec![0; format.stored_bytes(depth)];
    format.store(&row, &mut blocks);
    let row = oracle::blocks::widen(format, &blocks);
    let exact: Vec<f64> = input.iter().map(|&value| value.into()).collect();
    let mut expected = oracle::matmul_integer::matmul_integer(&exact, &row, depth);
    for (bound, x) in expected.bound.iter_mut().zip(input.chunks(depth)) {
        let blocks = oracle::quantise_rows::largest(x).into_iter().zip(row.chunks(32));
        let size = |row: &[f32]| row.iter().map(|weight| f64::from(weight.abs())).sum::<f64>();
        *bound += oracle::quantise_rows::error(2) * blocks.map(|(most, row)| most * size(row)).sum::<f64>();
    }
    for case in &cases {
        let all: Vec<f32> = bench.result(case, &y.buffer, case.rows * outputs)?;
        let actual: Vec<f32> = all.chunks(outputs).map(|row| row[outputs - 1]).collect();
        bench.check(case, &actual, &expected);
    }
    bench.time(&cases)
}

fn product(bench: &Bench, name: &str, [outputs, depth]: [usize; 2], format: WeightFormat) -> Result<()> {
    let rounds = ROW_COUNTS.map(|rows| ("matmul_rows", Phase::Decode, rows));
    // The head is never asked for a whole prompt.
    let prompt = (name != "head").then_some(("matmul_tile", Phase::Prefill, PROMPT_ROWS));
    let wanted: Vec<_> = rounds.into_iter().chain(prompt).filter(|(kernel, ..)| bench.wants(kernel)).collect();
    let Some(most) = wanted.iter().map(|&(.., rows)| rows).max() else { return Ok(()) };

    let device = &bench.device;
    let input = Random::new(2).normals(most * depth, 1.0);
    let (x, y) = (bench.tensor(depth, &input)?, Tensor::new(device, "output", most.max(MAX_ROWS), outputs)?);
    let matmuls = (0..cold_copies((outputs * format.row_bytes(depth)) as u64))
        .map(|_| {
            let matrix = Matrix::upload(device, &bench.plan, name, format, [outputs, depth], &weights)?;
            Matmul::new(device, &bench.plan, &bench.step, &matrix, [&x, &y], Epilogue::Store, RowRange::All)
        })
        .collect::<Result<Vec<_>>>()?;
    let cases: Vec<Case> = wanted
        .into_iter()
        .map(|(kernel, role, rows)| Case {
            kernel,
            what: format!("{name} {outputs} x {depth}, {}", format.name()),
            rows,
            bytes: outputs * format.row_bytes(depth) + rows * (depth + outputs) * 4,
            flops: 2 * outputs * depth * rows,
            state: bench.at(0, rows),
            record: Box::new({
                let matmuls = &matmuls;
                move |pass, repetition| matmuls[repetition % matmuls.len()].encode(pass, role, rows)
            }),
        })
        .collect();

    let checked: Vec<usize> = (0..CHECKED).map(|at| at * (outputs - 1) / (CHECKED - 1)).collect();
    let mut rows_checked = vec![0.0; CHECKED * depth];
    for (&row, out) in checked.iter().zip(rows_checked.chunks_mut(depth)) {
        weights(row..row + 1, out)?;
    }
    let expected = oracle::matmul::matmul(&input, &rows_checked, depth, None, None);
    for case in &cases {
        let all: Vec<f32> = bench.result(case, &y.buffer, case.rows * outputs)?;
        let actual: Vec<f32> = all.chunks(outputs).flat_map(|row| checked.iter().map(|&at| row[at])).collect();
        bench.check(case, &actual, &expected);
    }
    bench.time(&cases)
}
