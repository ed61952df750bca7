//! The gradient of a linear layer by its bias.

use super::transposed;
use crate::comparison::{FLUSH, dot_bound};
use crate::oracle::{Expected, Real};

/// `sums[column] = before[column] + Σ dy[row, column]`.
///
/// **Shapes**: `dy` `[rows, width]`, `before` and the result `[width]`.
/// **Bound**: that of a dot product with ones; each term may be flushed, which takes less than 2⁻¹²⁶ away.
pub fn column_sum<X: Real>(dy: &[X], before: &[X]) -> Expected {
    let rows = dy.len() / before.len();
    let mut sums = Expected::default();
    for (column, &before) in transposed(dy, before.len()).chunks(rows).zip(before) {
        let terms: Vec<f64> = column.iter().chain([&before]).map(|&term| term.into()).collect();
        let sum_abs = terms.iter().map(|term| term.abs()).sum();
        sums.push(terms.iter().sum(), dot_bound(terms.len(), sum_abs) + terms.len() as f64 * FLUSH);
    }
    sums
}
