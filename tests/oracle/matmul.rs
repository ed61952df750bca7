//! A linear layer: `y = x·Wᵀ (+ bias) (+ residual)`.

use super::{Expected, Real};
use crate::comparison::{dot_bound, flushed};

/// `y[row, out] = Σ x[row, i]·weight[out, i] (+ bias[out]) (+ residual[row, out])`.
///
/// **Shapes**: `x` `[rows, depth]`, `weight` `[out, depth]` as widened to f32, `bias` `[out]`, `residual` and the
/// result `[rows, out]`.
/// **Bound**: that of one dot product (Higham, section 3.1), in which bias and residual are two more terms; a subnormal
/// operand may be read as zero, which takes its whole term away.
pub fn matmul<X: Real>(
    x: &[X],
    weight: &[f32],
    depth: usize,
    bias: Option<&[f32]>,
    residual: Option<&[X]>,
) -> Expected {
    let outputs = weight.len() / depth;
    let terms = depth + usize::from(bias.is_some()) + usize::from(residual.is_some());
    let mut y = Expected::default();
    for (row, x) in x.chunks_exact(depth).enumerate() {
        for (out, weight) in weight.chunks_exact(depth).enumerate() {
            let extra =
                [bias.map_or(0.0, |bias| bias[out].into()), residual.map_or(0.0, |r| r[row * outputs + out].into())];
            let mut sum: f64 = extra.iter().sum();
            let mut sum_abs: f64 = extra.iter().map(|term| term.abs()).sum();
            let mut lost: f64 = extra.iter().map(|&term| flushed(term)).sum();
            for (&x, &weight) in x.iter().zip(weight) {
                let (x, weight): (f64, f64) = (x.into(), weight.into());
                sum += x * weight;
                sum_abs += (x * weight).abs();
                if flushed(x) + flushed(weight) > 0.0 {
                    lost += (x * weight).abs();
                }
            }
            y.push(sum, dot_bound(terms, sum_abs) + lost);
        }
    }
    y
}
