//! Quantised weights: each value of a GGUF block, straight from its format's formula. Source: ggml's block structures
//! (`ggml-common.h`) and what they are said to stand for.

use half::f16;
use pard::WeightFormat;

/// A format: what files call it, its blocks, and what other implementations make of them.
pub struct Case {
    pub format: WeightFormat,
    /// Number and name in GGUF.
    pub number: u32,
    pub name: &'static str,
    /// Values and bytes of a block.
    pub block: [usize; 2],
    /// Where its half-precision numbers lie; of an F32, the half that has the exponent.
    pub halves: &'static [usize],
    /// Value `index` of a block.
    pub value: fn(&[u8], usize) -> f64,
    /// FNV-1a hash of the little-endian f32 values that `gguf.quants.dequantize` (0.19) makes of the blocks of
    /// tests/gguf/widening.rs.
    pub widened: u64,
    /// The distance of neighbours, in parts of the largest magnitude of 32 values, if values are quantised: half of it
    /// may be lost, or all of it where the scales are rounded too.
    pub step: f32,
    /// FNV-1a hash of the bytes that `gguf.quants.quantize` (0.19) makes of the values of tests/ops/quantised.rs, if it can.
    pub quantised: Option<u64>,
}

#[rustfmt::skip]
pub const CASES: [Case; 15] = [
    Case { format: WeightFormat::F32, number: 0, name: "F32", block: [1, 4], halves: &[2], value: f32_value,
           widened: 0x19b3ef0b34b54654, step: 0.0, quantised: None },
    Case { format: WeightFormat::F16, number: 1, name: "F16", block: [1, 2], halves: &[0], value: f16_value,
           widened: 0xd87831328604e0d6, step: 0.0, quantised: None },
    Case { format: WeightFormat::Bf16, number: 30, name: "BF16", block: [1, 2], halves: &[0], value: bf16_value,
           widened: 0xbd53495da9a6abff, step: 0.0, quantised: None },
    Case { format: WeightFormat::Q4_0, number: 2, name: "Q4_0", block: [32, 18], halves: &[0], value: q4_0,
           widened: 0xef9af2609feb2f8c, step: 1.0 / 8.0, quantised: Some(0x03abc321f9635d0c) },
    Case { format: WeightFormat::Q4_1, number: 3, name: "Q4_1", block: [32, 20], halves: &[0, 2], value: q4_1,
           widened: 0x7a575623ceeeee90, step: 2.0 / 15.0, quantised: Some(0xce4a97ac8547b95b) },
    Case { format: WeightFormat::Q5_0, number: 6, name: "Q5_0", block: [32, 22], halves: &[0], value: q5_0,
           widened: 0x8ff76f7807592c68, step: 1.0 / 16.0, quantised: Some(0x23c50ff4524e4f29) },
    Case { format: WeightFormat::Q5_1, number: 7, name: "Q5_1", block: [32, 24], halves: &[0, 2], value: q5_1,
           widened: 0x0baf93804b6c1c5f, step: 2.0 / 31.0, quantised: Some(0x21f0ebdb180bdaf5) },
    Case { format: WeightFormat::Q8_0, number: 8, name: "Q8_0", block: [32, 34], halves: &[0], value: q8_0,
           widened: 0x8636f8c5f64fc1c6, step: 1.0 / 127.0, quantised: Some(0xd338a52fa3000ad7) },
    Case { format: WeightFormat::Q2K, number: 10, name: "Q2_K", block: [256, 84], halves: &[80, 82], value: q2_k,
           widened: 0xfb94e995900c0547, step: 2.2 / 3.0, quantised: None },
    Case { format: WeightFormat::Q3K, number: 11, name: "Q3_K", block: [256, 110], halves: &[108], value: q3_k,
           widened: 0xe403adc8c9768127, step: 1.0 / 4.0, quantised: None },
    Case { format: WeightFormat::Q4K, number: 12, name: "Q4_K", block: [256, 144], halves: &[0, 2], value: q4_k,
           widened: 0x31c05886dd8226, step: 2.2 / 15.0, quantised: None },
    Case { format: WeightFormat::Q5K, number: 13, name: "Q5_K", block: [256, 176], halves: &[0, 2], value: q5_k,
           widened: 0x600274f2dd56cde3, step: 2.2 / 31.0, quantised: None },
    Case { format: WeightFormat::Q6K, number: 14, name: "Q6_K", block: [256, 210], halves: &[208], value: q6_k,
           widened: 0xd7fe3308d4a37a47, step: 2.0 / 31.0, quantised: None },
    Case { format: WeightFormat::Iq4Nl, number: 20, name: "IQ4_NL", block: [32, 18], halves: &[0], value: iq4_nl,
           widened: 0x1a184759cd69e47a, step: 24.0 / 127.0, quantised: None },
    Case { format: WeightFormat::Iq4Xs, number: 23, name: "IQ4_XS", block: [256, 136], halves: &[0], value: iq4_xs,
           widened: 0x1df08d4d359c6f63, step: 24.0 / 127.0, quantised: None },
];

/// The case of `format`.
pub fn case(format: WeightFormat) -> &'static Case {
    CASES.iter().find(|case| case.format == format).expect("a case for each format")
}

/// The values of whole blocks of `format`, as f32 holds them: `blocks` are bytes as files store them.
pub fn widen(format: WeightFormat, blocks: &[u8]) -> Vec<f32> {
    let Case { block: [len, bytes], value, .. } = *case(format);
    blocks.chunks_exact(bytes).flat_map(|block| (0..len).map(move |index| value(block, index) as f32)).collect()
}

fn half(block: &[u8], at: usize) -> f64 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f64()
}

/// Value `index` of 32 nibbles at `at`.
fn nibble(block: &[u8], at: usize, index: usize) -> f64 {
    let byte = block[at + index % 16];
    f64::from(if index < 16 { byte % 16 } else { byte / 16 })
}

/// Sixteen times bit `index` of the bytes at `at`.
fn fifth(block: &[u8], at: usize, index: usize) -> f64 {
    if block[at + index / 8] & (1 << (index % 8)) != 0 { 16.0 } else { 0.0 }
}

fn f32_value(block: &[u8], _: usize) -> f64 {
    f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]]))
}

fn f16_value(block: &[u8], _: usize) -> f64 {
    half(block, 0)
}

fn bf16_value(block: &[u8], _: usize) -> f64 {
    half::bf16::from_le_bytes([block[0], block[1]]).to_f64()
}

fn q4_0(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 2, index) - 8.0)
}

fn q4_1(block: &[u8], index: usize) -> f64 {
    half(block, 0) * nibble(block, 4, index) + half(block, 2)
}

fn q5_0(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 6, index) + fifth(block, 2, index) - 16.0)
}

fn q5_1(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 8, index) + fifth(block, 4, index)) + half(block, 2)
}

fn q8_0(block: &[u8], index: usize) -> f64 {
    half(block, 0) * f64::from(block[2 + index] as i8)
}

/// Scale and minimum of a group of 32: 6 bits each; those of groups 4..8 keep their upper two in the bytes of 0..4.
fn scale_and_minimum(block: &[u8], group: usize) -> (f64, f64) {
    let packed = &block[4..16];
    let (scale, minimum) = match group {
        0..4 => (packed[group] % 64, packed[4 + group] % 64),
        _ => (
            packed[8 + group - 4] % 16 + packed[group - 4] / 64 * 16,
            packed[8 + group - 4] / 16 + packed[group] / 64 * 16,
        ),
    };
    (half(block, 0) * f64::from(scale), half(block, 2) * f64::from(minimum))
}

/// Nibble `index` of 256, where 64 values share 32 bytes.
fn wide_nibble(block: &[u8], at: usize, index: usize) -> f64 {
    let byte = block[at + index / 64 * 32 + index % 32];
    f64::from(if index % 64 < 32 { byte % 16 } else { byte / 16 })
}

fn q4_k(block: &[u8], index: usize) -> f64 {
    let (scale, minimum) = scale_and_minimum(block, index / 32);
    scale * wide_nibble(block, 16, index) - minimum
}

fn q5_k(block: &[u8], index: usize) -> f64 {
    let (scale, minimum) = scale_and_minimum(block, index / 32);
    let fifth = f64::from(block[16 + index % 32] >> (index / 32) & 1) * 16.0;
    scale * (wide_nibble(block, 48, index) + fifth) - minimum
}

fn q6_k(block: &[u8], index: usize) -> f64 {
    let (section, within) = (index / 128, index % 128);
    let low = block[section * 64 + within % 64];
    let low = if within < 64 { low % 16 } else { low / 16 };
    let high = block[128 + section * 32 + within % 32] >> (within / 32 * 2) & 3;
    let scale = f64::from(block[192 + index / 16] as i8);
    half(block, 208) * scale * (f64::from(low) + 16.0 * f64::from(high) - 32.0)
}

/// Bits 2 `n` and 2 `n` + 1 of byte `index % 32` of 32, of which every 128 values have some.
fn bit_pair(block: &[u8], at: usize, index: usize) -> f64 {
    let byte = block[at + index / 128 * 32 + index % 32];
    f64::from(byte / [1, 4, 16, 64][index % 128 / 32] % 4)
}

fn q2_k(block: &[u8], index: usize) -> f64 {
    let both = block[index / 16];
    let (scale, minimum) = (f64::from(both % 16), f64::from(both / 16));
    half(block, 80) * scale * bit_pair(block, 16, index) - half(block, 82) * minimum
}

fn q3_k(block: &[u8], index: usize) -> f64 {
    let group = index / 16;
    let low = block[96 + group % 8];
    let low = if group < 8 { low % 16 } else { low / 16 };
    let high = block[104 + group % 4] / [1, 4, 16, 64][group / 4] % 4;
    let third = if block[index % 32] & (1 << (index / 32)) != 0 { 4.0 } else { 0.0 };
    half(block, 108) * (f64::from(low + 16 * high) - 32.0) * (bit_pair(block, 32, index) + third - 4.0)
}

/// `kvalues_iq4nl`.
const SIXTEEN: [f64; 16] = [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

fn iq4_nl(block: &[u8], index: usize) -> f64 {
    half(block, 0) * SIXTEEN[nibble(block, 2, index) as usize]
}

fn iq4_xs(block: &[u8], index: usize) -> f64 {
    let group = index / 32;
    let low = block[4 + group / 2];
    let low = if group.is_multiple_of(2) { low % 16 } else { low / 16 };
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3;
    let scale = f64::from(low) + 16.0 * f64::from(high) - 32.0;
    half(block, 0) * scale * SIXTEEN[nibble(block, 8 + 16 * group, index % 32) as usize]
}
