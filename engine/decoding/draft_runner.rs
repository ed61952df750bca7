//! A draft as rounds run it.

use crate::error::Result;
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

    /// Reads tokens of the target at positions `start..` of slot `slot`, as [`ModelRunner::prefill_while`] does. A token that
    /// the draft's vocabulary lacks is read as its last one, as rounds read it (shaders/kernels/embedding.wgsl).
    pub fn read(&self, slot: usize, tokens: &[u32], start: usize, keep_going: &dyn Fn() -> bool) -> Result<usize> {
        let config = self.runner.model().config();
        let last = config.vocab_size as u32 - 1;
        let readable = |&id: &u32| if config.mask_has_row(id) { id } else { id.min(last) };
        let tokens: Vec<u32> = tokens.iter().map(readable).collect();
        self.runner.prefill_slot(slot, &tokens, start, &self.recall(), keep_going)
    }

    /// The hook of the draft's own passes.
    pub fn recall(&self) -> Hook<'_> {
        self.states.as_ref().map_or(Hook::Nothing, Hook::Recall)
    }
}
