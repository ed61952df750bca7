//! The gradient of a linear layer by its weights.

use super::transposed;
use crate::oracle::matmul::matmul;
use crate::oracle::{Expected, Real};

/// `dw[out, i] = before[out, i] + Σ dy[row, out]·x[row, i]`: the product of the transposed rows.
///
/// **Shapes**: `x` `[rows, depth]`, `dy` `[rows, out]`, `before` and the result `[out, depth]`.
/// **Bound**: that of the product, in which what was there before is one more term.
pub fn weight_gradient<X: Real>(x: &[f32], dy: &[X], [outputs, depth]: [usize; 2], before: &[X]) -> Expected {
    matmul(&transposed(dy, outputs), &transposed(x, depth), x.len() / depth, None, Some(before))
}
