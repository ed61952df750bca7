//! JSON lines to samples: conversations in the model's own chat template, or plain text.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde::Deserialize;

use super::rows::Sample;
use crate::checkpoint::contents;
use crate::error::{Error, Result};
use crate::text::{ChatTokenizer, Message, Rendering, Special, Turn};

/// Samples read from files, and the lines that were skipped.
#[derive(Debug, Default)]
pub struct Dataset {
    /// In the order of the files.
    pub samples: Vec<Sample>,
    /// Lines that are of no use, with the reason.
    pub skipped: Vec<Skipped>,
}

/// A line that is of no use.
#[derive(Debug)]
pub struct Skipped {
    /// Its file.
    pub path: PathBuf,
    /// Its number, from 1.
    pub line: usize,
    /// Reason why it is of no use.
    pub reason: String,
}

/// Answers of a conversation that are to be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossOn {
    /// All of them.
    EveryAnswer,
    /// The last one: the earlier ones may be of another model.
    LastAnswer,
}

/// One line of a file; the first of `messages`, `conversations`, `prompt` with `response`, and `text` that is there counts.
#[derive(Deserialize)]
struct Line {
    messages: Option<Vec<Message>>,
    conversations: Option<Vec<Turn>>,
    prompt: Option<String>,
    response: Option<String>,
    text: Option<String>,
}

impl Dataset {
    /// Reads `paths`. Of a conversation, the assistant's messages that `loss_on` says are to be predicted, the tokens that
    /// end them included; of a text, all but its first token. Samples are cut to `max_tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::NoSamples`] if no line is of use.
    pub fn read(paths: &[PathBuf], text: &ChatTokenizer, max_tokens: usize, loss_on: LossOn) -> Result<Dataset> {
        let mut dataset = Dataset::default();
        for path in paths {
            let unreadable = |source| Error::Io { path: path.clone(), source };
            for (index, line) in BufReader::new(File::open(path).map_err(unreadable)?).split(b'\n').enumerate() {
                let line = line.map_err(unreadable)?;
                let line = contents::without_mark(&line);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                match sample(line, text, max_tokens, loss_on) {
                    Ok(sample) => dataset.samples.push(sample),
                    Err(reason) => dataset.skipped.push(Skipped { path: path.clone(), line: index + 1, reason }),
                }
            }
        }
        if dataset.samples.is_empty() {
            return Err(Error::NoSamples { reason: dataset.complaint(paths) });
        }
        Ok(dataset)
    }

    fn complaint(&self, paths: &[PathBuf]) -> String {
        match self.skipped.first() {
            Some(Skipped { path, line, reason }) => {
                format!("{} lines are of no use; the first is {}:{line}: {reason}", self.skipped.len(), path.display())
            }
            None => {
                let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                format!("{} holds no line", names.join(", "))
            }
        }
    }
}

/// The sample of one line, or why there is none.
fn sample(
    line: &[u8],
    text: &ChatTokenizer,
    max_tokens: usize,
    loss_on: LossOn,
) -> std::result::Result<Sample, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| format!("it is no JSON object of ours: {error}"))?;
    let made = match line {
        Line { messages: Some(messages), .. } => conversation(&messages, text, loss_on),
        Line { conversations: Some(turns), .. } => {
            let messages: Vec<Message> = turns.into_iter().map(Message::from).collect();
            conversation(&messages, text, loss_on)
        }
        Line { prompt: Some(prompt), response: Some(response), .. } => {
            conversation(&[Message::new("user", prompt), Message::new("assistant", response)], text, loss_on)
        }
        Line { text: Some(plain), .. } => plain_text(&plain, text),
        _ => {
            return Err(
                "it has neither `messages` nor `conversations` nor `prompt` and `response` nor `text`".to_owned()
            );
        }
    };
    let mut sample = made.map_err(|error| error.to_string())?;
    sample.tokens.truncate(max_tokens);
    sample.labelled.truncate(max_tokens);
    if !sample.labelled.contains(&true) {
        return Err(format!("nothing in its first {max_tokens} tokens is to be predicted"));
    }
    Ok(sample)
}

/// A text, all of which but its first token is to be predicted.
fn plain_text(plain: &str, text: &ChatTokenizer) -> Result<Sample> {
    let tokens = text.text_tokens(plain)?;
    let labelled = (0..tokens.len()).map(|at| at > 0).collect();
    Ok(Sample { tokens, labelled })
}

/// A conversation. An answer is encoded by itself, as the tokens that a model writes after a prompt are.
fn conversation(messages: &[Message], text: &ChatTokenizer, loss_on: LossOn) -> Result<Sample> {
    let mut sample = Sample { tokens: Vec::new(), labelled: Vec::new() };
    let Some(last) = messages.iter().rposition(|message| message.role == "assistant") else { return Ok(sample) };
    let template = text.chat_template()?;
    let render = |end: usize, add_generation_prompt| {
        template.render(&messages[..end], Rendering { add_generation_prompt, ..Rendering::default() })
    };
    let whole = render(last + 1, false)?;
    let mut push = |piece: &str, is_answer: bool| -> Result<()> {
        let tokens = text.tokenizer.encode(piece, Special::Keep)?;
        // Text after the token that ends an answer is never read.
        let ends = tokens.iter().position(|id| text.stop_tokens.binary_search(id).is_ok()).unwrap_or(tokens.len());
        sample.labelled.extend((0..tokens.len()).map(|at| is_answer && at <= ends));
        sample.tokens.extend(tokens);
        Ok(())
    };
    let mut at = 0;
    for (index, _) in messages[..=last].iter().enumerate().filter(|(_, message)| message.role == "assistant") {
        let [begin, end] = [render(index, true)?, render(index + 1, false)?];
        // Some templates show earlier answers otherwise than they were written; those are context only.
        if at <= begin.len() && begin.len() <= end.len() && whole.starts_with(&end) && end.starts_with(&begin) {
            push(&whole[at..begin.len()], false)?;
            push(&whole[begin.len()..end.len()], loss_on == LossOn::EveryAnswer || index == last)?;
            at = end.len();
        }
    }
    Ok(sample)
}

/// The `count` tokens that `samples` ask for most often, and all of `always`, ascending.
pub fn most_frequent(samples: &[Sample], count: usize, always: &[u32]) -> Vec<u32> {
    let mut counts: HashMap<u32, u64> = HashMap::new();
    for sample in samples {
        for (&id, _) in sample.tokens.iter().zip(&sample.labelled).filter(|&(_, &labelled)| labelled) {
            *counts.entry(id).or_default() += 1;
        }
    }
    let mut ids: Vec<u32> = counts.keys().copied().filter(|id| !always.contains(id)).collect();
    ids.sort_unstable_by_key(|id| (std::cmp::Reverse(counts[id]), *id));
    ids.truncate(count.saturating_sub(always.len()));
    ids.extend(always);
    ids.sort_unstable();
    ids.dedup();
    ids
}
