//! One binary for all tests, so that wgpu and candle are linked once.

mod comparison;
mod decoding;
mod forward;
mod gguf;
mod oracle;
mod oracle_bounds;
mod reference_models;
mod speculative_rule;
mod support;
