//! Hidden states of its target that a draft reads beside tokens: the target-dependent mode of PARD-2, arXiv:2605.08632.
//! Some layers of the target store their output for each token, and the draft adds a projection of it to its embedding
//! of the next token. Masks, and tokens that the draft itself has proposed, have none.

use super::kv_cache::{KvCachePool, Way};
use super::runner::ModelRunner;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::{HiddenStates, LoadHidden, StoreHidden};

/// Use of one sequence's hidden states by the passes of a model.
pub enum Hook {
    /// A target's passes store the output of these layers for each row.
    Keep(Vec<(usize, StoreHidden)>),
    /// A draft's passes read the stored states.
    Read(LoadHidden),
}

impl Hook {
    /// Records, before the first layer, the loading of states for `rows` rows.
    pub(super) fn read(&self, pass: &mut Pass, rows: usize) {
        if let Hook::Read(recall) = self {
            recall.encode(pass, rows);
        }
    }

    /// Records the storing of `rows` rows' states behind layer `layer`.
    pub(super) fn keep(&self, layer: usize, pass: &mut Pass, rows: usize) {
        if let Hook::Keep(layers) = self {
            layers.iter().filter(|(of, _)| *of == layer).for_each(|(_, remember)| remember.encode(pass, rows));
        }
    }
}

impl ModelRunner {
    /// Creates the hook with which its passes store the states of the sequence in slot `slot`, behind each of `layers`.
    /// `batch` is the buffer that the runner was bound with.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if `states` are of another shape.
    pub(crate) fn keeping(
        &self,
        batch: Option<&Buffer>,
        slot: usize,
        layers: &[usize],
        states: &HiddenStates,
    ) -> Result<Hook> {
        let (device, epsilon) = (self.model().device(), self.model().config().norm_epsilon as f32);
        let kept = layers.iter().enumerate().map(|(part, &layer)| {
            Ok((layer, StoreHidden::new(device, self.rows(batch), slot, self.hidden(), epsilon, states, part)?))
        });
        Ok(Hook::Keep(kept.collect::<Result<_>>()?))
    }
}

impl KvCachePool {
    /// Creates the hook with which passes of this target store the states of the sequence in slot `slot`, behind each
    /// of `layers`: passes of that sequence alone, or of several together.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if `states` are of another shape; [`crate::Error::OutOfMemory`].
    pub fn keeping(&self, way: Way, slot: usize, layers: &[usize], states: &HiddenStates) -> Result<Hook> {
        let (sequence, batch) = self.way(way)?;
        sequence.keeping(batch, slot, layers, states)
    }

    /// Creates the hook with which passes of this draft read the states of the sequence in slot `slot`, as far as its
    /// target has run according to `session`. None if the draft reads no states.
    ///
    /// # Errors
    ///
    /// As [`KvCachePool::keeping`].
    pub fn reading(&self, way: Way, slot: usize, session: &Buffer, states: &HiddenStates) -> Result<Option<Hook>> {
        let (sequence, batch) = self.way(way)?;
        let device = sequence.model().device();
        let recall = |into| LoadHidden::new(device, sequence.rows(batch), slot, session, states, into);
        Ok(sequence.target_states().map(recall).transpose()?.map(Hook::Read))
    }
}
