//! The element types, and their widening to f32 exactly as llama.cpp's reference does it (`ggml-quants.c`): the same
//! operations in the same order, so that the values are the same bit for bit. Products are not fused with sums.

use half::f16;

use crate::checkpoint::StoredType;

/// The element types that can be read, for messages.
pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";

/// An element type this crate reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    /// The number the format gives it.
    number: u32,
    /// The stored type.
    pub stored: StoredType,
    /// Values in a block.
    pub values: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Widens whole blocks.
    pub widen: fn(&[u8], &mut [f32]),
}

macro_rules! element {
    ($number:literal, $stored:expr, $values:literal in $bytes:literal, $widen:ident) => {
        Element { number: $number, stored: $stored, values: $values, bytes: $bytes, widen: $widen }
    };
}

const ELEMENTS: [Element; 11] = [
    element!(0, StoredType::F32, 1 in 4, widen_f32),
    element!(1, StoredType::F16, 1 in 2, widen_f16),
    element!(30, StoredType::Bf16, 1 in 2, widen_bf16),
    element!(2, StoredType::Quantised("Q4_0"), 32 in 18, widen_q4_0),
    element!(3, StoredType::Quantised("Q4_1"), 32 in 20, widen_q4_1),
    element!(6, StoredType::Quantised("Q5_0"), 32 in 22, widen_q5_0),
    element!(7, StoredType::Quantised("Q5_1"), 32 in 24, widen_q5_1),
    element!(8, StoredType::Quantised("Q8_0"), 32 in 34, widen_q8_0),
    element!(12, StoredType::Quantised("Q4_K"), 256 in 144, widen_q4_k),
    element!(13, StoredType::Quantised("Q5_K"), 256 in 176, widen_q5_k),
    element!(14, StoredType::Quantised("Q6_K"), 256 in 210, widen_q6_k),
];

impl Element {
    /// The type with the format's number `number`.
    pub fn from_number(number: u32) -> Option<Element> {
        ELEMENTS.into_iter().find(|element| element.number == number)
    }
}

/// The name of type `number`, which is not supported.
pub(super) fn unsupported_name(number: u32) -> String {
    const NAMES: [(u32, &str); 20] = [
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (39, "MXFP4"),
    ];
    match NAMES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{number}, unknown here"),
    }
}

/// Pairs each block of `BYTES` with its `VALUES` values.
fn blocks<'a, const BYTES: usize, const VALUES: usize>(
    bytes: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; VALUES])> {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = out.as_chunks_mut::<VALUES>();
    blocks.iter().zip(values)
}

/// The half-precision number at `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn widen_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f32::from_le_bytes(*value);
    }
}

fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f16::from_le_bytes(*value).to_f32();
    }
}

fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
    }
}

/// Block: scale, 16 bytes of nibbles (the low ones are the first half).
fn widen_q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<18, 32>(bytes, out) {
        let scale = half(block, 0);
        for (index, &pair) in block[2..].iter().enumerate() {
            values[index] = f32::from((pair & 15) as i8 - 8) * scale;
            values[index + 16] = f32::from((pair >> 4) as i8 - 8) * scale;
        }
    }
}

/// Block: scale, minimum, 16 bytes of nibbles.
fn widen_q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<20, 32>(bytes, out) {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        for (index, &pair) in block[4..].iter().enumerate() {
            values[index] = f32::from(pair & 15) * scale + minimum;
            values[index + 16] = f32::from(pair >> 4) * scale + minimum;
        }
    }
}

/// The two values of byte `index` of a Q5 block: nibbles, with the fifth bits from `high`.
fn five_bits(high: u32, index: usize, pair: u8) -> (u8, u8) {
    let fifth = |bit: usize| ((high >> bit & 1) as u8) << 4;
    (pair & 15 | fifth(index), pair >> 4 | fifth(index + 16))
}

fn high_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Block: scale, 32 fifth bits, 16 bytes of nibbles.
fn widen_q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<22, 32>(bytes, out) {
        let (scale, high) = (half(block, 0), high_bits(block, 2));
        for (index, &pair) in block[6..].iter().enumerate() {
            let (first, second) = five_bits(high, index, pair);
            values[index] = f32::from(first as i8 - 16) * scale;
            values[index + 16] = f32::from(second as i8 - 16) * scale;
        }
    }
}

/// Block: scale, minimum, 32 fifth bits, 16 bytes of nibbles.
fn widen_q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<24, 32>(bytes, out) {
        let (scale, minimum, high) = (half(block, 0), half(block, 2), high_bits(block, 4));
        for (index, &pair) in block[8..].iter().enumerate() {
            let (first, second) = five_bits(high, index, pair);
            values[index] = f32::from(first) * scale + minimum;
            values[index + 16] = f32::from(second) * scale + minimum;
        }
    }
}

/// Block: scale, 32 signed bytes.
fn widen_q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<34, 32>(bytes, out) {
        let scale = half(block, 0);
        for (value, &byte) in values.iter_mut().zip(&block[2..]) {
            *value = f32::from(byte as i8) * scale;
        }
    }
}

/// Scale and minimum of group `group` of eight, from the 12 bytes of 6-bit numbers of a Q4_K or Q5_K block.
fn six_bits(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Block: scale of scales, scale of minima, 12 bytes of both, 128 bytes of nibbles (32 low ones, then 32 high ones).
fn widen_q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<144, 256>(bytes, out) {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (group_scale, group_minimum) = six_bits(&block[4..16], group);
            let (scale, minimum) = (scale * group_scale, minimum * group_minimum);
            let shift = group % 2 * 4;
            for (value, pair) in values.iter_mut().zip(&block[16 + group / 2 * 32..]) {
                *value = scale * f32::from(pair >> shift & 15) - minimum;
            }
        }
    }
}

/// Block: as Q4_K, with 32 bytes of fifth bits (bit `group` of byte `index`) before the nibbles.
fn widen_q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<176, 256>(bytes, out) {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (group_scale, group_minimum) = six_bits(&block[4..16], group);
            let (scale, minimum) = (scale * group_scale, minimum * group_minimum);
            let shift = group % 2 * 4;
            for (index, value) in values.iter_mut().enumerate() {
                let low = block[48 + group / 2 * 32 + index] >> shift & 15;
                let fifth = block[16 + index] >> group & 1;
                *value = scale * f32::from(low | fifth << 4) - minimum;
            }
        }
    }
}

/// Block: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, the scale of scales.
/// Each half of 128 values is four runs of 32; runs 0 and 2 share low bytes, as 1 and 3 do; all share the high bytes.
fn widen_q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<210, 256>(bytes, out) {
        let scale = half(block, 208);
        for (run, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (section, quarter) = (run / 4, run % 4);
            for (index, value) in values.iter_mut().enumerate() {
                let low = block[section * 64 + quarter % 2 * 32 + index] >> (quarter / 2 * 4) & 15;
                let high = block[128 + section * 32 + index] >> (quarter * 2) & 3;
                let group_scale = block[192 + run * 2 + index / 16] as i8;
                *value = scale * f32::from(group_scale) * f32::from((low | high << 4) as i8 - 32);
            }
        }
    }
}
