//! Expected values of gradients, the loss and the optimiser. Their formulas are checked against finite differences of the
//! forward oracles in tests/gradients.

pub mod adamw;
pub mod column_sum;
pub mod cross_entropy;
pub mod embedding;
pub mod gradient_norm;
pub mod input_gradient;
pub mod packed_attention;
pub mod rms_norm;
pub mod rope;
pub mod swiglu_gradient;
pub mod weight_gradient;

/// `values`, `[rows, columns]`, as `[columns, rows]`.
fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}
