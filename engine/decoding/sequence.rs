//! One sequence being decoded: the host's mirror of its state on the device, its proposer, and its statistics. The mirror
//! changes where a prompt is read or cut, and where a round's output is read, and nowhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::cost_measurement::CostMeasurement;
use super::draft_runner::DraftRunner;
use super::engine_state::{CacheSlot, Shared};
use super::options::{DraftLength, Method, SequenceOptions};
use super::pace::{Costs, Pace, Speculation};
use super::proposer::Proposer;
use super::round_output::Flight;
use super::sampling_params::{SamplingParams, TokenLogprobs};
use super::statistics::{RoundStatistics, Statistics};
use crate::error::{Error, Result};
use crate::model::{Hook, ModelRunner, PassCost, Stages};
use crate::ops::{MAX_ROWS, Phase, Session, TurnSampling};
use crate::text::Constraint;

/// One sequence being decoded.
pub struct Sequence {
    pub(super) slot: CacheSlot,
    pub(super) options: SequenceOptions,
    pub(super) run_ahead: bool,
    /// Source of proposals, and of those of the next round.
    pub(super) proposer: Proposer,
    pub(super) next: Proposal,
    /// Seconds that a round takes to the draft's device and back, if that is another.
    crossing: f64,
    /// Chooses K, if it is to be chosen and once costs are known; or is compared with n-grams.
    pub(super) pace: Option<Pace>,
    /// Costs of which some are measured, where that is done between rounds.
    pub(super) measuring: Option<CostMeasurement>,
    /// The same for n-grams in a draft's place.
    pub(super) ngrams: Option<Pace>,
    /// The sampling parameters of the options, as rounds have them.
    pub(super) sampling: Sampling,
    /// State of the grammar that the answer keeps to, if it does.
    pub(super) constraint: Option<Constraint>,
    /// Tokens that it forces next.
    pub(super) forced: Vec<u32>,
    /// Tokens that are not chosen as one of the first so many after the prompt.
    pub(super) held: (Vec<u32>, usize),
    /// Why the grammar cannot be followed any further. The sequence has to be started anew then.
    pub(super) fault: Option<Error>,
    /// Rounds that were submitted and not read, oldest first.
    pub(super) in_flight: VecDeque<InFlight>,
    /// The device's session, as of the last round that was read.
    pub(super) session: Session,
    /// Committed tokens, the prompt's included.
    pub(super) tokens: Vec<u32>,
    /// Number of them that the last round committed.
    pub(super) committed: usize,
    /// Log-probabilities of the last round's tokens, if requested.
    pub(super) logprobs: Vec<TokenLogprobs>,
    /// The last round that was read: its turn, K, and first output row.
    pub(super) last_turn: LastTurn,
    pub(super) statistics: Statistics,
    pub(super) last_round: RoundStatistics,
}

/// The proposals of a round.
pub(super) struct Proposal {
    pub proposer: Proposer,
    /// K.
    pub drafts: usize,
    /// The proposals, if the host knows them.
    pub tokens: Vec<u32>,
    /// Number of proposals that the proposer made: the others are cut off or forced by a grammar.
    pub made: usize,
    /// Set if a draft model has made its proposals, which the host knows then.
    pub is_proposed: bool,
    /// Masks by a grammar, as [`super::round::Part::masks`] has them.
    pub masks: Vec<u32>,
    /// Set if the pass has other sequences, whose rows K was chosen with.
    pub is_joint: bool,
}

impl Proposal {
    pub fn new(proposer: Proposer, drafts: usize, tokens: Vec<u32>, is_joint: bool) -> Proposal {
        Proposal { proposer, drafts, tokens, made: drafts, is_proposed: false, masks: Vec::new(), is_joint }
    }
}

/// A sequence's turn in a round that was submitted.
pub(super) struct InFlight {
    pub flight: Arc<Flight>,
    pub turn: usize,
    pub first_output: usize,
    pub drafts: usize,
    pub made: usize,
    pub proposer: Proposer,
    pub is_joint: bool,
}

/// Where a round had its rows.
#[derive(Clone, Copy, Default)]
pub(super) struct LastTurn {
    pub turn: usize,
    pub drafts: usize,
    pub first_output: usize,
}

/// Sampling parameters as rounds have them.
#[derive(Clone, Copy)]
pub(super) struct Sampling {
    pub turn: TurnSampling,
    pub stages: Stages,
    /// Likeliest tokens of which log-probabilities are wanted, if any are.
    pub top: Option<usize>,
    /// Set if they are not those of the options any more.
    pub is_stale: bool,
}

impl Sequence {
    /// A sequence in `slot`, whose options were checked.
    pub(super) fn in_slot(slot: CacheSlot, options: SequenceOptions) -> Result<Sequence> {
        let shared = &*slot.shared;
        let proposer = Proposer::of(options.method, options.ngram);
        let is_split = shared.is_split() && proposer.is_model();
        let crossing = match is_split && options.drafts == DraftLength::Auto {
            true => shared.rounds().crossing(slot.index)?,
            false => 0.0,
        };
        let is_software = shared.target.model().device().is_software();
        let sampling = Sampling { turn: TurnSampling::default(), stages: Stages::default(), top: None, is_stale: true };
        let grammar = options.sampling.grammar.as_ref();
        let constraint = grammar.map(|grammar| shared.constraint(grammar, options.sampling.thinking)).transpose()?;
        Ok(Sequence {
            // The host has to know the tokens that it sends to a draft on another device.
            run_ahead: !is_split && options.run_ahead.unwrap_or(!is_software),
            proposer,
            next: Proposal::new(proposer, 0, Vec::new(), false),
            crossing,
            // Proposers are compared by tokens per round, unless K is chosen and costs are known.
            pace: (options.with_ngrams && options.drafts != DraftLength::Auto)
                .then(|| Pace::new(options.method, Costs::equal(), 0.0)),
            measuring: None,
            ngrams: options.with_ngrams.then(|| Pace::new(Method::Ngram, Costs::equal(), 0.0)),
            sampling,
            slot,
            options,
            constraint,
            forced: Vec::new(),
            held: (Vec::new(), 0),
            fault: None,
            in_flight: VecDeque::new(),
            session: Session::default(),
            tokens: Vec::new(),
            committed: 0,
            logprobs: Vec::new(),
            last_turn: LastTurn::default(),
            statistics: Statistics::default(),
            last_round: RoundStatistics::default(),
        })
    }

    /// The options in effect: the method is AR if K is 0, whatever was requested.
    pub fn options(&self) -> &SequenceOptions {
        &self.options
    }

    /// Chooses tokens as `sampling` says from the next [`Sequence::start`] on.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], which names the option that is out of range or the token that the model does not
    /// know; [`Error::Grammar`]; nothing has changed then.
    pub fn set_sampling(&mut self, sampling: SamplingParams) -> Result<()> {
        sampling.check()?;
        if self.shared().is_split() && self.proposer.is_model() {
            SequenceOptions { sampling: sampling.clone(), ..self.options.clone() }.check_crossing()?;
        }
        sampling.check_tokens(self.target().model().config().vocab_size)?;
        let now = &self.options.sampling;
        if (&sampling.grammar, sampling.thinking) != (&now.grammar, now.thinking) {
            let grammar = sampling.grammar.as_ref();
            let begin = |grammar| self.shared().constraint(grammar, sampling.thinking);
            self.constraint = grammar.map(begin).transpose()?;
        }
        self.sampling.is_stale |= sampling != self.options.sampling;
        self.options.sampling = sampling;
        Ok(())
    }

    /// Keeps `tokens` from being chosen as one of the first `count` tokens after a prompt, unless the answer's grammar allows no
    /// other. Called between rounds, it holds for this answer and those after it. As all that chooses tokens, it does not
    /// depend on the method or on K; while it holds, no round runs ahead.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] if there is no room for the masks of the vocabulary.
    pub fn hold_back(&mut self, tokens: &[u32], count: usize) -> Result<()> {
        let vocab = self.target().model().config().vocab_size;
        let known = tokens.iter().copied().filter(|&id| (id as usize) < vocab);
        self.held = (known.filter(|_| count > 0).collect(), count);
        if !self.held.0.is_empty() && !self.options.sampling.adjusts() {
            // Masks go with the other changes to logits.
            let slots = self.target().slots();
            let none = self.options.sampling.biases(vocab);
            self.shared().rounds().set_biases(self.slot.index, slots, &none)?;
        }
        Ok(())
    }

    /// Sets the costs of passes, for choosing K, and for choosing between a pass of its own and one with others, as
    /// [`super::Engine::step`] does. Without it, and if the engine knows none ([`super::Engine::costs`]), they are
    /// measured at the first [`Sequence::start`] if K is to be chosen, or as [`Sequence::measure_costs_between_rounds`] says.
    pub fn set_costs(&mut self, costs: Costs) {
        let costs = match self.options.method {
            // Looking tokens up costs nothing beside a pass.
            Method::Ngram => Costs { draft: PassCost::from_points(&[]), ..costs },
            _ => costs,
        };
        self.ngrams = self.ngrams.is_some().then(|| Pace::new(Method::Ngram, costs.clone(), 0.0));
        self.pace = Some(Pace::new(self.options.method, costs, self.crossing));
        self.measuring = None;
    }

    /// Measures the costs of passes. The sequence has to be started anew.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn measure_costs(&mut self) -> Result<Costs> {
        self.forget();
        let mut measurement = CostMeasurement::default();
        loop {
            if let Some(costs) = self.advance(&mut measurement, 0)? {
                return Ok(costs);
            }
        }
    }

    /// Leaves it to [`super::Engine::step`] to measure costs that are not known, if K is to be chosen: a part before each
    /// round but the first, so that the first tokens need not wait for it. Those rounds propose nothing. [`super::Engine::costs`]
    /// has them once all are known; [`super::Engine::step_async`], which may not block, measures nothing.
    pub fn measure_costs_between_rounds(&mut self) {
        if self.options.drafts == DraftLength::Auto && self.pace.is_none() {
            self.measuring = Some(CostMeasurement::default());
        }
    }

    /// Returns `true` if a part of the costs is to be measured before the next round.
    pub(super) fn measures_next(&self) -> bool {
        self.measuring.is_some() && self.statistics.rounds > 0
    }

    /// Measures a part of the costs, or takes those that the engine knows by now.
    pub(super) fn measure_next(&mut self) -> Result<()> {
        if let Some(costs) = self.shared().costs.get().cloned() {
            self.set_costs(costs);
        } else if let Some(mut measurement) = self.measuring.take() {
            // Rows behind the committed ones are written anew before anything reads them.
            match self.advance(&mut measurement, self.tokens.len())? {
                Some(costs) => self.set_costs(costs),
                None => self.measuring = Some(measurement),
            }
        }
        Ok(())
    }

    /// Measures a part of the costs at `position`, and gives all to the engine once they are known.
    fn advance(&self, measurement: &mut CostMeasurement, position: usize) -> Result<Option<Costs>> {
        let draft = self.draft().map(|draft| &draft.runner);
        let costs = measurement.advance(self.target(), draft, self.slot.index, position)?;
        // Without its draft, a sequence does not know all costs of its engine.
        if let Some(costs) = costs.as_ref().filter(|_| draft.is_some() || self.shared().draft.is_none()) {
            self.shared().costs.get_or_init(|| costs.clone());
        }
        Ok(costs)
    }

    /// Compiles the kernels of every round there can be, by running them on token 0. They are compiled on first use
    /// otherwise, which no measurement wants. The sequence has to be started anew.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn warm_up(&mut self) -> Result<()> {
        self.forget();
        let shortest = if self.options.drafts == DraftLength::Auto { 0 } else { self.options.drafts.most() };
        let longest = self.options.drafts.most();
        let draft_rows = match self.options.method {
            Method::Ar | Method::Ngram => 0..=0,
            Method::Vsd => 1..=2,
            Method::Pard => shortest.max(1)..=2 * longest,
        };
        let slot = self.slot.index;
        if let Some(draft) = self.draft().map(|draft| &draft.runner) {
            draft.run_slot(slot, Phase::Prefill, &[0], 0, 0)?;
            for rows in draft_rows {
                let outputs = if self.options.method == Method::Vsd { 1 } else { rows.min(longest) };
                draft.run_slot(slot, Phase::Decode, &vec![0; rows], 0, outputs)?;
            }
            draft.model().device().wait()?;
        }
        let target = self.target();
        target.run_slot(slot, Phase::Prefill, &[0], 0, 0)?;
        for drafts in shortest..=longest {
            target.run_slot(slot, Phase::Decode, &vec![0; drafts + 1], 0, drafts + 1)?;
        }
        target.model().device().wait()
    }

    /// Forgets what came before and reads `prompt`: all of it but the last token, which is a row of the first round.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], [`Error::ContextFull`] if no token could follow, [`Error::TokenRange`].
    pub fn start(&mut self, prompt: &[u32]) -> Result<()> {
        self.start_while(prompt, &|| true)
    }

    /// As [`Sequence::start`], as long as `keep_going` returns `true`, which is asked between the prompt's chunks; the
    /// sequence then has to be started anew, or resumed.
    ///
    /// # Errors
    ///
    /// As [`Sequence::start`].
    pub fn start_while(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        self.check_prompt(prompt)?;
        self.forget();
        self.read(prompt, None, keep_going).map(drop)
    }

    /// As [`Sequence::start`], but the beginning of `prompt` that the caches already hold is not read again: of a
    /// conversation, only the turns since are read. All methods go on with the same tokens; those of a new sequence are
    /// the same up to rounding, since it reads as a prompt the tokens that rounds have written here.
    ///
    /// # Errors
    ///
    /// As [`Sequence::start`].
    pub fn resume(&mut self, prompt: &[u32]) -> Result<()> {
        self.resume_while(prompt, &|| true)
    }

    /// As [`Sequence::resume`], as long as `keep_going` returns `true`.
    ///
    /// # Errors
    ///
    /// As [`Sequence::start`].
    pub fn resume_while(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        self.check_prompt(prompt)?;
        self.read(prompt, None, keep_going).map(drop)
    }

    /// As [`Sequence::start`], and returns the log-probabilities of the tokens of `prompt` behind the first, each with `top`
    /// likeliest ones in its place, 0 to [`MAX_LOGPROBS`](super::MAX_LOGPROBS). They are the model's own, as
    /// [`TokenLogprobs`] says, and those that rounds would report of the same tokens up to rounding.
    ///
    /// # Errors
    ///
    /// As [`Sequence::start`]; [`Error::Option`] if `top` is out of range.
    pub fn score(&mut self, prompt: &[u32], top: usize) -> Result<Vec<TokenLogprobs>> {
        self.check_prompt(prompt)?;
        check_top(top)?;
        self.forget();
        self.read(prompt, Some(top), &|| true)
    }

    /// As [`Sequence::resume`], and returns the log-probabilities that [`Sequence::score`] has of the tokens at the end of
    /// `prompt` that follow those read now. With [`Sequence::score`] before it, a prompt is scored in pieces.
    ///
    /// # Errors
    ///
    /// As [`Sequence::score`].
    pub fn resume_scored(&mut self, prompt: &[u32], top: usize) -> Result<Vec<TokenLogprobs>> {
        self.check_prompt(prompt)?;
        check_top(top)?;
        self.read(prompt, Some(top), &|| true)
    }

    /// Drops all committed tokens but the first `len`, such as those that a round committed after an answer's end.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.in_flight.clear();
            let dropped = self.tokens.len() - len;
            self.committed = self.committed.saturating_sub(dropped);
            if let Some(constraint) = &mut self.constraint {
                // One that cannot go back says so at the next round.
                let _ = constraint.roll_back(dropped);
            }
            self.look_ahead();
            self.tokens.truncate(len);
            let rows = len.saturating_sub(1) as u32;
            let Session { target_rows, draft_rows, .. } = self.session;
            self.session =
                Session { tokens: len as u32, target_rows: target_rows.min(rows), draft_rows: draft_rows.min(rows) };
            let mut rounds = self.shared().rounds();
            rounds.book.write_session(self.slot.index, self.session);
            if self.sampling.turn.changes > 0 {
                let (prompt, answer) = self.tokens.split_at(self.statistics.prompt_tokens.min(len));
                rounds.write_counts(self.slot.index, prompt, answer);
            }
        }
    }

    /// Takes up `tokens`, of which the caches hold what `session` says.
    pub(super) fn go_on(&mut self, tokens: Vec<u32>, session: Session) -> Result<()> {
        {
            let mut rounds = self.shared().rounds();
            rounds.book.write_session(self.slot.index, session);
            rounds.book.write_tokens(self.slot.index, 0, &tokens);
            if self.sampling.turn.changes > 0 {
                rounds.write_counts(self.slot.index, &tokens, &[]);
            }
        }
        self.target().model().device().wait()?;
        self.session = session;
        self.tokens = tokens;
        self.statistics = Statistics { prompt_tokens: self.tokens.len(), ..Statistics::default() };
        self.look_ahead();
        Ok(())
    }

    pub(super) fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        let Some(&last) = prompt.last() else { return Err(Error::EmptyPrompt) };
        if prompt.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: prompt.len(), context: self.options.context });
        }
        let vocab = self.target().model().config().vocab_size;
        if last as usize >= vocab {
            return Err(Error::TokenRange { what: "token", id: last, vocab });
        }
        Ok(())
    }

    /// Stands ready for an answer: costs are known if they are needed, and options are in effect.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.options.drafts == DraftLength::Auto && self.pace.is_none() && self.measuring.is_none() {
            let costs = self.measure_costs()?;
            self.set_costs(costs);
        }
        self.apply_sampling()?;
        self.fault = None;
        if let Some(constraint) = &mut self.constraint {
            constraint.restart()?;
        }
        Ok(())
    }

    /// Reads the part of `prompt` that the caches do not hold, and scores the tokens behind those read with `top` likeliest
    /// ones, if there is a `top`.
    fn read(
        &mut self,
        prompt: &[u32],
        top: Option<usize>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<TokenLogprobs>> {
        self.prepare()?;
        let begin = Instant::now();
        self.in_flight.clear();
        let known = &prompt[..prompt.len() - 1];
        let same = known.iter().zip(&self.tokens).take_while(|(one, other)| one == other).count();
        let [target_rows, draft_rows] =
            [self.session.target_rows, self.session.draft_rows].map(|rows| same.min(rows as usize));
        // Should reading fail, the caches hold nothing that can be relied on.
        self.tokens.clear();
        self.logprobs.clear();
        self.committed = 0;
        let (slot, target) = (self.slot.index, self.target());
        let keep = self.draft().map_or(Hook::Nothing, DraftRunner::keep);
        let (target_end, scored) = match top {
            None => {
                let read = target.prefill_slot(slot, &known[target_rows..], target_rows, &keep, keep_going)?;
                (target_rows + read, Vec::new())
            }
            Some(top) => (known.len(), self.score_rows(prompt, target_rows, top)?),
        };
        let draft_end = match self.draft() {
            Some(draft) if keep_going() => {
                if let Hook::Recall(_) = draft.recall() {
                    // Says how far the target has been.
                    let session = Session { target_rows: target_end as u32, ..self.session };
                    self.shared().rounds().book.write_session(slot, session);
                }
                draft_rows + draft.read(slot, &known[draft_rows..], draft_rows, keep_going)?
            }
            Some(_) => draft_rows,
            None => known.len(),
        };
        let session =
            Session { tokens: prompt.len() as u32, target_rows: target_end as u32, draft_rows: draft_end as u32 };
        self.go_on(prompt.to_vec(), session)?;
        (self.statistics.reused_tokens, self.statistics.prefill) = (target_rows, begin.elapsed());
        Ok(scored)
    }

    /// Reads the tokens of `prompt` from `first` on, all but the last, and scores those behind them.
    fn score_rows(&self, prompt: &[u32], first: usize, top: usize) -> Result<Vec<TokenLogprobs>> {
        let (slot, target) = (self.slot.index, self.target());
        let keep = self.draft().map_or(Hook::Nothing, DraftRunner::keep);
        let (last, top) = (prompt.len() - 1, top.min(target.scores().1));
        let mut scored = Vec::with_capacity(last - first);
        for start in (first..last).step_by(MAX_ROWS) {
            let tokens = &prompt[start..=last.min(start + MAX_ROWS)];
            scored.extend(self.shared().rounds().score(target, [slot, start], tokens, keep, top)?);
        }
        Ok(scored)
    }

    /// Tells rounds the sampling parameters of the options.
    fn apply_sampling(&mut self) -> Result<()> {
        if !self.sampling.is_stale {
            return Ok(());
        }
        let params = &self.options.sampling;
        let rejects = self.proposer.is_model() && params.rejects(self.options.acceptance);
        let (limit, vocab) = (self.target().scores().1, self.target().model().config().vocab_size);
        if params.adjusts() {
            let slots = self.target().slots();
            self.shared().rounds().set_biases(self.slot.index, slots, &params.biases(vocab))?;
        }
        self.sampling = Sampling {
            turn: params.turn(rejects, limit),
            stages: params.stages(rejects),
            top: params.top_logprobs.map(|top| top.min(limit)),
            is_stale: false,
        };
        Ok(())
    }

    /// The tokens that the last round added; none before the first.
    pub fn last_tokens(&self) -> &[u32] {
        &self.tokens[self.tokens.len() - self.committed..]
    }

    /// Committed tokens, the prompt's included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Length of the sequence and state of the caches on the device, as of the last round.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Counts and times since [`Sequence::start`].
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Proposals, acceptances and duration of the last round.
    pub fn last_round(&self) -> RoundStatistics {
        self.last_round
    }

    /// The log-probabilities of [`Sequence::last_tokens`], one for each, if [`SamplingParams::top_logprobs`] asks for them;
    /// else none.
    pub fn last_logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// Estimates whether speculation pays at present, if K is chosen round by round.
    pub fn speculation(&self) -> Option<Speculation> {
        self.pace.as_ref().filter(|_| self.options.drafts == DraftLength::Auto).map(Pace::speculation)
    }

    /// Returns `true` if the sequence is one of the engine with this state.
    pub(super) fn is_of(&self, engine: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.slot.shared, engine)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.slot.shared
    }

    pub(super) fn target(&self) -> &ModelRunner {
        &self.shared().target
    }

    pub(super) fn draft(&self) -> Option<&DraftRunner> {
        self.shared().draft_of(self.proposer)
    }

    /// Forgets the sequence, whose caches are about to be overwritten, and the rounds in flight. Those write no row of a
    /// committed token's but the newest, and the device gets to what is submitted after them later.
    pub(super) fn forget(&mut self) {
        self.tokens.clear();
        self.committed = 0;
        self.in_flight.clear();
    }

    /// Gives an error if the grammar could not be followed.
    pub(super) fn check_fault(&self) -> Result<()> {
        match &self.fault {
            Some(Error::Grammar { kind, reason }) => Err(Error::Grammar { kind, reason: reason.clone() }),
            _ => Ok(()),
        }
    }

    /// Checks that a round is possible: where one of several sequences cannot go on, [`super::Engine::step`] does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], [`Error::ContextFull`]; [`Error::Grammar`] if the grammar could not be followed in the last round,
    /// which then added only the tokens that it allows.
    pub fn check_round(&self) -> Result<()> {
        self.check_fault()?;
        if self.tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if self.tokens.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: self.tokens.len(), context: self.options.context });
        }
        Ok(())
    }
}

fn check_top(top: usize) -> Result<()> {
    SamplingParams::default().top_logprobs(Some(top)).check()
}
