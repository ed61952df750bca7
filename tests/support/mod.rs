//! Support for the tests: random numbers, small models made from a seed, and a second implementation to agree with.

pub mod candle_reference;
pub mod chi_square;
pub mod edited_shaders;
pub mod every_op;
pub mod gpu;
pub mod kv_cache;
pub mod memory;
pub mod random;
pub mod shared_draft;
mod shared_draft_upload;
pub mod tiny_model;
pub mod tiny_tokenizer;
