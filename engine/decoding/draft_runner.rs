//! A draft as rounds run it.

use crate::model::{Hook, ModelRunner, TargetStates};

/// A draft's forward pass, and the states of its target that it reads, if it does.
pub struct DraftRunner {
    pub runner: ModelRunner,
    pub states: Option<TargetStates>,
}

impl DraftRunner {
    /// The hook of the target's passes for sequences that the draft proposes for.
    pub fn keep(&self) -> Hook<'_> {
        self.states.as_ref().map_or(Hook::Nothing, Hook::Keep)
    }

    /// The hook of the draft's own passes.
    pub fn recall(&self) -> Hook<'_> {
        self.states.as_ref().map_or(Hook::Nothing, Hook::Recall)
    }
}
