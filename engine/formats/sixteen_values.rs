//! The sixteen values of 4-bit numbers in IQ4_NL and IQ4_XS, which lie closer together near zero, where weights are many.
//! Source: `kvalues_iq4nl` of ggml.

use super::search::{Fit, NOTHING, extreme, inverse};

pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The number whose value is next to `value`.
pub fn nearest(value: f32) -> u8 {
    let above = VALUES.iter().position(|&known| f32::from(known) > value).unwrap_or(VALUES.len());
    match above {
        0 => 0,
        16 => 15,
        _ => {
            let [below, over] = [above - 1, above].map(|at| f32::from(VALUES[at]));
            (if value - below < over - value { above - 1 } else { above }) as u8
        }
    }
}

/// The scale of 32 weights, such that `scale * VALUES[q]` comes closest to them, each weighing as its square: the
/// largest gets the first value, or one that is moved by -`steps` to `steps`.
pub fn scale(values: &[f32], steps: Option<i32>) -> f32 {
    let most = extreme(values);
    if most.abs() < NOTHING {
        return 0.0;
    }
    let fit = |factor: f32| Fit::new(values, |value| f32::from(VALUES[usize::from(nearest(factor * value))]));
    let first = f32::from(VALUES[0]);
    match steps {
        None => fit(inverse(most / first)).scale(),
        Some(steps) => {
            let others = (-steps..=steps).map(|step| fit((step as f32 + first) / most));
            fit(inverse(-most / first)).best_scale(others)
        }
    }
}
