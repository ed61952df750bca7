//! Requests for a response: read as the chats that they ask for.

use serde_json::{Map, Value, json};

use super::super::fault::Fault;
use super::super::fields::Fields;

/// Parameters that are read here, or that change nothing here.
const TAKEN: [&str; 12] = [
    "background",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "reasoning",
    "store",
    "stream_options",
    "text",
    "truncation",
];

/// The body of a chat that asks for what `body` does.
///
/// # Errors
///
/// 400, which names the parameter.
pub fn chat(body: &Value) -> Result<Value, Fault> {
    let fields = Fields::of(body)?;
    refuse_what_is_missing(&fields)?;
    let mut chat = body.as_object().cloned().unwrap_or_default();
    chat.retain(|name, _| !TAKEN.contains(&name.as_str()));
    chat.insert("messages".to_owned(), messages(&fields)?);
    if let Some(most) = fields.count("max_output_tokens", 1..=usize::MAX)? {
        chat.insert("max_completion_tokens".to_owned(), json!(most));
    }
    if let Some(tools) = fields.list("tools")? {
        chat.insert("tools".to_owned(), tools.iter().map(tool).collect());
    }
    if let Some(text) = fields.object("text", "text.")? {
        text.refuse_unless("verbosity", &[json!("medium")], "it is not supported")?;
        chat.extend(response_format(&text)?.map(|format| ("response_format".to_owned(), format)));
    }
    if let Some(reasoning) = fields.object("reasoning", "reasoning.")? {
        for name in ["summary", "generate_summary"] {
            reasoning.refuse_unless(name, &[json!("auto")], "thoughts are given as they are, and not summed up")?;
        }
        chat.extend(reasoning.text("effort")?.map(|effort| ("reasoning_effort".to_owned(), json!(effort))));
    }
    Ok(chat.into())
}

/// Parameters of a request that its response repeats.
pub fn echo(body: &Value) -> Map<String, Value> {
    let or_default = |name: &str, default: Value| {
        let given = body.get(name).filter(|value| !value.is_null());
        (name.to_owned(), given.cloned().unwrap_or(default))
    };
    [
        or_default("instructions", Value::Null),
        or_default("max_output_tokens", Value::Null),
        or_default("metadata", json!({})),
        or_default("parallel_tool_calls", json!(true)),
        or_default("reasoning", json!({ "effort": null, "summary": null })),
        or_default("temperature", Value::Null),
        or_default("text", json!({ "format": { "type": "text" } })),
        or_default("tool_choice", json!("auto")),
        or_default("tools", json!([])),
        or_default("top_p", Value::Null),
        ("background".to_owned(), json!(false)),
        ("previous_response_id".to_owned(), Value::Null),
        // Responses are not kept, whatever was asked for.
        ("store".to_owned(), json!(false)),
        ("truncation".to_owned(), json!("disabled")),
    ]
    .into_iter()
    .collect()
}

fn refuse_what_is_missing(fields: &Fields) -> Result<(), Fault> {
    fields.boolean("store")?;
    let not_kept = "responses are not kept; send the conversation as `input`";
    for name in ["previous_response_id", "conversation"] {
        fields.refuse_unless(name, &[], not_kept)?;
    }
    fields.refuse_unless("prompt", &[], "there are no stored prompts")?;
    fields.refuse_unless("background", &[json!(false)], "responses are written while the client waits")?;
    fields.refuse_unless("truncation", &[json!("disabled")], "a conversation is not shortened")?;
    fields.refuse_unless("max_tool_calls", &[], "it is not supported")?;
    fields.refuse_unless("top_logprobs", &[json!(0)], "it is not supported; chats have it")?;
    if let Some(included) = fields.list("include")?.and_then(|list| list.first()) {
        return Err(Fault::parameter("include", format!("there is no {included} to include")));
    }
    fields.refuse_unless("n", &[json!(1)], "a response is one answer")?;
    for name in ["messages", "max_tokens", "max_completion_tokens", "n_predict", "response_format", "logprobs"] {
        fields.refuse_unless(name, &[], "chats have it, and responses do not")?;
    }
    Ok(())
}

/// A tool as chats describe it. What is no function stays as it is, and is refused there.
fn tool(tool: &Value) -> Value {
    let Some(fields) = tool.as_object().filter(|fields| fields.get("type") == Some(&json!("function"))) else {
        return tool.clone();
    };
    let names = ["name", "description", "parameters"];
    let function: Map<String, Value> = fields
        .iter()
        .filter(|(name, value)| names.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    json!({ "type": "function", "function": function })
}

fn response_format(text: &Fields) -> Result<Option<Value>, Fault> {
    let Some(format) = text.object("format", "text.format.")? else { return Ok(None) };
    match format.text("type")? {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({ "type": "json_object" }))),
        Some("json_schema") => {
            let missing = || Fault::parameter("text.format.schema", "it is missing");
            let schema = format.get("schema").ok_or_else(missing)?;
            Ok(Some(json!({ "type": "json_schema", "json_schema": { "schema": schema } })))
        }
        Some(other) => {
            let reason = format!("it is {other}, and not one of text, json_object and json_schema");
            Err(Fault::parameter("text.format.type", reason))
        }
    }
}

fn messages(fields: &Fields) -> Result<Value, Fault> {
    let mut talk = Talk::default();
    if let Some(instructions) = fields.text("instructions")? {
        talk.say("system", instructions);
    }
    match fields.get("input") {
        Some(Value::String(text)) => talk.say("user", text),
        Some(Value::Array(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                talk.add(item).map_err(|reason| Fault::parameter(&format!("input[{index}]"), reason))?;
            }
        }
        _ => return Err(Fault::parameter("input", "a text or a list of items is needed")),
    }
    talk.end_answer();
    Ok(Value::Array(talk.messages))
}

/// A conversation that is put together from items.
#[derive(Default)]
struct Talk {
    messages: Vec<Value>,
    /// The answer that items belong to: thoughts, a text, and calls are one message of a chat.
    answer: Option<Map<String, Value>>,
}

impl Talk {
    /// Adds an item, or says why that is not possible.
    fn add(&mut self, item: &Value) -> Result<(), String> {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let needed = |name: &str| text(name).ok_or_else(|| format!("its {name} is missing"));
        match text("type") {
            None | Some("message") => {
                let content = text_of(item.get("content"), &["input_text", "output_text", "text"])?;
                match needed("role")? {
                    "assistant" => self.answer("content", content.into()),
                    role @ ("user" | "system" | "developer") => self.say(role, &content),
                    role => return Err(format!("there is no role {role}")),
                }
            }
            Some("function_call") => {
                let function = json!({ "name": needed("name")?, "arguments": needed("arguments")? });
                let call = json!({ "id": needed("call_id")?, "type": "function", "function": function });
                let answer = self.answer.get_or_insert_default();
                let calls = answer.entry("tool_calls").or_insert_with(|| json!([]));
                calls.as_array_mut().into_iter().for_each(|calls| calls.push(call.clone()));
            }
            Some("function_call_output") => {
                let content = text_of(item.get("output"), &["input_text", "output_text", "text"])?;
                self.end_answer();
                self.messages.push(json!({ "role": "tool", "tool_call_id": needed("call_id")?, "content": content }));
            }
            Some("reasoning") => {
                let thoughts = match item.get("content").filter(|content| !content.is_null()) {
                    Some(content) => text_of(Some(content), &["reasoning_text", "text"])?,
                    None => text_of(item.get("summary"), &["summary_text"])?,
                };
                self.answer("reasoning_content", thoughts.into());
            }
            Some(other) => {
                return Err(format!("it is a {other}, and not a message, a function_call, its output or reasoning"));
            }
        }
        Ok(())
    }

    fn say(&mut self, role: &str, text: &str) {
        self.end_answer();
        self.messages.push(json!({ "role": role, "content": text }));
    }

    /// Adds thoughts or a text to the answer, or begins the next one with it.
    fn answer(&mut self, name: &str, value: Value) {
        let is_over = |answer: &Map<String, Value>| {
            answer.contains_key(name) || answer.contains_key("tool_calls") || answer.contains_key("content")
        };
        if self.answer.as_ref().is_some_and(is_over) {
            self.end_answer();
        }
        self.answer.get_or_insert_default().insert(name.to_owned(), value);
    }

    fn end_answer(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            answer.insert("role".to_owned(), json!("assistant"));
            answer.entry("content").or_insert_with(|| json!(""));
            self.messages.push(answer.into());
        }
    }
}

/// The text of a content, which is one, or a list of parts of these types.
fn text_of(content: Option<&Value>, types: &[&str]) -> Result<String, String> {
    let part = |part: &Value| {
        let of_type = part.get("type").and_then(Value::as_str).filter(|name| types.contains(name));
        of_type.and_then(|_| Some(part.get("text")?.as_str()?.to_owned()))
    };
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<String>> = parts.iter().map(part).collect();
            texts.map(|texts| texts.join("\n")).ok_or_else(|| "a part of its content is no text".to_owned())
        }
        _ => Err("its content is neither a text nor a list of texts".to_owned()),
    }
}
