//! Cosines and sines of the rotary position embedding.

use pard_engine::model::config::RopeScaling;

/// The cosine and the sine of every angle, `[positions, head_dim / 2]` each.
pub struct RotaryTable {
    /// `cos(position · frequency)`.
    pub cos: Vec<f64>,
    /// `sin(position · frequency)`.
    pub sin: Vec<f64>,
}

/// `angle[position, i] = position · stretched(theta^(−2i / head_dim))`.
///
/// `factors` holds `head_dim / 2` divisors and is read for [`RopeScaling::Factors`] only.
/// **Source**: Su et al. 2021, arXiv:2104.09864; Chen et al. 2023, arXiv:2306.15595 (linear); Llama 3.1's blend as in
/// Hugging Face's `_compute_llama3_parameters`.
pub fn rotary_table(
    theta: f64,
    scaling: &RopeScaling,
    factors: &[f32],
    head_dim: usize,
    positions: usize,
) -> RotaryTable {
    let frequencies: Vec<f64> = (0..head_dim / 2)
        .map(|i| {
            let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
            match *scaling {
                RopeScaling::None => frequency,
                RopeScaling::Linear { factor } => frequency / factor,
                RopeScaling::Factors => frequency / f64::from(factors[i]),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                    let turns = original_context * frequency / std::f64::consts::TAU;
                    let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    kept * frequency + (1.0 - kept) * frequency / factor
                }
            }
        })
        .collect();
    let angles = || (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
    RotaryTable { cos: angles().map(f64::cos).collect(), sin: angles().map(f64::sin).collect() }
}
