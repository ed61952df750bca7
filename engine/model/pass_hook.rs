//! What happens beside the layers of a pass, and the sequences that its rows are of.

use crate::error::Result;
use crate::gpu::Pass;
use crate::ops::Phase;

/// Sequences whose rows a pass computes. A row's result is the same either way, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// One sequence: rows stand one position after the other.
    One,
    /// Any number of them.
    Many,
}

/// Work that is recorded between the steps of a forward pass; none, where a hook does not say.
pub trait PassHook {
    /// Records what follows the embedding of `rows` rows.
    fn before_layers(&self, _pass: &mut Pass, _batching: Batching, _rows: usize) {}

    /// Records what follows layer `layer`.
    fn after_layer(&self, _pass: &mut Pass, _layer: usize, _rows: usize) {}

    /// Records what follows all layers.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`] if a kernel does not compile.
    fn after_layers(&self, _pass: &mut Pass, _phase: Phase, _batching: Batching, _rows: usize) -> Result<()> {
        Ok(())
    }
}

/// No such work.
pub struct NoHook;

impl PassHook for NoHook {}
