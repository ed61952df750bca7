//! IQ4_NL: w = d * v(q) for 32 weights at a time, v one of sixteen values (sixteen_values.rs). Block: as Q4_0's.

use super::blocks::{blocks, blocks_mut, half, put_half, put_nibbles};
use super::definition::{Definition, Packing};
use super::q4_0;
use super::search::{extreme, inverse};
use super::sixteen_values::{self, VALUES, nearest};

pub(super) const DEFINITION: Definition = Definition {
    name: "iq4_nl",
    gguf_number: 20,
    block: [32, 18],
    shaders: &["weights/quantised", "weights/nibble_pairs", "weights/sixteen_values", "weights/iq4_nl"],
    widen,
    store,
    smaller_blocks: None,
    packing: Some(Packing {
        chunk: [64, 9],
        share: 4,
        integer_shaders: &["weights/nibble_pairs_integer", "weights/sixteen_values_integer", "weights/iq4_nl_integer"],
        pack: q4_0::pack,
        largest: |block| 127.0 * half(block, 0).abs(),
    }),
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in blocks::<18, 32>(bytes, out) {
        let scale = half(block, 0);
        for (index, &pair) in block[2..].iter().enumerate() {
            values[index] = scale * f32::from(VALUES[usize::from(pair & 15)]);
            values[index + 16] = scale * f32::from(VALUES[usize::from(pair >> 4)]);
        }
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks_mut::<32, 18>(values, out) {
        put_half(block, 0, sixteen_values::scale(values, None));
        // The numbers are those that the scale was found by.
        let factor = inverse(extreme(values) / f32::from(VALUES[0]));
        put_nibbles(values, &mut block[2..], |value| nearest(factor * value));
    }
}
