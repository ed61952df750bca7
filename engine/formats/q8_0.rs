//! Q8_0: w = d * q for 32 weights at a time. Block: d, 32 signed bytes q.

use super::bits::{Words, operand, word};
use super::blocks::{blocks, blocks_mut, half, half_bits, put_half};
use super::definition::{Definition, Packing};
use super::search::{extreme, inverse};

pub(super) const DEFINITION: Definition = Definition {
    name: "q8_0",
    gguf_number: 8,
    block: [32, 34],
    shaders: &["weights/quantised", "weights/q8_0"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [64, 17],
        share: 4,
        integer_shaders: &["weights/q8_0_integer"],
        pack,
        largest: |block| 128.0 * half(block, 0).abs(),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<34, 32>(bytes, out) {
        let scale = half(block, 0);
        for (value, &byte) in values.iter_mut().zip(&block[2..]) {
            *value = f32::from(byte as i8) * scale;
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 34>(values, out) {
        let scale = extreme(values).abs() / 127.0;
        put_half(block, 0, scale);
        for (byte, value) in block[2..].iter_mut().zip(values) {
            *byte = (value * inverse(scale)).round() as i8 as u8;
        }
    }
}

/// One or two blocks.
fn pack(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(34).enumerate() {
        for (at, out) in words[8 * index..][..8].iter_mut().enumerate() {
            *out = word(8, |byte| block[2 + operand(at, byte)]);
        }
        words[16] |= half_bits(block, 0) << (16 * index);
    }
}
