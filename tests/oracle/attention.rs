//! Causal grouped-query attention over a cache.

use super::{Expected, Real};
use crate::comparison::{FLUSH, ROUNDOFF, dot_bound, flushed, gamma};

/// The sizes of one attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query rows.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Positions the cache has room for; those after the last row's are never looked at.
    pub positions: usize,
    /// The position of row 0: row r sees the keys `0..=start + r`.
    pub start: usize,
    /// Number of keys that the kernel takes between two rescalings of its running sum; for the bound only, 1 allows any.
    pub key_tile: usize,
}

/// `y[row, head] = Σ softmax(q·k / √head_dim) · v`, over the keys the row sees.
///
/// **Shapes**: `q` and the result `[rows, heads, head_dim]`; `keys` and `values` `[kv_heads, positions, head_dim]`.
/// **Bound**: with `w` the true weights and `o` the output, a weight's relative error η reaches the numerator as
/// `Σ wη|v|` and the denominator as `|o|·Σ wη`; both sums round as dot products (Higham, section 3.1), their quotient
/// is 2.5 ULP. η itself: the score's own error (a dot product, a scale, and possibly log2 e, folded into it); the
/// subtraction of the maximum, |a| roundings for a score `a` below it; exp or exp2, 3 + 3|a| ULP; and 4 + 1 roundings
/// (exp, product) for each rescaling, twice the tiles to allow for a merge of splits. It is capped by what holds for
/// any weights: the output is a mean of the values.
/// **Source**: Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
pub fn attention<Q: Real, K: Real>(shape: AttentionShape, q: &[Q], keys: &[K], values: &[K]) -> Expected {
    windowed_attention(shape, None, q, keys, values)
}

/// The same where a row at position p sees the keys `p - window + 1 ..= p` only, as Hugging Face's sliding windows are.
pub fn windowed_attention<Q: Real, K: Real>(
    shape: AttentionShape,
    window: Option<usize>,
    q: &[Q],
    keys: &[K],
    values: &[K],
) -> Expected {
    let AttentionShape { rows, heads, kv_heads, head_dim, positions, start, key_tile } = shape;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut y = Expected::default();
    for row in 0..rows {
        let end = start + row + 1;
        let first = window.map_or(0, |window| end.saturating_sub(window));
        let seen = end - first;
        // The first key may lie anywhere within a tile.
        let rescalings = 2 * (seen.div_ceil(key_tile) + usize::from(first > 0));
        for head in 0..heads {
            let query = &q[(row * heads + head) * head_dim..][..head_dim];
            let cache = (head / (heads / kv_heads) * positions + first) * head_dim;
            let mut scores = Vec::with_capacity(seen);
            let mut score_bounds = Vec::with_capacity(seen);
            for key in keys[cache..].chunks_exact(head_dim).take(seen) {
                let terms = || query.iter().zip(key).map(|(&q, &k)| (q.into(), k.into()));
                let lost: f64 =
                    terms().filter(|&(q, k)| flushed(q) + flushed(k) > 0.0).map(|(q, k)| (q * k).abs()).sum();
                let sum_abs: f64 = terms().map(|(q, k)| (q * k).abs()).sum();
                scores.push(terms().map(|(q, k)| q * k).sum::<f64>() * scale);
                score_bounds.push((dot_bound(head_dim + 4, sum_abs) + lost) * scale + FLUSH);
            }
            let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
            let total: f64 = exps.iter().sum();
            let weights: Vec<f64> = exps.iter().map(|exp| exp / total).collect();
            let weight_errors: Vec<f64> = (0..seen)
                .map(|key| {
                    let below = maximum - scores[key];
                    let roundings = 4.0 * below + 3.0 + 5.0 * rescalings as f64;
                    // Relative to the weight; one flushed to zero loses 2^-126 of a total that is at least 1.
                    weights[key] * (score_bounds[key] + roundings * ROUNDOFF).exp_m1() + FLUSH
                })
                .collect();
            let total_error = weight_errors.iter().sum::<f64>() + gamma(seen as f64);
            for i in 0..head_dim {
                let value = |key: usize| -> f64 { values[cache + key * head_dim + i].into() };
                let output: f64 = (0..seen).map(|key| weights[key] * value(key)).sum();
                let sum_abs: f64 = (0..seen).map(|key| weights[key] * value(key).abs()).sum();
                let carried: f64 = (0..seen).map(|key| weight_errors[key] * value(key).abs()).sum();
                let numerator = carried + dot_bound(seen, sum_abs + carried) + seen as f64 * FLUSH;
                let quotient = (numerator + output.abs() * total_error) / (1.0 - total_error).max(f64::MIN_POSITIVE);
                // Scores too large to be known well still leave a mean of the values, whose sums and rescalings round.
                let reach = (0..seen).map(|key| (value(key) - output).abs()).fold(0.0, f64::max);
                let largest = (0..seen).map(|key| value(key).abs()).fold(0.0, f64::max);
                let mean = reach + 2.0 * gamma((seen + rescalings) as f64) * largest;
                let bound = quotient.min(mean);
                y.push(output, bound + (output.abs() + bound) * gamma(3.0) + FLUSH);
            }
        }
    }
    y
}

/// `values` as a 16-bit cache holds them: rounded to the nearest half-precision number.
pub fn half_rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| half::f16::from_f32(value).to_f32()).collect()
}
