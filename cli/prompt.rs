//! Prompts: where they come from and how they become tokens.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use pard::text::{ChatTokenizer, Message, Rendering, Turn};
use pard::{Error, Result};
use serde_json::Value;

use crate::args::StyleArguments;
use crate::output::{self, Verbosity};
use crate::text_file;
use crate::usage::usage;

/// A prompt, before it is turned into tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A text: what the user says, or the beginning of a plain text.
    Text(String),
    /// A conversation.
    Chat(Vec<Message>),
}

impl Prompt {
    /// The text, or the last message's, for reports.
    pub fn text(&self) -> &str {
        match self {
            Prompt::Text(text) => text,
            Prompt::Chat(messages) => messages.last().map_or("", |message| &message.content),
        }
    }

    /// The tokens that `model` is to answer.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`]; those of [`ChatTokenizer::chat_tokens`].
    pub fn tokens(&self, model: &ChatTokenizer, style: &StyleArguments) -> anyhow::Result<Vec<u32>> {
        // Asking for what only a template can do asks for the template.
        let wants_chat = style.chat || style.system.is_some() || style.thinking.is_some();
        let mut messages = match self {
            Prompt::Text(text) if text.is_empty() => return Err(Error::EmptyPrompt.into()),
            Prompt::Text(text) if style.raw || !(wants_chat || model.has_chat_template()) => {
                let tokens = model.text_tokens(text)?;
                return if tokens.is_empty() { Err(Error::EmptyPrompt.into()) } else { Ok(tokens) };
            }
            Prompt::Text(text) => vec![Message::new("user", text)],
            Prompt::Chat(_) if style.raw => {
                return Err(usage("--raw", "the prompt is a conversation, which only the chat template can render"));
            }
            Prompt::Chat(messages) => messages.clone(),
        };
        if let Some(system) = &style.system {
            messages.retain(|message| message.role != "system");
            messages.insert(0, Message::new("system", system));
        }
        let rendering = Rendering::default().enable_thinking(style.thinking);
        Ok(model.chat_tokens(&messages, rendering)?)
    }
}

/// Says so if `thinking` is asked of a model whose template knows none.
pub fn note_thinking(model: &ChatTokenizer, thinking: Option<bool>, talk: Verbosity) {
    if thinking.is_some() && !model.knows_thinking() {
        talk.note(&format!(
            "{}: its chat template knows no thinking, so that --thinking changes nothing",
            model.model_name
        ));
    }
}

/// The prompt `text`, or else that of `file`, or of standard input.
pub fn read(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Prompt> {
    if let Some(text) = text {
        return Ok(Prompt::Text(text.to_owned()));
    }
    let (name, bytes) = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => (path.display().to_string(), text_file::bytes(path)?),
        None => {
            if io::stdin().is_terminal() {
                output::note("reading the prompt from standard input; end it with Ctrl-D (Windows: Ctrl-Z, Enter)");
            }
            let mut bytes = Vec::new();
            let path = || PathBuf::from("standard input");
            io::stdin().lock().read_to_end(&mut bytes).map_err(|source| Error::Io { path: path(), source })?;
            ("standard input".to_owned(), bytes)
        }
    };
    let mut text = text_file::utf8(&name, bytes)?;
    if text.ends_with('\n') {
        text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
    }
    Ok(Prompt::Text(text))
}

/// The prompts of a JSON-lines file.
pub fn read_lines(path: &Path) -> anyhow::Result<Vec<Prompt>> {
    let text = text_file::read(path)?;
    let prompts: Vec<Prompt> = in_lines(&text)
        .into_iter()
        .map(|(number, prompt)| prompt.map_err(|reason| anyhow::anyhow!("{}:{number}: {reason}", path.display())))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!prompts.is_empty(), "{}: it holds no prompts", path.display());
    Ok(prompts)
}

/// The prompts of a JSON-lines file, or of one JSON list, with the numbers of their lines or places; or what is wrong with one.
pub fn in_lines(text: &str) -> Vec<(usize, Result<Prompt, String>)> {
    let missing = || {
        "it has no `prompt` (text), `messages` (list), `conversations` (list), `turns` (list), `data` (text or list), \
         `question` (text) or `instruction` (text)"
            .to_owned()
    };
    let prompt = |json: &Value| of_json(json).ok_or_else(missing);
    if let Ok(Value::Array(items)) = serde_json::from_str(text) {
        return (1..).zip(&items).map(|(number, item)| (number, prompt(item))).collect();
    }
    let of_line = |line: &str| {
        let json: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
        prompt(&json)
    };
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| (number, of_line(line))).collect()
}

/// The prompt of one line. Of several turns the first is taken: the later ones answer what the model said. An instruction
/// may come with an input to work on.
fn of_json(json: &Value) -> Option<Prompt> {
    let keys = ["prompt", "messages", "conversations", "turns", "data", "question", "instruction"];
    let (key, value) = keys.iter().find_map(|key| Some((*key, json.get(key)?)))?;
    match (of_value(value)?, json.get("input").and_then(Value::as_str)) {
        (Prompt::Text(text), Some(input)) if key == "instruction" && !input.is_empty() => {
            Some(Prompt::Text(format!("{text}\n\n{input}")))
        }
        (prompt, _) => Some(prompt),
    }
}

fn of_value(value: &Value) -> Option<Prompt> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Prompt::Text(text.clone())),
        Value::Array(items) => match items.first()? {
            Value::Object(_) => {
                let turns: Vec<Turn> = serde_json::from_value(value.clone()).ok()?;
                let mut messages: Vec<Message> = turns.into_iter().map(Message::from).collect();
                // Messages after the user's last one are the recorded answer.
                let last = messages.iter().rposition(|message| message.role == "user")?;
                messages.truncate(last + 1);
                Some(Prompt::Chat(messages))
            }
            first => of_value(first),
        },
        _ => None,
    }
}
