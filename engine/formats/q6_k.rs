//! Q6_K: w = d * s * (q - 32), with s a signed byte for 16 weights at a time, d for 256. Block: 128 bytes of the low
//! four bits of all q, 64 of the high two, 16 of s, d. Each half of 128 weights is four runs of 32; runs 0 and 2 share
//! low bytes, as 1 and 3 do; all share the high bytes.

use super::bits::{Words, bit_pairs, byte_words, word};
use super::blocks::{bit_pair, blocks, blocks_mut, half, half_bits, put_bit_pair, put_half};
use super::definition::{Definition, Packing};
use super::q8_0;
use super::search::{Fit, NOTHING, extreme, inverse};

pub(super) const DEFINITION: Definition = Definition {
    name: "q6_k",
    gguf_number: 14,
    block: [256, 210],
    shaders: &["weights/quantised", "weights/q6_k"],
    widen,
    store,
    smaller_blocks: Some(&q8_0::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 53],
        share: 8,
        integer_shaders: &["weights/q6_k_integer"],
        pack,
        largest,
    }),
};

/// The byte that has the low bits of number `at`, and their place in it.
fn low_bits(at: usize) -> (usize, usize) {
    (at / 128 * 64 + at % 64, at / 64 % 2 * 4)
}

fn number(block: &[u8], at: usize) -> u8 {
    let (byte, shift) = low_bits(at);
    block[byte] >> shift & 15 | bit_pair(&block[128..192], at) << 4
}

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<210, 256>(bytes, out) {
        let scale = half(block, 208);
        for (at, value) in values.iter_mut().enumerate() {
            let group_scale = block[192 + at / 16] as i8;
            *value = scale * f32::from(group_scale) * f32::from(number(block, at) as i8 - 32);
        }
    }
}

/// The scale of a group of 16, such that `scale * q` with q from -32 to 31 comes closest to the values, each weighing as
/// its square.
fn scale_of_16(values: &[f32]) -> f32 {
    let most = extreme(values);
    if most.abs() < NOTHING {
        return 0.0;
    }
    let fit = |factor: f32| Fit::new(values, |value| (factor * value).round_ties_even().clamp(-32.0, 31.0));
    let others = (-9..=9).filter(|&step| step != 0).map(|step| fit(-(32.0 + 0.1 * step as f32) / most));
    fit(-32.0 / most).best_scale(others)
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<256, 210>(values, out) {
        block.fill(0);
        let groups = values.as_chunks::<16>().0;
        let scales: Vec<f32> = groups.iter().map(|group| scale_of_16(group)).collect();
        let most = extreme(&scales);
        if most.abs() < NOTHING {
            continue;
        }
        let factor = -128.0 / most;
        let scale_of_scales = put_half(block, 208, 1.0 / factor);
        for (index, (group, scale)) in groups.iter().zip(scales).enumerate() {
            let scale = (factor * scale).round_ties_even().min(127.0) as i8;
            block[192 + index] = scale as u8;
            let inverse = inverse(scale_of_scales * f32::from(scale));
            for (offset, value) in group.iter().enumerate() {
                let number = ((value * inverse).round_ties_even().clamp(-32.0, 31.0) as i8 + 32) as u8;
                let at = 16 * index + offset;
                let (byte, shift) = low_bits(at);
                block[byte] |= (number & 15) << shift;
                put_bit_pair(&mut block[128..192], at, number >> 4);
            }
        }
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    for (piece, out) in words[..32].iter_mut().enumerate() {
        *out = word(4, |at| number(block, 8 * piece + at) & 15);
    }
    for (half, out) in words[32..48].iter_mut().enumerate() {
        *out = bit_pairs(|at| bit_pair(&block[128..192], 16 * half + at));
    }
    byte_words(&block[192..208], &mut words[48..52]);
    words[52] = half_bits(block, 208);
}

fn largest(block: &[u8]) -> f32 {
    let scale = block[192..208].iter().map(|&scale| (scale as i8).unsigned_abs()).max().unwrap_or_default();
    32.0 * half(block, 208).abs() * f32::from(scale)
}
