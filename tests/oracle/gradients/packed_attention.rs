//! Attention where each row sees rows of its own choice, and its gradients.

use pard::low_level::ops::AttentionShape;

use crate::comparison::{FLUSH, ROUNDOFF, dot_bound, gamma};
use crate::oracle::attention::{self, attention};
use crate::oracle::{Expected, Real};

/// Queries `[rows, heads, head_dim]`, keys and values `[rows, kv_heads, head_dim]`, and the rows that each row sees.
#[derive(Clone, Copy)]
pub struct Given<'a, T> {
    pub shape: AttentionShape,
    pub seen: &'a [Vec<usize>],
    pub query: &'a [T],
    pub keys: &'a [T],
    pub values: &'a [T],
}

impl<T: Real> Given<'_, T> {
    /// The key head of query head `head`.
    fn kv_head(&self, head: usize) -> usize {
        head / (self.shape.heads / self.shape.kv_heads)
    }

    fn query(&self, row: usize, head: usize) -> &[T] {
        part(self.query, row * self.shape.heads + head, self.shape.head_dim)
    }

    /// The key, or the value, that query head `head` reads of row `row`.
    fn shared<'b>(&self, of: &'b [T], row: usize, head: usize) -> &'b [T] {
        part(of, row * self.shape.kv_heads + self.kv_head(head), self.shape.head_dim)
    }

    /// `q · k / √head_dim`, and its bound: a dot product, and a scale that is itself rounded.
    fn score(&self, row: usize, head: usize, key: usize) -> (f64, f64) {
        let scale = 1.0 / (self.shape.head_dim as f64).sqrt();
        let (dot, sum_abs) = dot(self.query(row, head), self.shared(self.keys, key, head));
        (dot * scale, dot_bound(self.shape.head_dim + 4, sum_abs) * scale + FLUSH)
    }
}

fn part<T>(of: &[T], index: usize, len: usize) -> &[T] {
    &of[index * len..][..len]
}

/// `Σ ab` and `Σ |ab|`.
fn dot<T: Real>(a: &[T], b: &[T]) -> (f64, f64) {
    let terms = || a.iter().zip(b).map(|(&a, &b)| a.into() * b.into());
    (terms().sum(), terms().map(f64::abs).sum())
}

/// `out[r, h] = Σ_k softmax(q·k / √head_dim) · v` and `log_sums[r, h] = ln Σ_k exp(score)` over what row r sees.
///
/// **Bound**: of `out`, as [`attention`] with any tiling. `log_sums` moves by no more than its largest score's error and
/// the relative error of the sum: exponentials of 3 + 2|x| ULP of arguments rounded once, two roundings and another exp
/// for every rescaling, the additions; `log` is 3 ULP, or 2^-21 near 1.
pub fn packed_attention<T: Real>(given: Given<T>) -> (Expected, Expected) {
    let Given { shape, seen, .. } = given;
    let (mut out, mut log_sums) = (Expected::default(), Expected::default());
    for (row, seen) in seen.iter().enumerate() {
        for head in 0..shape.heads {
            let gather = |of| -> Vec<T> { seen.iter().flat_map(|&key| given.shared(of, key, head)).copied().collect() };
            let one = attention::AttentionShape {
                rows: 1,
                heads: 1,
                kv_heads: 1,
                head_dim: shape.head_dim,
                positions: seen.len(),
                start: seen.len() - 1,
                key_tile: 1,
            };
            let result = attention(one, given.query(row, head), &gather(given.keys), &gather(given.values));
            out.values.extend(result.values);
            out.bound.extend(result.bound);

            let scores: Vec<_> = seen.iter().map(|&key| given.score(row, head, key)).collect();
            let largest = scores.iter().map(|score| score.0).fold(f64::NEG_INFINITY, f64::max);
            let exps = |factor: &dyn Fn(f64) -> f64| -> f64 {
                scores.iter().map(|score| (score.0 - largest).exp() * factor(largest - score.0)).sum()
            };
            let total = exps(&|_| 1.0);
            let relative = exps(&|below| (4.0 * below + 4.0) * ROUNDOFF) / total + gamma(12.0 * seen.len() as f64);
            let error = scores.iter().map(|score| score.1).fold(0.0, f64::max);
            let log = 2f64.powi(-21) + 4.0 * ROUNDOFF * (total.ln() + largest.abs() + error);
            log_sums.push(largest + total.ln(), error + 1.01 * relative + log);
        }
    }
    (out, log_sums)
}

/// A sum of products of f32 factors, the first of which has an error of its own.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
    carried: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, (factor, error): (f64, f64), other: f64) {
        self.value += factor * other;
        self.magnitude += (factor.abs() + error) * other.abs();
        self.carried += error * other.abs();
        self.terms += 1;
    }

    /// The sum times `scale`, which is rounded, as is the product.
    fn push(self, scale: f64, to: &mut Expected) {
        let bound = self.carried + dot_bound(self.terms + 3, self.magnitude);
        to.push(self.value * scale, bound * scale + FLUSH);
    }
}

/// The gradients by queries, keys and values, from the gradient by the output, given the forward pass's output and log
/// sums: with `p = exp(score − log_sum)` and `ds = p · (dout·v − dout·out)`,
/// `dq = Σ_k ds · k / √head_dim`, `dk = Σ ds · q / √head_dim`, `dv = Σ p · dout`.
///
/// **Bound**: p has the relative error of its score, of a subtraction and of an exponential of 3 + 2|x| ULP; the two dot
/// products those of dot products; ds two roundings more; the sums are dot products that carry all this.
/// **Source**: Dao et al. 2022, arXiv:2205.14135, appendix B.2.
pub fn packed_attention_gradient<T: Real>(
    given: Given<T>,
    out: &[T],
    log_sums: &[T],
    output_gradient: &[T],
) -> [Expected; 3] {
    let Given { shape, seen, .. } = given;
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let mut by_query = vec![Sum::default(); seen.len() * heads * head_dim];
    let mut by_key = vec![Sum::default(); seen.len() * kv_heads * head_dim];
    let mut by_value = by_key.clone();
    for (row, seen) in seen.iter().enumerate() {
        for head in 0..heads {
            let at = row * heads + head;
            let gradient = part(output_gradient, at, head_dim);
            let along = dot(gradient, part(out, at, head_dim));
            for &key in seen {
                let (score, score_error) = given.score(row, head, key);
                let exponent = score - log_sums[at].into();
                let p = exponent.exp();
                let p_error = p * (score_error + (3.0 * exponent.abs() + 4.0) * ROUNDOFF).exp_m1() + FLUSH;
                let product = dot(gradient, given.shared(given.values, key, head));
                let difference = product.0 - along.0;
                let lost = dot_bound(head_dim, product.1) + dot_bound(head_dim, along.1);
                let difference_error = lost + (difference.abs() + lost) * ROUNDOFF;
                let ds = p * difference;
                let error = p * difference_error + p_error * (difference.abs() + difference_error);
                let ds = (ds, error + (ds.abs() + error) * gamma(2.0) + FLUSH);
                let shared = (key * kv_heads + given.kv_head(head)) * head_dim;
                for i in 0..head_dim {
                    by_query[at * head_dim + i].add(ds, given.shared(given.keys, key, head)[i].into());
                    by_key[shared + i].add(ds, given.query(row, head)[i].into());
                    by_value[shared + i].add((p, p_error), gradient[i].into());
                }
            }
        }
    }
    let scale = 1.0 / (head_dim as f64).sqrt();
    [(by_query, scale), (by_key, scale), (by_value, 1.0)].map(|(sums, scale)| {
        let mut expected = Expected::default();
        sums.into_iter().for_each(|sum| sum.push(scale, &mut expected));
        expected
    })
}
