//! Models: their files, their hyper-parameters, their weights on the GPU, and the forward pass.

pub mod checkpoint;
pub mod config;
pub mod gguf;
