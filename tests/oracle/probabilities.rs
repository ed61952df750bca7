//! The chance of each token to be drawn.

use super::Expected;

/// softmax(logits / temperature) over the logits of at least `threshold`, 0 for the others.
///
/// With x = (l - max) / T: the exponential is off by 3 + 2 |x| units in the last place, its argument by 3 |x|; the sum
/// of n of them by n more, and the quotient by 2.5.
pub fn probabilities(logits: &[f32], temperature: f32, threshold: f32) -> Expected {
    let unit = 2f64.powi(-23);
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let kept = |logit: f32| logit >= threshold;
    let x = |logit: f32| (f64::from(logit) - f64::from(largest)) / f64::from(temperature);
    let weight = |logit: f32| if kept(logit) { x(logit).exp() } else { 0.0 };
    let off = |logit: f32| 3.0 + 5.0 * x(logit).abs();
    let sum: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let sum_off: f64 =
        logits.iter().map(|&logit| weight(logit) * (off(logit) + logits.len() as f64)).sum::<f64>() / sum;
    let mut expected = Expected::default();
    for &logit in logits {
        let value = weight(logit) / sum;
        expected
            .push(value, unit * value * (off(logit) + sum_off + 2.5) + if kept(logit) { 2f64.powi(-126) } else { 0.0 });
    }
    expected
}
