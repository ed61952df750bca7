//! Operations that a pool needs of its decoders to run a round of several of them in one pass.

use std::time::Instant;

use super::Decoder;
use crate::decoding::joining::Candidate;
use crate::decoding::options::{AcceptanceRule, DecoderOptions, Method};
use crate::decoding::pace::{Costs, Pace, Promise};
use crate::decoding::pool::CacheSlot;
use crate::decoding::round::Proposer;
use crate::error::Result;
use crate::gpu::{Buffer, Pass, Readback};
use crate::model::{Hook, PlacedRow, Way};

impl Decoder {
    /// Its place in the pool.
    pub(in crate::decoding) fn seat(&self) -> &CacheSlot {
        self.rounds.seat()
    }

    /// Returns `true` if a round was submitted and not read back.
    pub(in crate::decoding) fn is_ahead(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Returns `true` if its text does not depend on speculation.
    pub(in crate::decoding) fn joins(&self) -> bool {
        let DecoderOptions { acceptance, sampling, .. } = &self.options;
        *acceptance == AcceptanceRule::Noise || sampling.temperature == 0.0 || self.rounds.draft().is_none()
    }

    /// The costs of passes, if known.
    pub(in crate::decoding) fn costs(&self) -> Option<&Costs> {
        self.pace.as_ref().map(Pace::costs)
    }

    /// Estimates a round of its own, if costs are known.
    pub(in crate::decoding) fn promise(&self) -> Option<Promise> {
        let pace = self.pace.as_ref()?;
        Some(pace.promise(self.options.drafts.or_else(|| pace.choose())))
    }

    /// The proposals it can contribute to a pass with others; none if costs are unknown or its draft needs passes of its
    /// own.
    pub(in crate::decoding) fn offer(&self) -> Option<Candidate> {
        let pace = self.pace.as_ref()?;
        let limit = self.options.drafts.or_else(|| pace.limit());
        let offer = |most, unseen| Some(Candidate { most, unseen, chances: pace.chances() });
        match self.options.method {
            // Each of its proposals takes a pass of the draft.
            Method::Ar | Method::Vsd => None,
            // It has a device of its own, and its passes to itself.
            Method::Pard if self.rounds.is_split() => None,
            Method::Ngram => offer(self.options.ngram.propose(&self.tokens, limit).len(), 0),
            Method::Pard => {
                let outlook = self.outlook();
                offer(limit, if self.is_behind(outlook) { 1 } else { outlook.unseen as usize })
            }
        }
    }

    /// Returns `true` if a model proposes its tokens.
    pub(in crate::decoding) fn has_draft(&self) -> bool {
        self.rounds.draft().is_some()
    }

    /// Binds the kernels of a round of `drafts` proposals in a pass with others, and returns its rows in the target's
    /// pass; those of a draft's proposals without their tokens. No round is in flight.
    pub(in crate::decoding) fn prepare_shared(&mut self, drafts: usize) -> Result<Vec<PlacedRow>> {
        let (proposer, proposals) = match self.options.method {
            Method::Ngram => (Proposer::Ngrams, self.look_up(drafts)),
            _ => (Proposer::Draft, vec![0; drafts]),
        };
        self.proposer = proposer;
        if drafts > 0 && self.is_behind(self.outlook()) {
            self.catch_up()?;
        }
        self.rounds.prepare(proposer, drafts, self.next_slot, self.outlook())?;
        self.rounds.prepare_together()?;
        let known = self.tokens.len().saturating_sub(1);
        Ok(self.placed(self.tokens[known..].iter().copied().chain(proposals), known))
    }

    /// The hook that keeps states for its draft in passes of the target over its rows and others'.
    pub(in crate::decoding) fn keep_together(&self) -> Option<&Hook> {
        self.rounds.keep(Way::Together)
    }

    /// The hook that reads those states in passes of the draft over its rows and others'.
    pub(in crate::decoding) fn read_kept_together(&self) -> Option<&Hook> {
        self.rounds.read_kept(Way::Together)
    }

    /// The rows that it has in the draft's pass, and the first of those that propose.
    pub(in crate::decoding) fn shared_draft_rows(&self, drafts: usize) -> (Vec<PlacedRow>, usize) {
        let first = self.session.draft_rows as usize;
        let masks = std::iter::repeat_n(self.rounds.mask(), drafts - 1);
        let rows = self.placed(self.tokens[first..].iter().copied().chain(masks), first);
        (rows, self.tokens.len() - 1 - first)
    }

    fn placed(&self, ids: impl Iterator<Item = u32>, first: usize) -> Vec<PlacedRow> {
        let slot = self.seat().slot;
        ids.zip(first..).map(|(id, position)| PlacedRow { id, slot, position }).collect()
    }

    /// Records the choice of the draft's proposals, whose logits are there.
    pub(in crate::decoding) fn finish_proposals(&self, pass: &mut Pass, drafts: usize) {
        self.rounds.finish_proposals(pass, drafts, self.outlook());
    }

    /// Records the tokens of the target's rows.
    pub(in crate::decoding) fn begin_rows(&self, pass: &mut Pass, drafts: usize) {
        self.rounds.begin_rows(pass, drafts);
    }

    /// Records the rest of the round, whose rows' logits are there.
    pub(in crate::decoding) fn finish_rows(&self, pass: &mut Pass, drafts: usize) {
        self.rounds.finish_rows(pass, drafts, self.next_slot);
    }

    /// The buffer of the round's record, and the readback it is copied to.
    pub(in crate::decoding) fn record(&self) -> (&Buffer, &Readback) {
        self.rounds.record(self.next_slot)
    }

    /// Takes note that the round was submitted.
    pub(in crate::decoding) fn submitted(&mut self, drafts: usize) {
        self.in_flight.push_back((drafts, self.next_slot));
        self.next_slot = 1 - self.next_slot;
    }

    /// Reads back the round that was submitted before, and submits none.
    pub(in crate::decoding) fn land_ahead(&mut self) -> Result<()> {
        self.land(Instant::now())
    }

    /// Reads back a round in a pass with others.
    pub(in crate::decoding) fn land_shared(&mut self, begin: Instant) -> Result<()> {
        let drafts = self.follow()?;
        match &mut self.pace {
            Some(pace) if drafts > 0 => pace.observe(drafts, self.committed - 1),
            Some(pace) => pace.pass_by(),
            None => {}
        }
        self.count(begin);
        Ok(())
    }
}
