//! Ops of training: gradients, the loss, and the optimiser. Gradients of weights and of the residual stream are added to
//! what their buffers hold.

mod adamw;
mod column_sum;
mod cross_entropy;
mod embedding;
mod gradient_norm;
mod input_gradient;
mod packed_attention;
mod rms_norm;
mod rope;
mod swiglu;
mod weight_gradient;

pub use adamw::{AdamW, AdamWStep, MomentFormat};
pub use column_sum::ColumnSum;
pub use cross_entropy::{CrossEntropy, Label, RowLoss};
pub use embedding::{EmbeddingGradient, Readers};
pub use gradient_norm::GradientNorm;
pub use input_gradient::{Accumulate, InputGradient};
pub use packed_attention::{PackedAttention, PackedAttentionGradient, TrainingRow};
pub use rms_norm::RmsNormGradient;
pub use rope::{GainGradients, RopeGradient};
pub use swiglu::{Swiglu, SwigluGradient};
pub use weight_gradient::WeightGradient;

use crate::error::{Error, Result};
use crate::gpu::Buffer;

/// Checks that `buffer` holds `values` f32, whole pieces of 4, and gives the number of pieces.
fn expect_pieces(op: &'static str, tensor: &'static str, buffer: &Buffer, values: usize) -> Result<u32> {
    let held = (buffer.bytes() / size_of::<f32>() as u64) as usize;
    if values.is_multiple_of(4) && values <= held {
        return Ok((values / 4) as u32);
    }
    Err(Error::Shape { op, tensor, got: vec![held], expected: vec![values.next_multiple_of(4)] })
}
