//! Language models on any GPU through wgpu and hand-written WGSL, with parallel-draft speculative decoding (PARD,
//! arXiv:2504.18583): a draft proposes K tokens in one forward pass, the target checks them in one more, and the text is
//! exactly what the target alone would write.
//!
//! ```no_run
//! use pard::{Device, Draft, Engine, Message, Model};
//!
//! # fn main() -> pard::Result<()> {
//! let device = Device::open(&Default::default())?;
//! let target = Model::load(&device, "Qwen/Qwen3-4B", Default::default())?;
//! let draft = Draft::load(&target, "amd/PARD-Qwen3-0.6B", Default::default())?;
//! let engine = Engine::new(&target, Some(&draft), Default::default())?;
//! for piece in engine.generate(Message::user("Who are you?"))? {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The parts, from below: `formats` are those of weights; `gpu` is all that names wgpu; `ops` are the kernels, one file
//! each; [`checkpoint`] reads a model's files; [`model`] holds the forward pass; [`decoding`] runs the rounds; [`text`]
//! stands between text and tokens. None reaches up. [`low_level`] shows the parts that only tools need. The crate never
//! prints, never exits, and does not panic on input: every [`Error`] names the thing at fault.
#![warn(missing_docs)]

mod builder;
pub mod checkpoint;
pub mod decoding;
pub mod error;
mod formats;
mod gpu;
pub mod low_level;
mod measure;
pub mod model;
mod ops;
pub mod text;
mod training;

pub use decoding::{
    AnswerStream, Completion, Draft, DraftLength, Engine, EngineOptions, FinishReason, Generation, Limits, Method,
    Piece, RoundStatistics, SamplingParams, Sequence, SequenceOptions, Statistics, TokenLogprobs,
};
pub use error::{Error, Result};
pub use formats::WeightFormat;
pub use gpu::{AdapterQuery, AdapterReport, CacheFormat, Device, MatmulChoice, QuantisedChoice, adapters};
pub use model::{LoadOptions, Model, StatesChoice, WeightDtype};
pub use text::{Conversation, Grammar, Message, Prompt, Rendering};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/library.md")]
struct Documents;
