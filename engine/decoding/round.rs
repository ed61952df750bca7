//! The commands of a round. They depend on how many tokens are proposed and on how many rows the draft has to read, and
//! not on which tokens were committed: ids, lengths and positions stay on the device.

use std::collections::HashMap;

use super::options::{AcceptanceRule, MAX_DRAFTS, Method};
use super::pool::CacheSlot;
use super::remote::RemoteDraft;
use super::round_output::{Record, RoundOutputs};
use super::samplers::{SamplerParts, Samplers};
use super::sampling_params::SamplingParams;
use super::target_states::TargetStates;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::model::{Hook, KvCachePool, ModelRunner, Sampler, SamplerTerms, Turns, Way};
use crate::ops::{Accept, BuildInputs, ModelRole, Phase, RoundBuffers, RoundParams, Session};

/// The host's bounds on the sequence when it records a round; they are exact where no round is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Committed tokens, at most.
    pub tokens: u32,
    /// Committed tokens that the draft has not read, at most.
    pub unseen: u32,
}

impl Bounds {
    pub fn of(session: &Session) -> Bounds {
        Bounds { tokens: session.tokens, unseen: session.tokens - session.draft_rows }
    }

    /// After a round of `drafts` proposals.
    pub fn after(self, method: Method, drafts: usize) -> Bounds {
        let unseen = match (drafts, method) {
            (0, _) => self.unseen + 1,
            // It has read all that was committed before the round; a serial draft its own proposals but the last as well.
            (drafts, Method::Pard) => drafts as u32 + 1,
            (_, Method::Ar | Method::Vsd | Method::Ngram) => 2,
        };
        Bounds { tokens: self.tokens + drafts as u32 + 1, unseen }
    }
}

/// Source of a round's proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposer {
    /// The draft model, if there is one.
    Draft,
    /// The host, which looks them up and has written them already.
    Ngrams,
}

/// One sequence's rounds: its place in target and draft, and the bookkeeping between them.
pub struct RoundRecorder {
    device: Device,
    method: Method,
    mask: u32,
    seat: CacheSlot,
    /// The draft's bookkeeping, if it is on another device.
    remote: Option<RemoteDraft>,
    session: Buffer,
    tokens: Buffer,
    pub proposals: Buffer,
    /// Target states that the draft reads in addition to tokens, if it does.
    states: Option<TargetStates>,
    records: RoundOutputs,
    /// Chooses the draft's likeliest tokens.
    likeliest: Option<Sampler>,
    /// Choose tokens in place of the likeliest.
    samplers: Option<Samplers>,
    /// Bookkeeping kernels by what they are told, bound on first use.
    inputs: HashMap<(ModelRole, RoundParams), BuildInputs>,
    accepts: HashMap<(usize, usize), Accept>,
}

/// Creates the buffer to which a model's rows write their choices.
pub fn choices(device: &Device, label: &str) -> Result<Buffer> {
    Buffer::storage(device, label, 4 * 2 * MAX_DRAFTS as u64)
}

impl RoundRecorder {
    pub fn new(method: Method, mask: u32, context: usize, seat: CacheSlot) -> Result<RoundRecorder> {
        let target = seat.target().alone();
        let device = target.model().device().clone();
        let words = |label, count: usize| Buffer::storage(&device, label, 4 * count as u64);
        let proposals = choices(&device, "proposals")?;
        let elsewhere =
            seat.draft().map(|slots| slots.alone().model().device()).filter(|other| !other.is_same(&device));
        let remote = elsewhere.map(|elsewhere| RemoteDraft::new(elsewhere, context)).transpose()?;
        let proposed = remote.as_ref().map_or(&proposals, |remote| &remote.proposals);
        let likeliest = |draft| Sampler::new(draft, SamplerTerms::default(), Turns::Together, proposed);
        let session = Buffer::storage(&device, "session", size_of::<Session>() as u64)?;
        Ok(RoundRecorder {
            likeliest: seat.draft().map(KvCachePool::alone).map(likeliest).transpose()?,
            states: TargetStates::new(&seat, context + 2 * MAX_DRAFTS, &session)?,
            session,
            tokens: words("tokens", context + 2 * MAX_DRAFTS)?,
            proposals,
            records: RoundOutputs::new(&device, target, None)?,
            samplers: None,
            inputs: HashMap::new(),
            accepts: HashMap::new(),
            device,
            method,
            mask,
            seat,
            remote,
        })
    }

    /// Its place among those that share a model.
    pub fn seat(&self) -> &CacheSlot {
        &self.seat
    }

    /// The target's rows.
    pub fn target(&self) -> &ModelRunner {
        self.seat.target().alone()
    }

    /// The draft's, if there is one.
    pub fn draft(&self) -> Option<&ModelRunner> {
        self.seat.draft().map(KvCachePool::alone)
    }

    /// The hook that keeps states in passes of the target, for a draft that reads them.
    pub fn keep(&self, way: Way) -> Option<&Hook> {
        self.states.as_ref()?.taps(way).map(|taps| &taps.keep)
    }

    /// The hook that reads those states in passes of the draft.
    pub fn read_kept(&self, way: Way) -> Option<&Hook> {
        self.states.as_ref()?.taps(way).map(|taps| &taps.read)
    }

    /// Binds the hooks for passes with other sequences, for a draft that reads states.
    pub fn prepare_together(&mut self) -> Result<()> {
        self.states.as_mut().map_or(Ok(()), |states| states.prepare_together(&self.seat, &self.session))
    }

    /// Returns `true` if the draft is on another device.
    pub fn is_split(&self) -> bool {
        self.remote.is_some()
    }

    /// Seconds that a round takes to the draft's device and back; 0 if it is the target's.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn crossing(&self) -> Result<f64> {
        self.remote.as_ref().map_or(Ok(0.0), |remote| remote.crossing(&self.device, &self.proposals))
    }

    /// Chooses tokens as `sampling` and `acceptance`, which were checked, say.
    pub fn set_sampling(&mut self, sampling: &SamplingParams, acceptance: AcceptanceRule) -> Result<()> {
        self.samplers = None;
        self.remote.iter_mut().for_each(RemoteDraft::uncount);
        if self.records.top() != sampling.top_logprobs {
            // Kernels that write to the records are bound anew.
            self.accepts.clear();
            self.records = RoundOutputs::new(&self.device, self.target(), sampling.top_logprobs)?;
        }
        self.samplers = Samplers::new(
            sampling,
            acceptance,
            SamplerParts {
                method: self.method,
                target: self.target(),
                draft: self.draft(),
                session: &self.session,
                choices: self.seat.target().choices(),
                proposals: &self.proposals,
                remote: self.remote.as_ref(),
                records: [self.records.slot(0).0, self.records.slot(1).0],
            },
        )?;
        Ok(())
    }

    /// Sets the device's bookkeeping.
    pub fn write_session(&self, session: &Session) {
        self.session.write(&self.device, 0, std::slice::from_ref(session));
    }

    /// The device's bookkeeping. Waits for the device.
    pub fn read_session(&self) -> Result<Session> {
        Ok(self.session.read(&self.device, 0, 1)?[0])
    }

    /// Sets the committed tokens, which are a prompt's.
    pub fn write_tokens(&mut self, tokens: &[u32]) {
        self.tokens.write(&self.device, 0, tokens);
        self.write_counts(tokens, &[]);
    }

    /// Sets the counts of penalties: `prompt`, and `answer` after it.
    pub fn write_counts(&mut self, prompt: &[u32], answer: &[u32]) {
        self.remote.iter_mut().for_each(RemoteDraft::uncount);
        if let Some(samplers) = &self.samplers {
            samplers.write_counts(self.target(), prompt, answer);
        }
    }

    /// Tells a draft on another device the committed `tokens`, which begin with a prompt of `prompt_tokens`.
    pub fn hand_over(&mut self, session: &Session, tokens: &[u32], prompt_tokens: usize) {
        let Some(remote) = &mut self.remote else { return };
        remote.receive(session, tokens);
        if let Some(samplers) = &self.samplers {
            samplers.hand_over(remote, self.seat.target().alone(), tokens, prompt_tokens);
        }
    }

    /// Submits a round of `drafts` proposals, whose record goes to the slot `slot`.
    pub fn submit(&mut self, proposer: Proposer, drafts: usize, slot: usize, outlook: Bounds) -> Result<()> {
        self.prepare(proposer, drafts, slot, outlook)?;
        let _turns = [Some(self.target()), self.draft()].map(|sequence| sequence.map(ModelRunner::turn));
        if proposer == Proposer::Draft {
            self.propose_elsewhere(drafts, outlook)?;
        }
        Pass::submit(&self.device, Some(self.records.slot(slot)), |pass| {
            if proposer == Proposer::Draft {
                self.propose(pass, drafts, outlook)?; // d1 .. dK: one draft pass (PARD), K of them (VSD), or none (AR)
            }
            self.verify(pass, drafts, outlook)?; // t0 .. tK: one target pass
            pass.section("accept");
            self.accept(pass, drafts, slot); // commit what agrees, and the target's own next
            Ok(())
        })
    }

    /// Records the choice of a parallel draft's proposals, whose rows' logits are there. The round was prepared.
    pub fn finish_proposals(&self, pass: &mut Pass, drafts: usize, outlook: Bounds) {
        let Some(draft) = self.draft() else { return };
        for (params, outputs) in self.draft_passes(drafts, outlook) {
            // Choices depend on the positions of the rows.
            self.inputs[&(ModelRole::Draft, params)].encode(pass);
            draft.pick(self.draft_sampler(), pass, outputs);
        }
    }

    /// Records the tokens of the target's rows. The round was prepared.
    pub fn begin_rows(&self, pass: &mut Pass, drafts: usize) {
        self.inputs[&(ModelRole::Target, self.verify_params(drafts))].encode(pass);
    }

    /// Records the rest of a round whose rows' logits are there. The round was prepared.
    pub fn finish_rows(&self, pass: &mut Pass, drafts: usize, slot: usize) {
        self.begin_rows(pass, drafts);
        self.target().pick(self.samplers.as_ref().map(|samplers| &samplers.target), pass, drafts + 1);
        self.accept(pass, drafts, slot);
    }

    /// The mask token, which a draft reads in place of tokens not yet known.
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// The sampler of proposals.
    fn draft_sampler(&self) -> Option<&Sampler> {
        self.samplers.as_ref().and_then(|samplers| samplers.draft.as_ref()).or(self.likeliest.as_ref())
    }

    /// The buffer of a round's record, and the readback it is copied to.
    pub fn record(&self, slot: usize) -> (&Buffer, &Readback) {
        self.records.slot(slot)
    }

    /// Records the acceptance of proposals by the target's choices.
    fn accept(&self, pass: &mut Pass, drafts: usize, slot: usize) {
        self.accepts[&(drafts, slot)].encode(pass);
        if let Some(samplers) = &self.samplers {
            samplers.count(pass, slot, drafts);
        }
        self.records.encode(pass, slot, drafts);
    }

    /// Waits for the round that was submitted to `slot`, and returns its record.
    pub fn read(&self, drafts: usize, slot: usize) -> Result<Record> {
        self.records.read(&self.device, drafts, slot)
    }

    /// Proposes `tokens` in the next round, in place of a draft.
    pub fn write_proposals(&self, tokens: &[u32]) {
        self.proposals.write(&self.device, 0, tokens);
    }

    /// Lets a draft on another device propose, and waits for its proposals.
    fn propose_elsewhere(&self, drafts: usize, outlook: Bounds) -> Result<()> {
        let (Some(remote), Some(draft)) = (self.remote.as_ref().filter(|_| drafts > 0), self.draft()) else {
            return Ok(());
        };
        let proposals = remote.propose(drafts, |pass| {
            if let Some(samplers) = &self.samplers {
                samplers.count_elsewhere(pass);
            }
            self.draft_forward(draft, pass, drafts, outlook)
        })?;
        self.write_proposals(&proposals);
        Ok(())
    }

    /// Records the draft's passes, if it is on the same device.
    fn propose(&self, pass: &mut Pass, drafts: usize, outlook: Bounds) -> Result<()> {
        match self.draft() {
            Some(draft) if self.remote.is_none() => self.draft_forward(draft, pass, drafts, outlook),
            _ => Ok(()),
        }
    }

    /// Records the passes of `draft`.
    fn draft_forward(&self, draft: &ModelRunner, pass: &mut Pass, drafts: usize, outlook: Bounds) -> Result<()> {
        pass.section("draft");
        for (params, outputs) in self.draft_passes(drafts, outlook) {
            let end = match params.pass_index {
                0 => outlook.tokens - outlook.unseen + params.rows,
                index => outlook.tokens + index,
            };
            self.inputs[&(ModelRole::Draft, params)].encode(pass);
            let taps = self.read_kept(Way::Alone);
            draft.forward(pass, Phase::Decode, params.rows as usize, end as usize, taps.as_slice())?;
            choose(draft, self.draft_sampler(), pass, outputs)?;
        }
        Ok(())
    }

    /// Records the target's pass over the newest committed token and the proposals.
    fn verify(&self, pass: &mut Pass, drafts: usize, outlook: Bounds) -> Result<()> {
        pass.section("verify");
        self.inputs[&(ModelRole::Target, self.verify_params(drafts))].encode(pass);
        let (end, taps) = (outlook.tokens as usize + drafts, self.keep(Way::Alone));
        self.target().forward(pass, Phase::Decode, drafts + 1, end, taps.as_slice())?;
        choose(self.target(), self.samplers.as_ref().map(|samplers| &samplers.target), pass, drafts + 1)
    }

    /// The round's draft passes, and how many proposals each makes. Surplus rows are harmless and cost time.
    fn draft_passes(&self, drafts: usize, outlook: Bounds) -> Vec<(RoundParams, usize)> {
        let (most, rows) = (drafts as u32, outlook.unseen);
        let params = RoundParams { drafts: most, mask: self.mask, parallel: 0, pass_index: 0, rows, slot: self.slot() };
        match self.method {
            _ if drafts == 0 => vec![],
            Method::Ar | Method::Ngram => vec![],
            Method::Pard => vec![(RoundParams { parallel: 1, rows: rows + most - 1, ..params }, drafts)],
            Method::Vsd => {
                let later = |pass_index| (RoundParams { pass_index, rows: 1, ..params }, 1);
                [(params, 1)].into_iter().chain((1..most).map(later)).collect()
            }
        }
    }

    fn verify_params(&self, drafts: usize) -> RoundParams {
        let drafts = drafts as u32;
        RoundParams { drafts, mask: 0, parallel: 0, pass_index: 0, rows: drafts + 1, slot: self.slot() }
    }

    /// Its slot of the caches, as kernels are told.
    fn slot(&self) -> u32 {
        self.seat.slot as u32
    }

    /// Binds the bookkeeping kernels that the round needs.
    pub fn prepare(&mut self, proposer: Proposer, drafts: usize, slot: usize, outlook: Bounds) -> Result<()> {
        let verify = self.verify_params(drafts);
        let mut needed = vec![(ModelRole::Target, verify)];
        if proposer == Proposer::Draft {
            needed.extend(self.draft_passes(drafts, outlook).into_iter().map(|(params, _)| (ModelRole::Draft, params)));
        }
        let bound = |record| RoundBuffers {
            session: &self.session,
            tokens: &self.tokens,
            proposals: &self.proposals,
            choices: self.seat.target().choices(),
            record,
        };
        let buffers = bound(self.records.slot(slot).0);
        for key in needed {
            if self.inputs.contains_key(&key) {
                continue;
            }
            let (whose, params) = key;
            let slots = match (whose, self.seat.draft()) {
                (ModelRole::Draft, Some(draft)) => draft,
                _ => self.seat.target(),
            };
            let sequence = slots.alone();
            let buffers = match (whose, &self.remote) {
                (ModelRole::Draft, Some(RemoteDraft { session, tokens, proposals, .. })) => {
                    RoundBuffers { session, tokens, proposals, ..buffers }
                }
                _ => buffers,
            };
            let device = sequence.model().device();
            let made = BuildInputs::new(device, whose, params, buffers, sequence.step(), sequence.ids())?;
            self.inputs.insert(key, made);
        }
        if !self.accepts.contains_key(&(drafts, slot)) {
            let parallel = u32::from(self.method == Method::Pard);
            let params = RoundParams { parallel, ..verify };
            self.accepts.insert((drafts, slot), Accept::new(&self.device, params, buffers)?);
        }
        Ok(())
    }
}

/// Records the choice of `outputs` rows of `sequence`: the likeliest tokens, or those that `sampler` chooses.
fn choose(sequence: &ModelRunner, sampler: Option<&Sampler>, pass: &mut Pass, outputs: usize) -> Result<()> {
    sequence.score(pass, outputs)?;
    sequence.pick(sampler, pass, outputs);
    Ok(())
}
