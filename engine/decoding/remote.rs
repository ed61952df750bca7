//! The draft's half of a round, where the draft is on a device of its own: committed tokens go there, the draft proposes
//! in a submit of its own, and its proposals come back to the target, a few dozen bytes each way. The host waits for
//! them, so it knows all tokens and no round runs ahead. Proposals decide no token, so neither does the draft's device.

use std::time::Instant;

use super::options::MAX_DRAFTS;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::ops::Session;

/// Number of times that a crossing is timed.
const REPETITIONS: usize = 5;

/// The bookkeeping on the draft's device.
pub struct RemoteDraft {
    pub device: Device,
    pub session: Buffer,
    pub tokens: Buffer,
    /// d1 .. dK, as the draft chooses them.
    pub proposals: Buffer,
    readback: Readback,
    /// The tokens that penalties do not count yet, as a round's record has them.
    pub record: Buffer,
    /// Committed tokens that penalties count, or that the record has; none if they are to be counted anew.
    counted: Option<usize>,
}

impl RemoteDraft {
    /// For a context of `context` tokens.
    ///
    /// # Errors
    ///
    /// Those of [`Buffer::storage`].
    pub fn new(device: &Device, context: usize) -> Result<RemoteDraft> {
        let words = |label, count: usize| Buffer::storage(device, label, 4 * count as u64);
        let proposals = words("proposals", 2 * MAX_DRAFTS)?;
        Ok(RemoteDraft {
            session: Buffer::storage(device, "session", size_of::<Session>() as u64)?,
            tokens: words("tokens", context + 2 * MAX_DRAFTS)?,
            readback: Readback::new(device, proposals.bytes())?,
            record: words("record", 2 + MAX_DRAFTS)?,
            counted: None,
            device: device.clone(),
            proposals,
        })
    }

    /// Tells the draft's device the committed `tokens`, of which it lacks those that the draft has not read.
    pub fn receive(&self, session: &Session, tokens: &[u32]) {
        let first = session.draft_rows as usize;
        self.session.write(&self.device, 0, std::slice::from_ref(session));
        self.tokens.write(&self.device, 4 * first as u64, &tokens[first..]);
    }

    /// Forgets the counts of penalties.
    pub fn uncount(&mut self) {
        self.counted = None;
    }

    /// Puts the tokens that are not counted yet in the record; false if they have to be counted anew, which leaves none
    /// there.
    pub fn record(&mut self, tokens: &[u32]) -> bool {
        let known = self.counted.replace(tokens.len()).filter(|&known| known <= tokens.len());
        let fresh = known.map(|known| &tokens[known..]).filter(|fresh| fresh.len() <= 1 + MAX_DRAFTS);
        let mut record = vec![fresh.map_or(0, |fresh| fresh.len() as u32)];
        record.extend(fresh.unwrap_or_default());
        self.record.write(&self.device, 0, &record);
        fresh.is_some()
    }

    /// Submits the commands that `propose` records, and waits for `drafts` proposals.
    ///
    /// # Errors
    ///
    /// Those of `propose`, and as [`Device::check`].
    pub fn propose(&self, drafts: usize, propose: impl FnOnce(&mut Pass) -> Result<()>) -> Result<Vec<u32>> {
        Pass::submit(&self.device, Some((&self.proposals, &self.readback)), propose)?;
        self.readback.read(&self.device, drafts)
    }

    /// Seconds that a round's crossing takes beside the draft's pass, to the draft's device and back to `proposals` on
    /// `device`.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn crossing(&self, device: &Device, proposals: &Buffer) -> Result<f64> {
        let mut times = Vec::with_capacity(REPETITIONS);
        for _ in 0..REPETITIONS {
            let begin = Instant::now();
            self.receive(&Session::default(), &[0]);
            let crossed = self.propose(MAX_DRAFTS, |_| Ok(()))?;
            proposals.write(device, 0, &crossed);
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[REPETITIONS / 2])
    }
}
