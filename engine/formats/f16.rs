//! F16: IEEE half precision.

use half::f16;

use super::blocks::{blocks, blocks_mut};
use super::definition::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "f16",
    gguf_number: 1,
    block: [1, 2],
    shaders: &["weights/unscaled", "weights/f16"],
    widen,
    store,
    smaller_blocks: None,
    packing: None,
};

fn widen(bytes: &[u8], out: &mut [f32]) {
    for (value, [out]) in blocks(bytes, out) {
        *out = f16::from_le_bytes(*value).to_f32();
    }
}

fn store(values: &[f32], out: &mut [u8]) {
    for ([value], bytes) in blocks_mut(values, out) {
        *bytes = f16::from_f32(*value).to_le_bytes();
    }
}
