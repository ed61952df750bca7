//! Decoding: one loop for any number of sequences and any proposer, exact for all of them.

mod bookkeeping;
mod completion;
mod cost_measurement;
mod draft;
mod draft_runner;
mod engine;
mod engine_state;
mod generate;
pub(crate) mod inspect;
mod ngram;
mod options;
mod pace;
mod proposer;
mod remote;
mod respond;
mod round;
mod round_output;
mod sampling_params;
mod saved_caches;
mod scheduler;
mod sequence;
mod sequence_round;
mod statistics;
mod stream;

pub use completion::{Completion, FinishReason, Limits, Piece};
pub use draft::Draft;
pub use engine::Engine;
pub use generate::Generation;
pub use ngram::{MAX_NGRAM, NgramOptions};
pub use options::{DraftLength, EngineOptions, MAX_CONTEXT, MAX_DRAFTS, Method, SequenceOptions, cache_positions};
pub use pace::{Costs, Speculation};
pub use respond::{RespondOptions, Response, Responses, respond};
pub use sampling_params::{
    AcceptanceRule, MAX_BIAS, MAX_LOGPROBS, MAX_PENALTY, MAX_REPETITION, MAX_TEMPERATURE, SamplingParams, TokenLogprobs,
};
pub use sequence::Sequence;
pub use statistics::{RoundStatistics, Statistics};
pub use stream::AnswerStream;
