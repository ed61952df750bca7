//! Decoding: one loop with three proposers, exact for all of them; and many sequences at once, without proposers.

mod decoder;
mod draft;
mod generate;
mod options;
mod pace;
mod respond;
mod rounds;
mod sampling;
mod statistics;
mod stream;
mod transcript;

pub use decoder::Decoder;
pub use draft::Draft;
pub use generate::Generation;
pub use options::{DecoderOptions, Drafts, MOST_CONTEXT, MOST_DRAFTS, Method};
pub use pace::{Costs, Speculation};
pub use respond::{RespondOptions, Response, Responses, respond};
pub use sampling::{
    MOST_BIAS, MOST_LOGPROBS, MOST_PENALTY, MOST_REPETITION, MOST_TEMPERATURE, SamplingOptions, TokenLogprobs,
};
pub use statistics::{RoundStatistics, Statistics};
pub use stream::{AnswerStream, Piece};
pub use transcript::{FinishReason, Limits, Transcript};
