//! Responses to many prompts: as many sequences at once as there are slots, and the next prompt as soon as one ends
//! (continuous batching; Yu et al. 2022, "Orca", OSDI). It is plain decoding, one token a pass for each sequence.

use std::iter::Fuse;
use std::sync::Arc;

use super::completion::FinishReason;
use super::options::MAX_CONTEXT;
use super::sampling_params::noise;
use crate::error::{Error, Result};
use crate::model::{Batch, Sampling, Weights};
use crate::ops::MAX_ROWS;

/// Options for writing responses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RespondOptions {
    /// Sequences at once, 1 to 32. No text depends on it.
    pub parallel: usize,
    /// Tokens that a prompt and its response may take together.
    pub context: usize,
    /// Tokens of a response.
    pub max_tokens: usize,
    /// Tokens are drawn from `softmax(logits / temperature)`; 0 takes the likeliest.
    pub temperature: f32,
    /// Names the draws: each prompt has its own by this and its index.
    pub seed: u64,
    /// `true` to submit a pass before the last one's tokens are known. This hides the host's work at the cost of a
    /// surplus row for each response. By default `true` on GPUs and `false` on software adapters, where rows are
    /// expensive.
    pub run_ahead: Option<bool>,
}

impl Default for RespondOptions {
    fn default() -> RespondOptions {
        RespondOptions {
            parallel: MAX_ROWS,
            context: 4096,
            max_tokens: 512,
            temperature: 0.0,
            seed: 0,
            run_ahead: None,
        }
    }
}

/// Response to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The prompt's index, as it was given.
    pub index: usize,
    /// The response, a stop token at the end included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Responses being written: an iterator over those that are done, in the order in which they end.
pub struct Responses<P> {
    batch: Batch,
    prompts: Fuse<P>,
    stop_tokens: Vec<u32>,
    options: RespondOptions,
    run_ahead: bool,
    /// The response being written in each slot.
    slots: Vec<Option<Unfinished>>,
    /// For the iterator: responses that it has not given yet, the next one last.
    done: Vec<Response>,
    is_done: bool,
    tokens: usize,
}

/// A response being written.
#[derive(Clone)]
struct Unfinished {
    response: Response,
    /// Its tokens at most; then it ends for the reason that stands in it.
    most: usize,
}

/// Responds to `prompts`, indices and tokens. A response ends with a token of `stop_tokens`.
///
/// # Errors
///
/// [`Error::Option`] if an option is out of range; those of [`Batch::new`]. A prompt that is empty, fills the
/// context or holds an unknown token ends the iterator with its error.
pub fn respond<P: Iterator<Item = (usize, Vec<u32>)>>(
    model: &Arc<Weights>,
    stop_tokens: &[u32],
    prompts: P,
    options: RespondOptions,
) -> Result<Responses<P>> {
    if options.max_tokens == 0 {
        return Err(Error::Option { option: "max tokens", reason: "a response has 1 at least".to_owned() });
    }
    if !(2..=MAX_CONTEXT).contains(&options.context) {
        let reason = format!("{} is not between 2 and {MAX_CONTEXT} tokens", options.context);
        return Err(Error::Option { option: "context", reason });
    }
    let batch = Batch::new(model, options.parallel, options.context)?;
    Ok(Responses {
        run_ahead: options.run_ahead.unwrap_or(!model.device().is_software()),
        slots: vec![None; options.parallel],
        batch,
        prompts: prompts.fuse(),
        stop_tokens: stop_tokens.to_vec(),
        options,
        done: Vec::new(),
        is_done: false,
        tokens: 0,
    })
}

impl<P: Iterator<Item = (usize, Vec<u32>)>> Responses<P> {
    /// Tokens written so far, those of unfinished responses included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns `true` if the last round found nothing to do.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Starts on prompts where there is room, runs one pass, and gives the responses that it ended, which may be none.
    ///
    /// # Errors
    ///
    /// Those of a prompt, see [`respond`]; as [`crate::Device::check`].
    pub fn round(&mut self) -> Result<Vec<Response>> {
        self.fill()?;
        self.is_done = self.slots.iter().all(Option::is_none);
        if self.batch.in_flight() == 0 {
            self.batch.submit()?;
        }
        if self.run_ahead {
            self.batch.submit()?;
        }
        let mut done = Vec::new();
        for (slot, token) in self.batch.land()? {
            let Some(Unfinished { response, most }) = &mut self.slots[slot] else { continue };
            response.tokens.push(token);
            self.tokens += 1;
            let is_stop = self.stop_tokens.contains(&token);
            if is_stop {
                response.finish = FinishReason::Stop;
            }
            if is_stop || response.tokens.len() == *most {
                self.batch.stop(slot);
                done.extend(self.slots[slot].take().map(|unfinished| unfinished.response));
            }
        }
        Ok(done)
    }

    /// Starts on the next prompts in the slots that are free.
    fn fill(&mut self) -> Result<()> {
        let RespondOptions { context, max_tokens, temperature, .. } = self.options;
        for (slot, place) in self.slots.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            let Some((index, prompt)) = self.prompts.next() else { return Ok(()) };
            if prompt.len() >= context {
                return Err(Error::ContextFull { tokens: prompt.len(), context });
            }
            let most = max_tokens.min(context - prompt.len());
            let sampling = Sampling { temperature, seed: noise(self.options.seed, index) };
            self.batch.start(slot, &prompt, most, sampling)?;
            let finish = if most == max_tokens { FinishReason::Length } else { FinishReason::Context };
            *place = Some(Unfinished { response: Response { index, tokens: Vec::new(), finish }, most });
        }
        Ok(())
    }
}

impl<P: Iterator<Item = (usize, Vec<u32>)>> Iterator for Responses<P> {
    type Item = Result<Response>;

    /// The next response that is done, after as many rounds as it takes.
    fn next(&mut self) -> Option<Result<Response>> {
        while self.done.is_empty() && !self.is_done {
            match self.round() {
                Ok(mut done) => {
                    done.reverse();
                    self.done = done;
                }
                Err(error) => {
                    // A device that failed once does not answer again.
                    self.is_done = true;
                    return Some(Err(error));
                }
            }
        }
        self.done.pop().map(Ok)
    }
}
