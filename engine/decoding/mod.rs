//! Decoding: one loop with three proposers, exact for all of them.

mod decoder;
mod draft;
mod generate;
mod statistics;

pub use decoder::{Decoder, DecoderOptions, MOST_CONTEXT, MOST_DRAFTS, Method};
pub use draft::Draft;
pub use generate::{FinishReason, Generation, Limits};
pub use statistics::Statistics;
