//! Q4_0: w = d * (q - 8) for 32 weights at a time. Block: d, 16 bytes of 4-bit q (the low ones are the first half).

use super::bits::{Words, nibble_words};
use super::blocks::{blocks, blocks_mut, half, half_bits, put_nibbles};
use super::definition::{Definition, Packing};
use super::search::put_scale;

pub(super) const DEFINITION: Definition = Definition {
    name: "q4_0",
    gguf_number: 2,
    block: [32, 18],
    shaders: &["weights/quantised", "weights/nibble_pairs", "weights/q4_0"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [64, 9],
        share: 4,
        integer_shaders: &["weights/nibble_pairs_integer", "weights/q4_0_integer"],
        pack,
        largest: |block| 8.0 * half(block, 0).abs(),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<18, 32>(bytes, out) {
        let scale = half(block, 0);
        for (index, &pair) in block[2..].iter().enumerate() {
            values[index] = f32::from((pair & 15) as i8 - 8) * scale;
            values[index + 16] = f32::from((pair >> 4) as i8 - 8) * scale;
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 18>(values, out) {
        let number = put_scale(values, block, 8.0);
        put_nibbles(values, &mut block[2..], number);
    }
}

/// One or two blocks.
pub(super) fn pack(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(18).enumerate() {
        nibble_words(&block[2..], &mut words[4 * index..]);
        words[8] |= half_bits(block, 0) << (16 * index);
    }
}
