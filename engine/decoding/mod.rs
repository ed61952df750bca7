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
pub use ngram::{MOST_NGRAM, NgramOptions};
pub use options::{Acceptance, DecoderOptions, Drafts, MOST_CONTEXT, MOST_DRAFTS, Method};
pub use pace::{Costs, Speculation};
pub use pool::Pool;
pub use respond::{RespondOptions, Response, Responses, respond};
pub use sampling::{
    MOST_BIAS, MOST_LOGPROBS, MOST_PENALTY, MOST_REPETITION, MOST_TEMPERATURE, SamplingOptions, TokenLogprobs,
};
pub use statistics::{RoundStatistics, Statistics};
pub use stream::{AnswerStream, Piece};
pub use transcript::{FinishReason, Limits, Transcript};
