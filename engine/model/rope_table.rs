//! Rotary angles, made on the host in f64: WGSL promises its sine and cosine only to 2⁻¹¹.

use std::f64::consts::TAU;

use crate::checkpoint::config::{Config, RopeScaling, Yarn};

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
                RopeScaling::Yarn(yarn) => {
                    let divided = yarn_share(&yarn, config, i);
                    plain * (1.0 - divided) + plain / yarn.factor * divided
                }
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

/// Share of frequency `i` that is divided by YaRN's factor: 0 up to the dimension that turns `beta_fast` times over the
/// original context, 1 from the one that turns `beta_slow` times.
fn yarn_share(yarn: &Yarn, config: &Config, i: usize) -> f64 {
    let dims = config.head_dim as f64;
    let dimension = |turns: f64| dims * (yarn.original_context / (turns * TAU)).ln() / (2.0 * config.rope_theta.ln());
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dims - 1.0));
    // A blend of no width is a step, as there.
    let width = if low == high { 0.001 } else { high - low };
    ((i as f64 - low) / width).clamp(0.0, 1.0)
}

/// Cosines and sines for positions `0..positions`, `[positions, 2, head_dim / 2]`: cosines, then sines. With YaRN they are
/// multiplied by its attention factor.
pub fn angles(config: &Config, positions: usize) -> Vec<f32> {
    let frequencies = frequencies(config);
    let magnitude = match config.rope_scaling {
        RopeScaling::Yarn(yarn) => yarn.attention_factor,
        _ => 1.0,
    };
    let mut table = Vec::with_capacity(positions * config.head_dim);
    for position in 0..positions {
        let angle = |frequency: &f64| position as f64 * frequency;
        table.extend(frequencies.iter().map(|frequency| (angle(frequency).cos() * magnitude) as f32));
        table.extend(frequencies.iter().map(|frequency| (angle(frequency).sin() * magnitude) as f32));
    }
    table
}
