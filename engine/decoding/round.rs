//! The commands of a round: proposals, the target's pass over them, the choice of tokens, and their acceptance. They depend
//! on how many tokens are proposed and on how many rows the draft has to read, and not on which tokens were committed: ids,
//! lengths and positions stay on the device. Several sequences have a turn each in one round.

use std::ops::Range;
use std::sync::Arc;

use super::bookkeeping::Bookkeeping;
use super::draft_runner::DraftRunner;
use super::proposer::Proposer;
use super::remote::{Known, RemoteDraft};
use super::round_output::{FIRST_LOGPROB, Flight, RECORD_WORDS, Readbacks};
use super::sampling_params::{MAX_LOGPROBS, TokenLogprobs};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::model::{Batching, Hook, ModelRunner, Pair, Sampler, SamplerBuffers, Stages, Weights, log_probabilities};
use crate::ops::{
    Accept, BuildInputs, CHOICES, Constrain, LogProbabilities, ModelRole, PassPlan, Phase, Session, TokenCounts, Turn,
    TurnSampling,
};

/// A sequence's part in a round.
pub struct Part<'a> {
    pub slot: usize,
    /// K.
    pub drafts: usize,
    pub proposer: Proposer,
    /// The proposals, if the host knows them.
    pub proposals: &'a [u32],
    /// Set if a draft model has made its proposals, which the host knows then.
    pub is_proposed: bool,
    /// The mask of each output row by the sequence's grammar; that of the first one, until proposals are made. Without a
    /// grammar none.
    pub masks: &'a [u32],
    /// The state before the round, as far as the host knows it: no count is higher on the device.
    pub bounds: Session,
    /// Committed tokens, as far as the host knows them, and how many of them are a prompt's.
    pub tokens: &'a [u32],
    pub prompt_tokens: usize,
    pub sampling: TurnSampling,
    pub stages: Stages,
    /// `true` if the draft proposes for its sequence, in this round or in others.
    pub has_draft: bool,
}

impl Part<'_> {
    fn counts(&self) -> bool {
        self.sampling.changes & TurnSampling::PENALTIES > 0
    }

    /// Rows and outputs that it has in the pass `pass_index` of the draft.
    fn draft_pass(&self, pass_index: usize) -> Option<(usize, usize)> {
        if self.is_proposed {
            return None;
        }
        self.proposer.draft_pass(pass_index, self.drafts, self.bounds.unread() as usize)
    }

    fn turn(&self, book: &Bookkeeping) -> Turn {
        Turn::new(self.slot, book.first_token(self.slot), self.drafts, self.proposer.kind())
    }
}

/// A round that was submitted.
pub struct Submitted {
    pub flight: Arc<Flight>,
    /// First output row of each turn.
    pub first_outputs: Vec<usize>,
    /// Rows of the target's pass.
    pub rows: usize,
}

/// The state of all sequences, and the kernels between the passes of the models, bound.
pub struct Rounds {
    pub book: Bookkeeping,
    choices: Buffer,
    inputs: BuildInputs,
    sampler: Sampler,
    accept: Accept,
    /// Counts committed tokens, once a sequence asks for it.
    counting: Option<TokenCounts>,
    /// Masks of the target's output rows by grammars, likewise.
    masks: Option<Buffer>,
    /// Log-probabilities of chosen tokens, likewise.
    logprobs: Option<LogProbabilities>,
    record: Buffer,
    readbacks: Readbacks,
    drafting: Option<Drafting>,
    /// Sampling parameters on the device.
    sampling: Vec<TurnSampling>,
}

/// The same of the draft.
struct Drafting {
    mask: u32,
    /// By index of the pass.
    inputs: Vec<BuildInputs>,
    sampler: Sampler,
    /// Masks of its first pass's output rows.
    masks: Option<Buffer>,
    /// Memory that proposals are copied to, if the host has to see them before the target does.
    readback: Readback,
    /// The state on its device, if that is another.
    remote: Option<RemoteDraft>,
}

/// A pass of a model, as it is recorded.
struct Planned {
    plan: PassPlan,
    /// Positions before which all rows lie.
    end: usize,
    batching: Batching,
    stages: Stages,
    /// Output rows that choose one after the other; those of a range choose at once.
    turns: Vec<Range<usize>>,
}

impl Planned {
    fn new(plan: PassPlan, end: usize, stages: Stages, turns: Vec<Range<usize>>) -> Planned {
        let first = plan.rows.first().map_or(0, |&(turn, _)| turn);
        let is_one = plan.rows.iter().all(|&(turn, _)| turn == first);
        Planned { plan, end, batching: if is_one { Batching::One } else { Batching::Many }, stages, turns }
    }

    fn is_joint(&self) -> bool {
        self.batching == Batching::Many
    }
}

impl Rounds {
    /// Binds the kernels of rounds of `slots` sequences, each with room for `room` tokens, on the target `target`, whose
    /// choices go to `choices`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`], [`crate::Error::Compile`].
    pub fn new(target: &ModelRunner, choices: Buffer, slots: usize, room: usize) -> Result<Rounds> {
        let device = target.model().device();
        let book = Bookkeeping::new(device, slots, room)?;
        let record = Buffer::storage(device, "record", 4 * RECORD_WORDS as u64)?;
        Ok(Rounds {
            inputs: BuildInputs::new(device, ModelRole::Target, book.round(), target.inputs())?,
            sampler: Sampler::new(ModelRole::Target, target.model().config().vocab_size),
            accept: Accept::new(device, book.round(), &choices, &record)?,
            counting: None,
            masks: None,
            logprobs: None,
            record,
            readbacks: Readbacks::default(),
            drafting: None,
            sampling: Vec::new(),
            choices,
            book,
        })
    }

    /// Adds the draft `draft`, whose mask token is `mask`, for sequences of at most `slots` slots of `room` tokens, and
    /// returns its runner. It proposes the first `ids` tokens, those of the target's vocabulary.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::new`].
    pub fn add_draft(
        &mut self,
        draft: &Arc<Weights>,
        mask: u32,
        [slots, room, ids]: [usize; 3],
    ) -> Result<ModelRunner> {
        let device = draft.device();
        let remote = match device.is_same(&self.book.device) {
            true => None,
            false => Some(RemoteDraft::new(device, slots, room)?),
        };
        let proposals = remote.as_ref().map_or(&self.book.proposals, |remote| &remote.book.proposals);
        // A padding id that the target does not have must not be proposed: it could not be fed.
        let runner = ModelRunner::new(draft, room, draft.config().vocab_size.min(ids), proposals)?;
        let sampler = Sampler::new(ModelRole::Draft, ids);
        let readback = Readback::new(device, proposals.bytes())?;
        self.drafting = Some(Drafting { mask, inputs: Vec::new(), sampler, masks: None, readback, remote });
        self.sampling.clear();
        Ok(runner)
    }

    /// Seconds that a round of the sequence in slot `slot` takes to the draft's device and back; 0 if it is the target's.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn crossing(&mut self, slot: usize) -> Result<f64> {
        let remote = self.drafting.as_mut().and_then(|drafting| drafting.remote.as_mut());
        remote.map_or(Ok(0.0), |remote| remote.crossing(&self.book, slot))
    }

    /// Sets what the logits of the sequence in slot `slot` are changed by, and makes room for `slots` slots.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn set_biases(&mut self, slot: usize, slots: usize, bias: &[f32]) -> Result<()> {
        let ids = bias.len();
        if self.book.reserve_adjustments(slots, ids)? {
            self.sampler.unbind();
            if let Some(drafting) = &mut self.drafting {
                drafting.sampler.unbind();
            }
            if let Some([counts, _]) = self.book.adjustments() {
                let (device, turns) = (&self.book.device, [self.book.round().turns, &self.book.sampling]);
                self.counting = Some(TokenCounts::new(device, turns, &self.record, counts, ids)?);
            }
        }
        self.book.write_bias(slot, bias);
        if let Some(Drafting { remote: Some(remote), sampler, .. }) = &mut self.drafting {
            if remote.reserve_adjustments(slots, ids)? {
                sampler.unbind();
            }
            remote.book.write_bias(slot, bias);
        }
        Ok(())
    }

    /// Counts the tokens of the sequence in slot `slot` anew: `prompt`, and `answer` after it.
    pub fn write_counts(&mut self, slot: usize, prompt: &[u32], answer: &[u32]) {
        self.book.write_counts(slot, prompt, answer);
        if let Some(remote) = self.drafting.as_mut().and_then(|drafting| drafting.remote.as_mut()) {
            remote.uncount(slot);
        }
    }

    /// Submits a round of `parts`, whose rows fit into the passes of target and draft.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`] if a kernel does not compile; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn submit(&mut self, target: &ModelRunner, draft: Option<&DraftRunner>, parts: &[Part]) -> Result<Submitted> {
        let device = self.book.device.clone();
        let (verify, first_outputs) = verify_pass(parts);
        let draft_passes = self.draft_passes(parts);
        if let Some(draft) = draft {
            self.prepare_draft(target, draft, &verify, &draft_passes)?;
        }
        self.prepare_target(target, &verify)?;
        let logprobs = parts.iter().any(|part| part.sampling.logprobs > 0);
        if logprobs {
            self.prepare_logprobs(target)?;
        }

        let _turns = [Some(target), draft.map(|draft| &draft.runner)].map(|runner| runner.map(ModelRunner::turn));
        let turns = self.write_turns(parts);
        if logprobs || verify.stages != Stages::default() {
            self.write_sampling(parts.iter().map(|part| part.sampling).collect());
        }
        if let Some(masks) = &self.masks {
            for (part, first) in parts.iter().zip(&first_outputs).filter(|(part, _)| !part.masks.is_empty()) {
                let words = part.masks.len() / (part.drafts + 1);
                masks.write(&device, (4 * words * first) as u64, part.masks);
            }
        }
        for (turn, part) in parts.iter().enumerate().filter(|(_, part)| !part.proposals.is_empty()) {
            self.book.write_proposals(turn, part.proposals);
        }
        if let Some(draft) = draft.filter(|_| !draft_passes.is_empty()) {
            let made = self.propose_elsewhere(draft, parts, &turns, &draft_passes)?;
            let made = made.iter().flat_map(|made| made.chunks(CHOICES).zip(parts).enumerate());
            for (turn, (made, part)) in made.filter(|(_, (_, part))| part.draft_pass(0).is_some()) {
                self.book.write_proposals(turn, &made[..part.drafts]);
            }
        }
        // Rows of sequences without a draft are kept with the others', and not read.
        let keep = match draft.filter(|_| parts.iter().any(|part| part.has_draft)) {
            Some(draft) => draft.keep(),
            None => Hook::Nothing,
        };
        self.inputs.plan(&device, &verify.plan);
        let readback = self.readbacks.take(&device, &self.record)?;
        let (rows, outputs) = (verify.plan.rows.len(), verify.plan.outputs.len());
        Pass::submit(&device, Some((&self.record, &readback)), |pass| {
            if let (Some(drafting), Some(draft)) = (&self.drafting, draft)
                && drafting.remote.is_none()
            {
                drafting.encode(pass, draft, &draft_passes)?; // d1 .. dK: one pass (PARD), K of them (VSD), or none
            }
            pass.section("verify");
            self.inputs.encode(pass, rows);
            encode(pass, target, &self.sampler, &verify, keep)?; // t0 .. tK: one pass of the target
            pass.section("accept");
            self.accept.encode(pass, parts.len(), rows); // commit what agrees, and the target's own next
            if let Some(counting) = self.counting.as_ref().filter(|_| parts.iter().any(Part::counts)) {
                counting.encode(pass, parts.len(), rows);
            }
            if let Some(kernel) = self.logprobs.as_ref().filter(|_| logprobs) {
                kernel.encode(pass, outputs);
            }
            Ok(())
        })?;
        let logprob_rows = if logprobs { outputs } else { 0 };
        let flight = Flight::new(&device, readback, &self.readbacks, parts.len(), logprob_rows);
        Ok(Submitted { flight: Arc::new(flight), first_outputs, rows })
    }

    /// Lets the draft `draft` propose for `parts` before a round is submitted, and waits for its proposals: d1 .. dK of each
    /// turn, [`CHOICES`] apart. The round's parts have them, or those that are left of them, as their own then.
    ///
    /// # Errors
    ///
    /// As [`Rounds::submit`].
    pub fn propose(&mut self, target: &ModelRunner, draft: &DraftRunner, parts: &[Part]) -> Result<Vec<u32>> {
        let (verify, passes) = (verify_pass(parts).0, self.draft_passes(parts));
        if passes.is_empty() {
            return Ok(vec![0; CHOICES * parts.len()]);
        }
        self.prepare_draft(target, draft, &verify, &passes)?;
        let _turn = draft.runner.turn();
        let turns = self.write_turns(parts);
        self.write_sampling(parts.iter().map(|part| part.sampling).collect());
        if let Some(drafting) = &self.drafting {
            drafting.write_masks(draft.runner.model().device(), parts, &passes[0]);
        }
        if let Some(made) = self.propose_elsewhere(draft, parts, &turns, &passes)? {
            return Ok(made);
        }
        let Bookkeeping { device, proposals, .. } = &self.book;
        let Some(drafting) = &self.drafting else { return Ok(Vec::new()) };
        Pass::submit(device, Some((proposals, &drafting.readback)), |pass| drafting.encode(pass, draft, &passes))?;
        drafting.readback.read(device, CHOICES * parts.len())
    }

    /// Lets the target read `tokens`, all but the last, as a prompt from position `start` of slot `slot` on, [`MAX_ROWS`] at
    /// most, and returns the log-probabilities of all but the first, with `top` likeliest tokens. `keep` is what is kept for
    /// the draft.
    ///
    /// # Errors
    ///
    /// As [`ModelRunner::run`].
    pub fn score(
        &mut self,
        target: &ModelRunner,
        [slot, start]: [usize; 2],
        tokens: &[u32],
        keep: Hook,
        top: usize,
    ) -> Result<Vec<TokenLogprobs>> {
        self.prepare_logprobs(target)?;
        self.write_sampling(vec![TurnSampling { logprobs: 1 + top as u32, ..TurnSampling::default() }]);
        let (device, readback) = (&self.book.device, self.readbacks.take(&self.book.device, &self.record)?);
        let (rows, next) = (&tokens[..tokens.len() - 1], &tokens[1..]);
        target.prefill_scored([slot, start], rows, &keep, (&self.record, &readback), |pass| {
            // They stand for choices of the first turn.
            self.choices.write(device, 0, next);
            if let Some(kernel) = &self.logprobs {
                kernel.encode(pass, next.len());
            }
        })?;
        Flight::new(device, readback, &self.readbacks, 1, next.len()).logprobs(next, 0, top)
    }

    fn prepare_logprobs(&mut self, target: &ModelRunner) -> Result<()> {
        if self.logprobs.is_none() {
            let (sampling, place) = (&self.book.sampling, [FIRST_LOGPROB, MAX_LOGPROBS]);
            self.logprobs = Some(log_probabilities(target, sampling, &self.choices, &self.record, place)?);
        }
        Ok(())
    }

    /// The draft's passes for `parts`.
    fn draft_passes(&self, parts: &[Part]) -> Vec<Planned> {
        let mask = self.drafting.as_ref().map_or(0, |drafting| drafting.mask);
        (0..).map_while(|index| draft_pass(parts, index, mask)).collect()
    }

    fn write_turns(&self, parts: &[Part]) -> Vec<Turn> {
        let turns: Vec<Turn> = parts.iter().map(|part| part.turn(&self.book)).collect();
        self.book.write_turns(&turns);
        turns
    }

    /// Binds what the draft's part in a round needs.
    fn prepare_draft(
        &mut self,
        target: &ModelRunner,
        draft: &DraftRunner,
        verify: &Planned,
        draft_passes: &[Planned],
    ) -> Result<()> {
        let DraftRunner { runner, states } = draft;
        if let Some(states) = states
            && (verify.is_joint() || draft_passes.iter().any(Planned::is_joint))
        {
            states.prepare_many(Pair { target, draft: runner, sessions: self.book.sessions() })?;
        }
        let Some(drafting) = &mut self.drafting else { return Ok(()) };
        drafting.prepare(runner, &self.book, draft_passes, target.model().config().vocab_size)?;
        // The rejection rule compares with the draft's chances, whether this round has proposals or not.
        drafting.sampler.allocate(runner, Stages { rejects: verify.stages.rejects, ..Stages::default() })
    }

    /// Binds what the target's pass needs.
    fn prepare_target(&mut self, target: &ModelRunner, verify: &Planned) -> Result<()> {
        if verify.is_joint() {
            target.prepare_many()?;
        }
        if verify.stages.constrains && self.masks.is_none() {
            self.masks = Some(Constrain::masks(&self.book.device, target.model().config().vocab_size)?);
        }
        let buffers = SamplerBuffers {
            sampling: &self.book.sampling,
            sessions: self.book.sessions(),
            proposals: &self.book.proposals,
            adjustments: self.book.adjustments(),
            masks: self.masks.as_ref(),
            choices: &self.choices,
            draft_chances: self.drafting.as_ref().and_then(|drafting| drafting.sampler.chances()),
        };
        self.sampler.prepare(target, buffers, verify.stages, std::iter::once(0))
    }

    /// Sets the sampling parameters of the round's turns, unless they are those of the last one.
    fn write_sampling(&mut self, sampling: Vec<TurnSampling>) {
        if self.sampling != sampling {
            self.book.write_sampling(&sampling);
            if let Some(remote) = self.drafting.as_ref().and_then(|drafting| drafting.remote.as_ref()) {
                remote.book.write_sampling(&sampling);
            }
            self.sampling = sampling;
        }
    }

    /// Lets a draft on another device propose, and waits for its proposals; none if it is on the target's.
    fn propose_elsewhere(
        &mut self,
        draft: &DraftRunner,
        parts: &[Part],
        turns: &[Turn],
        passes: &[Planned],
    ) -> Result<Option<Vec<u32>>> {
        let Some(drafting) = &mut self.drafting else { return Ok(None) };
        let Some(remote) = &mut drafting.remote else { return Ok(None) };
        remote.book.write_turns(turns);
        let proposing = |part: &Part| part.draft_pass(0).is_some();
        for (turn, part) in parts.iter().enumerate() {
            let &Part { slot, bounds: session, tokens, prompt_tokens, .. } = part;
            let known = Known { slot, session, tokens, prompt_tokens, counts: part.counts() };
            remote.receive(turn, Some(known).filter(|_| proposing(part)));
        }
        let Some(remote) = &drafting.remote else { return Ok(None) };
        remote.propose(parts.len(), |pass| drafting.encode(pass, draft, passes)).map(Some)
    }
}

impl Drafting {
    /// Binds what `passes` need, for a vocabulary of `ids` tokens.
    fn prepare(&mut self, draft: &ModelRunner, book: &Bookkeeping, passes: &[Planned], ids: usize) -> Result<()> {
        let book = self.remote.as_ref().map_or(book, |remote| &remote.book);
        if passes.iter().any(Planned::is_joint) {
            draft.prepare_many()?;
        }
        if self.masks.is_none() && passes.iter().any(|pass| pass.stages.constrains) {
            self.masks = Some(Constrain::masks(&book.device, ids)?);
        }
        while self.inputs.len() < passes.len() {
            self.inputs.push(BuildInputs::new(&book.device, ModelRole::Draft, book.round(), draft.inputs())?);
        }
        let buffers = SamplerBuffers {
            sampling: &book.sampling,
            sessions: book.sessions(),
            proposals: &book.proposals,
            adjustments: book.adjustments(),
            masks: self.masks.as_ref(),
            choices: &book.proposals,
            draft_chances: None,
        };
        for (inputs, pass) in self.inputs.iter().zip(passes) {
            self.sampler.prepare(draft, buffers, pass.stages, pass.turns.iter().map(|rows| rows.start))?;
            inputs.plan(&book.device, &pass.plan);
        }
        Ok(())
    }

    /// Sets the masks of the output rows of `pass`, the first one. The first proposal of a parallel draft is one that its
    /// sequence's grammar allows; what is allowed after it is not known yet.
    fn write_masks(&self, device: &Device, parts: &[Part], pass: &Planned) {
        let Some(masks) = &self.masks else { return };
        for (output, &(turn, index)) in pass.plan.outputs.iter().enumerate() {
            let Part { masks: allowed, proposer, .. } = parts[turn];
            let all = vec![u32::MAX; allowed.len()];
            let mask = if index == 0 && proposer == Proposer::ParallelDraft { allowed } else { &all };
            masks.write(device, (4 * output * mask.len()) as u64, mask);
        }
    }

    /// Records the draft's passes.
    fn encode(&self, pass: &mut Pass, draft: &DraftRunner, passes: &[Planned]) -> Result<()> {
        pass.section("draft");
        for (inputs, planned) in self.inputs.iter().zip(passes) {
            inputs.encode(pass, planned.plan.rows.len());
            encode(pass, &draft.runner, &self.sampler, planned, draft.recall())?;
        }
        Ok(())
    }
}

/// Records a pass of `runner` and the choice of its outputs.
fn encode(pass: &mut Pass, runner: &ModelRunner, sampler: &Sampler, planned: &Planned, hook: Hook) -> Result<()> {
    let Planned { plan, end, batching, stages, turns } = planned;
    runner.forward(pass, Phase::Decode, *batching, [plan.rows.len(), *end], &hook)?;
    runner.score(pass, plan.outputs.len())?;
    for rows in turns {
        sampler.encode(runner, pass, *stages, rows.clone());
    }
    Ok(())
}

/// The target's pass, over the newest committed token and the proposals of each part, and the first output of each.
fn verify_pass(parts: &[Part]) -> (Planned, Vec<usize>) {
    let mut plan = PassPlan::default();
    let mut first_outputs = Vec::with_capacity(parts.len());
    for (turn, part) in parts.iter().enumerate() {
        first_outputs.push(plan.rows.len());
        plan.rows.extend((0..=part.drafts).map(|index| (turn, index)));
    }
    plan.outputs.clone_from(&plan.rows);
    let end = parts.iter().map(|part| part.bounds.tokens as usize + part.drafts).max().unwrap_or(0);
    let stages = parts.iter().fold(Stages::default(), |stages, part| stages | part.stages);
    let all = std::iter::once(0..plan.outputs.len()).collect();
    (Planned::new(plan, end, stages, all), first_outputs)
}

/// The draft's pass `pass_index`, if a part has rows in it. Surplus rows are harmless and cost time.
fn draft_pass(parts: &[Part], pass_index: usize, mask: u32) -> Option<Planned> {
    let mut plan = PassPlan { pass_index, mask, ..PassPlan::default() };
    let (mut end, mut stages, mut outputs_of) = (0, Stages::default(), Vec::new());
    let mut one_by_one = false;
    for (turn, part) in parts.iter().enumerate() {
        let Some((rows, outputs)) = part.draft_pass(pass_index) else { continue };
        plan.rows.extend((0..rows).map(|index| (turn, index)));
        outputs_of.push((turn, outputs));
        end = end.max(match pass_index {
            0 => part.bounds.draft_rows as usize + rows,
            index => part.bounds.tokens as usize + index,
        });
        stages = stages | part.stages;
        // A parallel draft's rows are there before any of them has chosen, and count what those before them choose.
        one_by_one |= outputs > 1 && part.counts();
    }
    let most = outputs_of.iter().map(|&(_, outputs)| outputs).max()?;
    let mut turns = Vec::new();
    for index in 0..most {
        let first = plan.outputs.len();
        let those = outputs_of.iter().filter(|&&(_, outputs)| index < outputs);
        plan.outputs.extend(those.map(|&(turn, _)| (turn, index)));
        turns.push(first..plan.outputs.len());
    }
    if !one_by_one {
        turns = std::iter::once(0..plan.outputs.len()).collect();
    }
    Some(Planned::new(plan, end, stages, turns))
}
