//! An answer as blocks that follow each other: thoughts, text, calls of tools, each begun, continued and ended.

use super::job::Written;
use super::parts::{Part, Parts};

/// The blocks of an answer so far.
pub struct Blocks {
    parts: Parts,
    blocks: Vec<Part>,
    /// Set if the last block may go on.
    is_open: bool,
}

/// An event of a block, of which the number is given.
pub enum Change {
    Begun(usize),
    /// It has this text more; that of a call is its arguments.
    Grown(usize, String),
    Ended(usize),
}

impl Blocks {
    /// Those of an answer whose text `parts` takes apart.
    pub fn new(parts: Parts) -> Blocks {
        Blocks { parts, blocks: Vec::new(), is_open: false }
    }

    /// What tells the parts of the answer from each other.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The blocks, in order.
    pub fn list(&self) -> &[Part] {
        &self.blocks
    }

    /// Takes tokens, and gives the events that they make.
    pub fn push(&mut self, tokens: &[Written]) -> Vec<Change> {
        let parts = self.parts.push(tokens);
        self.take(parts)
    }

    /// Takes the text after the last token, and ends the last block.
    pub fn finish(&mut self, rest: &str) -> Vec<Change> {
        let parts = self.parts.finish(rest);
        let mut changes = self.take(parts);
        changes.extend(self.end());
        changes
    }

    fn take(&mut self, parts: Vec<Part>) -> Vec<Change> {
        let mut changes = Vec::new();
        for part in parts {
            let more = match &part {
                Part::Thoughts(text) | Part::Text(text) => text.clone(),
                Part::Call(call) => call.arguments.clone(),
            };
            match (self.blocks.last_mut().filter(|_| self.is_open), part) {
                (Some(Part::Thoughts(before)), Part::Thoughts(_)) | (Some(Part::Text(before)), Part::Text(_)) => {
                    before.push_str(&more);
                }
                (_, part) => {
                    changes.extend(self.end());
                    changes.push(Change::Begun(self.blocks.len()));
                    self.blocks.push(part);
                    self.is_open = true;
                }
            }
            changes.push(Change::Grown(self.blocks.len() - 1, more));
        }
        changes
    }

    /// Ends the last block.
    fn end(&mut self) -> Option<Change> {
        std::mem::take(&mut self.is_open).then(|| Change::Ended(self.blocks.len() - 1))
    }
}
