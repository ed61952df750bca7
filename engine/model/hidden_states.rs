//! Hidden states of its target that a draft reads beside tokens: the target-dependent mode of PARD-2, arXiv:2605.08632.
//! Some layers of the target store their output for each token, and the draft adds a projection of it to its embedding
//! of the next token. Masks, and tokens that the draft itself has proposed, have none.

use super::hook::Hook;
use super::runner::{Batching, ModelRunner};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::ops::{HiddenStates, LoadHidden, StoreHidden};

impl ModelRunner {
    /// Creates the hook with which its passes store the states of the sequence in slot `slot`, behind each of `layers`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if `states` are of another shape.
    pub fn storing(&self, batching: Batching, slot: usize, layers: &[usize], states: &HiddenStates) -> Result<Hook> {
        let (device, epsilon) = (self.model().device(), self.model().config().norm_epsilon as f32);
        let kept = layers.iter().enumerate().map(|(part, &layer)| {
            Ok((layer, StoreHidden::new(device, self.rows(batching), slot, self.hidden(), epsilon, states, part)?))
        });
        Ok(Hook::Store(kept.collect::<Result<_>>()?))
    }

    /// Creates the hook with which its passes load the states of the sequence in slot `slot`, as far as its target has run
    /// according to `sessions`. None if this draft reads no states.
    ///
    /// # Errors
    ///
    /// As [`ModelRunner::storing`].
    pub fn loading(
        &self,
        batching: Batching,
        slot: usize,
        sessions: &Buffer,
        states: &HiddenStates,
    ) -> Result<Option<Hook>> {
        let device = self.model().device();
        let load = |into| LoadHidden::new(device, self.rows(batching), slot, sessions, states, into);
        Ok(self.target_states().map(load).transpose()?.map(Hook::Load))
    }
}
