//! An answer's thoughts, its text and its calls of tools, told from each other as it comes in.

use pard::decoding::FinishReason;
use pard::text::{AnswerPart, Thinking, ThoughtParser, ThoughtPiece, ToolCall, ToolFormat, ToolParser};

use super::ask::Ask;
use super::job::Written;

/// A part of an answer, or some more of its last part.
#[derive(Debug, Clone)]
pub enum Part {
    Thoughts(String),
    Text(String),
    /// A call of a tool, whole, with an id of its own.
    Call(ToolCall),
}

/// Takes an answer's text as it comes.
pub struct Parts {
    thoughts: ThoughtParser,
    /// None where there are no tools to call.
    tools: Option<ToolParser>,
    calls: usize,
    thought_tokens: usize,
}

impl Parts {
    /// For an answer to `ask` by a model that calls tools in `format`.
    pub fn new(ask: &Ask, format: ToolFormat) -> Parts {
        let thinking = if ask.splits_thoughts { ask.sampling.thinking } else { Thinking::None };
        Parts {
            thoughts: ThoughtParser::new(thinking),
            tools: ask.tools.is_some().then(|| ToolParser::new(format)),
            calls: 0,
            thought_tokens: 0,
        }
    }

    /// Takes tokens, and gives what they make certain.
    pub fn push(&mut self, tokens: &[Written]) -> Vec<Part> {
        let mut parts = Vec::new();
        for token in tokens {
            let was_thinking = self.thoughts.is_thinking();
            let piece = self.thoughts.push(&token.text);
            self.thought_tokens += usize::from(was_thinking || self.thoughts.is_thinking());
            self.take(piece, &mut parts);
        }
        parts
    }

    /// Takes the text after the last token, and gives what is left.
    pub fn finish(&mut self, rest: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        for piece in [self.thoughts.push(rest), self.thoughts.finish()] {
            self.take(piece, &mut parts);
        }
        let last = self.tools.as_mut().map(ToolParser::finish).unwrap_or_default();
        self.add(last, &mut parts);
        parts
    }

    /// Tokens of the thoughts so far, the marks around them included.
    pub fn thought_tokens(&self) -> usize {
        self.thought_tokens
    }

    /// Returns `true` if the answer ended as the model wanted, with calls of tools.
    pub fn ends_with_calls(&self, finish: FinishReason) -> bool {
        finish == FinishReason::Stop && self.calls > 0
    }

    fn take(&mut self, piece: ThoughtPiece, parts: &mut Vec<Part>) {
        let ThoughtPiece { thoughts, text } = piece;
        match parts.last_mut() {
            _ if thoughts.is_empty() => {}
            Some(Part::Thoughts(before)) => before.push_str(&thoughts),
            _ => parts.push(Part::Thoughts(thoughts)),
        }
        let told = match &mut self.tools {
            Some(tools) => tools.push(&text),
            None => vec![AnswerPart::Text(text)],
        };
        self.add(told, parts);
    }

    fn add(&mut self, told: Vec<AnswerPart>, parts: &mut Vec<Part>) {
        for part in told {
            match (part, parts.last_mut()) {
                (AnswerPart::Text(text), _) if text.is_empty() => {}
                (AnswerPart::Text(text), Some(Part::Text(before))) => before.push_str(&text),
                (AnswerPart::Text(text), _) => parts.push(Part::Text(text)),
                (AnswerPart::Call(call), _) => {
                    self.calls += 1;
                    parts.push(Part::Call(ToolCall { id: format!("call_{:016x}", fastrand::u64(..)), ..call }));
                }
            }
        }
    }
}
