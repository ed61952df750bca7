//! Q3_K: w = d * (s - 32) * (q - 4), with q of 3 bits, s of 6 bits for 16 weights at a time, d for 256. Block: 32 bytes
//! of the third bits of all q (a byte has weights 32 apart), 64 bytes of their low two bits (likewise, 128 in 32
//! bytes), 12 bytes of s (8 of the low four bits, 4 of the high two), d.

use super::bits::{Words, bit_pairs, single_bits, word};
use super::blocks::{bit_pair, blocks, blocks_mut, half, half_bits, put_bit_pair, put_half};
use super::definition::{Definition, Packing};
use super::q4_0;
use super::search::{Fit, NOTHING, extreme, inverse};

pub(super) const DEFINITION: Definition = Definition {
    name: "q3_k",
    gguf_number: 11,
    block: [256, 110],
    shaders: &["weights/quantised", "weights/q3_k"],
    widen,
    store,
    smaller_blocks: Some(&q4_0::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 28],
        share: 8,
        integer_shaders: &["weights/q3_k_integer"],
        pack,
        largest,
    }),
};

/// s of group `group` of sixteen, from 0 to 63.
fn scale_number(block: &[u8], group: usize) -> u8 {
    let low = block[96 + group % 8] >> (group / 8 * 4) & 15;
    low | (block[104 + group % 4] >> (group / 4 * 2) & 3) << 4
}

/// The scale of group `group`.
fn scale(block: &[u8], group: usize) -> f32 {
    half(block, 108) * f32::from(scale_number(block, group) as i8 - 32)
}

fn third(block: &[u8], at: usize) -> u8 {
    block[at % 32] >> (at / 32) & 1
}

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<110, 256>(bytes, out) {
        for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = scale(block, group);
            for (offset, value) in values.iter_mut().enumerate() {
                let at = 16 * group + offset;
                let number = bit_pair(&block[32..96], at) | third(block, at) << 2;
                *value = scale * f32::from(number as i8 - 4);
            }
        }
    }
}

fn number(value: f32) -> f32 {
    value.round_ties_even().clamp(-4.0, 3.0)
}

/// The scale of a group of 16, such that `scale * q` with q from -4 to 3 comes closest to the values, each weighing as its
/// square: numbers are moved one by one as long as that helps, five times at most.
fn scale_of_16(values: &[f32]) -> f32 {
    let most = extreme(values);
    if most.abs() < NOTHING {
        return 0.0;
    }
    let mut numbers: Vec<f32> = values.iter().map(|value| number(-4.0 / most * value)).collect();
    let mut fit = values.iter().zip(&numbers).fold(Fit::default(), |fit, (&value, &number)| fit.with(value, number));
    for _ in 0..5 {
        let mut is_changed = false;
        for (&value, chosen) in values.iter().zip(&mut numbers) {
            let weight = value * value;
            let without = Fit {
                products: fit.products - weight * value * *chosen,
                squares: fit.squares - weight * *chosen * *chosen,
            };
            if without.products <= 0.0 {
                continue;
            }
            let moved = number(value * without.squares / without.products);
            let with = without.with(value, moved);
            if moved != *chosen && with.is_better(fit) {
                (*chosen, fit, is_changed) = (moved, with, true);
            }
        }
        if !is_changed {
            break;
        }
    }
    fit.scale()
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<256, 110>(values, out) {
        block.fill(0);
        let groups = values.as_chunks::<16>().0;
        let scales: Vec<f32> = groups.iter().map(|group| scale_of_16(group)).collect();
        let most = extreme(&scales);
        if most == 0.0 {
            continue;
        }
        let factor = -32.0 / most;
        put_half(block, 108, 1.0 / factor);
        for (group, scale) in scales.iter().enumerate() {
            let number = ((factor * scale).round_ties_even().clamp(-32.0, 31.0) as i8 + 32) as u8;
            block[96 + group % 8] |= (number & 15) << (group / 8 * 4);
            block[104 + group % 4] |= number >> 4 << (group / 4 * 2);
        }
        for (group, values) in groups.iter().enumerate() {
            let inverse = inverse(scale(block, group));
            for (offset, value) in values.iter().enumerate() {
                let at = 16 * group + offset;
                let number = (number(value * inverse) as i8 + 4) as u8;
                put_bit_pair(&mut block[32..96], at, number);
                block[at % 32] |= number >> 2 << (at / 32);
            }
        }
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    for (half, out) in words[..16].iter_mut().enumerate() {
        *out = bit_pairs(|at| bit_pair(&block[32..96], 16 * half + at));
    }
    for (group, out) in words[16..24].iter_mut().enumerate() {
        *out = single_bits(|at| third(block, 32 * group + at));
    }
    for (half, out) in words[24..26].iter_mut().enumerate() {
        *out = word(4, |group| scale_number(block, 8 * half + group) & 15);
    }
    words[26] = word(2, |group| scale_number(block, group) >> 4);
    words[27] = half_bits(block, 108);
}

fn largest(block: &[u8]) -> f32 {
    4.0 * (0..16).map(|group| scale(block, group).abs()).fold(0.0, f32::max)
}
