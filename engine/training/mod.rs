//! Turning an autoregressive model into a PARD draft (arXiv:2504.18583, section 3): samples become rows of tokens and
//! chains of masks, which the draft learns to predict all at once.

mod activations;
pub mod data;
pub mod draft;
mod layer;
pub mod measure;
mod network;
mod optimizer;
mod parameter;
mod projection;
mod rows;
mod shared;
pub mod state;
mod teacher;
mod trainer;

pub use network::{Network, NetworkOptions};
pub use optimizer::OptimizerOptions;
pub use rows::{CodRetention, PackedRows, Sample};
pub use teacher::Loss;
pub use trainer::{Position, Schedule, StepReport, Trainer, TrainingOptions};
