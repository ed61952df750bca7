//! An answer apart from the decoder that writes it: whoever drives rounds themselves, one at a time or for many
//! sequences, hands each round's tokens to a transcript and gets the text that they make certain.

use crate::text::{ChatTokenizer, TextStream};

/// Limits that end an answer, in addition to the model's stop tokens and the end of the context.
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

/// An answer as far as it is written: its tokens, the text they make certain, and whether it has ended.
pub struct Completion {
    stop_tokens: Vec<u32>,
    stream: TextStream,
    max_tokens: usize,
    /// Tokens that the context has room for after the prompt.
    room: usize,
    output: Vec<u32>,
    finish: Option<FinishReason>,
}

impl Completion {
    /// An answer of the model that `text` belongs to, where `room` tokens fit into the context after the prompt.
    pub fn new(text: &ChatTokenizer, limits: Limits, room: usize) -> Completion {
        Completion {
            stop_tokens: text.stop_tokens.clone(),
            stream: TextStream::continuing(&text.tokenizer).with_stop_strings(limits.stop),
            max_tokens: limits.max_tokens,
            room,
            output: Vec::new(),
            finish: (limits.max_tokens == 0).then_some(FinishReason::Length),
        }
    }

    /// Takes the tokens of a round and gives the text they make certain, which may be none. Tokens past the answer's end,
    /// which a round may well commit, are dropped.
    pub fn take(&mut self, tokens: &[u32]) -> String {
        let mut text = String::new();
        if self.finish.is_some() {
            return text;
        }
        for &token in tokens {
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
            if self.output.len() == self.max_tokens {
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
        }
        text
    }

    /// The answer's tokens so far, a stop token at the end included.
    pub fn output(&self) -> &[u32] {
        &self.output
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
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
