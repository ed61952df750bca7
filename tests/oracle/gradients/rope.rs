//! The gradient of rotary position embedding, and of the normalisation of each head before it.

use pard::low_level::ops::AttentionShape;

use crate::comparison::{FLUSH, dot_bound, gamma};
use crate::oracle::{Expected, Real};

/// The normalisation of q's and k's heads: its input `[rows, heads + 2 · kv_heads, head_dim]`, both gains, epsilon.
pub struct Norm<'a, T> {
    pub qkv: &'a [T],
    pub gains: [&'a [f32]; 2],
    pub epsilon: f32,
}

/// The gradient by qkv from those by rotated q and k and by v, and with `norm` those of both gains.
///
/// With dy the gradient of a head turned back, `s = 1 / √(mean(x²) + ε)` and `u = dy · gain`:
/// `dx = s · (u − x · s² · mean(u · x))`, `dgain = Σ dy · x · s`.
///
/// **Shapes**: cosines and sines `[rows, head_dim / 2]`; gradients `[rows, heads or kv_heads, head_dim]`.
/// **Bound**: turning back is a dot product of two terms; s is known as in rms_norm; the rest are dot products and single
/// roundings. Products of two errors are covered by a thousandth of the whole.
pub fn rope_gradient<T: Real>(
    shape: AttentionShape,
    (cos, sin): (&[f32], &[f32]),
    [by_query, by_key, by_value]: [&[T]; 3],
    norm: Option<Norm<T>>,
) -> (Expected, [Expected; 2]) {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let half = head_dim / 2;
    let rows = cos.len() / half;
    let mut qkv = Expected::default();
    // Value, sum of magnitudes, sum of carried errors.
    let mut gains = [vec![[0.0; 3]; head_dim], vec![[0.0; 3]; head_dim]];
    for row in 0..rows {
        for head in 0..heads + kv_heads {
            let source = if head < heads {
                &by_query[(row * heads + head) * head_dim..][..head_dim]
            } else {
                &by_key[(row * kv_heads + head - heads) * head_dim..][..head_dim]
            };
            let turned: Vec<(f64, f64)> = (0..head_dim)
                .map(|i| {
                    let angle = row * half + i % half;
                    let (cos, sin) = (f64::from(cos[angle]), f64::from(sin[angle]));
                    let own = source[i].into() * cos;
                    let other = source[(i + half) % head_dim].into() * if i < half { sin } else { -sin };
                    (own + other, dot_bound(2, own.abs() + other.abs()))
                })
                .collect();
            let Some(Norm { qkv: input, gains: gain, epsilon }) = &norm else {
                turned.into_iter().for_each(|(value, bound)| qkv.push(value, bound));
                continue;
            };
            let which = usize::from(head >= heads);
            let x: Vec<f64> = input[(row * (heads + 2 * kv_heads) + head) * head_dim..][..head_dim]
                .iter()
                .map(|&x| x.into())
                .collect();
            let width = head_dim as f64;
            let radicand = x.iter().map(|x| x * x).sum::<f64>() / width + f64::from(*epsilon);
            let scale = 1.0 / radicand.sqrt();
            let relative = 0.5 * (gamma(width + 4.0) + 2.0 * FLUSH / radicand) + gamma(7.0);
            let u: Vec<(f64, f64)> = turned
                .iter()
                .zip(gain[which])
                .map(|(&(dy, error), &gain)| {
                    let (u, carried) = (dy * f64::from(gain), error * f64::from(gain).abs());
                    (u, carried + (u.abs() + carried) * gamma(1.0) + FLUSH)
                })
                .collect();
            let sum: f64 = u.iter().zip(&x).map(|(u, x)| u.0 * x).sum();
            let carried: f64 = u.iter().zip(&x).map(|(u, x)| u.1 * x.abs()).sum();
            let magnitude: f64 = u.iter().zip(&x).map(|(u, x)| (u.0 * x).abs()).sum();
            let factor = scale * scale / width;
            let pull = factor * sum;
            let pull_error = factor * (carried + dot_bound(head_dim, magnitude + carried))
                + pull.abs() * (2.0 * relative + gamma(5.0));
            for i in 0..head_dim {
                let pulled = x[i] * pull;
                let value = scale * (u[i].0 - pulled);
                let error = u[i].1 + x[i].abs() * pull_error + gamma(2.0) * (u[i].0.abs() + pulled.abs());
                let bound = scale * error + value.abs() * (relative + gamma(1.0)) + FLUSH * (1.0 + scale);
                qkv.push(value, 1.001 * bound);
                let term = turned[i].0 * x[i] * scale;
                let error = (turned[i].1 * x[i] * scale).abs() + term.abs() * (relative + gamma(1.0)) + 2.0 * FLUSH;
                let sum = &mut gains[which][i];
                *sum = [sum[0] + term, sum[1] + term.abs(), sum[2] + 1.001 * error];
            }
        }
        for &value in &by_value[row * kv_heads * head_dim..][..kv_heads * head_dim] {
            qkv.push(value.into(), 0.0);
        }
    }
    let gains = gains.map(|sums| {
        let mut gain = Expected::default();
        for [value, magnitude, carried] in sums {
            gain.push(value, carried + dot_bound(rows * heads + 64, magnitude + carried));
        }
        gain
    });
    (qkv, gains)
}
