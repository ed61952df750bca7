//! Decoding: one loop with four proposers, exact for all of them; and many sequences at once, without proposers.

mod completion;
mod decoder;
mod draft;
mod generate;
mod joining;
mod ngram;
mod options;
mod pace;
mod pool;
mod remote;
mod respond;
mod round;
mod round_output;
mod samplers;
mod sampling_params;
mod statistics;
mod stream;
mod target_states;

pub use completion::{Completion, FinishReason, Limits};
pub use decoder::Decoder;
pub use draft::Draft;
pub use generate::Generation;
pub use ngram::{MAX_NGRAM, NgramOptions};
pub use options::{AcceptanceRule, DecoderOptions, DraftLength, MAX_CONTEXT, MAX_DRAFTS, Method};
pub use pace::{Costs, Speculation};
pub use pool::Pool;
pub use respond::{RespondOptions, Response, Responses, respond};
pub use sampling_params::{
    MAX_BIAS, MAX_LOGPROBS, MAX_PENALTY, MAX_REPETITION, MAX_TEMPERATURE, SamplingParams, TokenLogprobs,
};
pub use statistics::{RoundStatistics, Statistics};
pub use stream::{AnswerStream, Piece};
