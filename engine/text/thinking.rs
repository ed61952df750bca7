//! Blocks of thoughts, `<think>…</think>`, that an answer may begin with: whether a prompt has opened one, where it ends among
//! an answer's tokens, and its text apart from the answer's.

use super::tokenizer::Tokenizer;

/// The block of thoughts at the beginning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// There is none: the model knows none, or the prompt has closed it.
    #[default]
    None,
    /// The answer may open one.
    Possible,
    /// The prompt has opened it.
    Open,
}

const OPENING: &str = "<think>";
const CLOSING: &str = "</think>";

/// The tokens that mark a block of thoughts.
pub(super) struct ThinkTokens {
    pub opening: u32,
    pub closing: u32,
    /// Tokens that are nothing but line ends, of which one may follow the block.
    pub line_ends: Vec<u32>,
}

impl ThinkTokens {
    /// Those of a vocabulary that has them.
    pub fn of(tokenizer: &Tokenizer) -> Option<ThinkTokens> {
        let [opening, closing] = marks(tokenizer)?;
        let is_line_end = |id: &u32| {
            let bytes = tokenizer.bytes(*id);
            !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
        };
        let line_ends = (0..tokenizer.vocab_size() as u32).filter(is_line_end).collect();
        Some(ThinkTokens { opening, closing, line_ends })
    }
}

/// The tokens before and after a block, if each mark is a token that is shown.
pub(super) fn marks(tokenizer: &Tokenizer) -> Option<[u32; 2]> {
    let [opening, closing] = [OPENING, CLOSING].map(|mark| tokenizer.id(mark).filter(|&id| !tokenizer.is_special(id)));
    Some([opening?, closing?])
}

/// Place of an answer's next token, as long as nothing of what follows the block is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the block, which need not come.
    Before,
    /// Within the block.
    Within,
    /// Right after the block.
    After,
    /// Past the block and what separates it from the rest.
    Past,
}

impl Stage {
    /// The stage of an answer's first token.
    pub fn first(thinking: Thinking) -> Stage {
        match thinking {
            Thinking::None => Stage::Past,
            Thinking::Possible => Stage::Before,
            Thinking::Open => Stage::Within,
        }
    }

    /// The stage after `token`; none if it is part of what follows the block.
    pub fn next(self, token: u32, tokens: &ThinkTokens) -> Option<Stage> {
        match self {
            Stage::Before if token == tokens.opening => Some(Stage::Within),
            Stage::Within if token == tokens.closing => Some(Stage::After),
            Stage::Within => Some(Stage::Within),
            Stage::After if tokens.line_ends.contains(&token) => Some(Stage::Past),
            Stage::Before | Stage::After | Stage::Past => None,
        }
    }
}

/// State of a block at the end of `text`, such as a prompt: open, closed, or neither.
pub(super) fn at_the_end_of(text: &[u8]) -> Thinking {
    let text = text.trim_ascii_end();
    match text {
        _ if text.ends_with(OPENING.as_bytes()) => Thinking::Open,
        _ if text.ends_with(CLOSING.as_bytes()) => Thinking::None,
        _ => Thinking::Possible,
    }
}

/// A piece of an answer that begins with thoughts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThoughtPiece {
    /// Text within the block, without the white space at its ends.
    pub thoughts: String,
    /// Text of the answer itself, without the line ends that follow the block.
    pub text: String,
}

/// Tells thoughts from the answer, as it comes in.
pub struct ThoughtParser {
    stage: Stage,
    /// Text that is not decided yet: the beginning of a mark, or white space that may be the last of the block.
    held: String,
    /// Set once some of the block was given.
    has_thoughts: bool,
}

impl ThoughtParser {
    /// A parser for an answer that begins so.
    pub fn new(thinking: Thinking) -> ThoughtParser {
        ThoughtParser { stage: Stage::first(thinking), held: String::new(), has_thoughts: false }
    }

    /// Returns `true` within the block.
    pub fn is_thinking(&self) -> bool {
        self.stage == Stage::Within
    }

    /// Takes text of the answer, and gives what it makes certain.
    pub fn push(&mut self, text: &str) -> ThoughtPiece {
        self.held.push_str(text);
        let mut piece = ThoughtPiece::default();
        if self.stage == Stage::Before {
            let begun = self.held.trim_start();
            if let Some(inside) = begun.strip_prefix(OPENING) {
                (self.stage, self.held) = (Stage::Within, inside.to_owned());
            } else if !OPENING.starts_with(begun) {
                self.stage = Stage::Past;
            }
        }
        if self.stage == Stage::Within {
            piece.thoughts = self.take_thoughts();
        }
        if self.stage == Stage::After {
            self.held = self.held.trim_start_matches(['\n', '\r']).to_owned();
            if !self.held.is_empty() {
                self.stage = Stage::Past;
            }
        }
        if self.stage == Stage::Past {
            piece.text = std::mem::take(&mut self.held);
        }
        piece
    }

    /// Gives what was held back: the answer is over.
    pub fn finish(&mut self) -> ThoughtPiece {
        let held = std::mem::take(&mut self.held);
        match self.stage {
            Stage::Within => ThoughtPiece { thoughts: held.trim_end().to_owned(), text: String::new() },
            _ => ThoughtPiece { thoughts: String::new(), text: held },
        }
    }

    /// The thoughts in what is held, up to where the block ends or may end.
    fn take_thoughts(&mut self) -> String {
        if !self.has_thoughts {
            self.held = self.held.trim_start().to_owned();
        }
        let (thoughts, rest) = match self.held.find(CLOSING) {
            Some(at) => {
                self.stage = Stage::After;
                (self.held[..at].trim_end().to_owned(), self.held[at + CLOSING.len()..].to_owned())
            }
            None => {
                let partial = (1..CLOSING.len()).rev().find(|&length| self.held.ends_with(&CLOSING[..length]));
                let kept = self.held[..self.held.len() - partial.unwrap_or(0)].trim_end().len();
                let rest = self.held.split_off(kept);
                (std::mem::take(&mut self.held), rest)
            }
        };
        self.held = rest;
        self.has_thoughts |= !thoughts.is_empty();
        thoughts
    }
}
