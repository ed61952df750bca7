//! Buffers that all layers share.

use super::activations::ActivationGradients;
use crate::gpu::Buffer;

/// Buffers that all layers share.
pub struct Shared {
    /// The pass's [`crate::ops::Step`].
    pub step: Buffer,
    /// A [`crate::ops::gradients::TrainingRow`] for each row.
    pub rows: Buffer,
    /// The rotary angles of each row.
    pub angles: Buffer,
    /// Gradients of activations.
    pub gradients: ActivationGradients,
}
