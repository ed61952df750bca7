//! Chat templates: messages → the prompt a model was trained on, rendered as `transformers` renders it.
//! The template is the model's own, a program in Jinja that came with the download: it can read nothing but what is
//! handed to it, and its work is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State};

use super::python;
use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// The speaker: `system`, `user` or `assistant`.
    pub role: String,
    /// The message's text.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    /// A message that says how to answer.
    pub fn system(content: impl Into<String>) -> Message {
        Message::new("system", content)
    }

    /// A message of the person who asks.
    pub fn user(content: impl Into<String>) -> Message {
        Message::new("user", content)
    }

    /// An answer of the model.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message::new("assistant", content)
    }
}

/// Options for rendering a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendering {
    /// `true` if the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// `true` if the model may think first, for templates that support it; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
}

crate::builder::setters! {
    Rendering {
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
    }
}

impl Default for Rendering {
    /// A prompt for the assistant to answer, with the template's own idea of thinking.
    fn default() -> Self {
        Rendering { add_generation_prompt: true, enable_thinking: None }
    }
}

/// A model's chat template. Clones share it.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// The variables `bos_token`, `eos_token` and the like.
    special_tokens: BTreeMap<String, String>,
}

const NAME: &str = "chat";

/// Steps of the template, each of which may make some 64 bytes. A long conversation takes thousands.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// Compiles a template. `special_tokens` are the variables it may write, such as `bos_token`; one the model lacks
    /// is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Template`].
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<ChatTemplate> {
        let mut environment = Environment::new();
        // transformers' settings.
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|error| fault(&error))?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(write_as_python);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", |value: &Value, arguments: Kwargs| python::tojson(value, arguments));
        environment.add_function("strftime_now", |format: &str| python::strftime(SystemTime::now(), format));
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
            },
        );
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| Error::Template { reason: format!("does not compile: {error}") })?;
        Ok(ChatTemplate { environment: Arc::new(environment), special_tokens })
    }

    /// The prompt for `messages`. It holds its special tokens as text: encode it with
    /// [`Special::Keep`](super::Special::Keep).
    ///
    /// # Errors
    ///
    /// [`Error::Template`], with the template's own words if it refuses the conversation.
    pub fn render(&self, messages: &[Message], rendering: Rendering) -> Result<String> {
        let turn = |message: &Message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        let mut variables: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        variables.insert("messages", messages.iter().map(turn).collect());
        variables.insert("add_generation_prompt", Value::from(rendering.add_generation_prompt));
        // transformers passes these even when there are none, and templates ask `tools is none`.
        variables.insert("tools", Value::from(()));
        variables.insert("documents", Value::from(()));
        if let Some(enable_thinking) = rendering.enable_thinking {
            variables.insert("enable_thinking", Value::from(enable_thinking));
        }
        let template = self.environment.get_template(NAME).map_err(|error| fault(&error))?;
        template.render(Value::from_pairs(variables)).map_err(|error| fault(&error))
    }
}

/// Marks the words that a template chose itself.
const REFUSAL: &str = "the template says: ";

fn fault(error: &minijinja::Error) -> Error {
    let reason = match error.detail() {
        Some(detail) if detail.starts_with(REFUSAL) => detail.to_owned(),
        _ => error.to_string(),
    };
    Error::Template { reason }
}

/// Writes a value as Python's `str` would.
fn write_as_python(out: &mut Output, state: &mut State, value: &Value) -> std::result::Result<(), minijinja::Error> {
    if value.is_none() {
        return out.write_str("None").map_err(minijinja::Error::from);
    }
    if value.kind() == minijinja::value::ValueKind::Bool {
        return out.write_str(if value.is_true() { "True" } else { "False" }).map_err(minijinja::Error::from);
    }
    minijinja::escape_formatter(out, state, value)
}

/// `{% generation %}` marks the assistant's words for training and renders to its body. minijinja has no such block,
/// and `{% if true %}` treats the white space around it alike.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        let Some(end) = tag.find("%}") else { break };
        let (inside, after) = tag.split_at(end);
        text.push_str(before);
        match inside.trim_matches(|character: char| character.is_whitespace() || matches!(character, '-' | '+')) {
            "generation" => text.push_str(&inside.replace("generation", "if true")),
            "endgeneration" => text.push_str(&inside.replace("endgeneration", "endif")),
            _ => text.push_str(inside),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}
