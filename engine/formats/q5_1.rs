//! Q5_1: w = d * q + m for 32 weights at a time. Block: d, m, the fifth bits of all q, 16 bytes of their low four bits.

use super::bits::{Words, nibble_words, single_bits};
use super::blocks::{blocks, blocks_mut, fives, half, half_bits, put_fives};
use super::definition::{Definition, Packing};
use super::search::{largest_between, put_scale_and_minimum};

pub(super) const DEFINITION: Definition = Definition {
    name: "q5_1",
    gguf_number: 7,
    block: [32, 24],
    shaders: &["weights/quantised", "weights/q5_1"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [32, 6],
        share: 4,
        integer_shaders: &["weights/q5_1_integer"],
        pack,
        largest: |block| largest_between(half(block, 0), half(block, 2), 31.0),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<24, 32>(bytes, out) {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        for index in 0..16 {
            let (first, second) = fives(block, 4, index);
            values[index] = f32::from(first) * scale + minimum;
            values[index + 16] = f32::from(second) * scale + minimum;
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 24>(values, out) {
        let number = put_scale_and_minimum(values, block, 31.0);
        put_fives(values, &mut block[4..], number);
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    nibble_words(&block[8..], words);
    words[4] = single_bits(|at| block[4 + at / 8] >> (at % 8) & 1);
    words[5] = half_bits(block, 0) | half_bits(block, 2) << 16;
}
