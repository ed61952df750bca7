//! Models: their files, their hyper-parameters, their weights on the GPU, and the forward pass.

pub mod checkpoint;
pub mod config;
pub mod rotary;
mod sequence;
mod transformer;

pub use sequence::Sequence;
pub use transformer::{Progress, Transformer, WeightChoice, attention_shape, expected_matrices};
pub mod gguf;
