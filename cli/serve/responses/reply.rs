//! Responses, whole or as typed events.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use pard::decoding::FinishReason;
use serde_json::{Map, Value, json};

use super::super::blocks::{Blocks, Change};
use super::super::fault::Fault;
use super::super::job::{Ending, Written};
use super::super::parts::{Part, Parts};
use super::super::stream::{Form, event};

/// A response that is being written.
pub struct Response {
    blocks: Blocks,
    /// Names the response and, with numbers, its items.
    id: String,
    created: u64,
    model: String,
    /// Parameters of the request, which are repeated.
    echo: Map<String, Value>,
    prompt_tokens: usize,
    /// Number of the next event.
    sequence: usize,
    /// Token counts, once all is written.
    usage: Value,
    /// Set if the answer was cut off.
    is_cut: bool,
}

impl Response {
    pub fn new(parts: Parts, model: String, echo: Map<String, Value>, prompt_tokens: usize) -> Response {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Response {
            blocks: Blocks::new(parts),
            id: format!("{:016x}", fastrand::u64(..)),
            created,
            model,
            echo,
            prompt_tokens,
            sequence: 0,
            usage: Value::Null,
            is_cut: false,
        }
    }

    /// The response as far as it is written.
    fn json(&self, status: &str) -> Value {
        let mut response = self.echo.clone();
        let details = if self.is_cut { json!({ "reason": "max_output_tokens" }) } else { Value::Null };
        let output: Value =
            (0..self.blocks.list().len()).map(|index| self.item(index, self.status_of(index))).collect();
        for (name, value) in [
            ("id", json!(format!("resp_{}", self.id))),
            ("object", json!("response")),
            ("created_at", json!(self.created)),
            ("status", json!(status)),
            ("error", Value::Null),
            ("incomplete_details", details),
            ("model", json!(self.model)),
            ("output", output),
            ("usage", self.usage.clone()),
        ] {
            response.insert(name.to_owned(), value);
        }
        response.into()
    }

    /// The status of a block that has ended.
    fn status_of(&self, index: usize) -> &'static str {
        if self.is_cut && index + 1 == self.blocks.list().len() { "incomplete" } else { "completed" }
    }

    fn item_id(&self, index: usize) -> String {
        let kind = match &self.blocks.list()[index] {
            Part::Thoughts(_) => "rs",
            Part::Text(_) => "msg",
            Part::Call(_) => "fc",
        };
        format!("{kind}_{}_{index}", self.id)
    }

    /// The item of a block; one in progress has nothing in it yet.
    fn item(&self, index: usize, status: &str) -> Value {
        let is_begun = status == "in_progress";
        let content = if is_begun { json!([]) } else { json!([self.content(index, status)]) };
        let (id, block) = (self.item_id(index), &self.blocks.list()[index]);
        match block {
            Part::Thoughts(_) => {
                json!({ "id": id, "type": "reasoning", "status": status, "summary": [], "content": content })
            }
            Part::Text(_) => {
                json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
            }
            Part::Call(call) => json!({
                "id": id,
                "type": "function_call",
                "status": status,
                "call_id": call.id,
                "name": call.name,
                "arguments": if is_begun { "" } else { &call.arguments },
            }),
        }
    }

    /// The content of a block of text; none of a call.
    fn content(&self, index: usize, status: &str) -> Value {
        let text = |text: &str| if status == "in_progress" { String::new() } else { text.to_owned() };
        match &self.blocks.list()[index] {
            Part::Thoughts(thoughts) => json!({ "type": "reasoning_text", "text": text(thoughts) }),
            Part::Text(whole) => {
                json!({ "type": "output_text", "text": text(whole), "annotations": [], "logprobs": [] })
            }
            Part::Call(_) => Value::Null,
        }
    }

    /// An event of the type `kind`.
    fn event(&mut self, kind: &str, fields: Value) -> Bytes {
        let mut value = json!({ "type": kind, "sequence_number": self.sequence });
        self.sequence += 1;
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        event(&value)
    }

    /// An event of the block `index`, with its place.
    fn event_of(&mut self, index: usize, kind: &str, more: Value) -> Bytes {
        let mut fields = json!({ "item_id": self.item_id(index), "output_index": index });
        if !matches!(self.blocks.list()[index], Part::Call(_)) {
            fields["content_index"] = json!(0);
        }
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        self.event(kind, fields)
    }

    fn events(&mut self, changes: Vec<Change>) -> Vec<Bytes> {
        changes.into_iter().flat_map(|change| self.change(change)).collect()
    }

    fn change(&mut self, change: Change) -> Vec<Bytes> {
        match change {
            Change::Begun(index) => {
                let item = self.item(index, "in_progress");
                let added = self.event("response.output_item.added", json!({ "output_index": index, "item": item }));
                let part = self.content(index, "in_progress");
                let has_content = !part.is_null();
                let part =
                    has_content.then(|| self.event_of(index, "response.content_part.added", json!({ "part": part })));
                [added].into_iter().chain(part).collect()
            }
            Change::Grown(index, text) => {
                let (kind, more) = match self.blocks.list()[index] {
                    Part::Thoughts(_) => ("response.reasoning_text.delta", json!({ "delta": text })),
                    Part::Text(_) => ("response.output_text.delta", json!({ "delta": text, "logprobs": [] })),
                    Part::Call(_) => ("response.function_call_arguments.delta", json!({ "delta": text })),
                };
                vec![self.event_of(index, kind, more)]
            }
            Change::Ended(index) => self.end_of(index),
        }
    }

    fn end_of(&mut self, index: usize) -> Vec<Bytes> {
        let (kind, more) = match &self.blocks.list()[index] {
            Part::Thoughts(text) => ("response.reasoning_text.done", json!({ "text": text })),
            Part::Text(text) => ("response.output_text.done", json!({ "text": text, "logprobs": [] })),
            Part::Call(call) => {
                ("response.function_call_arguments.done", json!({ "name": call.name, "arguments": call.arguments }))
            }
        };
        let mut events = vec![self.event_of(index, kind, more)];
        let status = self.status_of(index);
        let part = self.content(index, status);
        if !part.is_null() {
            events.push(self.event_of(index, "response.content_part.done", json!({ "part": part })));
        }
        let item = self.item(index, status);
        events.push(self.event("response.output_item.done", json!({ "output_index": index, "item": item })));
        events
    }

    /// Takes note of the answer's end.
    fn end(&mut self, ending: &Ending) -> Vec<Change> {
        let changes = self.blocks.finish(&ending.rest);
        self.is_cut = ending.finish != FinishReason::Stop;
        self.usage = json!({
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": { "cached_tokens": ending.reused },
            "output_tokens": ending.tokens,
            "output_tokens_details": { "reasoning_tokens": self.blocks.parts().thought_tokens() },
            "total_tokens": self.prompt_tokens + ending.tokens,
        });
        changes
    }

    fn status(&self) -> &'static str {
        if self.is_cut { "incomplete" } else { "completed" }
    }
}

impl Form for Response {
    fn opening(&mut self) -> Vec<Bytes> {
        ["response.created", "response.in_progress"]
            .map(|kind| {
                let response = self.json("in_progress");
                self.event(kind, json!({ "response": response }))
            })
            .into()
    }

    fn round(&mut self, _: usize, tokens: &[Written], _: usize) -> Vec<Bytes> {
        let changes = self.blocks.push(tokens);
        self.events(changes)
    }

    fn ending(&mut self, _: usize, ending: &Ending) -> Vec<Bytes> {
        let changes = self.end(ending);
        self.events(changes)
    }

    fn closing(&mut self) -> Vec<Bytes> {
        let response = self.json(self.status());
        vec![self.event(&format!("response.{}", self.status()), json!({ "response": response }))]
    }

    /// An error, which clients raise for the object `error` in it.
    fn failure(&mut self, fault: &Fault) -> Vec<Bytes> {
        let error = fault.json()["error"].take();
        let fields =
            json!({ "code": error["code"], "message": error["message"], "param": error["param"], "error": error });
        vec![self.event("error", fields)]
    }

    fn whole(&mut self, answers: &[(Vec<Written>, Ending)]) -> Value {
        for (tokens, ending) in answers {
            self.blocks.push(tokens);
            self.end(ending);
        }
        self.json(self.status())
    }
}
