//! What a format's file states.

use super::bits::Words;

/// A format, except for its arithmetic on the device.
pub(super) struct Definition {
    /// In lower case.
    pub name: &'static str,
    /// The number that GGUF gives it.
    pub gguf_number: u32,
    /// Weights of a block, and its bytes, as files store them: GGUF's blocks, or single little-endian numbers.
    pub block: [usize; 2],
    /// The shader files that read it.
    pub shaders: &'static [&'static str],
    /// Whole blocks to floats.
    pub widen: fn(&[u8], &mut [f32]),
    /// Floats to whole blocks.
    pub store: fn(&[f32], &mut [u8]),
    /// The format that comes closest in blocks of 32, if this one's are larger.
    pub smaller_blocks: Option<&'static Definition>,
    /// For quantised weights.
    pub packing: Option<Packing>,
}

/// Quantised weights on the device.
pub(super) struct Packing {
    /// Weights of a chunk, and its words, as they lie on the device. A row is made of whole chunks.
    pub chunk: [usize; 2],
    /// 8-value pieces that share a scale.
    pub share: usize,
    /// The shader files that read it as integers, beside the others.
    pub integer_shaders: &'static [&'static str],
    /// The blocks of a chunk to its words. Nothing is rounded.
    pub pack: fn(&[u8], &mut Words),
    /// A bound of the magnitude of a block's weights.
    pub largest: fn(&[u8]) -> f32,
}
