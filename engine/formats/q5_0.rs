//! Q5_0: w = d * (q - 16) for 32 weights at a time. Block: d, the fifth bits of all q, 16 bytes of their low four bits.

use super::bits::{Words, nibble_words, single_bits};
use super::blocks::{blocks, blocks_mut, fives, half, half_bits, put_fives};
use super::definition::{Definition, Packing};
use super::search::put_scale;

pub(super) const DEFINITION: Definition = Definition {
    name: "q5_0",
    gguf_number: 6,
    block: [32, 22],
    shaders: &["weights/quantised", "weights/q5_0"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [64, 11],
        share: 4,
        integer_shaders: &["weights/q5_0_integer"],
        pack,
        largest: |block| 16.0 * half(block, 0).abs(),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<22, 32>(bytes, out) {
        let scale = half(block, 0);
        for index in 0..16 {
            let (first, second) = fives(block, 2, index);
            values[index] = f32::from(first as i8 - 16) * scale;
            values[index + 16] = f32::from(second as i8 - 16) * scale;
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 22>(values, out) {
        let number = put_scale(values, block, 16.0);
        put_fives(values, &mut block[2..], number);
    }
}

/// One or two blocks.
fn pack(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(22).enumerate() {
        nibble_words(&block[6..], &mut words[4 * index..]);
        words[8 + index] = single_bits(|at| block[2 + at / 8] >> (at % 8) & 1);
        words[10] |= half_bits(block, 0) << (16 * index);
    }
}
