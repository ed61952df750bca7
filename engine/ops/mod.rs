//! One file per kernel: it checks the operands' shapes, binds them once, and records the dispatch as often as asked.
//! Ops know buffers and shapes, not models.

mod argmax;
mod attention;
mod constrain;
mod cooperative;
mod device_peak;
mod embedding;
mod expert_matrix;
mod experts;
mod gather;
pub mod gradients;
mod hidden_states;
mod integer;
mod kv_cache;
mod log_probabilities;
mod matmul;
mod matrix;
mod penalties;
mod probabilities;
mod quantise_rows;
mod rejection;
mod rms_norm;
mod rope;
mod round;
mod row_range;
mod rows;
mod sampling;
mod self_check;
mod token_counts;
mod truncation;
mod variant;
mod weight_layout;

pub use argmax::{Argmax, Draw};
pub use attention::{Attention, AttentionScratch, AttentionVariant};
pub use constrain::Constrain;
pub use device_peak::{COLD_BYTES, PeakProbe, PeakRates};
pub use embedding::{Embedding, MaskRow};
pub use expert_matrix::{ExpertMatrix, ExpertSizes};
pub use experts::{ExpertMatmul, ExpertRoute, ExpertSum, MAX_EXPERTS, Mixture, Routing};
pub use gather::Gather;
pub use hidden_states::{Keep, KeptStates, Recall, Remember, StateNorm};
pub use kv_cache::KvCache;
pub use log_probabilities::LogProbabilities;
pub use matmul::{Epilogue, Matmul};
pub use matrix::{Matrix, Section};
pub use penalties::{BANNED, Penalties, PenaltyTerms};
pub use probabilities::Probabilities;
pub use quantise_rows::QuantiseRows;
pub use rejection::{Rejection, RejectionTerms};
pub use rms_norm::{NormRows, RmsNorm};
pub use rope::{AttentionShape, Rope, RopeGains};
pub use round::{Accept, BuildInputs, ModelRole, PassPlan, ProposerKind, RECORD, RoundBuffers, Session, Turn};
pub use row_range::RowRange;
pub use rows::{CHOICES, PassRow, Rows};
pub use sampling::TurnSampling;
pub use self_check::{check_products, check_row_invariance, check_values};
pub use token_counts::TokenCounts;
pub use truncation::Truncation;
pub use variant::{Variant, Variants};
pub use weight_layout::{MatrixSource, Source, StoredSource};

use std::sync::OnceLock;

use crate::error::{Error, Result};
pub use crate::formats::WeightFormat;
use crate::gpu::{Buffer, Device};

/// Kind of rows in a pass. It selects their kernels; their number never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Prompt rows, many at once.
    Prefill,
    /// Rows of a round of decoding, 1..=32 of them.
    Decode,
}

/// The most rows that a row kernel takes: twice the longest draft.
pub const MAX_ROWS: usize = 32;

/// Rows of f32 activations, `[rows, width]`, row-major. `rows` is the room there is; passes may use fewer.
pub struct Tensor {
    /// The values.
    pub buffer: Buffer,
    /// Room, in rows.
    pub rows: usize,
    /// Values in a row.
    pub width: usize,
    /// The first [`MAX_ROWS`] of them as integers, once a product wants them: see [`QuantiseRows`].
    integers: OnceLock<Box<Buffer>>,
}

impl Tensor {
    /// Zeros.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn new(device: &Device, label: &str, rows: usize, width: usize) -> Result<Tensor> {
        let buffer = Buffer::rows(device, label, (rows * width * size_of::<f32>()) as u64)?;
        Ok(Tensor::of(buffer, rows, width))
    }

    /// One row that holds `values`: a gain, a bias.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn vector(device: &Device, label: &str, values: &[f32]) -> Result<Tensor> {
        Ok(Tensor::of(Buffer::with_values(device, label, values)?, 1, values.len()))
    }

    /// Rows that lie in `buffer`.
    pub(crate) fn of(buffer: Buffer, rows: usize, width: usize) -> Tensor {
        Tensor { buffer, rows, width, integers: OnceLock::new() }
    }

    /// Checks the width and the room.
    fn expect(&self, op: &'static str, tensor: &'static str, rows: usize, width: usize) -> Result<()> {
        if self.width == width && self.rows >= rows {
            return Ok(());
        }
        Err(Error::Shape { op, tensor, got: vec![self.rows, self.width], expected: vec![rows, width] })
    }
}

/// Input of one forward pass, as shaders/shared/step.wgsl lays it out. All counts are rows.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Step {
    /// Position of row 0.
    pub start: u32,
    /// Rows of the pass.
    pub rows: u32,
    /// The first row whose next token is wanted.
    pub first_output: u32,
    /// Number of rows from there on that are wanted.
    pub outputs: u32,
    /// Slot of the caches, where all rows are of one sequence.
    pub slot: u32,
}

/// Checks a vector's length.
fn expect_len<T>(op: &'static str, tensor: &'static str, values: &[T], len: usize) -> Result<()> {
    if values.len() == len {
        return Ok(());
    }
    Err(Error::Shape { op, tensor, got: vec![values.len()], expected: vec![len] })
}
