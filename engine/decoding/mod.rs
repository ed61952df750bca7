//! Decoding: one loop with three proposers, exact for all of them.

mod decoder;
mod statistics;

pub use decoder::{Decoder, DecoderOptions, Draft, MOST_DRAFTS, Method};
pub use statistics::Statistics;
