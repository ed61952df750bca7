//! Q2_K: w = d * s * q - dmin * m, with q of 2 bits, s and m of 4 bits for 16 weights at a time, d and dmin for 256.
//! Block: 16 bytes of s (low) and m (high), 64 bytes of q (a byte has weights 32 apart), d, dmin.

use super::bits::{Words, bit_pairs, byte_words};
use super::blocks::{bit_pair, blocks, blocks_mut, half, half_bits, put_bit_pair, put_half};
use super::definition::{Definition, Packing};
use super::q4_0;
use super::search::{Search, inverse, largest_between, nearest, scale_and_minimum, scales_of_scales};

pub(super) const DEFINITION: Definition = Definition {
    name: "q2_k",
    gguf_number: 10,
    block: [256, 84],
    shaders: &["weights/quantised", "weights/q2_k"],
    widen,
    store,
    smaller_blocks: Some(&q4_0::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 21],
        share: 8,
        integer_shaders: &["weights/q2_k_integer"],
        pack,
        largest,
    }),
};

/// The scale and the minimum of group `group` of sixteen.
fn scales(block: &[u8], group: usize) -> (f32, f32) {
    let both = block[group];
    (half(block, 80) * f32::from(both & 15), half(block, 82) * f32::from(both >> 4))
}

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<84, 256>(bytes, out) {
        for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scale, minimum) = scales(block, group);
            for (offset, value) in values.iter_mut().enumerate() {
                *value = scale * f32::from(bit_pair(&block[16..80], 16 * group + offset)) - minimum;
            }
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    let search = Search { largest: 3.0, first: -0.5, steps: 15, by_magnitude: true };
    for (values, block) in blocks_mut::<256, 84>(values, out) {
        block.fill(0);
        let groups = values.as_chunks::<16>().0;
        let found: Vec<(f32, f32)> = groups.iter().map(|group| scale_and_minimum(group, search)).collect();
        let (scale_of_scales, scale_numbers) = scales_of_scales(found.iter().map(|(scale, _)| *scale), 15.0);
        let (scale_of_minima, minimum_numbers) = scales_of_scales(found.iter().map(|(_, minimum)| *minimum), 15.0);
        put_half(block, 80, scale_of_scales);
        put_half(block, 82, scale_of_minima);
        for (group, (scale, minimum)) in scale_numbers.into_iter().zip(minimum_numbers).enumerate() {
            block[group] = scale | minimum << 4;
        }
        for (group, values) in groups.iter().enumerate() {
            let (scale, minimum) = scales(block, group);
            for (offset, value) in values.iter().enumerate() {
                let number = nearest((value + minimum) * inverse(scale), 3.0) as u8;
                put_bit_pair(&mut block[16..80], 16 * group + offset, number);
            }
        }
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    for (half, out) in words[..16].iter_mut().enumerate() {
        *out = bit_pairs(|at| bit_pair(&block[16..80], 16 * half + at));
    }
    byte_words(&block[..16], &mut words[16..20]);
    words[20] = half_bits(block, 80) | half_bits(block, 82) << 16;
}

fn largest(block: &[u8]) -> f32 {
    let groups = (0..16).map(|group| scales(block, group));
    groups.map(|(scale, minimum)| largest_between(scale, -minimum, 3.0)).fold(0.0, f32::max)
}
