//! Target states that one sequence's draft reads in addition to tokens, by position, as caches hold keys and values.

use crate::error::Result;
use crate::gpu::Buffer;
use crate::model::{Batching, Hook, ModelRunner};
use crate::ops::HiddenStates;

/// The states of one sequence, and the hooks by which passes store and load them.
pub struct TargetStates {
    states: HiddenStates,
    one: Hooks,
    many: Option<Hooks>,
}

/// Hooks that store states in the target's passes and load them in the draft's.
pub struct Hooks {
    pub store: Hook,
    pub load: Hook,
}

/// What the states of one sequence are bound to.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub target: &'a ModelRunner,
    pub draft: &'a ModelRunner,
    pub slot: usize,
    pub sessions: &'a Buffer,
}

impl TargetStates {
    /// Room for the states of `positions` positions; none if the draft reads no states.
    ///
    /// # Errors
    ///
    /// As [`HiddenStates::new`].
    pub fn new(place: Place, positions: usize) -> Result<Option<TargetStates>> {
        let Some(layers) = &place.draft.model().config().target_layers else { return Ok(None) };
        let device = place.target.model().device();
        let states = HiddenStates::new(device, positions, layers.layers.len(), layers.hidden_size)?;
        let one = Hooks::new(place, Batching::One, &states)?;
        Ok(one.map(|one| TargetStates { states, one, many: None }))
    }

    /// The hooks for passes over rows of one sequence or of several; those for several were prepared.
    pub fn hooks(&self, batching: Batching) -> &Hooks {
        match (batching, &self.many) {
            (Batching::Many, Some(many)) => many,
            _ => &self.one,
        }
    }

    /// Binds the hooks for passes over rows of several sequences, on first use.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`].
    pub fn prepare_many(&mut self, place: Place) -> Result<()> {
        if self.many.is_none() {
            self.many = Hooks::new(place, Batching::Many, &self.states)?;
        }
        Ok(())
    }
}

impl Hooks {
    fn new(place: Place, batching: Batching, states: &HiddenStates) -> Result<Option<Hooks>> {
        let Place { target, draft, slot, sessions } = place;
        let Some(layers) = &draft.model().config().target_layers else { return Ok(None) };
        let store = target.storing(batching, slot, &layers.layers, states)?;
        Ok(draft.loading(batching, slot, sessions, states)?.map(|load| Hooks { store, load }))
    }
}
