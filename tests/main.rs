//! One binary for all tests, so that wgpu and candle are linked once.

mod chat_template;
#[cfg(feature = "cli")]
mod cli;
mod comparison;
mod decoding;
mod forward;
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod hub_snapshot;
mod hugging_face;
mod oracle;
mod oracle_bounds;
mod real_model;
mod reference_models;
mod safetensors;
mod source;
mod speculative_rule;
mod support;
mod text;
