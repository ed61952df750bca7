//! The gradient of a linear layer by its input.

use super::transposed;
use crate::oracle::matmul::matmul;
use crate::oracle::{Expected, Real};

/// `dx[row, i] = Σ dy[row, out]·weight[out, i] (+ before[row, i])`: the product with the transposed weights.
///
/// **Shapes**: `dy` `[rows, out]`, `weight` `[out, depth]` as widened to f32, `before` and the result `[rows, depth]`.
/// **Bound**: that of the product.
pub fn input_gradient<X: Real>(dy: &[X], weight: &[f32], depth: usize, before: Option<&[X]>) -> Expected {
    matmul(dy, &transposed(weight, depth), weight.len() / depth, None, before)
}
