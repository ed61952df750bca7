//! Cross-entropy and divergence, and their gradient.

use pard::low_level::ops::gradients::Label;

use super::super::{Expected, Real};
use crate::comparison::{FLUSH, ROUNDOFF, gamma};

/// The loss of one row: cross-entropy and `KL(teacher || draft)`, with their bounds, and its gradient.
pub struct Loss {
    pub cross_entropy: (f64, f64),
    pub divergence: (f64, f64),
    pub gradient: Expected,
}

/// Probabilities and, for each, the largest relative error; and `ln Σ e^(x − max)`, its error and the maximum.
struct Softmax {
    shares: Vec<(f64, f64)>,
    log_sum: (f64, f64),
    highest: f64,
}

/// **Bound**: each power has its argument's rounding and `exp`'s 3 + 2|x| ULP; their sum adds γₙ; `log` is 3 ULP, or 2⁻²¹
/// near 1. Powers below e^-80 are cut off there.
fn softmax<X: Real>(row: &[X]) -> Softmax {
    let highest = row.iter().map(|&x| x.into()).fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<(f64, f64)> = row
        .iter()
        .map(|&x| {
            let below: f64 = highest - x.into();
            ((-below).exp(), gamma(4.0 + 3.0 * below.min(100.0)))
        })
        .collect();
    let sum: f64 = powers.iter().map(|power| power.0).sum();
    let cut = (-80f64).exp() * 1.001;
    let lost: f64 = powers.iter().map(|(power, error)| power * error + cut).sum();
    let sum_error = lost / sum + gamma(row.len() as f64);
    let shares = powers
        .iter()
        .map(|(power, error)| (power / sum, power / sum * (error + sum_error + gamma(5.0)) * 1.001 + cut + FLUSH))
        .collect();
    let log_sum = sum.ln();
    Softmax { shares, log_sum: (log_sum, sum_error * 1.001 + 2f64.powi(-21) + 3.0 * ROUNDOFF * log_sum), highest }
}

/// The gradient of `weight · cross-entropy + divergence_weight · KL(teacher || draft)` for a row of logits.
///
/// **Shapes**: `logits`, `teacher` and the gradient `[vocab]`.
pub fn cross_entropy<X: Real>(logits: &[X], teacher: Option<&[X]>, label: Label) -> Loss {
    let draft = softmax(logits);
    let weight = if label.id == Label::NONE { 0.0 } else { f64::from(label.weight) };
    let mut cross_entropy = (0.0, 0.0);
    if label.id != Label::NONE {
        let below: f64 = logits[label.id as usize].into() - draft.highest;
        let value = draft.log_sum.0 - below;
        cross_entropy = (value, draft.log_sum.1 + ROUNDOFF * (below.abs() + value.abs()) + FLUSH);
    }
    let mut gradient = Expected::default();
    let wanted = teacher.map(softmax);
    for (index, &(share, error)) in draft.shares.iter().enumerate() {
        let off = share - if index == label.id as usize { 1.0 } else { 0.0 };
        let mut value = weight * off;
        let mut bound = weight.abs() * (error + gamma(2.0) * off.abs()) + FLUSH;
        if let Some(wanted) = &wanted {
            let weight = f64::from(label.divergence_weight);
            let (wanted, wanted_error) = wanted.shares[index];
            value += weight * (share - wanted);
            bound += weight.abs() * (error + wanted_error + gamma(2.0) * (share - wanted).abs()) + FLUSH;
        }
        gradient.push(value, bound + gamma(2.0) * value.abs());
    }
    let divergence = match (&wanted, teacher) {
        (Some(wanted), Some(teacher)) => divergence(logits, &draft, teacher, wanted),
        _ => (0.0, 0.0),
    };
    Loss { cross_entropy, divergence, gradient }
}

/// `Σ q · (ln q − ln p)`, by the sum of `q · ((t − max t) − (x − max x))` and the logarithms of both sums.
fn divergence<X: Real>(logits: &[X], draft: &Softmax, teacher: &[X], wanted: &Softmax) -> (f64, f64) {
    let (mut sum, mut magnitude, mut error) = (0.0, 0.0, 0.0);
    for (index, &(share, share_error)) in wanted.shares.iter().enumerate() {
        let below = logits[index].into() - draft.highest;
        let teacher_below = teacher[index].into() - wanted.highest;
        let term = share * (teacher_below - below);
        sum += term;
        magnitude += term.abs();
        error += share_error * (teacher_below - below).abs() + gamma(2.0) * share * (teacher_below.abs() + below.abs());
    }
    let value = sum + (draft.log_sum.0 - wanted.log_sum.0);
    let bound = error * 1.001
        + gamma(logits.len() as f64 + 4.0) * magnitude
        + draft.log_sum.1
        + wanted.log_sum.1
        + gamma(2.0) * (value.abs() + draft.log_sum.0 + wanted.log_sum.0)
        + FLUSH;
    (value, bound)
}
