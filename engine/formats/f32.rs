//! F32: IEEE single precision.

use super::blocks::{blocks, blocks_mut};
use super::definition::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "f32",
    gguf_number: 0,
    block: [1, 4],
    shaders: &["weights/unscaled", "weights/f32"],
    widen,
    store,
    smaller_blocks: None,
    packing: None,
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f32::from_le_bytes(*value);
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for ([value], bytes) in blocks_mut(values, out) {
        *bytes = value.to_le_bytes();
    }
}
