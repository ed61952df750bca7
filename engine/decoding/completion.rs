//! An answer apart from the loop that runs its rounds, which is the same for all: whoever drives rounds, for one sequence or
//! for many, hands each of them to the answer and gets the text that it makes certain.

use super::sampling_params::TokenLogprobs;
use super::sequence::Sequence;
use super::statistics::RoundStatistics;
use crate::error::Result;
use crate::text::{ChatTokenizer, TextStream};

/// Limits that end an answer, in addition to the model's stop tokens and the end of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Tokens of the answer.
    pub max_tokens: usize,
    /// Texts that end it; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end it beside the model's stop tokens.
    pub stop_tokens: Vec<u32>,
    /// `true` if the model's stop tokens do not end it, for measurements.
    pub ignore_stop_tokens: bool,
    /// Tokens before which nothing but the other limits ends it: until there are so many, tokens that would end it are not
    /// chosen, unless the answer's grammar allows no other, and their text is not searched for `stop`.
    pub min_tokens: usize,
}

crate::builder::setters! {
    Limits {
        max_tokens: usize,
        stop: Vec<String>,
        stop_tokens: Vec<u32>,
        ignore_stop_tokens: bool,
        min_tokens: usize,
    }
}

impl Default for Limits {
    /// No limits.
    fn default() -> Limits {
        Limits {
            max_tokens: usize::MAX,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_stop_tokens: false,
            min_tokens: 0,
        }
    }
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

/// What a round adds to an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// The text that became certain, whole characters only; it may be none.
    pub text: String,
    /// The answer's tokens.
    pub tokens: Vec<u32>,
    /// The text that each of them made certain; the last one's includes what was held back, if it ends the answer.
    pub texts: Vec<String>,
    /// Their log-probabilities, one for each, if they are requested.
    pub logprobs: Vec<TokenLogprobs>,
    /// Proposals, acceptances and duration of the round.
    pub round: RoundStatistics,
}

/// An answer as far as it is written: its tokens, the text they make certain, and whether it has ended.
pub struct Completion {
    stop_tokens: Vec<u32>,
    stream: TextStream,
    /// Stop texts that the stream is not yet searched for.
    stop: Vec<String>,
    min_tokens: usize,
    max_tokens: usize,
    prompt_tokens: usize,
    /// Tokens that the context has room for after the prompt.
    room: usize,
    output: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    finish: Option<FinishReason>,
}

impl Completion {
    /// An answer of the model that `text` belongs to, to a prompt of `prompt_tokens` tokens in a context of `context`.
    pub fn new(text: &ChatTokenizer, limits: Limits, prompt_tokens: usize, context: usize) -> Completion {
        let own = if limits.ignore_stop_tokens { &[][..] } else { &text.stop_tokens };
        Completion {
            stop_tokens: [own, &limits.stop_tokens].concat(),
            stream: TextStream::continuing(&text.tokenizer),
            stop: limits.stop,
            min_tokens: limits.min_tokens,
            max_tokens: limits.max_tokens,
            prompt_tokens,
            room: context.saturating_sub(prompt_tokens),
            output: Vec::new(),
            logprobs: Vec::new(),
            finish: (limits.max_tokens == 0).then_some(FinishReason::Length),
        }
    }

    /// Keeps `sequence`, which is to write the answer, from ending it before [`Limits::min_tokens`]. Called before the first
    /// round; [`super::Generation`] does so itself.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::hold_back`].
    pub fn hold_end(&self, sequence: &mut Sequence) -> Result<()> {
        sequence.hold_back(&self.stop_tokens, self.min_tokens)
    }

    /// Takes the last round of `sequence`, which has read the prompt. Tokens past the answer's end, which a round may well
    /// commit, are dropped, from the sequence as well: a conversation does not continue from them.
    pub fn take_round(&mut self, sequence: &mut Sequence) -> Piece {
        let mut piece = Piece { round: sequence.last_round(), ..Piece::default() };
        for (index, &token) in sequence.last_tokens().iter().enumerate() {
            if self.finish.is_some() {
                break;
            }
            let text = self.take(token);
            piece.text.push_str(&text);
            piece.texts.push(text);
            piece.tokens.push(token);
            piece.logprobs.extend(sequence.last_logprobs().get(index).cloned());
        }
        self.logprobs.extend_from_slice(&piece.logprobs);
        if self.finish.is_some() {
            sequence.truncate(self.prompt_tokens + self.output.len());
        }
        piece
    }

    /// Takes a token, and gives the text that it makes certain, which may be none.
    fn take(&mut self, token: u32) -> String {
        self.output.push(token);
        if self.output.len() > self.min_tokens && !self.stop.is_empty() {
            self.stream.stop_before(std::mem::take(&mut self.stop));
        }
        let mut text = String::new();
        if self.is_stop_token(token) {
            self.finish = Some(FinishReason::Stop);
        } else {
            text.extend(self.stream.push(token));
            if self.stream.stopped().is_some() {
                self.finish = Some(FinishReason::Stop);
            } else if self.output.len() == self.max_tokens {
                self.finish = Some(FinishReason::Length);
            } else if self.output.len() == self.room {
                // A round may commit more than fits; the rest AR would not have written.
                self.finish = Some(FinishReason::Context);
            }
        }
        if self.finish.is_some() {
            text.extend(self.stream.flush());
        }
        text
    }

    /// Returns `true` for a token that ends the answer.
    pub fn is_stop_token(&self, token: u32) -> bool {
        self.stop_tokens.contains(&token)
    }

    /// The answer's tokens so far, a stop token at the end included.
    pub fn output(&self) -> &[u32] {
        &self.output
    }

    /// The log-probabilities of [`Completion::output`], one for each token, if they are requested; else none.
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The stop string that ended the answer.
    pub fn stop_string(&self) -> Option<&str> {
        self.stream.stopped()
    }

    /// Ends the answer here, for `reason`, and gives the text that was held back. An answer that has ended stays as it is.
    pub fn end(&mut self, reason: FinishReason) -> String {
        if self.finish.is_some() {
            return String::new();
        }
        self.finish = Some(reason);
        self.stream.flush().unwrap_or_default()
    }
}
