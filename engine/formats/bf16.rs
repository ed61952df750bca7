//! BF16: the upper half of an f32.

use super::blocks::{blocks, blocks_mut};
use super::definition::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "bf16",
    gguf_number: 30,
    block: [1, 2],
    shaders: &["weights/unscaled", "weights/bf16"],
    widen,
    store,
    smaller_blocks: None,
    packing: None,
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for ([value], bytes) in blocks_mut(values, out) {
        *bytes = half::bf16::from_f32(*value).to_le_bytes();
    }
}
