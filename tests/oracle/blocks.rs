//! Quantised weights: each value of a GGUF block, straight from its format's formula. Source: ggml's block structures
//! (`ggml-common.h`) and what they are said to stand for.

use half::f16;
use pard::low_level::ops::WeightFormat;

/// The values of whole blocks of `format`, as f32 holds them: `blocks` are bytes as files store them.
pub fn widen(format: WeightFormat, blocks: &[u8]) -> Vec<f32> {
    let value: fn(&[u8], usize) -> f64 = match format {
        WeightFormat::Bf16 => bf16_value,
        WeightFormat::F16 => f16_value,
        WeightFormat::F32 => f32_value,
        WeightFormat::Q8_0 => q8_0,
        WeightFormat::Q4_0 => q4_0,
        WeightFormat::Q4_1 => q4_1,
        WeightFormat::Q5_0 => q5_0,
        WeightFormat::Q5_1 => q5_1,
        WeightFormat::Q4K => q4_k,
        WeightFormat::Q5K => q5_k,
        WeightFormat::Q6K => q6_k,
    };
    let len = format.block_len();
    let blocks = blocks.chunks_exact(format.stored_bytes(len));
    blocks.flat_map(|block| (0..len).map(move |index| value(block, index) as f32)).collect()
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

pub fn f32_value(block: &[u8], _: usize) -> f64 {
    f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]]))
}

pub fn f16_value(block: &[u8], _: usize) -> f64 {
    half(block, 0)
}

pub fn bf16_value(block: &[u8], _: usize) -> f64 {
    half::bf16::from_le_bytes([block[0], block[1]]).to_f64()
}

pub fn q4_0(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 2, index) - 8.0)
}

pub fn q4_1(block: &[u8], index: usize) -> f64 {
    half(block, 0) * nibble(block, 4, index) + half(block, 2)
}

pub fn q5_0(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 6, index) + fifth(block, 2, index) - 16.0)
}

pub fn q5_1(block: &[u8], index: usize) -> f64 {
    half(block, 0) * (nibble(block, 8, index) + fifth(block, 4, index)) + half(block, 2)
}

pub fn q8_0(block: &[u8], index: usize) -> f64 {
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

pub fn q4_k(block: &[u8], index: usize) -> f64 {
    let (scale, minimum) = scale_and_minimum(block, index / 32);
    scale * wide_nibble(block, 16, index) - minimum
}

pub fn q5_k(block: &[u8], index: usize) -> f64 {
    let (scale, minimum) = scale_and_minimum(block, index / 32);
    let fifth = f64::from(block[16 + index % 32] >> (index / 32) & 1) * 16.0;
    scale * (wide_nibble(block, 48, index) + fifth) - minimum
}

pub fn q6_k(block: &[u8], index: usize) -> f64 {
    let (section, within) = (index / 128, index % 128);
    let low = block[section * 64 + within % 64];
    let low = if within < 64 { low % 16 } else { low / 16 };
    let high = block[128 + section * 32 + within % 32] >> (within / 32 * 2) & 3;
    let scale = f64::from(block[192 + index / 16] as i8);
    half(block, 208) * scale * (f64::from(low) + 16.0 * f64::from(high) - 32.0)
}
