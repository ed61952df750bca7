//! How tokens are chosen. Where they are drawn, the draw is argmax(logits / T + g) with Gumbel noise g that is a function
//! of the seed, the position and the token alone (arXiv:1411.0030). A draft that draws by the same noise proposes what its
//! target will draw, as far as their distributions agree; the check stays an equality, and the target's distribution is
//! kept. So AR, VSD and PARD write the same tokens at any temperature, which the rejection rule of arXiv:2211.17192 gives
//! up: there, the text depends on what was proposed.

use crate::error::{Error, Result};

/// The highest temperature. Tokens are as good as evenly distributed long before it.
pub const MOST_TEMPERATURE: f32 = 1000.0;

/// How tokens are chosen. None of it depends on the method or on K.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplingOptions {
    /// Tokens are drawn from `softmax(logits / temperature)`, 0 to [`MOST_TEMPERATURE`]; 0 takes the likeliest.
    pub temperature: f32,
    /// Names the draws: a prompt and a seed give the same text every time, on the same device.
    pub seed: u64,
}

impl SamplingOptions {
    /// Whether the likeliest token is taken, and nothing else is asked for.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// **Errors**: [`Error::Option`], which names the option that is out of range.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=MOST_TEMPERATURE).contains(&self.temperature) {
            let reason = format!("{} is not between 0 and {MOST_TEMPERATURE}", self.temperature);
            return Err(Error::Option { option: "temperature", reason });
        }
        Ok(())
    }
}

/// The noise of text `index` under `seed` (splitmix64; Steele, Lea & Flood 2014).
pub(super) fn noise(seed: u64, index: usize) -> u32 {
    let state = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as u32
}
