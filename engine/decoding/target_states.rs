//! Target states that one sequence's draft reads in addition to tokens, by position, as caches hold keys and values.

use super::pool::CacheSlot;
use crate::error::Result;
use crate::gpu::Buffer;
use crate::model::{Hook, Way};
use crate::ops::HiddenStates;

/// The states of one sequence, and the hooks by which passes keep and read them.
pub struct TargetStates {
    states: HiddenStates,
    alone: Taps,
    together: Option<Taps>,
}

/// Hooks that keep states in the target's passes and read them in the draft's.
pub struct Taps {
    pub keep: Hook,
    pub read: Hook,
}

impl TargetStates {
    /// None if the draft in `seat` reads none.
    pub fn new(seat: &CacheSlot, positions: usize, session: &Buffer) -> Result<Option<TargetStates>> {
        let Some(layers) = seat.draft().and_then(|draft| draft.alone().model().config().target_layers.as_ref()) else {
            return Ok(None);
        };
        let device = seat.target().alone().model().device();
        let states = HiddenStates::new(device, positions, layers.layers.len(), layers.hidden_size)?;
        let alone = Taps::new(seat, Way::Alone, session, &states)?;
        Ok(alone.map(|alone| TargetStates { states, alone, together: None }))
    }

    /// The hooks for passes of this way, if they were prepared.
    pub fn taps(&self, way: Way) -> Option<&Taps> {
        match way {
            Way::Alone => Some(&self.alone),
            Way::Together => self.together.as_ref(),
        }
    }

    /// Binds the hooks for passes with other sequences, on first use.
    pub fn prepare_together(&mut self, seat: &CacheSlot, session: &Buffer) -> Result<()> {
        if self.together.is_none() {
            self.together = Taps::new(seat, Way::Together, session, &self.states)?;
        }
        Ok(())
    }
}

impl Taps {
    fn new(seat: &CacheSlot, way: Way, session: &Buffer, states: &HiddenStates) -> Result<Option<Taps>> {
        let Some(draft) = seat.draft() else { return Ok(None) };
        let Some(layers) = &draft.alone().model().config().target_layers else { return Ok(None) };
        let keep = seat.target().keeping(way, seat.slot, &layers.layers, states)?;
        Ok(draft.reading(way, seat.slot, session, states)?.map(|read| Taps { keep, read }))
    }
}
