//! Quantised weights on the host: from GGUF's blocks to the shaders' layout, and from floats to GGUF's blocks.

pub(super) mod pack;
pub(super) mod quantise;
