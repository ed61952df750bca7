//! The gradients of root-mean-square normalisation.

use super::super::{Expected, Real};
use crate::comparison::{FLUSH, ROUNDOFF, gamma};

/// The gradients of `Σ dy · rms_norm(x)`, added to `dx` and `dgain`. With `s = 1 / √(mean(x²) + eps)`:
/// `dx[r] + s · (gain · dy[r] − x[r] · s² · mean(gain · dy[r] · x[r]))`, and `dgain + Σ dy[r] · x[r] · s`.
///
/// **Shapes**: `x`, `dy`, `dx` `[rows, width]`, `gain`, `dgain` `[width]`; the results like `dx` and `dgain`.
/// **Bound**: `s` as in the forward oracle; the mean is a dot product of triple products; every other operation is one
/// rounding, and the sums are γₙ of the sum of magnitudes.
pub fn rms_norm_gradient<X: Real>(
    x: &[X],
    gain: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &[f32],
    dgain: &[f32],
) -> [Expected; 2] {
    let width = gain.len();
    let n = width as f64;
    let rows = x.len() / width;
    let mut input = Expected::default();
    let mut sums = vec![(0.0, 0.0, 0.0); width];
    for row in 0..rows {
        let at = |i: usize| row * width + i;
        let x_of = |i: usize| -> f64 { x[at(i)].into() };
        let above = |i: usize| f64::from(gain[i]) * f64::from(dy[at(i)]);
        let radicand = (0..width).map(|i| x_of(i).powi(2)).sum::<f64>() / n + f64::from(eps);
        let scale = 1.0 / radicand.sqrt();
        let scale_error = 0.5 * (gamma(n + 4.0) + 2.0 * FLUSH / radicand) + gamma(5.0);
        let (mut dot, mut magnitude) = (0.0, 0.0);
        for i in 0..width {
            dot += above(i) * x_of(i);
            magnitude += (above(i) * x_of(i)).abs();
        }
        let dot_error = gamma(n + 2.0) * magnitude + n * FLUSH * (2.0 + x_of(0).abs());
        let along = scale * scale * dot / n;
        let along_error =
            (scale * scale / n * dot_error + along.abs() * (2.0 * scale_error + gamma(6.0))) * (1.0 + 1e-3) + FLUSH;
        for i in 0..width {
            let (first, second) = (above(i), x_of(i) * along);
            let value = scale * (first - second);
            let inner_error = x_of(i).abs() * along_error + gamma(2.0) * (first.abs() + second.abs()) + 2.0 * FLUSH;
            let error = scale * inner_error + value.abs() * (scale_error + gamma(2.0));
            let sum = f64::from(dx[at(i)]) + value;
            input.push(sum, error * (1.0 + 1e-3) + ROUNDOFF * sum.abs() + FLUSH * (1.0 + scale));
            let term = f64::from(dy[at(i)]) * x_of(i) * scale;
            sums[i].0 += term;
            sums[i].1 += term.abs();
            sums[i].2 += term.abs() * (scale_error + gamma(3.0)) + FLUSH * (2.0 + f64::from(dy[at(i)]).abs());
        }
    }
    let mut of_gain = Expected::default();
    for (&before, (sum, magnitude, error)) in dgain.iter().zip(sums) {
        let value = f64::from(before) + sum;
        of_gain
            .push(value, error * (1.0 + 1e-3) + gamma(rows as f64 + 64.0) * magnitude + ROUNDOFF * value.abs() + FLUSH);
    }
    [input, of_gain]
}
