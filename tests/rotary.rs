//! The rotary table of the host: YaRN against its formula and against numbers from elsewhere, and positions far out.

use pard::checkpoint::config::{Config, RopeScaling, Yarn};
use pard::low_level::forward::rope_table::{angles, frequencies};

use crate::oracle::rotary_table::rotary_table;
use crate::support::tiny_model::Recipe;

fn config(head_dim: usize, rope_theta: f64, rope_scaling: RopeScaling) -> Config {
    Config { head_dim, rope_theta, rope_scaling, ..Recipe::qwen2(1).config }
}

/// As Qwen2.5 and Qwen3 are stretched to 131072 tokens.
fn qwen() -> Yarn {
    Yarn::new(4.0, 32768.0)
}

/// From Hugging Face's formula in f64, computed apart.
#[test]
fn yarns_frequencies_are_those_of_transformers() {
    let untruncated = Yarn { truncate: false, ..qwen() };
    for (head_dim, theta, yarn, expected) in [
        // Pairs up to 23 are kept, those from 40 on divided.
        (128, 1e6, qwen(), [(0, 1.0), (10, 0.115_478_198_468_945_8), (30, 0.001_064_360_981_247_001_7)]),
        (
            128,
            1e6,
            qwen(),
            [(23, 1e6f64.powf(-23.0 / 64.0)), (40, 1e6f64.powf(-0.625) / 4.0), (63, 3.102_344_401_879_299e-7)],
        ),
        (128, 1e6, untruncated, [(0, 1.0), (30, 0.001_079_237_741_676_553_8), (35, 0.000_244_518_887_956_416_83)]),
        (
            64,
            1e6,
            qwen(),
            [(10, 0.013_335_214_321_633_24), (15, 0.001_026_617_684_039_661_8), (17, 0.000_324_690_815_788_105_6)],
        ),
        (32, 5e5, Yarn::new(4.0, 64.0), [(0, 1.0), (7, 0.000_802_861_498_688_147_8), (15, 1.135_417_620_151_967_4e-6)]),
    ] {
        let got = frequencies(&config(head_dim, theta, RopeScaling::Yarn(yarn)));
        for (i, expected) in expected {
            let error = (got[i] / expected - 1.0).abs();
            assert!(error <= 1e-12, "{yarn:?}, frequency {i} of {head_dim}: {} where {expected} is right", got[i]);
        }
    }
}

#[test]
fn yarns_magnitude_is_that_of_transformers() {
    assert!((qwen().attention_factor - 1.138_629_436_111_989).abs() <= 1e-15);
    assert_eq!(Yarn::new(1.0, 100.0).attention_factor, 1.0);
    assert_eq!(Yarn::new(0.5, 100.0).attention_factor, 1.0);
    assert!((Yarn::magnitude(40.0, 0.707) - 1.260_804_6).abs() < 1e-6);
}

/// Table by table, in f32 at positions that a head turns through slowly and quickly.
#[test]
fn tables_agree_with_the_oracle() {
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    let scalings = [
        RopeScaling::None,
        RopeScaling::Linear { factor: 4.0 },
        llama3,
        RopeScaling::Yarn(qwen()),
        RopeScaling::Yarn(Yarn { truncate: false, attention_factor: 0.9, ..Yarn::new(8.0, 16.0) }),
        // A blend of no width, and one whose ends lie outside of the head.
        RopeScaling::Yarn(Yarn { beta_slow: 32.0, truncate: false, ..qwen() }),
        RopeScaling::Yarn(Yarn { beta_fast: 1e9, ..qwen() }),
        RopeScaling::Yarn(Yarn { beta_fast: 1e3, beta_slow: 1e3, ..Yarn::new(4.0, 16.0) }),
    ];
    for scaling in scalings {
        for (head_dim, theta) in [(32, 1e4), (48, 5e5), (128, 1e6)] {
            let config = config(head_dim, theta, scaling);
            let positions = 300;
            let expected = rotary_table(theta, &scaling, &[], head_dim, positions);
            let half = head_dim / 2;
            for (position, row) in angles(&config, positions).chunks(head_dim).enumerate() {
                for i in 0..half {
                    let at = position * half + i;
                    for (got, expected) in [(row[i], expected.cos[at]), (row[half + i], expected.sin[at])] {
                        let error = (f64::from(got) - expected).abs();
                        assert!(
                            error <= 1.2e-7,
                            "{scaling:?}, position {position}, {i} of {head_dim}: off by {error:e}"
                        );
                    }
                }
            }
        }
    }
}

/// A position far out, as the sum of two smaller angles: what f64 loses of a large product shows, and f32 would be off by
/// some 1e-3.
#[test]
fn positions_to_131072_are_as_right_as_f64_makes_them() {
    for scaling in [RopeScaling::None, RopeScaling::Yarn(qwen())] {
        let config = config(64, 1e6, scaling);
        let (positions, half) = (131_072, 32);
        let table = angles(&config, positions);
        let frequencies = frequencies(&config);
        let magnitude = if scaling == RopeScaling::None { 1.0 } else { qwen().attention_factor };
        for position in [1, 4_095, 32_767, 32_768, 100_003, 131_071] {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (mut cos, mut sin) = (1.0f64, 0.0f64);
                // Bit by bit: (c, s) turned by the angle of each power of two, by doubling an exact small angle.
                let (mut turn_cos, mut turn_sin) = (frequency.cos(), frequency.sin());
                for bit in 0..17 {
                    if (position >> bit) & 1 == 1 {
                        (cos, sin) = (cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin);
                    }
                    (turn_cos, turn_sin) = (turn_cos * turn_cos - turn_sin * turn_sin, 2.0 * turn_cos * turn_sin);
                }
                let row = &table[position * 64..][..64];
                for (got, expected) in [(row[i], cos * magnitude), (row[half + i], sin * magnitude)] {
                    let error = (f64::from(got) - expected).abs();
                    // Half a unit in the last place of an f32, and what 131072 turns of 2^-53 each can come to.
                    assert!(error <= 7e-8 + 1e-10, "{scaling:?}, position {position}, {i}: off by {error:e}");
                }
            }
        }
    }
}
