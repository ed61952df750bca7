//! State that the sequences of an engine share: the models, their caches' slots, and the rounds.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::draft::Draft;
use super::draft_runner::DraftRunner;
use super::options::{EngineOptions, cache_positions};
use super::pace::Costs;
use super::proposer::Proposer;
use super::round::Rounds;
use crate::error::{Error, OptionName, Result};
use crate::model::{ModelRunner, Pair, TargetStates};
use crate::text::{ChatTokenizer, Constraint, Grammar, Thinking};

/// State shared by the sequences of an engine.
pub struct Shared {
    pub options: EngineOptions,
    /// The target's tokenizer, for prompts that are not tokens.
    pub text: Option<ChatTokenizer>,
    /// Costs of passes, once both models were measured.
    pub costs: OnceLock<Costs>,
    pub target: ModelRunner,
    pub draft: Option<Draft>,
    /// The draft's runner, once a sequence asked for it.
    pub drafting: OnceLock<DraftRunner>,
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
    pub fn draft_of(&self, proposer: Proposer) -> Option<&DraftRunner> {
        self.drafting.get().filter(|_| proposer.is_model())
    }

    /// Returns `true` if the draft is on another device than the target.
    pub fn is_split(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| !draft.model.device().is_same(self.target.model().device()))
    }

    /// Grows the target's caches to `slots` slots at least.
    pub fn reserve_target(&self, slots: usize) -> Result<()> {
        self.reserve(self.target.slots(), slots, |slots| self.target.reserve(slots))
    }

    /// Grows the draft's caches to `slots` slots at least, and the states that it reads. The slots are locked, so that
    /// nobody else does so at the same time.
    pub fn reserve_draft(&self, slots: usize) -> Result<()> {
        let draft = self.make_draft()?;
        self.reserve(draft.runner.slots(), slots, |slots| {
            if let Some(states) = &draft.states {
                let rounds = self.rounds();
                let sessions = rounds.book.sessions();
                states.reserve(Pair { target: &self.target, draft: &draft.runner, sessions }, slots)?;
            }
            draft.runner.reserve(slots)
        })
    }

    /// Has `grow` make room for `slots` slots where there are `count`; for twice as many as there are, if it can, so that
    /// it is seldom asked.
    fn reserve(&self, count: usize, slots: usize, grow: impl Fn(usize) -> Result<()>) -> Result<()> {
        if count >= slots {
            return Ok(());
        }
        match grow((2 * count).clamp(slots, self.options.sequences)) {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => grow(slots),
            done => done,
        }
    }

    /// The draft's runner.
    fn make_draft(&self) -> Result<&DraftRunner> {
        if let (None, Some(draft)) = (self.drafting.get(), &self.draft) {
            let (room, ids) = (cache_positions(self.options.context), self.target.model().config().vocab_size);
            let mask = draft.mask.unwrap_or(0);
            let mut rounds = self.rounds();
            let runner = rounds.add_draft(&draft.model, mask, [self.options.sequences, room, ids])?;
            let pair = Pair { target: &self.target, draft: &runner, sessions: rounds.book.sessions() };
            let states = TargetStates::new(pair, room)?;
            return Ok(self.drafting.get_or_init(|| DraftRunner { runner, states }));
        }
        self.drafting
            .get()
            .ok_or_else(|| Error::Option { option: OptionName::Draft, reason: "there is none".to_owned() })
    }

    /// The beginning of an answer that keeps to `grammar` after `thinking`.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`]; [`Error::Option`] if there is no tokenizer.
    pub fn constraint(&self, grammar: &Grammar, thinking: Thinking) -> Result<Constraint> {
        let Some(text) = &self.text else {
            let reason = "an engine that was made of weights alone has no tokenizer to keep to one".to_owned();
            return Err(Error::Option { option: OptionName::Grammar, reason });
        };
        text.constraint(grammar, thinking)
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
