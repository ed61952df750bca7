//! Training a draft: rows, gradients as a whole, and what a trained draft does in the decoder.

pub mod candle;
pub mod gradients;
mod learning;
mod rows;
pub mod teacher;
