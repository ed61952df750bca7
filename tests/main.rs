//! One binary for all tests of the engine, so that wgpu and candle are linked once. Those of the command line are in cli/,
//! those of the C library in c/.

mod batch;
mod batch_invariance;
mod bindings;
mod bounds;
mod chat_template;
mod comments;
mod comparison;
mod decoding;
mod embedding;
mod engine;
mod examples;
mod fit;
mod forward;
mod gguf;
mod gradients;
#[cfg(feature = "hub")]
mod hub;
mod hugging_face;
mod logprobs;
mod ngram;
mod ops;
mod oracle;
mod oracle_bounds;
mod pard2;
mod real_formats;
mod real_model;
mod reference_models;
mod rejection;
mod rotary;
mod safetensors;
mod sampling;
mod sampling_options;
mod self_check;
mod shaders;
mod shared_draft;
mod source;
mod speculative_rule;
mod submit_pace;
mod support;
mod target_states;
mod text;
mod training;
mod tuning;
mod two_devices;
mod unroll;
