//! Rotary position embedding, after an optional RMSNorm of each head (Qwen3).

use super::rms_norm::rms_norm;
use super::{Expected, Real};
use crate::comparison::{dot_bound, flushed};

/// The norm of each head before the rotation: the gain, `[head_dim]`, and the epsilon.
pub type HeadNorm<'a> = (&'a [f32], f32);

/// `y[i] = x[i]·cos − x[i + half]·sin`, `y[i + half] = x[i + half]·cos + x[i]·sin` ("rotate half").
///
/// **Shapes**: `x` and the result `[rows, heads, head_dim]`, `positions` `[rows]`, `cos` and `sin`
/// `[table positions, head_dim / 2]`, as the kernel gets them.
/// **Bound**: a dot product of two terms (Higham, section 3.1), on top of the norm's own bound carried through the
/// rotation.
/// **Source**: Su et al. 2021, arXiv:2104.09864; the pairing is Hugging Face's.
pub fn rope<X: Real, C: Real>(
    x: &[X],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    (cos, sin): (&[C], &[C]),
    norm: Option<HeadNorm>,
) -> Expected {
    let half = head_dim / 2;
    let input = match norm {
        Some((gain, eps)) => rms_norm(x, gain, eps),
        None => {
            let values: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let bound = values.iter().map(|&x| flushed(x)).collect();
            Expected { values, bound }
        }
    };
    let mut y = Expected { values: vec![f64::NAN; x.len()], bound: vec![f64::NAN; x.len()] };
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for i in 0..half {
                let angle = position as usize * half + i;
                let (cos, sin): (f64, f64) = (cos[angle].into(), sin[angle].into());
                let low = (row * heads + head) * head_dim + i;
                let high = low + half;
                // For one element: its own half by the cosine, the other by the signed sine.
                let mut rotate = |own: usize, other: usize, sin: f64| {
                    let (a, b) = (input.values[own] * cos, input.values[other] * sin);
                    let carried = input.bound[own] * cos.abs() + input.bound[other] * sin.abs();
                    let lost = flushed(cos) * input.values[own].abs() + flushed(sin) * input.values[other].abs();
                    y.values[own] = a + b;
                    y.bound[own] = carried + dot_bound(2, a.abs() + b.abs() + carried) + lost;
                };
                rotate(low, high, -sin);
                rotate(high, low, sin);
            }
        }
    }
    y
}
