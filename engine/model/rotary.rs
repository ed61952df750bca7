//! Rotary angles, made on the host in f64: WGSL promises its sine and cosine only to 2⁻¹¹.

use std::f64::consts::TAU;

use super::config::{Config, RopeScaling};

/// The angle per position of each of the `head_dim / 2` frequencies, in radians.
///
/// Source: RoPE, arXiv:2104.09864, θᵢ = base^(-2i / d); scalings as Hugging Face's `modeling_rope_utils`.
pub fn frequencies(config: &Config) -> Vec<f64> {
    let half = config.head_dim / 2;
    (0..half)
        .map(|i| {
            let plain = config.rope_theta.powf(-(i as f64) / half as f64);
            match config.rope_scaling {
                RopeScaling::None => plain,
                RopeScaling::Linear { factor } => plain / factor,
                RopeScaling::Factors => plain / f64::from(config.rope_factors[i]),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                    let turns = original_context * plain / TAU;
                    if turns < low_freq_factor {
                        plain / factor
                    } else if turns > high_freq_factor {
                        plain
                    } else {
                        let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        plain * (kept + (1.0 - kept) / factor)
                    }
                }
            }
        })
        .collect()
}

/// Cosines and sines for positions `0..positions`, `[positions, 2, head_dim / 2]`: cosines, then sines.
pub fn angles(config: &Config, positions: usize) -> Vec<f32> {
    let frequencies = frequencies(config);
    let mut table = Vec::with_capacity(positions * config.head_dim);
    for position in 0..positions {
        let angle = |frequency: &f64| position as f64 * frequency;
        table.extend(frequencies.iter().map(|frequency| angle(frequency).cos() as f32));
        table.extend(frequencies.iter().map(|frequency| angle(frequency).sin() as f32));
    }
    table
}
