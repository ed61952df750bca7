//! Log-probabilities and the likeliest tokens.

use super::Expected;

/// log softmax of each logit, by index.
///
/// With n logits: each exponential is off by 3 + 2 |x| units in the last place and the argument by one of the larger; their
/// sum by n; log by 3 units, or 2^-21 near 0; the two differences by one each.
pub fn log_probabilities(logits: &[f32]) -> Expected {
    let unit = 2f64.powi(-23);
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let gap = |logit: f32| f64::from(logit) - f64::from(largest);
    let sum: f64 = logits.iter().map(|&logit| gap(logit).exp()).sum();
    let off: f64 =
        logits.iter().map(|&logit| gap(logit).exp() * (3.0 + 3.0 * gap(logit).abs() + logits.len() as f64)).sum();
    let of_log = unit * off / sum + 3.0 * unit * sum.ln().abs() + 2f64.powi(-21);
    let mut expected = Expected::default();
    for &logit in logits {
        let value = gap(logit) - sum.ln();
        expected.push(value, of_log + unit * (gap(logit).abs() + value.abs()));
    }
    expected
}

/// The `count` likeliest indices, of equals the lower first.
pub fn likeliest(logits: &[f32], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    indices.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    indices.truncate(count);
    indices
}
