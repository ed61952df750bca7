//! A linear layer whose weights are integers with a scale, and perhaps a minimum, for each block.

use super::Expected;
use crate::comparison::{dot_bound, flushed};

/// `y[row, out] = Σ x[row, i]·weight[out, i]`, of x as the kernel has rounded it.
///
/// **Shapes**: `x` `[rows, depth]`, exact; `weight` `[out, depth]` as widened to f32; the result `[rows, out]`.
/// **Bound**: that of the roundings in f32 alone. The sums of integers have none. In a block of 32 weights they are
/// scaled by d (itself a product), by x's step, and added up, and the minimum's term likewise: fewer roundings than a
/// dot product of `depth` terms has, of terms that are at most three times the block's largest weight, since a minimum
/// and what is added to it may cancel.
pub fn matmul_integer(x: &[f64], weight: &[f32], depth: usize) -> Expected {
    let mut y = Expected::default();
    for x in x.chunks_exact(depth) {
        for weight in weight.chunks_exact(depth) {
            let (mut sum, mut size, mut lost) = (0.0, 0.0, 0.0);
            for (x, weight) in x.chunks(32).zip(weight.chunks(32)) {
                let most = weight.iter().fold(0.0, |most: f64, &weight| most.max(f64::from(weight).abs()));
                for (&x, &weight) in x.iter().zip(weight) {
                    sum += x * f64::from(weight);
                    size += 3.0 * x.abs() * most;
                    lost += flushed(x).min(1.0) * most;
                }
            }
            y.push(sum, dot_bound(depth.max(64), size) + lost);
        }
    }
    y
}
