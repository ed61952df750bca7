//! Decoding: one loop with four proposers, exact for all of them; and many sequences at once, without proposers.

mod decoder;
mod draft;
mod generate;
mod joining;
mod ngram;
mod options;
mod pace;
mod pool;
mod records;
mod remote;
mod respond;
mod rounds;
mod samplers;
mod sampling;
mod statistics;
mod stream;
mod target_states;
mod transcript;

pub use decoder::Decoder;
pub use draft::Draft;
pub use generate::Generation;
pub use ngram::{MAX_NGRAM, NgramOptions};
pub use options::{Acceptance, DecoderOptions, Drafts, MAX_CONTEXT, MAX_DRAFTS, Method};
pub use pace::{Costs, Speculation};
pub use pool::Pool;
pub use respond::{RespondOptions, Response, Responses, respond};
pub use sampling::{
    MAX_BIAS, MAX_LOGPROBS, MAX_PENALTY, MAX_REPETITION, MAX_TEMPERATURE, SamplingOptions, TokenLogprobs,
};
pub use statistics::{RoundStatistics, Statistics};
pub use stream::{AnswerStream, Piece};
pub use transcript::{FinishReason, Limits, Transcript};
