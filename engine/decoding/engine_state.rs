//! State that the sequences of an engine share: the models, their caches' slots, and the rounds.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::draft::Draft;
use super::options::{EngineOptions, cache_positions};
use super::pace::Costs;
use super::proposer::Proposer;
use super::round::Rounds;
use crate::error::{Error, OptionName, Result};
use crate::model::ModelRunner;
use crate::text::ChatTokenizer;

/// State shared by the sequences of an engine.
pub struct Shared {
    pub options: EngineOptions,
    /// The target's tokenizer, for prompts that are not tokens.
    pub text: Option<ChatTokenizer>,
    /// Costs of passes, if both models were measured.
    pub costs: Option<Costs>,
    pub target: ModelRunner,
    pub draft: Option<Draft>,
    /// The draft's runner, once a sequence asked for it.
    pub drafting: OnceLock<ModelRunner>,
    pub rounds: Mutex<Rounds>,
    /// Set for each slot that has a sequence. Locked while caches grow.
    pub taken: Mutex<Vec<bool>>,
}

/// A sequence's slot, which is free again once it is dropped.
pub struct CacheSlot {
    pub shared: Arc<Shared>,
    /// Its index in the caches of target and draft.
    pub index: usize,
}

impl Shared {
    /// The state of all sequences, locked.
    pub fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The draft's runner, if a sequence of `proposer` has one.
    pub fn draft_of(&self, proposer: Proposer) -> Option<&ModelRunner> {
        self.drafting.get().filter(|_| proposer.is_model())
    }

    /// Returns `true` if the draft is on another device than the target.
    pub fn is_split(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| !draft.model.device().is_same(self.target.model().device()))
    }

    /// Grows caches to `slots` slots at least; twice as many as there were, where there is room, so that they seldom grow.
    pub fn reserve(&self, runner: &ModelRunner, slots: usize) -> Result<()> {
        let count = runner.slots();
        if count >= slots {
            return Ok(());
        }
        match runner.reserve((2 * count).clamp(slots, self.options.sequences)) {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => runner.reserve(slots),
            done => done,
        }
    }

    /// The draft's runner. The slots are locked, so that nobody else makes it at the same time.
    pub fn make_draft(&self) -> Result<&ModelRunner> {
        if let (None, Some(draft)) = (self.drafting.get(), &self.draft) {
            let (room, ids) = (cache_positions(self.options.context), self.target.model().config().vocab_size);
            let mask = draft.mask.unwrap_or(0);
            let runner = self.rounds().add_draft(&draft.model, mask, [self.options.sequences, room, ids])?;
            return Ok(self.drafting.get_or_init(|| runner));
        }
        self.drafting
            .get()
            .ok_or_else(|| Error::Option { option: OptionName::Draft, reason: "there is none".to_owned() })
    }

    pub fn taken(&self) -> MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CacheSlot {
    fn drop(&mut self) {
        if let Some(taken) = self.shared.taken().get_mut(self.index) {
            *taken = false;
        }
    }
}
