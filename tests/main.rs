//! One binary for all tests, so that wgpu and candle are linked once.

#[cfg(feature = "cli")]
mod cli;
mod comparison;
mod forward;
mod gguf;
mod oracle;
mod oracle_bounds;
mod reference_models;
mod speculative_rule;
mod support;
