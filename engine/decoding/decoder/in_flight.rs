//! Rounds in flight: the proposer and draft length of the next one, and the results of the oldest.

use std::time::Instant;

use super::Decoder;
use crate::decoding::ngram::NgramOptions;
use crate::decoding::options::{MAX_DRAFTS, Method};
use crate::decoding::pace::Pace;
use crate::decoding::round::{Bounds, Proposer};
use crate::decoding::statistics::RoundStatistics;
use crate::error::{Error, Result};
use crate::model::Way;

impl Decoder {
    /// Bounds on the sequence after the rounds in flight.
    pub(super) fn outlook(&self) -> Bounds {
        let begin = Bounds::of(&self.session);
        self.in_flight.iter().fold(begin, |outlook, &(drafts, _)| outlook.after(self.options.method, drafts))
    }

    /// Returns `true` if one more round may be submitted before the last is read back: no n-grams are looked up, the
    /// context has room whatever the last round commits, and the draft has not fallen behind.
    pub(super) fn has_room_ahead(&self) -> bool {
        let outlook = self.outlook();
        // N-gram lookup needs the committed tokens.
        let is_blind = self.options.method != Method::Ngram && self.ngrams.is_none();
        is_blind && (outlook.tokens as usize) < self.options.context && !self.is_behind(outlook)
    }

    /// Checks that a round is possible.
    pub(in crate::decoding) fn check_room(&self) -> Result<()> {
        if self.tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if self.tokens.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: self.tokens.len(), context: self.options.context });
        }
        Ok(())
    }

    /// Returns `true` if the draft first has to read more tokens than fit into a round's window.
    pub(super) fn is_behind(&self, outlook: Bounds) -> bool {
        self.rounds.draft().is_some() && outlook.unseen as usize > MAX_DRAFTS + 1
    }

    /// Submits a round.
    pub(super) fn submit(&mut self) -> Result<()> {
        let drafts = self.options.drafts.or_else(|| self.pace.as_ref().map_or(MAX_DRAFTS, Pace::choose));
        let (proposer, drafts) = match self.options.method {
            Method::Ngram => (Proposer::Ngrams, self.look_up(drafts).len()),
            _ => self.stand_in(drafts).map_or((Proposer::Draft, drafts), |found| (Proposer::Ngrams, found)),
        };
        self.proposer = proposer;
        if proposer == Proposer::Draft && drafts > 0 {
            if self.is_behind(self.outlook()) {
                self.catch_up()?;
            }
            self.rounds.hand_over(&self.session, &self.tokens, self.statistics.prompt_tokens);
        }
        self.rounds.submit(proposer, drafts, self.next_slot, self.outlook())?;
        self.in_flight.push_back((drafts, self.next_slot));
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Proposes at most `drafts` tokens that stood behind the newest ones before, and gives them. No round is in flight.
    pub(super) fn look_up(&self, drafts: usize) -> Vec<u32> {
        let proposals = self.options.ngram.propose(&self.tokens, drafts);
        self.rounds.write_proposals(&proposals);
        proposals
    }

    /// Proposes the tokens that n-grams find if their estimate exceeds that of `drafts` proposals of the draft, and
    /// returns their number. No round is in flight.
    fn stand_in(&mut self, drafts: usize) -> Option<usize> {
        let (ngrams, pace) = (self.ngrams.as_mut()?, self.pace.as_ref()?);
        let most = self.options.drafts.or_else(|| ngrams.choose());
        if most == 0 {
            ngrams.observe(0, 0);
            return None;
        }
        // A match of a single token predicts worse than any draft.
        let NgramOptions { longest, shortest } = self.options.ngram;
        let ngram = NgramOptions { longest: longest.max(2), shortest: shortest.max(2) };
        let proposals = ngram.propose(&self.tokens, most);
        if proposals.is_empty() || ngrams.promise(proposals.len()).rate() <= pace.promise(drafts).rate() {
            return None;
        }
        self.rounds.write_proposals(&proposals);
        Some(proposals.len())
    }

    /// Returns `true` if n-grams propose in the draft's place in the newest round.
    fn stands_in(&self) -> bool {
        self.ngrams.is_some() && self.proposer == Proposer::Ngrams
    }

    /// Lets the draft read the tokens committed while it was not asked. No round is in flight.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let Some(draft) = self.rounds.draft() else { return Ok(()) };
        let (first, known) = (self.session.draft_rows as usize, self.tokens.len() - 1);
        let read = self.rounds.read_kept(Way::Alone);
        draft.prefill_slot(self.seat().slot, &self.tokens[first..known], first, read.as_slice(), &|| true)?;
        self.session.draft_rows = known as u32;
        self.rounds.write_session(&self.session);
        Ok(())
    }

    /// Reads back the tokens that the oldest round in flight committed, follows the device's bookkeeping, and counts the
    /// round, which was waited for since `begin`.
    pub(super) fn land(&mut self, begin: Instant) -> Result<()> {
        let (drafts, accepted) = (self.follow()?, self.committed - 1);
        match (&mut self.ngrams, &mut self.pace) {
            (Some(ngrams), _) if self.proposer == Proposer::Ngrams => {
                self.statistics.ngram_rounds += 1;
                ngrams.observe(drafts, accepted);
            }
            // A lookup without a match says nothing about the acceptance rate.
            (_, Some(pace)) if drafts > 0 || pace.choose() == 0 || self.options.method != Method::Ngram => {
                pace.observe(drafts, accepted);
            }
            _ => {}
        }
        self.count(begin);
        Ok(())
    }

    /// Counts the last round, which was waited for since `begin`.
    pub(super) fn count(&mut self, begin: Instant) {
        let (proposed, time) = (self.last_drafts, begin.elapsed());
        self.statistics.count(proposed, self.committed, time);
        self.last_round = RoundStatistics { proposed, accepted: self.committed - 1, time };
    }

    /// Reads back the tokens that the oldest round in flight committed, follows the device's bookkeeping, and returns the
    /// round's K.
    pub(super) fn follow(&mut self) -> Result<usize> {
        let Some((drafts, slot)) = self.in_flight.pop_front() else {
            return Err(Error::Gpu { what: "round".to_owned(), reason: "none was submitted".to_owned() });
        };
        let record = self.rounds.read(drafts, slot)?;
        let committed = record.committed;
        if committed == 0 || committed > drafts + 1 {
            return Err(Error::Gpu {
                what: "round".to_owned(),
                reason: format!("the device reports {committed} tokens for a draft of {drafts}"),
            });
        }
        self.tokens.extend_from_slice(&record.tokens[..committed]);
        self.committed = committed;
        self.logprobs = record.logprobs;
        let known = self.session.tokens;
        self.session.tokens = known + committed as u32;
        self.session.target_rows = self.session.tokens - 1;
        let draft_rows = self.session.draft_rows;
        self.session.draft_rows = match self.options.method {
            _ if drafts == 0 => draft_rows,
            Method::Pard => known,
            Method::Vsd | Method::Ar | Method::Ngram => (known + drafts as u32 - 1).min(self.session.target_rows),
        };
        self.last_drafts = drafts;
        if self.stands_in() {
            // The device assumes that the draft proposed, and that it has read rows which it has not.
            self.session.draft_rows = draft_rows;
            self.rounds.write_session(&self.session);
        }
        Ok(drafts)
    }
}
