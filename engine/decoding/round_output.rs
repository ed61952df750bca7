//! Record of a round: the number of tokens it committed, their ids, and their log-probabilities under the target, if
//! requested. Nothing else is read back of a round.

use super::options::MAX_DRAFTS;
use super::sampling_params::TokenLogprobs;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::model::{ModelRunner, log_probabilities};
use crate::ops::LogProbabilities;

/// First word of the log-probabilities in a record, after the number of tokens and the tokens.
const FIRST_WORD: usize = 2 + MAX_DRAFTS;

/// The records of rounds, one for each that may be in flight.
pub struct RoundOutputs {
    slots: [(Buffer, Readback); 2],
    logprobs: Option<Logprobs>,
}

struct Logprobs {
    /// Number of the likeliest tokens that are reported.
    top: usize,
    /// By slot.
    kernels: [LogProbabilities; 2],
}

/// Record of one round.
pub struct Record {
    /// Tokens committed, as the device counts them.
    pub committed: usize,
    /// K + 1 words that begin with them.
    pub tokens: Vec<u32>,
    /// One for each of the tokens committed, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
}

impl RoundOutputs {
    /// Records with the log-probabilities of each token by `target` and of the `top` likeliest, if that is not none.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`].
    pub fn new(device: &Device, target: &ModelRunner, top: Option<usize>) -> Result<RoundOutputs> {
        let top = top.map(|top| top.min(target.model().config().vocab_size));
        let words = FIRST_WORD + top.map_or(0, |top| (1 + MAX_DRAFTS) * LogProbabilities::words(top));
        let slot = || -> Result<_> {
            let record = Buffer::storage(device, "record", 4 * words as u64)?;
            let readback = Readback::new(device, record.bytes())?;
            Ok((record, readback))
        };
        let slots = [slot()?, slot()?];
        let kernel = |slot: usize, top| log_probabilities(target, &slots[slot].0, FIRST_WORD, top);
        let logprobs = match top {
            None => None,
            Some(top) => Some(Logprobs { top, kernels: [kernel(0, top)?, kernel(1, top)?] }),
        };
        Ok(RoundOutputs { slots, logprobs })
    }

    /// Number of the likeliest tokens that are reported, if log-probabilities are.
    pub fn top(&self) -> Option<usize> {
        self.logprobs.as_ref().map(|logprobs| logprobs.top)
    }

    /// The buffer of the record that the round of `slot` writes, and the readback it is copied to.
    pub fn slot(&self, slot: usize) -> (&Buffer, &Readback) {
        let (record, readback) = &self.slots[slot];
        (record, readback)
    }

    /// Records the log-probabilities of the committed tokens, which are in the record of `slot`, if requested.
    pub fn encode(&self, pass: &mut Pass, slot: usize, drafts: usize) {
        if let Some(Logprobs { kernels, .. }) = &self.logprobs {
            kernels[slot].encode(pass, drafts + 1);
        }
    }

    /// Waits for the round of `slot`, which had `drafts` proposals.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn read(&self, device: &Device, drafts: usize, slot: usize) -> Result<Record> {
        let rows = drafts + 1;
        let words = self.top().map_or(1 + rows, |top| FIRST_WORD + rows * LogProbabilities::words(top));
        let words: Vec<u32> = self.slots[slot].1.read(device, words)?;
        let (committed, tokens) = (words[0] as usize, words[1..=rows].to_vec());
        let logprobs = match self.top() {
            None => Vec::new(),
            Some(top) => {
                let rows = words[FIRST_WORD..].chunks(LogProbabilities::words(top));
                tokens.iter().zip(rows).take(committed).map(|(&token, row)| TokenLogprobs::of(token, row)).collect()
            }
        };
        Ok(Record { committed, tokens, logprobs })
    }
}

impl TokenLogprobs {
    /// Decodes the words that the device writes for one row.
    fn of(token: u32, row: &[u32]) -> TokenLogprobs {
        let top = row[1..].chunks(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
        TokenLogprobs { token, logprob: f32::from_bits(row[0]), top }
    }
}
