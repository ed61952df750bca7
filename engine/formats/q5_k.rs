//! Q5_K: 5-bit numbers under 6-bit scales and minima (six_bits.rs). Block: 16 bytes of scales, 32 bytes of fifth bits
//! (bit `g` of byte `i` is that of weight `i` of group `g`), 128 bytes of the low four bits.

use super::bits::{Words, single_bits, wide_nibble_words};
use super::blocks::{blocks, blocks_mut, put_wide_nibble};
use super::definition::{Definition, Packing};
use super::q5_1;
use super::search::Search;
use super::six_bits;

pub(super) const DEFINITION: Definition = Definition {
    name: "q5_k",
    gguf_number: 13,
    block: [256, 176],
    shaders: &["weights/quantised", "weights/six_bits", "weights/q5_k"],
    widen,
    store,
    smaller_blocks: Some(&q5_1::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 44],
        share: 8,
        integer_shaders: &["weights/six_bits_integer", "weights/q5_k_integer"],
        pack,
        largest: |block| six_bits::largest(block, 31.0),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<176, 256>(bytes, out) {
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, minimum) = six_bits::scales(block, group);
            let shift = group % 2 * 4;
            for (index, value) in values.iter_mut().enumerate() {
                let low = block[48 + group / 2 * 32 + index] >> shift & 15;
                let fifth = block[16 + index] >> group & 1;
                *value = scale * f32::from(low | fifth << 4) - minimum;
            }
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    let search = Search { largest: 31.0, first: -0.5, steps: 15, by_magnitude: false };
    for (values, block) in blocks_mut::<256, 176>(values, out) {
        six_bits::store(values, block, search, |block, at, number| {
            put_wide_nibble(&mut block[48..], at, number);
            block[16 + at % 32] |= number >> 4 << (at / 32);
        });
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    wide_nibble_words(&block[48..], words);
    for (group, out) in words[32..40].iter_mut().enumerate() {
        *out = single_bits(|index| block[16 + index] >> group & 1);
    }
    six_bits::scale_words(block, &mut words[40..]);
}
