//! Parallel-draft speculative decoding (PARD, arXiv:2504.18583) on any GPU, through wgpu and hand-written WGSL.
#![warn(missing_docs)]

pub mod decoding;
pub mod error;
pub mod gpu;
pub mod model;
pub mod ops;
pub mod text;

pub use error::{Error, Result};
