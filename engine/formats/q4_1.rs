//! Q4_1: w = d * q + m for 32 weights at a time. Block: d, m, 16 bytes of 4-bit q (the low ones are the first half).

use super::bits::{Words, nibble_words};
use super::blocks::{blocks, blocks_mut, half, half_bits, put_nibbles};
use super::definition::{Definition, Packing};
use super::search::{largest_between, put_scale_and_minimum};

pub(super) const DEFINITION: Definition = Definition {
    name: "q4_1",
    gguf_number: 3,
    block: [32, 20],
    shaders: &["weights/quantised", "weights/q4_1"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [32, 5],
        share: 4,
        integer_shaders: &["weights/q4_1_integer"],
        pack,
        largest: |block| largest_between(half(block, 0), half(block, 2), 15.0),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<20, 32>(bytes, out) {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        for (index, &pair) in block[4..].iter().enumerate() {
            values[index] = f32::from(pair & 15) * scale + minimum;
            values[index + 16] = f32::from(pair >> 4) * scale + minimum;
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 20>(values, out) {
        let number = put_scale_and_minimum(values, block, 15.0);
        put_nibbles(values, &mut block[4..], number);
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    nibble_words(&block[4..], words);
    words[4] = half_bits(block, 0) | half_bits(block, 2) << 16;
}
