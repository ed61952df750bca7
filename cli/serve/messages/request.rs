//! Requests for a message: read as the chats that they ask for.

use serde_json::{Map, Value, json};

use super::super::ask::MAX_STOPS;
use super::super::fault::Fault;
use super::super::fields::Fields;

/// Parameters that are read here, or that change nothing here.
const TAKEN: [&str; 9] = [
    "messages",
    "metadata",
    "output_config",
    "service_tier",
    "stop_sequences",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];

/// The body of a chat that asks for what `body` does.
///
/// # Errors
///
/// 400, which names the parameter.
pub fn chat(body: &Value) -> Result<Value, Fault> {
    let fields = Fields::of(body)?;
    if fields.get("max_tokens").is_none() {
        return Err(Fault::parameter("max_tokens", "it is needed: an answer has so many tokens at most"));
    }
    fields.count("max_tokens", 1..=usize::MAX)?;
    chat_to_count(body)
}

/// As [`chat`], for a prompt of which only the tokens are counted.
///
/// # Errors
///
/// As [`chat`].
pub fn chat_to_count(body: &Value) -> Result<Value, Fault> {
    let fields = Fields::of(body)?;
    refuse_what_is_missing(&fields)?;
    let mut chat = body.as_object().cloned().unwrap_or_default();
    chat.retain(|name, _| !TAKEN.contains(&name.as_str()));
    chat.insert("messages".to_owned(), messages(&fields)?);
    if let Some(tools) = fields.list("tools")? {
        let tools: Result<Value, Fault> = tools.iter().enumerate().map(tool).collect();
        chat.insert("tools".to_owned(), tools?);
    }
    if let Some(stop) = fields.texts("stop_sequences", MAX_STOPS)? {
        chat.insert("stop".to_owned(), stop.into());
    }
    choose_tools(&fields, &mut chat)?;
    think(&fields, &mut chat)?;
    if let Some(config) = fields.object("output_config", "output_config.")? {
        shape(&config, &mut chat)?;
    }
    Ok(chat.into())
}

fn refuse_what_is_missing(fields: &Fields) -> Result<(), Fault> {
    for name in ["container", "context_management"] {
        fields.refuse_unless(name, &[], "it is not supported")?;
    }
    fields.refuse_unless("mcp_servers", &[json!([])], "it is not supported")?;
    fields.refuse_unless("speed", &[json!("standard")], "there is one speed")?;
    fields.refuse_unless("output_format", &[], "its place was taken by output_config.format")?;
    fields.refuse_unless("n", &[json!(1)], "a message is one answer")?;
    for name in ["stop", "max_completion_tokens", "n_predict", "response_format", "logprobs", "top_logprobs"] {
        fields.refuse_unless(name, &[], "chats have it, and messages do not")?;
    }
    Ok(())
}

/// A tool as chats describe it.
fn tool((index, tool): (usize, &Value)) -> Result<Value, Fault> {
    let wrong = |reason: String| Fault::parameter(&format!("tools[{index}]"), reason);
    match tool.get("type").and_then(Value::as_str) {
        None | Some("custom") => {}
        Some(other) => return Err(wrong(format!("it is a {other}, and tools of the client alone are called"))),
    }
    let schema = tool.get("input_schema").filter(|schema| schema.is_object());
    let mut function = Map::new();
    for (name, value) in [("name", tool.get("name")), ("description", tool.get("description"))] {
        function.extend(value.filter(|value| !value.is_null()).map(|value| (name.to_owned(), value.clone())));
    }
    let schema = schema.ok_or_else(|| wrong("its input_schema is missing".to_owned()))?;
    function.insert("parameters".to_owned(), schema.clone());
    Ok(json!({ "type": "function", "function": function }))
}

fn choose_tools(fields: &Fields, chat: &mut Map<String, Value>) -> Result<(), Fault> {
    let Some(choice) = fields.object("tool_choice", "tool_choice.")? else { return Ok(()) };
    let chosen = match choice.text("type")? {
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => {
            let missing = || Fault::parameter("tool_choice.name", "it is missing");
            json!({ "type": "function", "function": { "name": choice.text("name")?.ok_or_else(missing)? } })
        }
        _ => return Err(Fault::parameter("tool_choice.type", "it is not one of auto, any, tool and none")),
    };
    chat.insert("tool_choice".to_owned(), chosen);
    if choice.boolean("disable_parallel_tool_use")?.unwrap_or(false) {
        chat.insert("parallel_tool_calls".to_owned(), json!(false));
    }
    Ok(())
}

/// Lets the model think if it was asked to, as Anthropic's clients expect: thoughts are blocks that they do not look for
/// otherwise.
fn think(fields: &Fields, chat: &mut Map<String, Value>) -> Result<(), Fault> {
    let thinking = fields.object("thinking", "thinking.")?;
    let enables = match thinking.map_or(Ok(None), |thinking| thinking.text("type"))? {
        Some("enabled" | "adaptive") => true,
        None | Some("disabled") => false,
        Some(other) => {
            let reason = format!("it is {other}, and not one of enabled, adaptive and disabled");
            return Err(Fault::parameter("thinking.type", reason));
        }
    };
    chat.entry("enable_thinking").or_insert(json!(enables));
    Ok(())
}

/// The answer's form, and how much thought it is to take.
fn shape(config: &Fields, chat: &mut Map<String, Value>) -> Result<(), Fault> {
    if let Some(format) = config.object("format", "output_config.format.")? {
        let schema = format.get("schema").filter(|_| format.get("type") == Some(&json!("json_schema")));
        let wrong = || Fault::parameter("output_config.format", "it is no json_schema with a schema");
        let form = json!({ "type": "json_schema", "json_schema": { "schema": schema.ok_or_else(wrong)? } });
        chat.insert("response_format".to_owned(), form);
    }
    chat.extend(config.text("effort")?.map(|effort| ("reasoning_effort".to_owned(), json!(effort))));
    Ok(())
}

fn messages(fields: &Fields) -> Result<Value, Fault> {
    let mut messages = Vec::new();
    if let Some(system) = fields.get("system") {
        let text = texts(system).map_err(|reason| Fault::parameter("system", reason))?;
        messages.push(json!({ "role": "system", "content": text }));
    }
    let missing = || Fault::parameter("messages", "a list of messages is needed");
    let list = fields.list("messages")?.filter(|list| !list.is_empty()).ok_or_else(missing)?;
    for (index, message) in list.iter().enumerate() {
        let told = match message.get("role").and_then(Value::as_str) {
            Some("user") => user(message.get("content")),
            Some("assistant") => assistant(message.get("content")),
            _ => Err("its role is neither user nor assistant".to_owned()),
        };
        messages.extend(told.map_err(|reason| Fault::parameter(&format!("messages[{index}]"), reason))?);
    }
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        return Err(Fault::parameter("messages", "the last one is the assistant's, which is not continued here"));
    }
    Ok(Value::Array(messages))
}

/// The text of a content, which is one, or a list of blocks of text.
fn texts(content: &Value) -> Result<String, String> {
    let block = |block: &Value| match block.get("type").and_then(Value::as_str) {
        Some("text") => Ok(text_of(block, "text")?.to_owned()),
        other => Err(format!("a block of it is {}, and no text", named(other))),
    };
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => Ok(blocks.iter().map(block).collect::<Result<Vec<_>, String>>()?.join("\n")),
        _ => Err("it is neither a text nor a list of blocks".to_owned()),
    }
}

fn text_of<'a>(block: &'a Value, name: &str) -> Result<&'a str, String> {
    block.get(name).and_then(Value::as_str).ok_or_else(|| format!("the {name} of a block is missing"))
}

fn named(kind: Option<&str>) -> String {
    kind.map_or_else(|| "of no type".to_owned(), |kind| format!("a {kind}"))
}

/// The blocks of a message; a text is one.
fn blocks_of(content: Option<&Value>) -> Result<Vec<Value>, String> {
    match content {
        Some(Value::String(text)) => Ok(vec![json!({ "type": "text", "text": text })]),
        Some(Value::Array(blocks)) => Ok(blocks.clone()),
        _ => Err("its content is neither a text nor a list of blocks".to_owned()),
    }
}

/// The messages of a chat that a user's message is: results of tools are messages of their own, texts are joined with line ends.
fn user(content: Option<&Value>) -> Result<Vec<Value>, String> {
    let mut messages: Vec<Value> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    let user = |said: &mut Vec<String>| {
        let texts = std::mem::take(said);
        (!texts.is_empty()).then(|| json!({ "role": "user", "content": texts.join("\n") }))
    };
    for block in blocks_of(content)? {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => said.push(text_of(&block, "text")?.to_owned()),
            Some("tool_result") => {
                let result = block.get("content").filter(|content| !content.is_null());
                let result = result.map_or(Ok(String::new()), texts)?;
                let id = text_of(&block, "tool_use_id")?;
                messages.extend(user(&mut said));
                messages.push(json!({ "role": "tool", "tool_call_id": id, "content": result }));
            }
            other => return Err(format!("a block of it is {}, and neither text nor tool_result", named(other))),
        }
    }
    messages.extend(user(&mut said));
    if messages.is_empty() { Err("its content is empty".to_owned()) } else { Ok(messages) }
}

/// The message of a chat that an answer is.
fn assistant(content: Option<&Value>) -> Result<Vec<Value>, String> {
    let (mut thoughts, mut text, mut calls) = (String::new(), String::new(), Vec::new());
    for block in blocks_of(content)? {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => text.push_str(text_of(&block, "text")?),
            Some("thinking") => thoughts.push_str(text_of(&block, "thinking")?),
            Some("tool_use") => {
                let input = block.get("input").ok_or_else(|| "the input of a block is missing".to_owned())?;
                let function = json!({ "name": text_of(&block, "name")?, "arguments": input.to_string() });
                calls.push(json!({ "id": text_of(&block, "id")?, "type": "function", "function": function }));
            }
            other => {
                let reason = format!("a block of it is {}, and not text, thinking or tool_use", named(other));
                return Err(reason);
            }
        }
    }
    let mut message = json!({ "role": "assistant", "content": text });
    if !thoughts.is_empty() {
        message["reasoning_content"] = json!(thoughts);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    Ok(vec![message])
}
