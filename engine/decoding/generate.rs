//! From rounds of tokens to a stream of text that knows when to end.

use super::completion::{Completion, FinishReason, Limits};
use super::decoder::Decoder;
use super::sampling_params::TokenLogprobs;
use crate::error::Result;
use crate::model::Model;

/// An answer being written: an iterator over pieces of text, each of whole characters. Dropping it ends the answer.
pub struct Generation<'a> {
    decoder: &'a mut Decoder,
    transcript: Completion,
    logprobs: Vec<TokenLogprobs>,
    prompt_tokens: usize,
}

impl<'a> Generation<'a> {
    /// Reads `prompt` and stands ready to answer it. `keep_going` is asked between the prompt's chunks; where it said no,
    /// the answer is cancelled before it begins.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::start`].
    pub fn start(
        decoder: &'a mut Decoder,
        model: &Model,
        prompt: &[u32],
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        decoder.start(prompt, keep_going)?;
        Ok(Generation::after(decoder, model, prompt.len(), limits, keep_going))
    }

    /// As [`Generation::start`], but what the decoder's caches hold of `prompt` already is not read again: the next
    /// answer of a conversation, of which [`crate::text::Conversation`] gives the tokens.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::resume`].
    pub fn resume(
        decoder: &'a mut Decoder,
        model: &Model,
        prompt: &[u32],
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        decoder.resume(prompt, keep_going)?;
        Ok(Generation::after(decoder, model, prompt.len(), limits, keep_going))
    }

    /// Stands ready to answer a prompt of `prompt_tokens` tokens that the decoder has read.
    fn after(
        decoder: &'a mut Decoder,
        model: &Model,
        prompt_tokens: usize,
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Generation<'a> {
        let mut transcript = Completion::new(&model.text, limits, decoder.options().context - prompt_tokens);
        if !keep_going() {
            transcript.end(FinishReason::Cancelled);
        }
        Generation { decoder, transcript, logprobs: Vec::new(), prompt_tokens }
    }

    /// The answer's tokens so far, a stop token at the end included.
    pub fn output(&self) -> &[u32] {
        self.transcript.output()
    }

    /// The log-probabilities of [`Generation::output`], one for each token, if the decoder's options ask for them; else
    /// none.
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.transcript.finish_reason()
    }

    /// The decoder at work, with its statistics and its last round.
    pub fn decoder(&self) -> &Decoder {
        self.decoder
    }

    /// Ends the answer here and gives the text that was held back.
    pub fn cancel(&mut self) -> String {
        self.transcript.end(FinishReason::Cancelled)
    }

    /// Runs one round and gives the text it made certain, which may be none. An answer that has ended gets no round.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::round`].
    pub fn round(&mut self) -> Result<String> {
        if self.transcript.finish_reason().is_some() {
            return Ok(String::new());
        }
        let before = self.transcript.output().len();
        let text = self.transcript.take(self.decoder.round()?);
        let kept = self.transcript.output().len() - before;
        self.logprobs.extend(self.decoder.last_logprobs().iter().take(kept).cloned());
        if self.transcript.finish_reason().is_some() {
            // Drops the tokens committed after the end: a conversation does not continue from them.
            self.decoder.truncate(self.prompt_tokens + self.transcript.output().len())?;
        }
        Ok(text)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    /// The next text, after as many rounds as it takes to make some certain.
    fn next(&mut self) -> Option<Result<String>> {
        while self.finish_reason().is_none() {
            match self.round() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text)),
                Err(error) => {
                    // A device that failed once does not answer again.
                    self.transcript.end(FinishReason::Failed);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
