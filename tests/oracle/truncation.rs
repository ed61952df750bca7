//! The lowest logit that may be drawn: by top-k, top-p (Holtzman et al. 2019, arXiv:1904.09751) and min-p (Nguyen et al.
//! 2024, arXiv:2407.01082), in this order; equals stay or go together.

/// Limits on the tokens that may be drawn; 0 or 1 for no limit.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub temperature: f32,
}

/// The threshold, as the least and the most that an f32 kernel may give: a token on whose weight a decision hangs by less
/// than rounding may stay or go.
///
/// A weight w = exp(x), x = (l - max) / T, is off by w (3 + 2 |x|) units in the last place for the exponential, by
/// 4 w |x| for its argument, and by 2^-27 for being an integer of 28 bits or more.
pub fn truncation(logits: &[f32], terms: Terms) -> (f64, f64) {
    let mut sorted: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (largest, temperature) = (sorted[0], f64::from(terms.temperature));
    let mut kept = &sorted[..];
    let mut lowest = f64::from(f32::MIN);
    if terms.top_k > 0 && terms.top_k < sorted.len() {
        lowest = sorted[terms.top_k - 1];
        kept = &sorted[..sorted.partition_point(|&logit| logit >= lowest)];
    }
    let (mut least, mut most) = (lowest, lowest);
    if terms.top_p < 1.0 {
        let weights: Vec<f64> = kept.iter().map(|logit| ((logit - largest) / temperature).exp()).collect();
        let off: f64 = kept
            .iter()
            .zip(&weights)
            .map(|(logit, weight)| {
                let x = ((logit - largest) / temperature).abs();
                2f64.powi(-23) * weight * (3.0 + 6.0 * x) + 2f64.powi(-27)
            })
            .sum();
        let total: f64 = weights.iter().sum();
        let p = f64::from(terms.top_p);
        let reaching = |mass: f64| {
            let mut sum = 0.0;
            let at = weights.iter().position(|weight| {
                sum += weight;
                sum >= mass
            });
            kept[at.unwrap_or(kept.len() - 1)]
        };
        // Sums of weights, the whole and p of it are off by so much each.
        least = lowest.max(reaching(p * total + 3.0 * off));
        most = lowest.max(reaching(p * total - 3.0 * off));
    }
    if terms.min_p > 0.0 {
        let gap = temperature * f64::from(terms.min_p).ln();
        let rounding = 2f64.powi(-22) * (gap.abs() + largest.abs());
        least = least.max(largest + gap - rounding);
        most = most.max(largest + gap + rounding);
    }
    (least, most)
}
