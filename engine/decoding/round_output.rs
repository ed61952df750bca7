//! Results of a pass: the number of tokens that each turn committed, their ids, and their log-probabilities under the
//! target, if requested. Nothing else is read back of a round.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use super::sampling_params::{MAX_LOGPROBS, TokenLogprobs};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Readback};
use crate::ops::{LogProbabilities, MAX_ROWS, RECORD};

/// First word of the log-probabilities in a record, after the tokens of all turns.
pub const FIRST_LOGPROB: usize = MAX_ROWS * RECORD;
/// Words of an output row's log-probabilities.
const LOGPROB_WORDS: usize = 1 + 2 * MAX_LOGPROBS;
/// Words of a record.
pub const RECORD_WORDS: usize = FIRST_LOGPROB + MAX_ROWS * LOGPROB_WORDS;

/// Memory that results are copied to, for as many passes as are in flight at most.
#[derive(Clone, Default)]
pub struct Readbacks {
    free: Arc<Mutex<Vec<Readback>>>,
}

impl Readbacks {
    /// One that nobody reads, for a record.
    ///
    /// # Errors
    ///
    /// As [`Readback::new`].
    pub fn take(&self, device: &Device, record: &Buffer) -> Result<Readback> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| Readback::new(device, record.bytes()), Ok)
    }
}

/// A pass that was submitted. Whichever of its sequences asks first waits for it.
pub struct Flight {
    device: Device,
    readback: Option<Readback>,
    readbacks: Readbacks,
    /// Words of the record that are used.
    len: usize,
    words: Mutex<Option<Arc<[u32]>>>,
}

impl Flight {
    /// A pass of `turns` turns whose record is copied to `readback`, with the log-probabilities of `logprob_rows` output
    /// rows.
    pub fn new(
        device: &Device,
        readback: Readback,
        readbacks: &Readbacks,
        turns: usize,
        logprob_rows: usize,
    ) -> Flight {
        let len = match logprob_rows {
            0 => turns * RECORD,
            rows => FIRST_LOGPROB + rows * LOGPROB_WORDS,
        };
        let (device, readbacks) = (device.clone(), readbacks.clone());
        Flight { device, readback: Some(readback), readbacks, len, words: Mutex::default() }
    }

    /// Waits for the pass, and returns its record.
    fn words(&self) -> Result<Arc<[u32]>> {
        let mut words = self.lock();
        match (&*words, &self.readback) {
            (Some(words), _) => Ok(words.clone()),
            (None, Some(readback)) => {
                let read: Arc<[u32]> = readback.read::<u32>(&self.device, self.len)?.into();
                Ok(words.insert(read).clone())
            }
            // It is there until the flight is dropped.
            (None, None) => Ok(Arc::default()),
        }
    }

    /// Ready once the pass is done, so that [`Flight::read`] does not wait.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn poll_done(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut words = self.lock();
        if let (None, Some(readback)) = (&*words, &self.readback) {
            *words = Some(ready!(readback.poll_read::<u32>(&self.device, self.len, context))?.into());
        }
        Poll::Ready(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<[u32]>>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the pass, and returns what the turn `turn` of `drafts` proposals committed. Its first output row is
    /// `first_output`; with `top`, log-probabilities were requested, of so many likeliest tokens.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check); [`Error::Gpu`] if the device reports more tokens than there
    /// can be.
    pub fn read(&self, turn: usize, drafts: usize, first_output: usize, top: Option<usize>) -> Result<RoundOutput> {
        let words = self.words()?;
        let record = &words[turn * RECORD..][..RECORD];
        let committed = record[0] as usize;
        if committed == 0 || committed > drafts + 1 {
            return Err(Error::Gpu {
                what: "round".to_owned(),
                reason: format!("the device reports {committed} tokens for a draft of {drafts}"),
            });
        }
        let tokens = record[1..=committed].to_vec();
        let logprobs = top.map_or_else(|| Ok(Vec::new()), |top| self.logprobs(&tokens, first_output, top))?;
        Ok(RoundOutput { tokens, logprobs })
    }

    /// Waits for the pass, and returns the log-probabilities of `tokens`, which the output rows from `first_output` on
    /// chose, with `top` likeliest tokens.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn logprobs(&self, tokens: &[u32], first_output: usize, top: usize) -> Result<Vec<TokenLogprobs>> {
        let words = self.words()?;
        let rows = words[FIRST_LOGPROB + first_output * LOGPROB_WORDS..].chunks(LOGPROB_WORDS);
        let rows = rows.map(|row| &row[..LogProbabilities::words(top)]);
        Ok(tokens.iter().zip(rows).map(|(&token, row)| TokenLogprobs::of(token, row)).collect())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut free = self.readbacks.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Memory that the host may come to see is not written to again.
        free.extend(self.readback.take().filter(|readback| !readback.is_being_read()));
    }
}

/// What a sequence gets of a round.
pub struct RoundOutput {
    /// Tokens committed.
    pub tokens: Vec<u32>,
    /// One for each of them, if requested.
    pub logprobs: Vec<TokenLogprobs>,
}

impl TokenLogprobs {
    /// Decodes the words that the device writes for one row.
    fn of(token: u32, row: &[u32]) -> TokenLogprobs {
        let top = row[1..].chunks(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
        TokenLogprobs { token, logprob: f32::from_bits(row[0]), top }
    }
}
