//! Seeded random numbers, the same on every machine: SplitMix64 (Steele, Lea & Flood 2014), and sums of its bits.
//! The rand crates were not taken: their streams may change between versions, and a failing seed should stay one.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An integer in `0..limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// A number of mean 0 and standard deviation 1: the sum of 12 uniform ones, so within ±6.
    pub fn normal(&mut self) -> f32 {
        let sum: u64 = (0..3).map(|_| self.bits().to_le_bytes()).flat_map(pairs).sum();
        (sum as f64 / 65536.0 - 6.0) as f32
    }

    /// `len` normal numbers with the given standard deviation.
    pub fn normals(&mut self, len: usize, deviation: f32) -> Vec<f32> {
        (0..len).map(|_| self.normal() * deviation).collect()
    }

    /// The same, rounded to BF16: weights as a kernel reads them, and as an oracle gets them.
    pub fn bf16_normals(&mut self, len: usize, deviation: f32) -> Vec<f32> {
        (0..len).map(|_| half::bf16::from_f32(self.normal() * deviation).to_f32()).collect()
    }

    /// `len` integers in `0..limit`.
    pub fn indices(&mut self, len: usize, limit: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(limit) as u32).collect()
    }
}

/// Four 16-bit numbers.
fn pairs(bytes: [u8; 8]) -> [u64; 4] {
    std::array::from_fn(|pair| u64::from(u16::from_le_bytes([bytes[2 * pair], bytes[2 * pair + 1]])))
}

#[test]
fn the_stream_is_the_published_one() {
    // The first outputs for seed 1234567 in the reference implementation's widely copied test.
    let mut random = Random::new(1234567);
    assert_eq!([random.bits(), random.bits()], [6457827717110365317, 3203168211198807973]);
}

#[test]
fn normals_have_mean_zero_and_deviation_one() {
    let values = Random::new(1).normals(100_000, 1.0);
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64 - mean * mean;
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
}
