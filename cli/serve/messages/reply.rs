//! Messages, whole or as typed events, and errors in Anthropic's form.

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use pard::decoding::FinishReason;
use serde_json::{Value, json};

use super::super::blocks::{Blocks, Change};
use super::super::fault::Fault;
use super::super::job::{Ending, Written};
use super::super::parts::{Part, Parts};
use super::super::stream::{Form, event};

/// A message that is being written.
pub struct Message {
    blocks: Blocks,
    id: String,
    model: String,
    prompt_tokens: usize,
    /// Reason of the end and the stop sequence, and token counts, once all is written.
    end: (Value, Value),
    usage: Value,
}

impl Message {
    pub fn new(parts: Parts, model: String, prompt_tokens: usize) -> Message {
        Message {
            blocks: Blocks::new(parts),
            id: format!("msg_{:016x}", fastrand::u64(..)),
            model,
            prompt_tokens,
            end: (Value::Null, Value::Null),
            usage: usage(prompt_tokens, 0, 0, 0),
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.blocks.list().iter().map(block).collect::<Value>(),
            "stop_reason": self.end.0,
            "stop_sequence": self.end.1,
            "usage": self.usage,
        })
    }

    fn events(&self, changes: Vec<Change>) -> Vec<Bytes> {
        let change = |change| {
            event(&match change {
                Change::Begun(index) => {
                    let begun = match &self.blocks.list()[index] {
                        Part::Thoughts(_) => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                        Part::Text(_) => json!({ "type": "text", "text": "" }),
                        Part::Call(call) => {
                            json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} })
                        }
                    };
                    json!({ "type": "content_block_start", "index": index, "content_block": begun })
                }
                Change::Grown(index, text) => {
                    let delta = match self.blocks.list()[index] {
                        Part::Thoughts(_) => json!({ "type": "thinking_delta", "thinking": text }),
                        Part::Text(_) => json!({ "type": "text_delta", "text": text }),
                        Part::Call(_) => json!({ "type": "input_json_delta", "partial_json": text }),
                    };
                    json!({ "type": "content_block_delta", "index": index, "delta": delta })
                }
                Change::Ended(index) => json!({ "type": "content_block_stop", "index": index }),
            })
        };
        changes.into_iter().map(change).collect()
    }

    /// Takes note of the answer's end.
    fn end(&mut self, ending: &Ending) -> Vec<Change> {
        let changes = self.blocks.finish(&ending.rest);
        let stop = ending.stop.as_deref();
        let reason = match ending.finish {
            finish if self.blocks.parts().ends_with_calls(finish) => "tool_use",
            FinishReason::Stop if stop.is_some() => "stop_sequence",
            FinishReason::Stop => "end_turn",
            _ => "max_tokens",
        };
        self.end = (json!(reason), json!(stop.filter(|_| reason == "stop_sequence")));
        self.usage = usage(self.prompt_tokens, ending.reused, ending.tokens, self.blocks.parts().thought_tokens());
        changes
    }
}

/// Token counts; those that the caches held are counted apart from the others of the prompt.
fn usage(prompt: usize, reused: usize, answer: usize, thoughts: usize) -> Value {
    json!({
        "input_tokens": prompt - reused.min(prompt),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
        "output_tokens": answer,
        "output_tokens_details": { "thinking_tokens": thoughts },
    })
}

/// A block that has ended.
fn block(part: &Part) -> Value {
    match part {
        Part::Thoughts(text) => json!({ "type": "thinking", "thinking": text, "signature": "" }),
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Call(call) => {
            let input = serde_json::from_str::<Value>(&call.arguments).ok().filter(Value::is_object);
            let input = input.unwrap_or_else(|| json!({}));
            json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input })
        }
    }
}

impl Form for Message {
    fn opening(&mut self) -> Vec<Bytes> {
        vec![event(&json!({ "type": "message_start", "message": self.json() }))]
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
        let delta = json!({ "stop_reason": self.end.0, "stop_sequence": self.end.1 });
        let last = json!({ "type": "message_delta", "delta": delta, "usage": self.usage });
        vec![event(&last), event(&json!({ "type": "message_stop" }))]
    }

    fn failure(&mut self, fault: &Fault) -> Vec<Bytes> {
        vec![event(&error(fault))]
    }

    fn whole(&mut self, answers: &[(Vec<Written>, Ending)]) -> Value {
        for (tokens, ending) in answers {
            self.blocks.push(tokens);
            self.end(ending);
        }
        self.json()
    }
}

fn error(fault: &Fault) -> Value {
    let kind = match fault.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": fault.json()["error"]["message"] } })
}

/// `response`, whose body is an error in OpenAI's form, with one in Anthropic's.
pub fn refusal(mut response: Response) -> Response {
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(error(&fault).to_string());
    }
    response
}
