//! A draft on a device of its own: committed tokens go there, the draft proposes in a submit of its own, and its proposals
//! come back to the target, a few dozen bytes each way. The host waits for them, so it knows all tokens and no round runs
//! ahead. Proposals decide no token, so neither does the draft's device.

use std::time::Instant;

use super::bookkeeping::Bookkeeping;
use super::options::MAX_DRAFTS;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::ops::{CHOICES, MAX_ROWS, RECORD, Session, TokenCounts};

/// Number of times that a crossing is timed.
const REPETITIONS: usize = 5;

/// The state of sequences on the draft's device.
pub struct RemoteDraft {
    pub book: Bookkeeping,
    readback: Readback,
    /// The tokens that penalties do not count yet, as a round's record has them.
    record: Buffer,
    counting: Option<TokenCounts>,
    /// Committed tokens of each slot that penalties count, or that the record has; none if they are to be counted anew.
    counted: Vec<Option<usize>>,
}

/// A turn's state, which the host knows.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub slot: usize,
    pub session: Session,
    pub tokens: &'a [u32],
    pub prompt_tokens: usize,
    /// Set if committed tokens are counted for penalties.
    pub counts: bool,
}

impl RemoteDraft {
    /// For `slots` sequences of `room` tokens each.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn new(device: &Device, slots: usize, room: usize) -> Result<RemoteDraft> {
        let book = Bookkeeping::new(device, slots, room)?;
        Ok(RemoteDraft {
            readback: Readback::new(device, book.proposals.bytes())?,
            record: Buffer::storage(device, "record", (4 * MAX_ROWS * RECORD) as u64)?,
            counting: None,
            counted: vec![None; slots],
            book,
        })
    }

    /// Makes room for counts and biases, as [`Bookkeeping::reserve_adjustments`] does; true if buffers were replaced.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn reserve_adjustments(&mut self, slots: usize, ids: usize) -> Result<bool> {
        let is_new = self.book.reserve_adjustments(slots, ids)?;
        if let Some([counts, _]) = self.book.adjustments().filter(|_| is_new) {
            let turns = [self.book.round().turns, &self.book.sampling];
            self.counting = Some(TokenCounts::new(&self.book.device, turns, &self.record, counts, ids)?);
        }
        Ok(is_new)
    }

    /// Has the tokens of slot `slot` counted anew.
    pub fn uncount(&mut self, slot: usize) {
        self.counted[slot] = None;
    }

    /// Tells the draft's device the committed tokens of the turn `turn`, of which it lacks those that the draft has not
    /// read; or nothing, if the draft proposes nothing for it.
    pub fn receive(&mut self, turn: usize, known: Option<Known>) {
        let record_at = (4 * RECORD * turn) as u64;
        let Some(Known { slot, session, tokens, prompt_tokens, counts }) = known else {
            return self.record.write(&self.book.device, record_at, &[0u32]);
        };
        let first = session.draft_rows as usize;
        self.book.write_session(slot, session);
        self.book.write_tokens(slot, first, &tokens[first..]);
        if !counts {
            return;
        }
        let counted = self.counted[slot].replace(tokens.len()).filter(|&counted| counted <= tokens.len());
        let fresh = counted.map(|counted| &tokens[counted..]).filter(|fresh| fresh.len() <= 1 + MAX_DRAFTS);
        let mut record = vec![fresh.map_or(0, |fresh| fresh.len() as u32)];
        record.extend(fresh.unwrap_or_default());
        self.record.write(&self.book.device, record_at, &record);
        if fresh.is_none() {
            let (prompt, answer) = tokens.split_at(prompt_tokens.min(tokens.len()));
            self.book.write_counts(slot, prompt, answer);
        }
    }

    /// Submits the commands that `propose` records for `turns` turns, and waits for the proposals: [`CHOICES`] of each turn.
    ///
    /// # Errors
    ///
    /// Those of `propose`, and as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn propose(&self, turns: usize, propose: impl FnOnce(&mut Pass) -> Result<()>) -> Result<Vec<u32>> {
        Pass::submit(&self.book.device, Some((&self.book.proposals, &self.readback)), |pass| {
            if let Some(counting) = &self.counting {
                counting.encode(pass, turns, MAX_DRAFTS + 1);
            }
            propose(pass)
        })?;
        self.readback.read(&self.book.device, turns * CHOICES)
    }

    /// Seconds that a round's crossing takes beside the draft's pass, to the draft's device and back to `book`'s.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn crossing(&mut self, book: &Bookkeeping, slot: usize) -> Result<f64> {
        let mut times = Vec::with_capacity(REPETITIONS);
        for _ in 0..REPETITIONS {
            let begin = Instant::now();
            let session = Session::default();
            self.receive(0, Some(Known { slot, session, tokens: &[0], prompt_tokens: 0, counts: false }));
            let crossed = self.propose(1, |_| Ok(()))?;
            book.write_proposals(0, &crossed[..MAX_DRAFTS]);
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[REPETITIONS / 2])
    }
}
