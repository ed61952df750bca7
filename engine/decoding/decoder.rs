//! The rounds of decoding. Token ids, lengths and positions live on the device; the host records a round's commands,
//! submits them, and reads back which tokens were committed.
//!
//! PARD, arXiv:2504.18583: the draft proposes K tokens in one pass by reading K - 1 mask tokens; the target checks all
//! of them in one pass, as a chain. VSD (arXiv:2211.17192) takes K passes of the draft; n-grams are looked up by the host;
//! AR has no proposals. All commit exactly what the target alone would, since a row's result does not depend on the rows
//! beside it; but for tokens drawn by [`super::AcceptanceRule::Rejection`], which keeps their distribution only.

mod in_flight;
mod pooled;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::draft::Draft;
use super::options::{DecoderOptions, DraftLength, MAX_DRAFTS, Method};
use super::pace::{Costs, Pace, Speculation};
use super::pool::{CacheSlot, Pool};
use super::round::{Proposer, RoundRecorder};
use super::sampling_params::{SamplingParams, TokenLogprobs};
use super::statistics::{RoundStatistics, Statistics};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::model::{PassCost, Way, Weights};
use crate::ops::{Phase, Session};

/// One sequence being decoded.
pub struct Decoder {
    device: Device,
    rounds: RoundRecorder,
    options: DecoderOptions,
    run_ahead: bool,
    /// Seconds that a round takes to the draft's device and back, if that is another.
    crossing: f64,
    /// Set if the samplers have to be rebuilt before the next prompt.
    resample: bool,
    /// Chooses K, if it is to be chosen and once costs are known; or is compared with n-grams.
    pace: Option<Pace>,
    /// The same for n-grams in a draft's place.
    ngrams: Option<Pace>,
    /// Proposer of the newest round. No round runs ahead where n-grams are looked up.
    proposer: Proposer,
    /// Rounds that were submitted and not read back, oldest first, each with its K and its record's slot.
    in_flight: VecDeque<(usize, usize)>,
    next_slot: usize,
    /// The device's session, as of the last round that was read back.
    session: Session,
    /// K of that round.
    last_drafts: usize,
    /// Committed tokens, the prompt's included.
    tokens: Vec<u32>,
    /// Number of them that the last round committed.
    committed: usize,
    /// Log-probabilities of the last round's tokens, if requested.
    logprobs: Vec<TokenLogprobs>,
    statistics: Statistics,
    last_round: RoundStatistics,
}

impl Decoder {
    /// A decoder for `target`, with caches of its own. The draft may be on another device: each round then crosses the host
    /// twice, none runs ahead, and the tokens are the same.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of range or the method lacks its draft, [`Error::NoMaskToken`];
    /// [`Error::Gpu`] if this driver's rounding depends on the number of rows; [`Error::Limit`] or
    /// [`Error::OutOfMemory`] if the caches do not fit.
    pub fn new(target: &Arc<Weights>, draft: Option<&Draft>, options: DecoderOptions) -> Result<Decoder> {
        let options = options.checked()?;
        options.sampling.check_tokens(target.config().vocab_size)?;
        Pool::new(target, draft, options.context, 1)?.decoder(options)
    }

    /// A decoder in `seat`, whose options were checked.
    pub(super) fn seated(seat: CacheSlot, mask: u32, options: DecoderOptions) -> Result<Decoder> {
        let device = seat.target().alone().model().device().clone();
        let resample = !options.sampling.is_greedy() || options.sampling.top_logprobs.is_some();
        let rounds = RoundRecorder::new(options.method, mask, options.context, seat)?;
        Ok(Decoder {
            // The host has to know the tokens that it sends to a draft on another device.
            run_ahead: !rounds.is_split() && options.run_ahead.unwrap_or(!device.is_software()),
            crossing: if options.drafts == DraftLength::Auto { rounds.crossing()? } else { 0.0 },
            rounds,
            resample,
            device,
            // Proposers are compared by tokens per round, unless K is chosen and costs are known.
            pace: (options.with_ngrams && options.drafts != DraftLength::Auto)
                .then(|| Pace::new(options.method, Costs::equal(), 0.0)),
            ngrams: options.with_ngrams.then(|| Pace::new(Method::Ngram, Costs::equal(), 0.0)),
            proposer: Proposer::Draft,
            options,
            in_flight: VecDeque::new(),
            next_slot: 0,
            session: Session::default(),
            last_drafts: 0,
            tokens: Vec::new(),
            committed: 0,
            logprobs: Vec::new(),
            statistics: Statistics::default(),
            last_round: RoundStatistics::default(),
        })
    }

    /// The cache rows that a context of `context` tokens takes: a round looks at most K + 1 rows past the committed
    /// tokens, and a draft's window is 2 K rows.
    pub fn positions(context: usize) -> usize {
        context + 2 * MAX_DRAFTS
    }

    /// The options in effect: the method is AR if K is 0, whatever was requested.
    pub fn options(&self) -> &DecoderOptions {
        &self.options
    }

    /// Chooses tokens as `sampling` says from the next [`Decoder::start`] on.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], which names the option that is out of range or the token that the model does not
    /// know; nothing has changed then.
    pub fn set_sampling(&mut self, sampling: SamplingParams) -> Result<()> {
        sampling.check()?;
        if self.rounds.is_split() {
            DecoderOptions { sampling: sampling.clone(), ..self.options.clone() }.check_crossing()?;
        }
        sampling.check_tokens(self.rounds.target().model().config().vocab_size)?;
        self.resample |= sampling != self.options.sampling;
        self.options.sampling = sampling;
        Ok(())
    }

    /// Sets the costs of passes, for choosing K, and for choosing between a round of its own and a pass with others, as
    /// [`Pool::round`] does. Without it they are measured at the first [`Decoder::start`] if K is to be chosen.
    pub fn set_costs(&mut self, costs: Costs) {
        self.ngrams = self.ngrams.is_some().then(|| Pace::new(Method::Ngram, costs.clone(), 0.0));
        self.pace = Some(Pace::new(self.options.method, costs, self.crossing));
    }

    /// Measures the costs of passes. The decoder has to be started anew.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn measure_costs(&mut self) -> Result<Costs> {
        self.forget()?;
        let slot = self.seat().slot;
        let target = PassCost::measure_slot(self.rounds.target(), slot)?;
        let draft = match self.rounds.draft() {
            // A model that drafts for itself has the target's costs.
            Some(draft) if Arc::ptr_eq(draft.model(), self.rounds.target().model()) => target.clone(),
            Some(draft) => PassCost::measure_slot(draft, slot)?,
            None => PassCost::from_points(&[]),
        };
        Ok(Costs { target, draft })
    }

    /// Compiles the kernels of every round there can be, by running them on token 0. They are compiled on first use
    /// otherwise, which no measurement wants. The decoder has to be started anew.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile; as [`Device::check`].
    pub fn warm_up(&mut self) -> Result<()> {
        self.forget()?;
        let shortest = if self.options.drafts == DraftLength::Auto { 0 } else { self.options.drafts.most() };
        let longest = self.options.drafts.most();
        let draft_rows = match self.options.method {
            Method::Ar | Method::Ngram => 0..=0,
            Method::Vsd => 1..=2,
            Method::Pard => shortest.max(1)..=2 * longest,
        };
        let slot = self.seat().slot;
        if let Some(draft) = self.rounds.draft() {
            draft.run_slot(slot, Phase::Prefill, &[0], 0, 0)?;
            for rows in draft_rows {
                let outputs = if self.options.method == Method::Vsd { 1 } else { rows.min(longest) };
                draft.run_slot(slot, Phase::Decode, &vec![0; rows], 0, outputs)?;
            }
            draft.model().device().wait()?;
        }
        let target = self.rounds.target();
        target.run_slot(slot, Phase::Prefill, &[0], 0, 0)?;
        for drafts in shortest..=longest {
            target.run_slot(slot, Phase::Decode, &vec![0; drafts + 1], 0, drafts + 1)?;
        }
        self.device.wait()
    }

    /// Forgets what came before and reads `prompt`: all of it but the last token, which is a row of the first round.
    /// Stops early if `keep_going` says so; the decoder then has to be started anew, or resumed.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], [`Error::ContextFull`] if no token could follow, [`Error::TokenRange`].
    pub fn start(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        self.check_prompt(prompt)?;
        self.forget()?;
        self.read(prompt, keep_going)
    }

    /// As [`Decoder::start`], but the beginning of `prompt` that the caches already hold is not read again: of a
    /// conversation, only the turns since are read. All methods go on with the same tokens; those of a new decoder are
    /// the same up to rounding, since it reads as a prompt the tokens that rounds have written here.
    ///
    /// # Errors
    ///
    /// As [`Decoder::start`].
    pub fn resume(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        self.check_prompt(prompt)?;
        self.read(prompt, keep_going)
    }

    /// Drops all committed tokens but the first `len`, such as those that a round committed after an answer's end.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len < self.tokens.len() {
            self.settle()?;
            self.committed = self.committed.saturating_sub(self.tokens.len() - len);
            self.tokens.truncate(len);
            let rows = len.saturating_sub(1) as u32;
            let Session { target_rows, draft_rows, .. } = self.session;
            self.session =
                Session { tokens: len as u32, target_rows: target_rows.min(rows), draft_rows: draft_rows.min(rows) };
            self.rounds.write_session(&self.session);
            let (prompt, answer) = self.tokens.split_at(self.statistics.prompt_tokens.min(len));
            self.rounds.write_counts(prompt, answer);
        }
        Ok(())
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        let Some(&last) = prompt.last() else { return Err(Error::EmptyPrompt) };
        if prompt.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: prompt.len(), context: self.options.context });
        }
        let vocab = self.rounds.target().model().config().vocab_size;
        if last as usize >= vocab {
            return Err(Error::TokenRange { what: "token", id: last, vocab });
        }
        Ok(())
    }

    /// Reads the part of `prompt` that the caches do not hold.
    fn read(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        if self.options.drafts == DraftLength::Auto && self.pace.is_none() {
            let costs = self.measure_costs()?;
            self.set_costs(costs);
        }
        if self.resample {
            self.rounds.set_sampling(&self.options.sampling, self.options.acceptance)?;
            self.resample = false;
        }
        let begin = Instant::now();
        self.settle()?;
        let known = &prompt[..prompt.len() - 1];
        let same = known.iter().zip(&self.tokens).take_while(|(one, other)| one == other).count();
        let [target_rows, draft_rows] =
            [self.session.target_rows, self.session.draft_rows].map(|rows| same.min(rows as usize));
        // Should reading fail, the caches hold nothing that can be relied on.
        self.tokens.clear();
        self.logprobs.clear();
        self.committed = 0;
        let (slot, target) = (self.seat().slot, self.rounds.target());
        let keep = self.rounds.keep(Way::Alone);
        let target_end =
            target_rows + target.prefill_slot(slot, &known[target_rows..], target_rows, keep.as_slice(), keep_going)?;
        let draft_end = match self.rounds.draft() {
            Some(draft) if keep_going() => {
                let read = self.rounds.read_kept(Way::Alone);
                if read.is_some() {
                    // Says how far the target has been.
                    self.rounds.write_session(&Session { target_rows: target_end as u32, ..self.session });
                }
                draft_rows + draft.prefill_slot(slot, &known[draft_rows..], draft_rows, read.as_slice(), keep_going)?
            }
            Some(_) => draft_rows,
            None => known.len(),
        };
        self.session =
            Session { tokens: prompt.len() as u32, target_rows: target_end as u32, draft_rows: draft_end as u32 };
        self.rounds.write_session(&self.session);
        self.rounds.write_tokens(prompt);
        self.device.wait()?;
        self.tokens = prompt.to_vec();
        self.statistics = Statistics {
            prompt_tokens: prompt.len(),
            reused_tokens: target_rows,
            prefill: begin.elapsed(),
            ..Statistics::default()
        };
        Ok(())
    }

    /// Drafts, verifies and commits one round; returns the 1..=K+1 tokens it added.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`] before [`Decoder::start`], [`Error::ContextFull`] once the context is;
    /// [`Error::DeviceLost`].
    pub fn round(&mut self) -> Result<&[u32]> {
        self.check_room()?;
        let begin = Instant::now();
        if self.in_flight.is_empty() {
            self.submit()?;
        }
        if self.run_ahead && self.has_room_ahead() {
            self.submit()?;
        }
        self.land(begin)?;
        Ok(self.last_tokens())
    }

    /// The tokens that the last round added, by [`Decoder::round`] or by [`Pool::round`]; none before the first.
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

    /// The session as the device has it, which [`Decoder::session`] follows; a round that runs ahead is part of it. Waits
    /// for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn device_session(&self) -> Result<Session> {
        self.rounds.read_session()
    }

    /// Counts and times since [`Decoder::start`].
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Proposals, acceptances and duration of the last round.
    pub fn last_round(&self) -> RoundStatistics {
        self.last_round
    }

    /// The log-probabilities of [`Decoder::last_tokens`], one for each, if
    /// [`SamplingParams::top_logprobs`] asks for them; else none.
    pub fn last_logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// Estimates whether speculation pays at present, if K is chosen round by round.
    pub fn speculation(&self) -> Option<Speculation> {
        self.pace.as_ref().filter(|_| self.options.drafts == DraftLength::Auto).map(Pace::speculation)
    }

    /// The proposals of the last round, accepted or not: d1 .. dK; those of the round that runs ahead, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn proposals(&self) -> Result<Vec<u32>> {
        self.rounds.proposals.read(&self.device, 0, self.last_drafts)
    }

    /// The logits of the last round's verified rows, `[K + 1, vocab]`; of the last decoder of a [`Pool`] that had one.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn logits(&self) -> Result<Vec<f32>> {
        self.rounds.target().logits(self.last_drafts + 1)
    }

    /// Forgets the sequence, whose caches are about to be overwritten.
    fn forget(&mut self) -> Result<()> {
        self.tokens.clear();
        self.committed = 0;
        self.settle()
    }

    /// Waits for rounds whose results are no longer needed. They write no row of a committed token's but the newest.
    fn settle(&mut self) -> Result<()> {
        if !self.in_flight.is_empty() {
            self.in_flight.clear();
            self.device.wait()?;
        }
        Ok(())
    }
}
