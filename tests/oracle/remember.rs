//! The features that a draft reads of its target's rows.

use super::rms_norm::rms_norm;
use super::{Expected, Real};

/// `scale · x[row]`, or `scale · gain · x[row] / √(mean(x[row]²) + eps)` with a gain and an epsilon.
///
/// **Shapes**: `x` and the result `[rows, width]`; the gain `[width]`.
/// **Bound**: that of the normalisation, and a rounding for the factor.
/// **Source**: An et al., "PARD-2", arXiv:2605.08632.
pub fn remember<X: Real>(x: &[X], norm: Option<(&[f32], f32)>, scale: f32) -> Expected {
    let states = match norm {
        Some((gain, eps)) => rms_norm(x, gain, eps),
        None => {
            let mut states = Expected::default();
            x.iter().for_each(|&value| states.push(value.into(), 0.0));
            states
        }
    };
    let mut features = Expected::default();
    for (value, bound) in states.values.into_iter().zip(states.bound) {
        let (value, scale) = (value * f64::from(scale), f64::from(scale.abs()));
        features.push(value, bound * scale + 3.0 * value.abs() * f64::from(f32::EPSILON));
    }
    features
}
