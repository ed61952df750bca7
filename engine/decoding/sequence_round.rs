//! A sequence's part in rounds: what it proposes, what its grammar allows, and what a round has committed.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::ngram::NgramOptions;
use super::options::{MAX_DRAFTS, Method};
use super::pace::{Costs, Pace};
use super::proposer::Proposer;
use super::round::Part;
use super::round_output::{Flight, RoundOutput};
use super::scheduler::{Candidate, Offer};
use super::sequence::{InFlight, LastTurn, Proposal, Sequence};
use super::statistics::RoundStatistics;
use crate::error::{Error, Result};
use crate::ops::{Session, TurnSampling};
use crate::text::Walk;

/// The host's work for a grammar, in profiles.
const GRAMMAR_ACTIVITY: &str = "grammar";

impl Sequence {
    /// Returns `true` if a round was submitted and not read.
    pub(super) fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The session after the rounds in flight, if all their proposals are accepted: no count is higher on the device.
    fn bounds(&self) -> Session {
        let rounds = self.in_flight.iter();
        rounds.fold(self.session, |session, &InFlight { proposer, drafts, .. }| {
            let drafts = drafts as u32;
            session.after(proposer.kind(), drafts, drafts + 1)
        })
    }

    /// Returns `true` if one more round may be submitted before the last is read: no tokens are looked up, the context has
    /// room whatever the last round commits, and the draft has not fallen behind.
    pub(super) fn can_run_ahead(&self) -> bool {
        let bounds = self.bounds();
        let needs_tokens = self.proposer.needs_tokens() || self.ngrams.is_some() || self.is_constrained();
        self.run_ahead
            && !needs_tokens
            && self.measuring.is_none()
            && (bounds.tokens as usize) < self.options.context
            && !self.is_behind(bounds)
    }

    /// Returns `true` if the draft first has to read more tokens than fit into a round's window.
    fn is_behind(&self, bounds: Session) -> bool {
        self.proposer.is_model() && bounds.unread() as usize > MAX_DRAFTS + 1
    }

    /// The costs of passes, if known.
    pub(super) fn costs(&self) -> Option<&Costs> {
        self.pace.as_ref().map(Pace::costs)
    }

    /// What the choice of passes has to know.
    pub(super) fn candidate(&self) -> Candidate {
        let pace = self.pace.as_ref();
        let alone = pace.map(|pace| pace.promise(self.options.drafts.or_else(|| pace.choose())));
        Candidate { is_solitary: self.sampling.stages.rejects, alone, offer: pace.and_then(|pace| self.offer(pace)) }
    }

    /// The proposals that it can contribute to a pass with others.
    fn offer(&self, pace: &Pace) -> Option<Offer> {
        if !self.forced.is_empty() {
            let chances = [1.0; MAX_DRAFTS];
            return Some(Offer { proposer: Proposer::Grammar, most: self.forced.len(), unread: 0, chances });
        }
        let limit = self.options.drafts.or_else(|| pace.limit());
        let (proposer, chances) = (self.proposer, pace.chances());
        if !proposer.is_model() {
            let most = proposer.look_up(&self.tokens, limit).len();
            return (most > 0).then_some(Offer { proposer, most, unread: 0, chances });
        }
        // A draft on a device of its own has its passes to itself.
        if self.shared().is_split() {
            return None;
        }
        let bounds = self.bounds();
        let unread = if self.is_behind(bounds) { 1 } else { bounds.unread() as usize };
        Some(Offer { proposer, most: limit, unread, chances })
    }

    /// Decides on the proposals of the next round: `drafts` at most, or as many as it chooses for a pass of its own.
    pub(super) fn propose(&mut self, drafts: Option<usize>) -> Result<()> {
        let chosen = || self.options.drafts.or_else(|| self.pace.as_ref().map_or(0, Pace::choose));
        let (most, is_joint) = (drafts.unwrap_or_else(chosen), drafts.is_some());
        let forced = self.forced.len().min(drafts.unwrap_or(MAX_DRAFTS));
        self.next = if forced > 0 {
            Proposal::new(Proposer::Grammar, forced, self.forced[..forced].to_vec(), is_joint)
        } else if let Some(tokens) = self.stand_in(most, is_joint) {
            Proposal::new(Proposer::Ngram(self.options.ngram), tokens.len(), tokens, is_joint)
        } else if self.proposer.is_model() {
            Proposal::new(self.proposer, most, Vec::new(), is_joint)
        } else {
            let tokens = self.proposer.look_up(&self.tokens, most);
            Proposal::new(self.proposer, tokens.len(), tokens, is_joint)
        };
        if self.is_constrained() && self.next.proposer.is_model() {
            let (begin, ids) = (Instant::now(), self.target().model().config().vocab_size);
            let masks =
                self.constraint.as_mut().map_or_else(|| Ok(all_allowed(ids)), |constraint| constraint.mask(ids));
            match masks {
                Ok(masks) => self.next.masks = self.without_held(masks, ids),
                Err(error) => self.fault = Some(error),
            }
            self.target().model().device().profile_host(GRAMMAR_ACTIVITY, begin);
        }
        if self.next.proposer.is_model() && self.next.drafts > 0 && self.is_behind(self.bounds()) {
            self.catch_up()?;
        }
        Ok(())
    }

    /// Returns `true` if the next round's tokens are masked: by a grammar, or since some are held back.
    pub(super) fn is_constrained(&self) -> bool {
        self.constraint.is_some() || self.holds_back(0)
    }

    /// Returns `true` if tokens are held back from the choice that follows so many proposals.
    fn holds_back(&self, proposals: usize) -> bool {
        let (tokens, count) = &self.held;
        !tokens.is_empty() && self.tokens.len() + proposals < self.statistics.prompt_tokens + count
    }

    /// The masks of a row and those after it, for a vocabulary of `ids` tokens, without tokens that are held back. Where
    /// nothing would be left, the grammar has the last word.
    fn without_held(&self, mut masks: Vec<u32>, ids: usize) -> Vec<u32> {
        let rows = masks.chunks_mut(ids.div_ceil(32)).enumerate();
        for (_, mask) in rows.filter(|&(proposals, _)| self.holds_back(proposals)) {
            let whole = mask.to_vec();
            for &id in &self.held.0 {
                mask[id as usize / 32] &= !(1 << (id % 32));
            }
            if mask.iter().all(|&word| word == 0) {
                mask.copy_from_slice(&whole);
            }
        }
        masks
    }

    /// Takes the proposals that the draft, if it was asked, made for the next round: d1 .. dK at the beginning of `made`. What
    /// a grammar forbids is cut off, and what it forces is added.
    pub(super) fn take_proposals(&mut self, made: &[u32]) {
        let Proposal { proposer, drafts, is_joint, .. } = self.next;
        if proposer.is_model() {
            self.next.tokens = made[..drafts].to_vec();
            self.next.is_proposed = true;
        }
        let ids = self.target().model().config().vocab_size;
        let begin = Instant::now();
        let Some(constraint) = &mut self.constraint else {
            if self.is_constrained() {
                self.next.masks = self.without_held(all_allowed(ids).repeat(drafts + 1), ids);
            }
            return;
        };
        let rejects = self.sampling.stages.rejects && proposer.is_model();
        // A serial draft has read its own proposals and no others; the rejection rule needs the draft's chances; and AR is one
        // token a round.
        let extends = proposer != Proposer::SerialDraft && !rejects && self.options.method != Method::Ar;
        // More tokens are never worse than fewer where they are certain, but rows of others may be waiting.
        let most = if extends && !is_joint { MAX_DRAFTS } else { drafts };
        let walk = constraint.walk(&self.next.tokens, most, extends, ids);
        self.slot.shared.target.model().device().profile_host(GRAMMAR_ACTIVITY, begin);
        let Walk { mut tokens, forced, mut masks } = walk.unwrap_or_else(|error| {
            // Others of the pass go on; this one commits nothing.
            self.fault = Some(error);
            Walk { masks: all_allowed(ids), ..Walk::default() }
        });
        if let Some(&forbidden) = self.next.tokens.get(tokens.len()).filter(|_| rejects) {
            // It has no chance under the target, and the rule makes up for what the draft has given it.
            tokens.push(forbidden);
            masks.extend(all_allowed(ids));
        }
        self.statistics.forced += if proposer == Proposer::Grammar { tokens.len() } else { forced };
        let masks = self.without_held(masks, ids);
        (self.next.drafts, self.next.tokens, self.next.masks) = (tokens.len(), tokens, masks);
    }

    /// Asks the grammar, if there is one, which tokens must come next.
    pub(super) fn look_ahead(&mut self) {
        self.forced.clear();
        if let Some(constraint) = self.constraint.as_mut().filter(|_| self.options.method != Method::Ar)
            && !self.sampling.stages.rejects
        {
            self.forced = constraint.forced(MAX_DRAFTS);
        }
    }

    /// The tokens that n-grams propose in the draft's place, if their estimate exceeds that of `drafts` proposals of the
    /// draft.
    fn stand_in(&mut self, drafts: usize, is_joint: bool) -> Option<Vec<u32>> {
        let (ngrams, pace) = (self.ngrams.as_mut()?, self.pace.as_ref()?);
        let most = if is_joint { drafts } else { self.options.drafts.or_else(|| ngrams.choose()) };
        if most == 0 {
            if !is_joint {
                ngrams.observe(0, 0);
            }
            return None;
        }
        // A match of a single token predicts worse than any draft.
        let NgramOptions { longest, shortest } = self.options.ngram;
        let ngram = NgramOptions { longest: longest.max(2), shortest: shortest.max(2) };
        let proposals = ngram.propose(&self.tokens, most);
        let is_better = !proposals.is_empty() && ngrams.promise(proposals.len()).rate() > pace.promise(drafts).rate();
        is_better.then_some(proposals)
    }

    /// Lets the draft read the tokens committed while it was not asked. No round is in flight.
    fn catch_up(&mut self) -> Result<()> {
        let Some(draft) = self.draft() else { return Ok(()) };
        let (first, known) = (self.session.draft_rows as usize, self.tokens.len() - 1);
        draft.read(self.slot.index, &self.tokens[first..known], first, &|| true)?;
        self.session.draft_rows = known as u32;
        self.shared().rounds().book.write_session(self.slot.index, self.session);
        Ok(())
    }

    /// Its part in the next round, on which [`Sequence::propose`] has decided.
    pub(super) fn part(&self) -> Part<'_> {
        let Proposal { proposer, drafts, ref tokens, is_proposed, ref masks, .. } = self.next;
        let (mut sampling, mut stages) = (self.sampling.turn, self.sampling.stages);
        if self.is_constrained() {
            sampling.changes |= TurnSampling::GRAMMAR;
            (stages.adjusts, stages.constrains) = (true, true);
        }
        Part {
            slot: self.slot.index,
            drafts,
            proposer,
            proposals: tokens,
            is_proposed,
            masks,
            bounds: self.bounds(),
            tokens: &self.tokens,
            prompt_tokens: self.statistics.prompt_tokens,
            sampling,
            stages,
            has_draft: self.proposer.is_model(),
        }
    }

    /// Takes note that the round was submitted, in `flight` as its turn `turn`, whose first output row is `first_output`.
    pub(super) fn submitted(&mut self, flight: &Arc<Flight>, turn: usize, first_output: usize) {
        let Proposal { proposer, drafts, made, is_joint, .. } = self.next;
        self.in_flight.push_back(InFlight {
            flight: flight.clone(),
            turn,
            first_output,
            drafts,
            made,
            proposer,
            is_joint,
        });
    }

    /// Ready once the oldest round in flight is done.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(super) fn poll_round(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.in_flight.front().map_or(Poll::Ready(Ok(())), |round| round.flight.poll_done(context))
    }

    /// Waits for the oldest round in flight, since `begin`, and takes its output.
    pub(super) fn take_round(&mut self, begin: Instant) -> Result<()> {
        let Some(round) = self.in_flight.pop_front() else {
            return Err(Error::Gpu { what: "round".to_owned(), reason: "none was submitted".to_owned() });
        };
        let mut output = round.flight.read(round.turn, round.drafts, round.first_output, self.sampling.top)?;
        let read = Instant::now();
        if let Some(constraint) = &mut self.constraint {
            let allowed = if self.fault.is_some() { 0 } else { output.tokens.len() };
            let committed = constraint.commit(&output.tokens[..allowed]).unwrap_or_else(|(committed, error)| {
                self.fault = Some(error);
                committed
            });
            output.tokens.truncate(committed);
            output.logprobs.truncate(committed);
        }
        self.append(output, &round);
        self.look_ahead();
        if let Some(constraint) = &self.constraint {
            self.statistics.grammar = constraint.spent();
            self.target().model().device().profile_host(GRAMMAR_ACTIVITY, read);
        }
        let (proposed, accepted) = (round.drafts, self.committed.saturating_sub(1));
        self.observe(&round, accepted);
        let time = begin.elapsed();
        self.statistics.count(proposed, self.committed, time);
        self.last_round = RoundStatistics { proposed, accepted, time };
        Ok(())
    }

    /// Follows the device's bookkeeping over a round.
    fn append(&mut self, output: RoundOutput, round: &InFlight) {
        self.committed = output.tokens.len();
        self.session = self.session.after(round.proposer.kind(), round.drafts as u32, self.committed as u32);
        self.tokens.extend(output.tokens);
        self.logprobs = output.logprobs;
        self.last_turn = LastTurn { turn: round.turn, drafts: round.drafts, first_output: round.first_output };
    }

    /// Learns from a round how often proposals are accepted.
    fn observe(&mut self, round: &InFlight, accepted: usize) {
        let accepted = accepted.min(round.made);
        let stands_in = self.ngrams.is_some() && !round.proposer.is_model();
        if round.proposer == Proposer::Grammar {
            return;
        }
        match (&mut self.ngrams, &mut self.pace) {
            (Some(ngrams), _) if stands_in => {
                self.statistics.ngram_rounds += 1;
                ngrams.observe(round.made, accepted);
            }
            // Others' rows left none for proposals.
            (_, Some(pace)) if round.is_joint && round.made == 0 => pace.pass_by(),
            // A lookup without a match says nothing about the acceptance rate.
            (_, Some(pace)) if round.made > 0 || pace.choose() == 0 || self.options.method != Method::Ngram => {
                pace.observe(round.made, accepted);
            }
            _ => {}
        }
    }
}

/// A mask of `ids` tokens that allows all.
fn all_allowed(ids: usize) -> Vec<u32> {
    vec![u32::MAX; ids.div_ceil(32)]
}
