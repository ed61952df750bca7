//! A mixture of experts: the choice of a row's experts, and the sum of what they make of it.

use super::{Expected, Real};
use crate::comparison::{FLUSH, dot_bound, gamma};

/// The `used` experts with the highest of one row's `scores`, from the highest on, the lowest index first among equals, and
/// their shares: `exp(score)` over the sum of `exp(score)` of all experts, or of the chosen ones if `normalised`.
///
/// **Bound**: with x = score − highest, WGSL's exp is 3 + 2|x| ULP off and its argument |x| more; a sum of n terms n more, and
/// the quotient 2.5; a flushed exp loses 2⁻¹²⁶.
pub fn route<S: Real>(scores: &[S], used: usize, normalised: bool) -> (Vec<usize>, Expected) {
    let scores: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&one, &other| scores[other].total_cmp(&scores[one]).then(one.cmp(&other)));
    let x = |expert: usize| scores[expert] - scores[order[0]];
    let roundings = |expert: usize| 3.0 + 3.0 * x(expert).abs();
    let summed = if normalised { &order[..used] } else { &order[..] };
    let sum: f64 = summed.iter().map(|&expert| x(expert).exp()).sum();
    let off = summed.iter().map(|&expert| x(expert).exp() * roundings(expert)).sum::<f64>() / sum;
    let mut shares = Expected::default();
    for &expert in &order[..used] {
        let share = x(expert).exp() / sum;
        // A unit in the last place is two half ones.
        let relative = gamma(2.0 * (roundings(expert) + off + summed.len() as f64 + 2.5));
        shares.push(share, share * relative + FLUSH);
    }
    (order[..used].to_vec(), shares)
}

/// `residual[i] + Σ shares[c] · outputs[c][i]` of one row.
///
/// **Bound**: that of one dot product, of which the residual is a term.
pub fn expert_sum<X: Real>(shares: &[X], outputs: &[&[X]], residual: &[X]) -> Expected {
    let mut sums = Expected::default();
    for (at, &residual) in residual.iter().enumerate() {
        let terms: Vec<f64> =
            shares.iter().zip(outputs).map(|(&share, output)| share.into() * output[at].into()).collect();
        let residual: f64 = residual.into();
        let sizes = residual.abs() + terms.iter().map(|term| term.abs()).sum::<f64>();
        sums.push(residual + terms.iter().sum::<f64>(), dot_bound(terms.len() + 1, sizes));
    }
    sums
}
