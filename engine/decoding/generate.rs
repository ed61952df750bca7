//! From rounds of tokens to a stream of text that knows when to end.

use super::decoder::Decoder;
use crate::error::Result;
use crate::model::Model;
use crate::text::TextStream;

/// When an answer ends, beside the model's own stop tokens and the end of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of the answer.
    pub max_tokens: usize,
    /// Texts that end it; they are not part of it.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model wrote a stop token, or a stop string came up.
    Stop,
    /// The answer is as long as it may be.
    Length,
    /// The context is full.
    Context,
    /// The caller ended it.
    Cancelled,
    /// A round failed; the iterator gave the error.
    Failed,
}

impl FinishReason {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Failed => "failed",
        }
    }
}

/// An answer being written: an iterator over pieces of text, each of whole characters. Dropping it ends the answer.
pub struct Generation<'a> {
    decoder: &'a mut Decoder,
    stop_tokens: &'a [u32],
    stream: TextStream,
    limits: Limits,
    /// Tokens that the context has room for after the prompt.
    room: usize,
    output: Vec<u32>,
    finish: Option<FinishReason>,
}

impl<'a> Generation<'a> {
    /// Reads `prompt` and stands ready to answer it. `keep_going` is asked between the prompt's chunks; where it said no,
    /// the answer is cancelled before it begins.
    ///
    /// **Errors**: those of [`Decoder::start`].
    pub fn start(
        decoder: &'a mut Decoder,
        model: &'a Model,
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
    /// **Errors**: those of [`Decoder::resume`].
    pub fn resume(
        decoder: &'a mut Decoder,
        model: &'a Model,
        prompt: &[u32],
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        decoder.resume(prompt, keep_going)?;
        Ok(Generation::after(decoder, model, prompt.len(), limits, keep_going))
    }

    /// Stands ready to answer a prompt of `tokens` tokens that the decoder has read.
    fn after(
        decoder: &'a mut Decoder,
        model: &'a Model,
        tokens: usize,
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Generation<'a> {
        let stream = TextStream::continuing(&model.text.tokenizer).with_stop_strings(limits.stop.clone());
        let room = decoder.options().context - tokens;
        let finish = match limits.max_tokens {
            _ if !keep_going() => Some(FinishReason::Cancelled),
            0 => Some(FinishReason::Length),
            _ => None,
        };
        Generation { decoder, stop_tokens: &model.text.stop_tokens, stream, limits, room, output: Vec::new(), finish }
    }

    /// The answer's tokens so far, a stop token at the end included.
    pub fn output(&self) -> &[u32] {
        &self.output
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Ends the answer here and gives the text that was held back.
    pub fn cancel(&mut self) -> String {
        if self.finish.is_some() {
            return String::new();
        }
        self.finish = Some(FinishReason::Cancelled);
        self.stream.flush().unwrap_or_default()
    }

    /// Runs one round and gives the text it made certain, which may be none. An answer that has ended gets no round.
    ///
    /// **Errors**: those of [`Decoder::round`].
    pub fn round(&mut self) -> Result<String> {
        let mut text = String::new();
        if self.finish.is_some() {
            return Ok(text);
        }
        for &token in self.decoder.round()? {
            self.output.push(token);
            if self.stop_tokens.contains(&token) {
                self.finish = Some(FinishReason::Stop);
                break;
            }
            text.extend(self.stream.push(token));
            if self.stream.stopped().is_some() {
                self.finish = Some(FinishReason::Stop);
                break;
            }
            if self.output.len() == self.limits.max_tokens {
                self.finish = Some(FinishReason::Length);
                break;
            }
            // A round may commit more than fits; what AR would not have written is dropped.
            if self.output.len() == self.room {
                self.finish = Some(FinishReason::Context);
                break;
            }
        }
        if self.finish.is_some() {
            text.extend(self.stream.flush());
            // What a round committed after the end is no part of what a conversation goes on from.
            self.decoder.truncate(self.decoder.options().context - self.room + self.output.len())?;
        }
        Ok(text)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    /// The next text, after as many rounds as it takes to make some certain.
    fn next(&mut self) -> Option<Result<String>> {
        while self.finish.is_none() {
            match self.round() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text)),
                Err(error) => {
                    // A device that failed once does not answer again.
                    self.finish = Some(FinishReason::Failed);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
