//! OpenAI's responses: what a chat answers, in another form.

use serde_json::{Value, json};

use super::thinking::{opens, settings};
use super::{Server, joined};
use crate::{MODELS, name};

fn flat_tool() -> Value {
    json!({ "type": "function", "name": "count", "description": "Counts.", "strict": true, "parameters": {
        "type": "object", "properties": { "size": { "enum": [1, 2] } }, "required": ["size"], "additionalProperties": false,
    } })
}

/// The items of a response, without the names that are drawn.
fn items(response: &Value) -> Vec<Value> {
    let mut items = response["output"].as_array().expect("items").clone();
    for item in &mut items {
        let fields = item.as_object_mut().expect("an object");
        assert!(fields.remove("id").is_some());
        fields.remove("call_id");
    }
    items
}

/// A response, which is the same whole and put together from its stream's events.
#[track_caller]
fn respond(server: &Server, body: &Value) -> Value {
    let reply = server.post("/v1/responses", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let whole = reply.json();
    let events = server.post("/responses", &joined(body.clone(), json!({ "stream": true }))).typed_events();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds[..2], ["response.created", "response.in_progress"]);
    assert_eq!(kinds[kinds.len() - 1], format!("response.{}", whole["status"].as_str().expect("a status")));
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let last = &events[events.len() - 1]["response"];
    assert_eq!(items(last), items(&whole));
    for name in ["status", "usage", "incomplete_details", "instructions", "tools", "object", "model"] {
        let (mut streamed, mut expected) = (last[name].clone(), whole[name].clone());
        for usage in [&mut streamed, &mut expected] {
            // The second has the prompt in its caches.
            usage.as_object_mut().map(|usage| usage.remove("input_tokens_details"));
        }
        assert_eq!(streamed, expected, "{name}");
    }
    // Each item is added, grows, and is done with what it grew to.
    for (index, item) in last["output"].as_array().expect("items").iter().enumerate() {
        let mine: Vec<&Value> = events.iter().filter(|event| event["output_index"] == index).collect();
        let (first, done) = (mine[0], mine[mine.len() - 1]);
        assert_eq!((&first["type"], &first["item"]["id"]), (&json!("response.output_item.added"), &item["id"]));
        assert_eq!((&done["type"], &done["item"]), (&json!("response.output_item.done"), item));
        let grown: String = mine.iter().filter_map(|event| event["delta"].as_str()).collect();
        let text = item["arguments"].as_str().or(item["content"][0]["text"].as_str());
        assert_eq!(Some(grown.as_str()), text);
        assert!(mine[1..mine.len() - 1].iter().all(|event| event["item_id"] == item["id"]), "{mine:?}");
    }
    whole
}

#[test]
fn a_response_is_what_a_chat_answers() {
    let server = Server::with(&["-d", name(&MODELS.draft)]);
    let settings = json!({ "temperature": 1.1, "top_p": 0.9, "seed": 3 });
    let expected = server.chat("the other", joined(settings.clone(), json!({ "max_tokens": 12 })));
    let asked = joined(settings.clone(), json!({ "input": "the other", "max_output_tokens": 12, "store": true }));
    let response = respond(&server, &asked);
    assert_eq!(response["output"][0]["content"][0]["text"], expected["choices"][0]["message"]["content"]);
    assert_eq!((&response["status"], &response["object"]), (&json!("incomplete"), &json!("response")));
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((&response["output"][0]["status"], &response["store"]), (&json!("incomplete"), &json!(false)));
    let (usage, chat_usage) = (&response["usage"], &expected["usage"]);
    for (name, other) in
        [("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"), ("total_tokens", "total_tokens")]
    {
        assert_eq!(usage[name], chat_usage[other], "{name}");
    }
    // Parts, instructions and roles are a conversation.
    let talk = json!([
        { "role": "system", "content": "the rule" },
        { "role": "user", "content": "the\nend" },
        { "role": "assistant", "content": "a thing" },
        { "role": "user", "content": "the other" },
    ]);
    let expected =
        server.post("/v1/chat/completions", &joined(settings.clone(), json!({ "messages": talk, "max_tokens": 12 })));
    let input = json!([
        { "type": "message", "role": "user",
          "content": [{ "type": "input_text", "text": "the" }, { "type": "input_text", "text": "end" }] },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{ "type": "output_text", "text": "a thing", "annotations": [] }] },
        { "role": "user", "content": "the other" },
    ]);
    let asked = json!({ "instructions": "the rule", "input": input, "max_output_tokens": 12 });
    let response = respond(&server, &joined(settings, asked));
    assert_eq!(response["output"][0]["content"][0]["text"], expected.json()["choices"][0]["message"]["content"]);
    assert_eq!(response["instructions"], "the rule");
    // An answer that keeps to a schema is complete.
    let schema = json!({ "type": "object", "properties": { "a": { "enum": ["x", "y"] } }, "required": ["a"],
        "additionalProperties": false });
    let format = json!({ "format": { "type": "json_schema", "name": "thing", "strict": true, "schema": schema } });
    let response = respond(&server, &json!({ "input": "the other", "text": format }));
    let text = response["output"][0]["content"][0]["text"].as_str().expect("a text");
    assert!([r#"{"a": "x"}"#, r#"{"a": "y"}"#].contains(&text), "{text}");
    assert_eq!((&response["status"], &response["incomplete_details"]), (&json!("completed"), &Value::Null));
}

#[test]
fn thoughts_and_calls_are_items_and_go_back_as_such() {
    let server = Server::thinking(&["-d", name(&MODELS.draft), "-c", "1024"]);
    let asked = json!({ "input": "the other", "max_output_tokens": 200, "tools": [flat_tool()],
        "tool_choice": "required", "parallel_tool_calls": false });
    let mut settings = joined(settings(), opens());
    settings.as_object_mut().expect("an object").remove("max_tokens");
    let response = respond(&server, &joined(settings.clone(), asked));
    let [thoughts, call] = &response["output"].as_array().expect("items")[..] else { panic!("{response}") };
    assert_eq!((&thoughts["type"], &call["type"]), (&json!("reasoning"), &json!("function_call")));
    assert_eq!((&response["status"], &call["name"]), (&json!("completed"), &json!("count")));
    assert!(response["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0), "{response}");
    // A named function, and what came of it.
    let named = json!({ "input": "the other", "max_output_tokens": 200, "tools": [flat_tool()],
        "tool_choice": { "type": "function", "name": "count" }, "reasoning": { "effort": "none" } });
    let response = respond(&server, &joined(settings.clone(), named));
    assert_eq!(response["output"][0]["name"], "count");
    let result = json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "two" });
    let items = json!([{ "role": "user", "content": "the other" }, thoughts, call, result]);
    let after = respond(&server, &joined(settings, json!({ "input": items, "max_output_tokens": 8 })));
    let function = json!({ "name": call["name"], "arguments": call["arguments"] });
    let calls = json!([{ "id": call["call_id"], "type": "function", "function": function }]);
    let answer = json!({ "role": "assistant", "content": "", "tool_calls": calls,
        "reasoning_content": thoughts["content"][0]["text"] });
    let talk = json!([{ "role": "user", "content": "the other" }, answer,
        { "role": "tool", "tool_call_id": call["call_id"], "content": "two" }]);
    let counted = server.post("/tokenize", &joined(json!({ "messages": talk }), opens()));
    assert_eq!(after["usage"]["input_tokens"], counted.json()["count"]);
}

#[test]
fn what_a_response_cannot_honour_is_refused() {
    let server = Server::with(&[]);
    for (more, parameter) in [
        (json!({ "input": null }), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": [{ "type": "item_reference", "id": "a" }] }), "input[0]"),
        (
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": "a" }] }] }),
            "input[0]",
        ),
        (json!({ "input": [{ "type": "function_call", "name": "a" }] }), "input[0]"),
        (json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "background": true }), "background"),
        (json!({ "include": ["message.output_text.logprobs"] }), "include"),
        (json!({ "truncation": "auto" }), "truncation"),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "store": 1 }), "store"),
        (json!({ "n": 2 }), "n"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "max_tokens": 5 }), "max_tokens"),
        (json!({ "text": { "format": { "type": "json_schema", "schema": { "type": "no such" } } } }), "text.format"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0]"),
        (json!({ "text": { "format": { "type": "grammar" } } }), "text.format.type"),
        (json!({ "text": { "format": { "type": "json_schema" } } }), "text.format.schema"),
        (json!({ "reasoning": { "summary": "detailed" } }), "reasoning.summary"),
        (json!({ "temperature": -1 }), "temperature"),
    ] {
        let reply = server.post("/v1/responses", &joined(json!({ "input": "the" }), more.clone()));
        reply.expect_error(400, &[]);
        assert_eq!(reply.json()["error"]["param"], parameter, "{more}");
    }
    let long = server.post("/v1/responses", &json!({ "input": "the ".repeat(3000) }));
    long.expect_error(400, &["input: This model's maximum context length is 512 tokens"]);
}
