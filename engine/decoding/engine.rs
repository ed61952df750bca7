//! Sequences that are decoded on one model: each has a slot of its caches, and rows of any number of them go through the
//! model in one pass, which reads the weights once for all of them. No text depends on the other sequences, nor on which
//! rounds were run together.
//!
//! PARD, arXiv:2504.18583: the draft proposes K tokens in one pass by reading K - 1 mask tokens; the target checks all
//! of them in one pass, as a chain. VSD (arXiv:2211.17192) takes K passes of the draft; n-grams are looked up by the host;
//! AR has no proposals. All commit exactly what the target alone would, since a row's result does not depend on the rows
//! beside it; but for tokens drawn by [`super::AcceptanceRule::Rejection`], which keeps their distribution only.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::draft::Draft;
use super::engine_state::{CacheSlot, Shared};
use super::options::{EngineOptions, MAX_DRAFTS, Method, SequenceOptions, cache_positions};
use super::pace::Costs;
use super::round::{Part, Rounds, Submitted};
use super::scheduler::{Assignment, Candidate, plan_step};
use super::sequence::Sequence;
use crate::error::{Error, OptionName, Result};
use crate::model::{Model, ModelRunner, PassCost, Weights};
use crate::ops::{CHOICES, MAX_ROWS, PassRow, check_row_invariance};
use crate::text::ChatTokenizer;

/// Decodes sequences over one target, and over one draft if there is one.
///
/// ```no_run
/// # use pard::{Engine, EngineOptions, Model, Result};
/// # fn answers(model: &Model, prompts: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
/// let engine = Engine::new(model, None, EngineOptions::default().sequences(prompts.len()))?;
/// let mut sequences = Vec::new();
/// for prompt in prompts {
///     let mut sequence = engine.add(engine.defaults())?;
///     sequence.start(prompt)?;
///     sequences.push(sequence);
/// }
/// for _ in 0..100 {
///     engine.step(&mut sequences.iter_mut().collect::<Vec<_>>())?;
/// }
/// # Ok(sequences.iter().map(|sequence| sequence.tokens().to_vec()).collect())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

impl Engine {
    /// An engine that runs `target`, with `draft` as its draft if there is one. The caches of the first sequence are
    /// allocated here, those of each further one when it is added.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of range; [`Error::Gpu`] if this driver's rounding depends on the number of
    /// rows; [`Error::Limit`] or [`Error::OutOfMemory`] if the caches do not fit.
    pub fn new(target: &Model, draft: Option<&Draft>, options: EngineOptions) -> Result<Engine> {
        let costs = target.pass_cost().and_then(|target| {
            let draft = draft.map_or(Some(PassCost::from_points(&[])), |draft| draft.cost.clone())?;
            Some(Costs { target, draft })
        });
        Engine::build(&target.weights, draft, options, Some(target.text.clone()), costs)
    }

    /// As [`Engine::new`], for weights without a tokenizer: prompts and answers are tokens.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn from_weights(target: &Arc<Weights>, draft: Option<&Draft>, options: EngineOptions) -> Result<Engine> {
        Engine::build(target, draft, options, None, None)
    }

    fn build(
        target: &Arc<Weights>,
        draft: Option<&Draft>,
        options: EngineOptions,
        text: Option<ChatTokenizer>,
        costs: Option<Costs>,
    ) -> Result<Engine> {
        let EngineOptions { context, sequences } = options;
        SequenceOptions::default().context(context).check()?;
        if sequences == 0 {
            let reason = "an engine has 1 sequence at least".to_owned();
            return Err(Error::Option { option: OptionName::Sequences, reason });
        }
        let device = target.device();
        if sequences > 1 {
            check_row_invariance(device, target.plan(), sequences.min(MAX_ROWS))?;
        }
        let (room, chosen) = (cache_positions(context), PassRow::choices(device, "choices")?);
        let target = ModelRunner::new(target, room, target.config().vocab_size, &chosen)?;
        let rounds = Mutex::new(Rounds::new(&target, chosen, sequences, room)?);
        let (draft, drafting, taken) = (draft.cloned(), OnceLock::new(), Mutex::default());
        let costs = costs.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Engine { shared: Arc::new(Shared { options, text, costs, target, draft, drafting, rounds, taken }) })
    }

    /// The options of a sequence that uses the whole context, and the draft, if there is one, by the best method that it
    /// supports.
    pub fn defaults(&self) -> SequenceOptions {
        let method = self.shared.draft.as_ref().map_or(Method::Ar, Draft::method);
        SequenceOptions::default().method(method).context(self.shared.options.context)
    }

    /// Costs of passes, once target and draft were tuned or measured, here or at an earlier start. Sequences that are added then
    /// know them from the start.
    pub fn costs(&self) -> Option<&Costs> {
        self.shared.costs.get()
    }

    /// The target's tokenizer, unless the engine was made of weights alone.
    pub fn text(&self) -> Option<&ChatTokenizer> {
        self.shared.text.as_ref()
    }

    /// Adds a sequence, which has a slot as long as it lives: dropping it removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of range, the context is longer than the engine's, the method lacks its
    /// draft, or all slots have a sequence; [`Error::NoMaskToken`]; [`Error::Limit`] or [`Error::OutOfMemory`] if there is
    /// no room for one more, in which case the existing ones go on.
    pub fn add(&self, options: SequenceOptions) -> Result<Sequence> {
        let (options, shared) = (options.checked()?, &*self.shared);
        let target = shared.target.model();
        options.sampling.check_tokens(target.config().vocab_size)?;
        if options.context > shared.options.context {
            let reason = format!("{} tokens are more than the engine's {}", options.context, shared.options.context);
            return Err(Error::Option { option: OptionName::Context, reason });
        }
        if options.method != Method::Ar {
            // What a grammar forces is proposed beside K.
            check_row_invariance(target.device(), target.plan(), MAX_DRAFTS + 1)?;
        }
        let drafts = match (options.method, &shared.draft) {
            (Method::Ar | Method::Ngram, _) => false,
            (method, None) => {
                let reason = format!("the method {} needs a draft model", method.name());
                return Err(Error::Option { option: OptionName::Draft, reason });
            }
            (method, Some(draft)) => {
                if shared.is_split() {
                    options.check_crossing()?;
                }
                if method == Method::Pard && draft.mask.is_none() {
                    return Err(Error::NoMaskToken { draft: draft.name.clone() });
                }
                true
            }
        };
        let slot = self.take_slot(drafts)?;
        let mut sequence = Sequence::in_slot(slot, options)?;
        if let Some(costs) = self.costs().filter(|_| sequence.options().method != Method::Ar) {
            sequence.set_costs(costs.clone());
        }
        Ok(sequence)
    }

    /// Lets each of `sequences`, which must be this engine's, go on by a round: it commits at least a token, and
    /// [`Sequence::last_tokens`] are those. Gives the rows of each pass of the target that was submitted.
    ///
    /// One row of each sequence goes through the target in one pass, and as many proposals with them as pay: those of
    /// n-grams and those of a draft, which makes them for all sequences in the same passes as well. Sequences may also have
    /// passes of their own, one after the other. The choice with the highest estimate of total tokens per second is taken,
    /// from the costs of passes, as [`Sequence::set_costs`] says, and the acceptance rates; where costs are not known, one
    /// row of each is taken. No text depends on it: sequences whose proposals are accepted by
    /// [`super::AcceptanceRule::Rejection`] have passes of their own.
    ///
    /// # Errors
    ///
    /// Before anything is done: [`Error::EmptyPrompt`] or [`Error::ContextFull`] if one of them cannot go on,
    /// [`Error::Option`] if one is not of this engine. As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn step(&self, sequences: &mut [&mut Sequence]) -> Result<Vec<usize>> {
        self.check_step(sequences)?;
        self.measure_costs(sequences)?;
        let begin = Instant::now();
        let passes = self.begin_step(sequences)?;
        for sequence in sequences.iter_mut() {
            sequence.take_round(begin)?;
        }
        Ok(passes)
    }

    /// As [`Engine::step`], without blocking the thread that polls the future, on any executor. A step that is dropped
    /// half-way is finished by the next one of the same sequences.
    ///
    /// # Errors
    ///
    /// As [`Engine::step`]; [`Error::Thread`] if there is no thread that could wait for the device.
    pub async fn step_async(&self, sequences: &mut [&mut Sequence]) -> Result<Vec<usize>> {
        self.check_step(sequences)?;
        let begin = Instant::now();
        let passes = self.begin_step(sequences)?;
        for sequence in sequences.iter_mut() {
            poll_fn(|context| sequence.poll_round(context)).await?;
            sequence.take_round(begin)?;
        }
        Ok(passes)
    }

    /// Refuses sequences that cannot go on.
    fn check_step(&self, sequences: &[&mut Sequence]) -> Result<()> {
        for sequence in sequences.iter() {
            sequence.check_round()?;
            if !sequence.is_of(&self.shared) {
                let reason = "a sequence is of another engine".to_owned();
                return Err(Error::Option { option: OptionName::Sequences, reason });
            }
        }
        Ok(())
    }

    /// Lets one of those of `sequences` that measure costs as they write take the next measurement, unless a round that is
    /// under way would be in its time.
    fn measure_costs(&self, sequences: &mut [&mut Sequence]) -> Result<()> {
        if sequences.iter().any(|sequence| sequence.is_in_flight()) {
            return Ok(());
        }
        let measuring = sequences.iter_mut().find(|sequence| sequence.measures_next());
        measuring.map_or(Ok(()), |sequence| sequence.measure_next())
    }

    /// Submits the rounds of a step.
    fn begin_step(&self, sequences: &mut [&mut Sequence]) -> Result<Vec<usize>> {
        let mut passes = self.submit(sequences, |sequence| !sequence.is_in_flight())?;
        if sequences.iter().all(|sequence| sequence.can_run_ahead()) {
            passes.extend(self.submit(sequences, |_| true)?);
        }
        Ok(passes)
    }

    /// Submits a round of each of `sequences` for which `takes_part` says so.
    fn submit(&self, sequences: &mut [&mut Sequence], takes_part: impl Fn(&Sequence) -> bool) -> Result<Vec<usize>> {
        let mut sequences: Vec<&mut Sequence> =
            sequences.iter_mut().map(|sequence| &mut **sequence).filter(|sequence| takes_part(sequence)).collect();
        if sequences.len() == 1 {
            // Nothing is to be weighed against others.
            return Ok(vec![self.submit_pass(&mut sequences, &[(0, None)])?]);
        }
        let candidates: Vec<Candidate> = sequences.iter().map(|sequence| sequence.candidate()).collect();
        let plan = plan_step(&candidates, sequences.iter().find_map(|sequence| sequence.costs()));
        plan.into_iter().map(|pass| self.submit_pass(&mut sequences, &pass)).collect()
    }

    /// Submits a pass over those of `sequences` that `assignments` name, and returns its number of rows.
    fn submit_pass(&self, sequences: &mut [&mut Sequence], assignments: &[Assignment]) -> Result<usize> {
        let shared = &*self.shared;
        for &(index, drafts) in assignments {
            sequences[index].propose(drafts)?;
        }
        if assignments.iter().any(|&(index, _)| sequences[index].is_constrained()) {
            // A grammar has to see the proposals before the target does.
            let made = match shared.drafting.get() {
                Some(draft) => shared.rounds().propose(&shared.target, draft, &parts(sequences, assignments))?,
                None => vec![0; CHOICES * assignments.len()],
            };
            for (&(index, _), made) in assignments.iter().zip(made.chunks(CHOICES)) {
                sequences[index].take_proposals(made);
            }
        }
        let Submitted { flight, first_outputs, rows } = {
            let parts = parts(sequences, assignments);
            shared.rounds().submit(&shared.target, shared.drafting.get(), &parts)?
        };
        for (turn, (&(index, _), first_output)) in assignments.iter().zip(first_outputs).enumerate() {
            sequences[index].submitted(&flight, turn, first_output);
        }
        Ok(rows)
    }

    /// Takes a free slot, and sees to it that there are caches for it.
    fn take_slot(&self, drafts: bool) -> Result<CacheSlot> {
        let shared = &*self.shared;
        let mut taken = shared.taken();
        let index = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        if index >= shared.options.sequences {
            let reason = format!("all {} sequences of the engine are taken", shared.options.sequences);
            return Err(Error::Option { option: OptionName::Sequences, reason });
        }
        shared.reserve_target(index + 1)?;
        if drafts {
            shared.reserve_draft(index + 1)?;
        }
        match taken.get_mut(index) {
            Some(place) => *place = true,
            None => taken.push(true),
        }
        Ok(CacheSlot { shared: self.shared.clone(), index })
    }
}

/// The parts in a pass of those of `sequences` that `assignments` name.
fn parts<'a>(sequences: &'a [&mut Sequence], assignments: &[Assignment]) -> Vec<Part<'a>> {
    assignments.iter().map(|&(index, _)| sequences[index].part()).collect()
}

impl Sequence {
    /// A sequence on `target`, with an engine of its own. The draft may be on another device: each round then crosses the
    /// host twice, none runs ahead, and the tokens are the same.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of range or the method lacks its draft, [`Error::NoMaskToken`];
    /// [`Error::Gpu`] if this driver's rounding depends on the number of rows; [`Error::Limit`] or
    /// [`Error::OutOfMemory`] if the caches do not fit.
    pub fn new(target: &Arc<Weights>, draft: Option<&Draft>, options: SequenceOptions) -> Result<Sequence> {
        let options = options.checked()?;
        options.sampling.check_tokens(target.config().vocab_size)?;
        Engine::from_weights(target, draft, EngineOptions::default().context(options.context))?.add(options)
    }

    /// The engine that it is a sequence of.
    pub fn engine(&self) -> Engine {
        Engine { shared: self.shared().clone() }
    }

    /// Drafts, verifies and commits one round; returns the 1..=K+1 tokens it added.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`] before [`Sequence::start`], [`Error::ContextFull`] once the context is; [`Error::Grammar`] if the
    /// answer cannot keep to it any further; [`Error::DeviceLost`].
    pub fn round(&mut self) -> Result<&[u32]> {
        self.engine().step(&mut [self])?;
        self.check_fault()?;
        Ok(self.last_tokens())
    }
}
