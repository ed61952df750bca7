//! The states that a draft keeps of its target's rows.

use super::rms_norm::rms_norm;
use super::{Expected, Real};

/// `x[row] / √(mean(x[row]²) + eps)`, in half precision.
///
/// **Shapes**: `x` and the result `[rows, width]`.
/// **Bound**: that of the normalisation, and a rounding either way, since WGSL does not say which: 2^-10 of the value, or
/// 2^-24 below f16's normal range.
/// **Source**: An et al., "PARD-2", arXiv:2605.08632.
pub fn remember<X: Real>(x: &[X], width: usize, eps: f32) -> Expected {
    let normed = rms_norm(x, &vec![1.0; width], eps);
    let mut kept = Expected::default();
    for (value, bound) in normed.values.into_iter().zip(normed.bound) {
        kept.push(value, bound * 1.001 + (value.abs() / 1024.0).max(2f64.powi(-24)));
    }
    kept
}
