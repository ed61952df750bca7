//! IQ4_XS: w = d * (s - 32) * v(q), with v one of sixteen values (sixteen_values.rs), s of 6 bits for 32 weights at a
//! time, d for 256. Block: d, 2 bytes of the high two bits of all s, 4 of their low four, 128 bytes of q (16 for 32
//! weights, the low ones are the first half).

use super::bits::{Words, byte_words, nibble_words};
use super::blocks::{blocks, blocks_mut, half, put_half, put_nibbles};
use super::definition::{Definition, Packing};
use super::iq4_nl;
use super::search::{extreme, inverse};
use super::sixteen_values::{self, VALUES, nearest};

pub(super) const DEFINITION: Definition = Definition {
    name: "iq4_xs",
    gguf_number: 23,
    block: [256, 136],
    shaders: &["weights/quantised", "weights/sixteen_values", "weights/iq4_xs"],
    widen,
    store,
    smaller_blocks: Some(&iq4_nl::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 34],
        share: 8,
        integer_shaders: &["weights/sixteen_values_integer", "weights/iq4_xs_integer"],
        pack,
        largest: |block| 127.0 * (0..8).map(|group| scale(block, group).abs()).fold(0.0, f32::max),
    }),
};

/// The scale of group `group` of eight.
fn scale(block: &[u8], group: usize) -> f32 {
    let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
    let high = block[2 + group / 4] >> (group % 4 * 2) & 3;
    half(block, 0) * f32::from((low | high << 4) as i8 - 32)
}

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<136, 256>(bytes, out) {
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = scale(block, group);
            for (index, &pair) in block[8 + 16 * group..][..16].iter().enumerate() {
                values[index] = scale * f32::from(VALUES[usize::from(pair & 15)]);
                values[index + 16] = scale * f32::from(VALUES[usize::from(pair >> 4)]);
            }
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<256, 136>(values, out) {
        block.fill(0);
        let groups = values.as_chunks::<32>().0;
        let scales: Vec<f32> = groups.iter().map(|group| sixteen_values::scale(group, Some(7))).collect();
        let scale_of_scales = -extreme(&scales) / 32.0;
        put_half(block, 0, scale_of_scales);
        for (group, (values, scale)) in groups.iter().zip(scales).enumerate() {
            let number = (inverse(scale_of_scales) * scale).round_ties_even().clamp(-32.0, 31.0);
            let factor = inverse(scale_of_scales * number);
            put_nibbles(values, &mut block[8 + 16 * group..][..16], |value| nearest(factor * value));
            let number = (number as i8 + 32) as u8;
            block[4 + group / 2] |= (number & 15) << (group % 2 * 4);
            block[2 + group / 4] |= number >> 4 << (group % 4 * 2);
        }
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    for group in 0..8 {
        nibble_words(&block[8 + 16 * group..], &mut words[4 * group..]);
    }
    byte_words(&block[..8], &mut words[32..34]);
}
