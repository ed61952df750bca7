//! A teacher's responses to files of prompts, written once, beside the draft.

use std::path::{Path, PathBuf};

use pard::text::{Message, Turn};
use serde_json::Value;

use super::AdaptArguments;
use crate::args::{LogitArguments, MemoryArguments};
use crate::output::Verbosity;
use crate::respond::{self, RespondArguments};
use crate::{interrupt, prompt, text_file};

/// The teacher's responses, in the draft's folder.
const RESPONSES: &str = "responses.jsonl";

/// The files to learn from: those of `arguments`, with the teacher's responses in the place of files of prompts alone.
/// Nothing if Ctrl-C came before all were written.
pub fn complete(arguments: &AdaptArguments, talk: Verbosity) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let Some(teacher) = &arguments.teacher else { return Ok(Some(arguments.data.clone())) };
    let (mut prompts, mut files) = (Vec::new(), Vec::new());
    for path in &arguments.data {
        if holds_prompts(path)? { prompts.push(path.clone()) } else { files.push(path.clone()) }
    }
    if prompts.is_empty() {
        return Ok(Some(files));
    }
    std::fs::create_dir_all(&arguments.out)
        .map_err(|source| pard::Error::Write { path: arguments.out.clone(), source })?;
    let out = arguments.out.join(RESPONSES);
    talk.note(&format!("{teacher} responds to {} files of prompts: {}", prompts.len(), out.display()));
    respond::run(&RespondArguments {
        model: teacher.clone(),
        prompts,
        free: None,
        out: out.clone(),
        temperature: Some(arguments.temperature),
        seed: arguments.seed,
        logits: LogitArguments::default(),
        max_tokens: arguments.seq_len,
        parallel: pard::low_level::ops::MAX_ROWS as u8,
        thinking: None,
        memory: MemoryArguments::default(),
        device: arguments.device.clone(),
        quiet: arguments.quiet,
    })?;
    files.push(out);
    Ok((!interrupt::requested()).then_some(files))
}

/// Returns `true` if the first line of `path` is a prompt without a response. A file does not mix the two.
fn holds_prompts(path: &Path) -> anyhow::Result<bool> {
    let text = text_file::read(path)?;
    let Some(line) = text.lines().find(|line| !line.trim().is_empty()) else { return Ok(false) };
    let json: Value = serde_json::from_str(line).unwrap_or_default();
    let turns = json.get("messages").or_else(|| json.get("conversations"));
    let turns: Vec<Turn> = turns.and_then(|turns| serde_json::from_value(turns.clone()).ok()).unwrap_or_default();
    let has_answer = json.get("response").is_some()
        || json.get("text").is_some()
        || turns.into_iter().map(Message::from).any(|message| message.role == "assistant");
    Ok(!has_answer && json.is_object() && prompt::in_lines(line).iter().all(|(_, prompt)| prompt.is_ok()))
}
