//! Language models on any GPU through wgpu and hand-written WGSL, with parallel-draft speculative decoding (PARD,
//! arXiv:2504.18583): a draft proposes K tokens in one forward pass, the target checks them in one more, and the text is
//! exactly what the target alone would write.
//!
//! ```no_run
//! use pard_engine::{Device, Draft, Generation, Limits, Message, Method, Model, Sequence, SequenceOptions};
//!
//! # fn main() -> pard_engine::Result<()> {
//! let device = Device::open(&Default::default())?;
//! let target = Model::load(&device, "Qwen/Qwen3-4B", Default::default())?;
//! let draft = Model::load_draft(&device, "amd/PARD-Qwen3-0.6B", &target, Default::default())?;
//! let draft = Draft::new(&draft, &target, None)?;
//! let options = SequenceOptions { method: Method::Pard, ..SequenceOptions::default() };
//! let mut sequence = Sequence::new(&target.weights, Some(&draft), options)?;
//! let prompt = target.text.chat_tokens(&[Message::new("user", "Who are you?")], Default::default())?;
//! let limits = Limits { max_tokens: 256, stop: vec![] };
//! for piece in Generation::start(&mut sequence, &target.text, &prompt, limits, &|| true)? {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The layers, from below: [`gpu`] is all that names wgpu; [`ops`] are the kernels, one file each; [`checkpoint`] reads a
//! model's files; [`model`] holds the forward pass; [`decoding`] runs the rounds; [`measure`] times passes; [`text`]
//! stands between text and tokens. None reaches up. The crate never prints, never exits, and does not panic on input:
//! every [`Error`] names the thing at fault.
#![warn(missing_docs)]

#[cfg(feature = "c-api")]
pub mod c_api;
pub mod checkpoint;
pub mod decoding;
pub mod error;
pub mod gpu;
pub mod measure;
pub mod model;
pub mod ops;
pub mod text;
pub mod training;

pub use decoding::{
    AnswerStream, Completion, Draft, DraftLength, Engine, FinishReason, Generation, Limits, Method, Piece,
    RoundStatistics, SamplingParams, Sequence, SequenceOptions, Statistics, TokenLogprobs,
};
pub use error::{Error, Result};
pub use gpu::Device;
pub use model::{LoadOptions, Model};
pub use text::{Conversation, Message, Rendering};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/library.md")]
struct Documents;
