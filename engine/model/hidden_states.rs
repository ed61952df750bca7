//! What a draft reads of its target beside tokens: the target-dependent mode of PARD-2, arXiv:2605.08632. Some layers of the
//! target leave what they make of each token, and the draft adds a projection of it to its embedding of the token that
//! comes next. Masks, and tokens that the draft itself has proposed, come without.

use super::kv_cache::{KvCachePool, Way};
use super::runner::ModelRunner;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::{HiddenStates, LoadHidden, StoreHidden};

/// What the passes of a model do with one sequence's states.
pub enum Hook {
    /// A target's passes keep what these layers make of each row.
    Keep(Vec<(usize, StoreHidden)>),
    /// A draft's passes read what was kept.
    Read(LoadHidden),
}

impl Hook {
    /// Records, before the first layer, what `rows` rows read.
    pub(super) fn read(&self, pass: &mut Pass, rows: usize) {
        if let Hook::Read(recall) = self {
            recall.encode(pass, rows);
        }
    }

    /// Records what is kept of `rows` rows behind layer `layer`.
    pub(super) fn keep(&self, layer: usize, pass: &mut Pass, rows: usize) {
        if let Hook::Keep(layers) = self {
            layers.iter().filter(|(of, _)| *of == layer).for_each(|(_, remember)| remember.encode(pass, rows));
        }
    }
}

impl ModelRunner {
    /// What has its passes keep the states of the sequence in slot `slot`, behind each of `layers`. `batch` is what it was
    /// bound with.
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
    /// What has passes of this target keep the states of the sequence in slot `slot`, behind each of `layers`: passes of that
    /// sequence alone, or of several together.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if `states` are of another shape; [`crate::Error::OutOfMemory`].
    pub fn keeping(&self, way: Way, slot: usize, layers: &[usize], states: &HiddenStates) -> Result<Hook> {
        let (sequence, batch) = self.way(way)?;
        sequence.keeping(batch, slot, layers, states)
    }

    /// What has passes of this draft read the states of the sequence in slot `slot`, as far as `session` says that its target
    /// has been. None if it reads none.
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
