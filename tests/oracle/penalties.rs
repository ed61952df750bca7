//! Penalties and biases of tokens. Keskar et al. 2019, arXiv:1909.05858, for repetition; OpenAI's API for the others.

use super::{Expected, Real};

/// Strengths of the penalties.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
}

/// One row's logits after a text of `prompt` and `answer`. `ids` are the tokens that the logits are of; a bias of `None`
/// bans its token, whose logit becomes the lowest f32.
///
/// The bound: division and product are off by 2.5 units in the last place and carry on what the sum before them is off by;
/// each of the three sums is off by one.
pub fn penalties<T: Real>(
    logits: &[T],
    ids: &[u32],
    prompt: &[u32],
    answer: &[u32],
    bias: &dyn Fn(u32) -> Option<f32>,
    terms: Terms,
) -> Expected {
    let unit = 2f64.powi(-23);
    let mut expected = Expected::default();
    for (&logit, id) in logits.iter().zip(ids) {
        let Some(bias) = bias(*id) else {
            expected.push(f64::from(f32::MIN), 0.0);
            continue;
        };
        let times = answer.iter().filter(|token| *token == id).count() as f64;
        let mut logit: f64 = logit.into() + f64::from(bias);
        let mut size = logit.abs();
        let repetition = f64::from(terms.repetition);
        if times > 0.0 || prompt.contains(id) {
            // A value close to 0 may take the other branch.
            size *= repetition.max(1.0 / repetition);
            logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
            size += 2.5 * logit.abs();
        }
        if times > 0.0 {
            let (presence, frequency) = (f64::from(terms.presence), f64::from(terms.frequency) * times);
            size += (logit - presence).abs() + (logit - presence - frequency).abs() + frequency.abs();
            logit -= presence + frequency;
        }
        expected.push(logit, unit * size);
    }
    expected
}
