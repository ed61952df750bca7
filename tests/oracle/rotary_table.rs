//! Cosines and sines of the rotary position embedding.

use pard::checkpoint::config::RopeScaling;

/// The cosine and the sine of every angle, `[positions, head_dim / 2]` each, times YaRN's attention factor.
pub struct RotaryTable {
    /// `cos(position · frequency) · magnitude`.
    pub cos: Vec<f64>,
    /// `sin(position · frequency) · magnitude`.
    pub sin: Vec<f64>,
}

/// `angle[position, i] = position · stretched(theta^(−2i / head_dim))`.
///
/// `factors` holds `head_dim / 2` divisors and is read for [`RopeScaling::Factors`] only.
/// **Source**: Su et al. 2021, arXiv:2104.09864; Chen et al. 2023, arXiv:2306.15595 (linear); Llama 3.1's blend as in
/// Hugging Face's `_compute_llama3_parameters`; Peng et al. 2023, arXiv:2309.00071 (YaRN), with the blend over dimensions
/// of Hugging Face's `_compute_yarn_parameters`.
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
                RopeScaling::Yarn(yarn) => {
                    // The wavelength at which a dimension turns b times over the original context is context / b, and
                    // wavelength(d) = 2π · theta^(d / head_dim), d counting both dimensions of each pair.
                    let pair_of = |turns: f64| {
                        let wavelength = yarn.original_context / turns;
                        (wavelength / std::f64::consts::TAU).log(theta) * head_dim as f64 / 2.0
                    };
                    let [mut first, mut last] = [pair_of(yarn.beta_fast), pair_of(yarn.beta_slow)];
                    if yarn.truncate {
                        [first, last] = [first.floor(), last.ceil()];
                    }
                    [first, last] = [first.max(0.0), last.min(head_dim as f64 - 1.0)];
                    if first == last {
                        last += 0.001;
                    }
                    let blend = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    frequency / yarn.factor * blend + frequency * (1.0 - blend)
                }
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                    let turns = original_context * frequency / std::f64::consts::TAU;
                    let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    kept * frequency + (1.0 - kept) * frequency / factor
                }
            }
        })
        .collect();
    let angles = || (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
    let magnitude = if let RopeScaling::Yarn(yarn) = scaling { yarn.attention_factor } else { 1.0 };
    let table = |of: fn(f64) -> f64| angles().map(|angle| of(angle) * magnitude).collect();
    RotaryTable { cos: table(f64::cos), sin: table(f64::sin) }
}
