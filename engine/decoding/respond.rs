//! Responses to many prompts: as many sequences at once as there is room for, and the next prompt as soon as one ends
//! (continuous batching; Yu et al. 2022, "Orca", OSDI). It is plain decoding, one token a pass for each sequence.

use std::iter::Fuse;
use std::sync::Arc;

use super::completion::FinishReason;
use super::engine::Engine;
use super::options::{DraftLength, EngineOptions, Method, SequenceOptions};
use super::sampling_params::{SamplingParams, seed_of};
use super::sequence::Sequence;
use crate::error::{Error, OptionName, Result};
use crate::model::Weights;
use crate::ops::MAX_ROWS;

/// Options for writing responses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RespondOptions {
    /// Sequences at once, 1 to 32. No text depends on it.
    pub parallel: usize,
    /// Tokens that a prompt and its response may take together.
    pub context: usize,
    /// Tokens of a response.
    pub max_tokens: usize,
    /// Sampling parameters. Each prompt has a seed of its own, by theirs and its index.
    pub sampling: SamplingParams,
    /// `true` to submit a pass before the last one's tokens are known. This hides the host's work at the cost of a
    /// surplus row for each response. By default `true` on GPUs and `false` on software adapters, where rows are
    /// expensive.
    pub run_ahead: Option<bool>,
}

crate::builder::setters! {
    RespondOptions {
        parallel: usize,
        context: usize,
        max_tokens: usize,
        sampling: SamplingParams,
        run_ahead: Option<bool>,
    }
}

impl Default for RespondOptions {
    fn default() -> RespondOptions {
        RespondOptions {
            parallel: MAX_ROWS,
            context: 4096,
            max_tokens: 512,
            sampling: SamplingParams::default(),
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
    engine: Engine,
    prompts: Fuse<P>,
    stop_tokens: Vec<u32>,
    options: RespondOptions,
    /// The sequences, each with the response that it is writing.
    writers: Vec<(Sequence, Option<Unfinished>)>,
    /// For the iterator: responses that it has not given yet, the next one last.
    done: Vec<Response>,
    is_done: bool,
    tokens: usize,
}

/// A response being written.
struct Unfinished {
    response: Response,
    /// Its tokens at most; then it ends for the reason that stands in it.
    most: usize,
}

/// Responds to `prompts`, indices and tokens. A response ends with a token of `stop_tokens`.
///
/// # Errors
///
/// [`Error::Option`] if an option is out of range; those of [`Engine::new`]. A prompt that is empty, fills the
/// context or holds an unknown token ends the iterator with its error.
pub fn respond<P: Iterator<Item = (usize, Vec<u32>)>>(
    model: &Arc<Weights>,
    stop_tokens: &[u32],
    prompts: P,
    options: RespondOptions,
) -> Result<Responses<P>> {
    let RespondOptions { parallel, context, max_tokens, .. } = options;
    if max_tokens == 0 {
        return Err(Error::Option { option: OptionName::MaxTokens, reason: "a response has 1 at least".to_owned() });
    }
    if !(1..=MAX_ROWS).contains(&parallel) {
        let reason = format!("{parallel} sequences; a pass takes 1 to {MAX_ROWS}");
        return Err(Error::Option { option: OptionName::Sequences, reason });
    }
    let engine = Engine::from_weights(model, None, EngineOptions { context, sequences: parallel })?;
    let sequence_options = SequenceOptions {
        method: Method::Ar,
        drafts: DraftLength::Fixed(0),
        context,
        run_ahead: options.run_ahead,
        sampling: options.sampling.clone(),
        ..SequenceOptions::default()
    };
    let writers = (0..parallel).map(|_| Ok((engine.add(sequence_options.clone())?, None)));
    Ok(Responses {
        writers: writers.collect::<Result<_>>()?,
        engine,
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
    /// Those of a prompt, see [`respond`]; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn round(&mut self) -> Result<Vec<Response>> {
        self.fill()?;
        let writers = self.writers.iter_mut();
        let mut live: Vec<&mut Sequence> =
            writers.filter(|(_, unfinished)| unfinished.is_some()).map(|(sequence, _)| sequence).collect();
        self.is_done = live.is_empty();
        self.engine.step(&mut live)?;
        let mut done = Vec::new();
        for (sequence, place) in &mut self.writers {
            let Some(Unfinished { response, most }) = place else { continue };
            let tokens = sequence.last_tokens();
            response.tokens.extend_from_slice(tokens);
            self.tokens += tokens.len();
            let is_stop = tokens.iter().any(|token| self.stop_tokens.contains(token));
            if is_stop {
                response.finish = FinishReason::Stop;
            }
            if is_stop || response.tokens.len() == *most {
                done.extend(place.take().map(|unfinished| unfinished.response));
            }
        }
        Ok(done)
    }

    /// Starts on the next prompts with the sequences that are free.
    fn fill(&mut self) -> Result<()> {
        let RespondOptions { context, max_tokens, ref sampling, .. } = self.options;
        for (sequence, place) in self.writers.iter_mut().filter(|(_, place)| place.is_none()) {
            let Some((index, prompt)) = self.prompts.next() else { return Ok(()) };
            let seed = seed_of(sampling.seed, index);
            sequence.set_sampling(SamplingParams { seed, ..sampling.clone() })?;
            sequence.start(&prompt)?;
            let most = max_tokens.min(context - prompt.len());
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
