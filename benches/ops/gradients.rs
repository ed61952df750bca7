//! `input_gradient` and `weight_gradient` on the matrices of a layer, beside the product that they belong to.

use pard::Result;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::Pass;
use pard::low_level::ops::gradients::{Accumulate, InputGradient, WeightGradient};
use pard::low_level::ops::{Epilogue, Matmul, Matrix, Phase, RowRange, Tensor, WeightFormat};

use crate::bench::{Bench, Case, each};
use crate::matmul::weights;
use crate::oracle::gradients::input_gradient::input_gradient;
use crate::oracle::gradients::weight_gradient::weight_gradient;
use crate::support::random::Random;

/// Rows of a pass of training.
const ROWS: usize = 512;
/// Rows of a gradient that are checked.
const CHECKED: usize = 8;

/// All of them on every matrix of a layer of `config`.
pub fn all(bench: &Bench, config: &Config) -> Result<()> {
    let hidden = config.hidden_size;
    let matrices = [
        ("gate or up", [config.feed_forward_size, hidden]),
        ("gate_up", [2 * config.feed_forward_size, hidden]),
        ("down", [hidden, config.feed_forward_size]),
    ];
    matrices.into_iter().try_for_each(|(name, shape)| gradients(bench, name, shape))
}

fn gradients(bench: &Bench, name: &str, [outputs, columns]: [usize; 2]) -> Result<()> {
    if !bench.wants("input_gradient") && !bench.wants("weight_gradient") {
        return Ok(());
    }
    let (device, row_set) = (&bench.device, RowRange::All);
    let mut random = Random::new(11);
    let [x_values, dy_values] = [columns, outputs].map(|width| random.normals(ROWS * width, 1.0));
    let (x, dy) = (bench.tensor(columns, &x_values)?, bench.tensor(outputs, &dy_values)?);
    let (y, dx) = (Tensor::new(device, "y", ROWS, outputs)?, Tensor::new(device, "dx", ROWS, columns)?);
    let matrix = Matrix::upload(device, &bench.plan, name, WeightFormat::F32, [outputs, columns], &weights)?;
    let dw = matrix.gradients(device)?;
    let product = Matmul::new(device, &bench.plan, &bench.step, &matrix, [&x, &y], Epilogue::Store, row_set)?;
    let by_input = InputGradient::new(device, &bench.step, &matrix, [&dy, &dx], Accumulate::Store, row_set)?;
    let by_weights = WeightGradient::new(device, &bench.step, &matrix, [&x, &dy], &dw)?;
    let case = |kernel, record| Case {
        kernel,
        what: format!("{name} {outputs} x {columns}, f32"),
        rows: ROWS,
        bytes: 4 * (outputs * columns + ROWS * (outputs + columns)),
        flops: 2 * outputs * columns * ROWS,
        state: bench.at(0, ROWS),
        record,
    };
    let [input_case, weight_case] = [
        case("input_gradient", each(|pass| by_input.encode(pass, ROWS))),
        case("weight_gradient", each(|pass| by_weights.encode(pass, ROWS))),
    ];

    let mut values = vec![0.0; outputs * columns];
    weights(0..outputs, &mut values)?;
    let actual = bench.result(&input_case, &dx.buffer, CHECKED * columns)?;
    bench.check(&input_case, &actual, &input_gradient(&dy_values[..CHECKED * outputs], &values, columns, None));

    // Added to zeros, and read back as weights.
    let (step, state) = &weight_case.state;
    step.write(device, 0, state);
    Pass::submit(device, None, |pass| (weight_case.record)(pass, 0))?;
    let zeros = Matrix::upload(device, &bench.plan, name, WeightFormat::F32, [outputs, columns], &|_, out| {
        out.fill(0.0);
        Ok(())
    })?;
    for (sums, part) in zeros.buffers().zip(&dw) {
        sums.write(device, 0, &part.read::<f32>(device, 0, part.bytes() as usize / 4)?);
    }
    let first: Vec<f32> = dy_values.chunks(outputs).flat_map(|row| &row[..CHECKED]).copied().collect();
    let before = vec![0.0; CHECKED * columns];
    let expected = weight_gradient(&x_values, &first, [CHECKED, columns], &before);
    bench.check(&weight_case, &zeros.read_rows(device)?[..CHECKED * columns], &expected);

    let tile = case("matmul_tile", Box::new(|pass, _| product.encode(pass, Phase::Prefill, ROWS)));
    bench.time(&[tile, input_case, weight_case])
}
