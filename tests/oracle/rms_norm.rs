//! Root-mean-square normalisation.

use super::{Expected, Real};
use crate::comparison::{FLUSH, ROUNDOFF, gamma};

/// `y[row] = x[row] / √(mean(x[row]²) + eps) · gain`.
///
/// **Shapes**: `x` and the result `[rows, width]`, `gain` `[width]`.
/// **Bound**: the mean square is a dot product of positive terms (γₙ relative, Higham section 3.1), its division and
/// the epsilon add 4 roundings (a division is 2.5 ULP in WGSL); the square root halves a relative error;
/// `inverseSqrt` is 2 ULP, `1 / sqrt` 5; two multiplications follow. Subnormal squares and inputs may be flushed.
/// **Source**: Zhang & Sennrich 2019, arXiv:1910.07467; epsilon as in Llama.
pub fn rms_norm<X: Real>(x: &[X], gain: &[f32], eps: f32) -> Expected {
    let width = gain.len() as f64;
    let mut y = Expected::default();
    for row in x.chunks_exact(gain.len()) {
        let mean_square = row.iter().map(|&x| x.into().powi(2)).sum::<f64>() / width;
        let radicand = mean_square + f64::from(eps);
        let scale = 1.0 / radicand.sqrt();
        let lost = 2.0 * FLUSH / radicand;
        let relative = 0.5 * (gamma(width + 4.0) + lost) + gamma(7.0);
        for (&x, &gain) in row.iter().zip(gain) {
            let (x, gain): (f64, f64) = (x.into(), gain.into());
            let value = x * scale * gain;
            let flush = FLUSH * (scale * gain.abs() + gain.abs() + (x * scale).abs() + 1.0);
            // The factor covers products of two of the errors above.
            y.push(value, value.abs() * relative * (1.0 + 4.0 * relative + ROUNDOFF) + flush);
        }
    }
    y
}
