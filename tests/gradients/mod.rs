//! The kernels of training against their oracles, and those oracles against finite differences.

mod adamw;
pub mod column_sum;
mod cross_entropy;
mod embedding;
mod gradient_norm;
pub mod input_gradient;
mod packed_attention;
mod rms_norm;
mod rope;
pub mod swiglu;
mod training_rows;
pub mod weight_gradient;

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::gradients::{
    AdamW, AdamWStep, CrossEntropy, EmbeddingGradient, GradientNorm, MomentFormat, Readers, RmsNormGradient,
};
use pard::low_level::ops::{Matrix, RowRange, Step, Tensor, WeightFormat};
use pard::{Error, Result};

use crate::support::gpu::noop;

/// Fails unless `analytic` is the derivative of `value` at `point`, by central differences of width `h` in each place.
/// Their own error is about `h²` times a third derivative, and the roundings of `value` over `h`.
fn finite_differences(what: &str, point: &[f64], analytic: &[f64], h: f64, value: impl Fn(&[f64]) -> f64) {
    assert_eq!(point.len(), analytic.len(), "{what}");
    let mut moved = point.to_vec();
    for (index, &derivative) in analytic.iter().enumerate() {
        let mut at = |offset: f64| {
            moved[index] = point[index] + offset;
            let value = value(&moved);
            moved[index] = point[index];
            value
        };
        let difference = (at(h) - at(-h)) / (2.0 * h);
        let error = (difference - derivative).abs();
        assert!(
            error <= 1e-8 * (1.0 + derivative.abs()),
            "{what} [{index}]: {derivative:e}, by differences {difference:e}"
        );
    }
}

/// A refusal names the op and the operand at fault.
fn refused<T>(outcome: Result<T>, op: &str, tensor: &str) {
    match outcome.map(drop) {
        Err(Error::Shape { op: got_op, tensor: got_tensor, .. }) => assert_eq!((got_op, got_tensor), (op, tensor)),
        other => panic!("{op}: {tensor}: {other:?}"),
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let device = &noop();
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width).expect("a small tensor");
    let buffer = |bytes| Buffer::storage(device, "words", bytes).expect("a small buffer");
    let step = Buffer::shared::<Step>(device, "step").expect("a small buffer");

    let (x, row) = (tensor(9, 16), tensor(1, 16));
    let norm = |x: &Tensor, gain: &Tensor, dy: &Tensor, dx: &Tensor, dgain: &Tensor| {
        RmsNormGradient::new(device, &step, x, gain, 1e-6, [dy, dx], dgain, RowRange::All)
    };
    refused(norm(&tensor(9, 6), &row, &x, &x, &row), "rms_norm_gradient", "x");
    refused(norm(&x, &tensor(1, 12), &x, &x, &row), "rms_norm_gradient", "gain");
    refused(norm(&x, &row, &tensor(9, 12), &x, &row), "rms_norm_gradient", "dy");
    refused(norm(&x, &row, &x, &tensor(8, 16), &row), "rms_norm_gradient", "dx");
    refused(norm(&x, &row, &x, &x, &tensor(1, 12)), "rms_norm_gradient", "dgain");

    let (words, logits) = (buffer(256), tensor(8, 100));
    let loss = |teacher: &Tensor| CrossEntropy::new(device, &step, &logits, Some(teacher), &words, &words);
    refused(loss(&tensor(8, 99)), "cross_entropy", "teacher");
    refused(loss(&tensor(7, 100)), "cross_entropy", "teacher");

    let (small, large) = (buffer(160), buffer(256));
    for values in [38, 44] {
        refused(GradientNorm::new(device, &[(&large, 40), (&small, values)]), "gradient_norm", "gradient");
    }
    let adamw_step = Buffer::shared::<AdamWStep>(device, "step").expect("a small buffer");
    let adamw = |buffers, values| AdamW::new(device, &adamw_step, &words, buffers, values, MomentFormat::F32);
    refused(adamw([&small, &large], 44), "adamw", "parameter");
    refused(adamw([&large, &small], 44), "adamw", "gradient");
    refused(adamw([&large, &large], 42), "adamw", "parameter");

    let readers = Readers { ids: &words, firsts: &words, rows: &words };
    refused(EmbeddingGradient::of_row(device, readers, &tensor(9, 12), &row), "embedding_gradient", "dx");
    refused(EmbeddingGradient::of_row(device, readers, &x, &tensor(1, 24)), "embedding_gradient", "gradient");
    let plan = device.default_plan();
    let table = Matrix::upload(device, &plan, "table", WeightFormat::F32, [24, 16], &|_, _| Ok(()));
    let table = table.expect("a small table");
    let gradient = |dx: &Tensor, parts: &[Buffer]| EmbeddingGradient::new(device, readers, dx, &table, parts);
    refused(gradient(&tensor(9, 24), &[buffer(4096)]), "embedding_gradient", "dx");
    refused(gradient(&x, &[]), "embedding_gradient", "gradients");
    refused(gradient(&x, &[buffer(1024)]), "embedding_gradient", "gradients");
}

/// `values` in f64.
fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// `Σ y·dy`, the loss whose gradient by `y` is `dy`.
fn loss(y: &[f64], dy: &[f32]) -> f64 {
    y.iter().zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum()
}
