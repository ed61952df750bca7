//! Quantised weights on the host: from GGUF's blocks to what the shaders read, and from floats to GGUF's blocks.

pub(super) mod pack;
pub(super) mod quantise;
