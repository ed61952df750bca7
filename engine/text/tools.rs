//! Tools that a model may call: how its template wants them told, the grammar of calls, and calls in what it writes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use super::grammar::Grammar;
use super::template::{Message, ToolCall};

/// How a model's answers call tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>`, a JSON object with `name` and `arguments`, `</tool_call>`: Hermes, Qwen, and models whose template knows
    /// of no tools, which are told of it in words.
    Hermes,
    /// An answer that is a JSON object with `name` and `parameters`: Llama 3.
    Llama3,
}

/// A tool, as clients of OpenAI describe one.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// The whole description, which templates get.
    pub description: Value,
}

/// Whether tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// They are not.
    None,
    /// One of them must be.
    Required,
    /// This one must be.
    Named(String),
}

const OPENING: &str = "<tool_call>";
const CLOSING: &str = "</tool_call>";

impl ToolFormat {
    /// The format of a model with this chat template.
    pub fn of(template: &str) -> ToolFormat {
        let speaks_llama = template.contains("<|python_tag|>") || template.contains("\"parameters\": dictionary");
        if speaks_llama && !template.contains(OPENING) { ToolFormat::Llama3 } else { ToolFormat::Hermes }
    }

    /// The grammar of an answer that may or must call `tools`, several of them if `parallel` says so. None where nothing is
    /// to be kept to.
    pub fn grammar(self, tools: &[Tool], choice: &ToolChoice, parallel: bool) -> Option<Grammar> {
        let tools: Vec<&Tool> = match choice {
            ToolChoice::None => return None,
            ToolChoice::Named(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
            ToolChoice::Auto | ToolChoice::Required => tools.iter().collect(),
        };
        if tools.is_empty() {
            return None;
        }
        // A call that is named is one.
        let several = parallel && *choice == ToolChoice::Required;
        let call = format!("call: %json {}\n", self.schema(&tools));
        let lark = match (self, choice) {
            (ToolFormat::Hermes, ToolChoice::Auto) => {
                let calls = if parallel { "(text_and_opening rest)* TEXT" } else { "TEXT | text_and_opening rest" };
                format!(
                    "start: {calls}\ntext_and_opening[lazy]: TEXT \"{OPENING}\"\nrest: \"\\n\" call \"\\n{CLOSING}\"\n\
                 TEXT: /(.|\\n)*/\n{call}"
                )
            }
            (ToolFormat::Hermes, _) => {
                let more = if several { "(\"\\n\" one)*" } else { "" };
                format!("start: one {more}\none: \"{OPENING}\\n\" call \"\\n{CLOSING}\"\n{call}")
            }
            // Where the answer may be text, it is a call if it begins as one.
            (ToolFormat::Llama3, ToolChoice::Auto) => format!("start: TEXT | call\nTEXT: /([^{{](.|\\n)*)?/\n{call}"),
            (ToolFormat::Llama3, _) => {
                let more = if several { "(\"; \" call)*" } else { "" };
                format!("start: call {more}\n{call}")
            }
        };
        Some(Grammar::Lark(lark))
    }

    /// The schema of a call of one of `tools`.
    fn schema(self, tools: &[&Tool]) -> Value {
        let arguments = match self {
            ToolFormat::Hermes => "arguments",
            ToolFormat::Llama3 => "parameters",
        };
        let mut definitions = Map::new();
        let calls: Vec<Value> = tools
            .iter()
            .enumerate()
            .map(|(index, tool)| {
                // What a schema defines for itself is defined at the top, under a name of its own.
                let mut parameters = tool.parameters.clone();
                refer_to(&mut parameters, index);
                for name in ["$defs", "definitions"] {
                    if let Some(Value::Object(own)) = parameters.as_object_mut().and_then(|fields| fields.remove(name))
                    {
                        definitions.extend(own.into_iter().map(|(name, schema)| (format!("{index}/{name}"), schema)));
                    }
                }
                json!({
                    "type": "object",
                    "properties": { "name": { "const": tool.name }, arguments: parameters },
                    "required": ["name", arguments],
                    "additionalProperties": false,
                })
            })
            .collect();
        let layout = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
        json!({ "anyOf": calls, "$defs": definitions, "x-guidance": layout })
    }

    /// `messages` for a template that knows of no tools: what there is and how it is called are told by the system, and
    /// results by the user.
    pub fn in_words(messages: &[Message], tools: &[Tool]) -> Vec<Message> {
        let mut told: Vec<Message> = messages.iter().map(spoken).collect();
        if tools.is_empty() {
            return told;
        }
        let list: Vec<String> = tools.iter().map(|tool| spaced(&tool.description)).collect();
        let how = format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
             signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\nFor each function call, return a json object \
             with function name and arguments within {OPENING}{CLOSING} XML tags:\n{OPENING}\n{{\"name\": <function-name>, \
             \"arguments\": <args-json-object>}}\n{CLOSING}",
            list.join("\n")
        );
        match told.first_mut().filter(|message| message.role == "system") {
            Some(system) => system.content = format!("{}\n\n{how}", system.content),
            None => told.insert(0, Message::system(how)),
        }
        told
    }
}

/// JSON as Python writes it, which is how models have read it.
fn spaced(value: &Value) -> String {
    struct Spaced;
    impl Formatter for Spaced {
        fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }

        fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }

        fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced));
    written.ok().and_then(|()| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Lets the references of the schema of the tool `index` point to where its definitions are put.
fn refer_to(schema: &mut Value, index: usize) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                let defined = value.as_str().and_then(|to| {
                    to.strip_prefix("#/$defs/").or_else(|| to.strip_prefix("#/definitions/")).map(str::to_owned)
                });
                match defined.filter(|_| name == "$ref") {
                    // A pointer writes a slash within a name as ~1.
                    Some(to) => *value = format!("#/$defs/{index}~1{to}").into(),
                    None => refer_to(value, index),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| refer_to(value, index)),
        _ => {}
    }
}

/// A message of tools in words.
fn spoken(message: &Message) -> Message {
    if message.role == "tool" {
        return Message::user(format!("<tool_response>\n{}\n</tool_response>", message.content));
    }
    let calls = message.tool_calls.iter().map(|call| {
        let arguments = call.arguments_value();
        format!("{OPENING}\n{}\n{CLOSING}", spaced(&json!({ "name": call.name, "arguments": arguments })))
    });
    let parts = Some(message.content.clone()).filter(|text| !text.is_empty()).into_iter().chain(calls);
    let mut told = Message::new(message.role.clone(), parts.collect::<Vec<_>>().join("\n"));
    told.reasoning_content.clone_from(&message.reasoning_content);
    told
}

impl Tool {
    /// A tool from its description as clients of OpenAI send it; none if it lacks a name.
    pub fn from_json(description: &Value) -> Option<Tool> {
        let function = description.get("function").unwrap_or(description);
        let name = function.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
        let none = || json!({ "type": "object", "properties": {} });
        let parameters = function.get("parameters").filter(|schema| schema.is_object()).cloned().unwrap_or_else(none);
        Some(Tool { name, parameters, description: description.clone() })
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerPart {
    /// Text for the user.
    Text(String),
    /// A call of a tool.
    Call(ToolCall),
}

/// Tells calls of tools from text, as an answer comes in.
pub struct ToolParser {
    format: ToolFormat,
    /// Text that may yet be a part of a call.
    held: String,
    /// Set once the answer is known to be text (Llama 3).
    is_text: bool,
}

impl ToolParser {
    /// A parser for an answer of a model of `format`.
    pub fn new(format: ToolFormat) -> ToolParser {
        ToolParser { format, held: String::new(), is_text: false }
    }

    /// Takes text of the answer, and gives the parts that it makes certain.
    pub fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        self.held.push_str(text);
        match self.format {
            ToolFormat::Hermes => self.take_marked(),
            ToolFormat::Llama3 => {
                let begins = self.held.trim_start();
                self.is_text |= !begins.is_empty() && !begins.starts_with('{');
                if self.is_text { text_of(std::mem::take(&mut self.held)) } else { Vec::new() }
            }
        }
    }

    /// The parts that were held back, at the answer's end.
    pub fn finish(&mut self) -> Vec<AnswerPart> {
        let held = std::mem::take(&mut self.held);
        match self.format {
            ToolFormat::Hermes => {
                let cut = held.find(OPENING).map(|at| (&held[..at], &held[at + OPENING.len()..]));
                let Some((before, body)) = cut else { return text_of(held) };
                match call(body) {
                    Some(call) => text_of(before.trim_end().to_owned()).into_iter().chain([call]).collect(),
                    None => text_of(held),
                }
            }
            ToolFormat::Llama3 => {
                let parts = held.split("; {").enumerate().map(|(index, part)| match index {
                    0 => part.to_owned(),
                    _ => format!("{{{part}"),
                });
                let calls: Option<Vec<AnswerPart>> = parts.map(|part| call(&part)).collect();
                calls.filter(|_| !held.trim().is_empty()).unwrap_or_else(|| text_of(held))
            }
        }
    }

    /// The parts of what is held up to where a marker may begin.
    fn take_marked(&mut self) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        loop {
            let Some(start) = self.held.find(OPENING) else {
                let kept = self.certain_text();
                let rest = self.held.split_off(kept);
                parts.extend(text_of(std::mem::replace(&mut self.held, rest)));
                return parts;
            };
            let body = start + OPENING.len();
            let Some(length) = self.held[body..].find(CLOSING) else { return parts };
            let end = body + length + CLOSING.len();
            let (before, inside) = (self.held[..start].to_owned(), self.held[body..body + length].to_owned());
            match call(&inside) {
                Some(call) => parts.extend(text_of(before.trim_end().to_owned()).into_iter().chain([call])),
                // It is no call, whatever it is.
                None => parts.extend(text_of(self.held[..end].to_owned())),
            }
            self.held.drain(..end);
        }
    }

    /// Bytes of what is held that no call can begin in: white space before a call is none of the text.
    fn certain_text(&self) -> usize {
        let partial = (1..OPENING.len()).rev().find(|&length| self.held.ends_with(&OPENING[..length])).unwrap_or(0);
        self.held[..self.held.len() - partial].trim_end().len()
    }
}

/// The call that `text` is.
fn call(text: &str) -> Option<AnswerPart> {
    let value: Map<String, Value> = serde_json::from_str(text.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = match value.get("arguments").or_else(|| value.get("parameters"))? {
        Value::String(text) => text.clone(),
        arguments => arguments.to_string(),
    };
    Some(AnswerPart::Call(ToolCall { id: String::new(), name, arguments }))
}

fn text_of(text: String) -> Vec<AnswerPart> {
    if text.is_empty() { Vec::new() } else { vec![AnswerPart::Text(text)] }
}
