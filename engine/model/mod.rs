//! Models on the GPU: their weights, their caches, and the forward pass.

mod batch;
mod blueprint;
mod cost;
mod loaded;
mod loader;
pub mod made;
mod parts;
pub mod rotary;
mod sample;
mod sampler;
mod sequence;
pub mod shared;
mod slots;
mod states;
mod submit_pace;
mod transformer;
mod tuning;
mod weight_choice;

pub use batch::{Batch, Sampling};
pub use blueprint::{Blueprint, Need};
pub use cost::PassCost;
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
