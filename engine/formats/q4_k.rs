//! Q4_K: 4-bit numbers under 6-bit scales and minima (six_bits.rs). Block: 16 bytes of scales, 128 bytes of q (32 low
//! ones, then 32 high ones).

use super::bits::{Words, wide_nibble_words};
use super::blocks::{blocks, blocks_mut, put_wide_nibble};
use super::definition::{Definition, Packing};
use super::q4_1;
use super::search::Search;
use super::six_bits;

pub(super) const DEFINITION: Definition = Definition {
    name: "q4_k",
    gguf_number: 12,
    block: [256, 144],
    shaders: &["weights/quantised", "weights/six_bits", "weights/q4_k"],
    widen,
    store,
    smaller_blocks: Some(&q4_1::DEFINITION),
    packing: Some(Packing {
        chunk: [256, 36],
        share: 8,
        integer_shaders: &["weights/six_bits_integer", "weights/q4_k_integer"],
        pack,
        largest: |block| six_bits::largest(block, 15.0),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<144, 256>(bytes, out) {
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, minimum) = six_bits::scales(block, group);
            let shift = group % 2 * 4;
            for (value, pair) in values.iter_mut().zip(&block[16 + group / 2 * 32..]) {
                *value = scale * f32::from(pair >> shift & 15) - minimum;
            }
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    let search = Search { largest: 15.0, first: -1.0, steps: 20, by_magnitude: false };
    for (values, block) in blocks_mut::<256, 144>(values, out) {
        six_bits::store(values, block, search, |block, at, number| put_wide_nibble(&mut block[16..], at, number));
    }
}

/// One block.
fn pack(block: &[u8], words: &mut Words) {
    wide_nibble_words(&block[16..], words);
    six_bits::scale_words(block, &mut words[32..]);
}
