//! Chat templates: messages → the prompt a model was trained on, rendered as `transformers` renders it.
//! The template is the model's own, a program in Jinja that came with the download: it can read nothing but what is
//! handed to it, and its work is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};

use super::deep_stack::on_a_deep_stack;
use super::{jinja, jinja_operators, jinja_source, python};
use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The message's text.
    pub content: String,
    /// Calls of tools that an answer of the model makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of the role `tool` brings the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name, or the tool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Thoughts that an answer of the model began with. Most templates leave those of earlier turns out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ToolCall {
    /// Names the call for its result.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as JSON, or as a text where they are none.
    pub(super) fn arguments_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.arguments).unwrap_or_else(|_| self.arguments.as_str().into())
    }
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            reasoning_content: None,
        }
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendering {
    /// `true` if the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// `true` if the model may think first, for templates that support it; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// Other variables of the template, such as `reasoning_effort`.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

crate::builder::setters! {
    Rendering {
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
        variables: serde_json::Map<String, serde_json::Value>,
    }
}

impl Default for Rendering {
    /// A prompt for the assistant to answer, with the template's own idea of thinking.
    fn default() -> Self {
        Rendering { add_generation_prompt: true, enable_thinking: None, variables: serde_json::Map::new() }
    }
}

/// A model's chat template. Clones share it.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// The variables `bos_token`, `eos_token` and the like.
    special_tokens: BTreeMap<String, String>,
    /// `true` if the template finds a message's text only in a list of parts, as models have it that see pictures, too.
    wants_parts: bool,
}

const NAME: &str = "chat";

/// Steps of a template. A message takes some hundred.
const FUEL: u64 = 1_000_000;

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
        environment.set_formatter(python::write);
        environment.set_fuel(Some(FUEL));
        jinja::install(&mut environment);
        jinja_operators::install(&mut environment);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("strftime_now", |format: &str| python::strftime(SystemTime::now(), format));
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
            },
        );
        let translated = jinja_source::translate(source)?;
        let environment = on_a_deep_stack("pard template", || {
            let compiled = environment.add_template_owned(NAME, translated);
            compiled.map_err(|error| Error::Template { reason: format!("does not compile: {error}") })?;
            Ok(environment)
        })?;
        let mut template = ChatTemplate { environment: Arc::new(environment), special_tokens, wants_parts: false };
        template.wants_parts = source.contains("text") && !template.finds_text() && {
            template.wants_parts = true;
            template.finds_text()
        };
        Ok(template)
    }

    /// Returns `true` if what a user says is in the prompt.
    fn finds_text(&self) -> bool {
        const SAID: &str = "something that is said";
        self.render(&[Message::user(SAID)], Rendering::default()).is_ok_and(|prompt| prompt.contains(SAID))
    }

    /// The prompt for `messages`. It holds its special tokens as text: encode it with
    /// [`Special::Keep`](super::Special::Keep).
    ///
    /// # Errors
    ///
    /// [`Error::Template`], with the template's own words if it refuses the conversation.
    pub fn render(&self, messages: &[Message], rendering: Rendering) -> Result<String> {
        self.render_with_tools(messages, &[], rendering)
    }

    /// As [`ChatTemplate::render`], for a model that may call `tools`, which are described as clients of OpenAI do.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        rendering: Rendering,
    ) -> Result<String> {
        let mut variables: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        variables.extend(rendering.variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        variables.insert("messages", messages.iter().map(|message| variables_of(message, self.wants_parts)).collect());
        variables.insert("add_generation_prompt", Value::from(rendering.add_generation_prompt));
        // transformers passes these even when there are none, and templates ask `tools is none`.
        variables.insert("tools", if tools.is_empty() { Value::from(()) } else { Value::from(Serde(tools)) });
        variables.insert("documents", Value::from(()));
        if let Some(enable_thinking) = rendering.enable_thinking {
            variables.insert("enable_thinking", Value::from(enable_thinking));
        }
        let variables = Value::from_pairs(variables);
        let render = || {
            let template = self.environment.get_template(NAME).map_err(|error| fault(&error))?;
            template.render(variables).map_err(|error| fault(&error))
        };
        // It may nest values as deep as its steps allow, and values within values are dropped one within the other.
        on_a_deep_stack("pard template", render)
    }
}

/// A message as templates know it, its text in a list of parts or as it is.
fn variables_of(message: &Message, in_parts: bool) -> Value {
    let Message { role, content, tool_calls, tool_call_id, name, reasoning_content } = message;
    let content = match in_parts {
        true => Value::from(Serde(serde_json::json!([{ "type": "text", "text": content }]))),
        false => Value::from(content.as_str()),
    };
    let mut pairs = vec![("role", Value::from(role.as_str())), ("content", content)];
    if !tool_calls.is_empty() {
        let call = |call: &ToolCall| {
            let function = serde_json::json!({ "name": call.name, "arguments": call.arguments_value() });
            Value::from(Serde(serde_json::json!({ "id": call.id, "type": "function", "function": function })))
        };
        pairs.push(("tool_calls", tool_calls.iter().map(call).collect()));
    }
    pairs.extend(tool_call_id.as_deref().map(|id| ("tool_call_id", Value::from(id))));
    pairs.extend(name.as_deref().map(|name| ("name", Value::from(name))));
    pairs.extend(reasoning_content.as_deref().map(|thoughts| ("reasoning_content", Value::from(thoughts))));
    Value::from_pairs(pairs)
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
