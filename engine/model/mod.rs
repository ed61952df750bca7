//! Models: their files, their hyper-parameters, their weights on the GPU, and the forward pass.

mod batch;
mod blueprint;
pub mod checkpoint;
pub mod config;
mod cost;
pub mod export;
pub mod files;
pub mod gguf;
#[cfg(feature = "hub")]
mod hub;
pub mod hugging_face;
mod json;
mod loaded;
mod loader;
pub mod local;
pub mod made;
mod parts;
pub mod rotary;
pub mod safetensors;
mod sample;
mod sampler;
mod sequence;
pub mod shared;
mod slots;
pub mod source;
mod states;
pub mod storage;
mod submit_pace;
mod transformer;
mod tuning;
mod weight_choice;

pub use batch::{Batch, Sampling};
pub use blueprint::{Blueprint, Need};
pub use cost::PassCost;
pub use files::{DraftFiles, ModelFiles};
pub use loaded::{LoadOptions, Model};
pub use parts::{TARGET_PROJECTION, expected_matrices};
pub use sampler::{Sampler, SamplerTerms, Turns, log_probabilities};
pub use sequence::Sequence;
pub use slots::{PlacedRow, Slots, Together, Way};
pub use states::Tap;
pub use submit_pace::SubmitPace;
pub use transformer::{Progress, Transformer, attention_shape};
pub use tuning::{Choice, KeepGoing, LeftOut, Measured, Tuning};
pub use weight_choice::WeightChoice;
