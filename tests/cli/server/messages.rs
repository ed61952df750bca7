//! Anthropic's messages: what a chat answers, in another form.

use std::path::Path;

use serde_json::{Value, json};

use super::thinking::{opens, settings};
use super::{Reply, Server, joined};
use crate::{MODELS, name};

fn tool() -> Value {
    json!({ "name": "count", "description": "Counts.", "input_schema": {
        "type": "object", "properties": { "size": { "enum": [1, 2] } }, "required": ["size"], "additionalProperties": false,
    } })
}

fn ask(content: impl Into<Value>, more: Value) -> Value {
    let content: Value = content.into();
    joined(json!({ "model": "any", "max_tokens": 12, "messages": [{ "role": "user", "content": content }] }), more)
}

/// A message, which is the same whole and put together from its stream's events.
#[track_caller]
fn message(server: &Server, body: &Value) -> Value {
    let reply = server.post("/v1/messages", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let whole = reply.json();
    let events = server.post("/v1/messages", &joined(body.clone(), json!({ "stream": true }))).typed_events();
    let (first, last) = (&events[0], &events[events.len() - 1]);
    assert_eq!((&first["type"], &last["type"]), (&json!("message_start"), &json!("message_stop")));
    assert_eq!((&first["message"]["role"], &first["message"]["content"]), (&json!("assistant"), &json!([])));
    let end = &events[events.len() - 2];
    assert_eq!(
        (&end["delta"]["stop_reason"], &end["delta"]["stop_sequence"]),
        (&whole["stop_reason"], &whole["stop_sequence"])
    );
    assert_eq!(end["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    for (index, block) in whole["content"].as_array().expect("blocks").iter().enumerate() {
        let mine: Vec<&Value> = events.iter().filter(|event| event["index"] == index).collect();
        assert_eq!(
            (&mine[0]["type"], &mine[0]["content_block"]["type"]),
            (&json!("content_block_start"), &block["type"])
        );
        assert_eq!(mine[mine.len() - 1]["type"], "content_block_stop");
        let (kind, field) = match block["type"].as_str() {
            Some("thinking") => ("thinking_delta", "thinking"),
            Some("tool_use") => ("input_json_delta", "partial_json"),
            _ => ("text_delta", "text"),
        };
        let deltas = mine[1..mine.len() - 1].iter().map(|event| {
            assert_eq!((&event["type"], &event["delta"]["type"]), (&json!("content_block_delta"), &json!(kind)));
            event["delta"][field].as_str().expect("a text")
        });
        let grown: String = deltas.collect();
        match kind {
            "input_json_delta" => assert_eq!(serde_json::from_str::<Value>(&grown).expect("JSON"), block["input"]),
            _ => assert_eq!(block[field], grown),
        }
    }
    whole
}

#[test]
fn a_message_is_what_a_chat_answers() {
    let server = Server::with(&["-d", name(&MODELS.draft)]);
    let drawn = json!({ "temperature": 1.1, "top_k": 50, "top_p": 0.9, "seed": 3 });
    let talk = json!([{ "role": "system", "content": "the\nrule" }, { "role": "user", "content": "the\nother" }]);
    let expected =
        server.post("/v1/chat/completions", &joined(drawn.clone(), json!({ "messages": talk, "max_tokens": 12 })));
    let expected = expected.json()["choices"][0]["message"]["content"].as_str().expect("a text").to_owned();
    for (system, content) in [
        (json!("the\nrule"), json!("the\nother")),
        // Blocks are lines.
        (
            json!([{ "type": "text", "text": "the", "cache_control": { "type": "ephemeral" } }, { "type": "text", "text": "rule" }]),
            json!([{ "type": "text", "text": "the" }, { "type": "text", "text": "other" }]),
        ),
    ] {
        let whole = message(&server, &ask(content, joined(drawn.clone(), json!({ "system": system }))));
        assert_eq!(whole["content"], json!([{ "type": "text", "text": expected }]));
        assert_eq!(
            (&whole["stop_reason"], &whole["type"], &whole["role"]),
            (&json!("max_tokens"), &json!("message"), &json!("assistant"))
        );
    }
    // A stop text, which is named.
    let letters: Vec<char> = expected.chars().collect();
    let stop: String = letters[letters.len() / 2..][..2].iter().collect();
    let stopped = message(
        &server,
        &ask("the\nother", joined(drawn, json!({ "system": "the\nrule", "stop_sequences": ["zzz", stop] }))),
    );
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    assert_eq!(stopped["content"][0]["text"], expected[..expected.find(&stop).expect("it is there")]);
    // An answer of a given form ends by itself.
    let schema = json!({ "type": "object", "properties": { "a": { "enum": ["x", "y"] } }, "required": ["a"],
        "additionalProperties": false });
    let shaped =
        json!({ "max_tokens": 50, "output_config": { "format": { "type": "json_schema", "schema": schema } } });
    let shaped = message(&server, &ask("the other", shaped));
    let text = shaped["content"][0]["text"].as_str().expect("a text");
    assert!([r#"{"a": "x"}"#, r#"{"a": "y"}"#].contains(&text), "{text}");
    assert_eq!((&shaped["stop_reason"], &shaped["stop_sequence"]), (&json!("end_turn"), &Value::Null));
}

#[test]
fn thoughts_and_calls_are_blocks_and_go_back_as_such() {
    let server = Server::thinking(&["-d", name(&MODELS.draft), "-c", "1024"]);
    let settings =
        joined(settings(), joined(opens(), json!({ "max_tokens": 200, "thinking": { "type": "adaptive" } })));
    let called = json!({ "tools": [tool()], "tool_choice": { "type": "any", "disable_parallel_tool_use": true } });
    let whole = message(&server, &ask("the other", joined(settings.clone(), called)));
    let [thoughts, call] = &whole["content"].as_array().expect("blocks")[..] else { panic!("{whole}") };
    assert_eq!(
        (&thoughts["type"], &call["type"], &call["name"]),
        (&json!("thinking"), &json!("tool_use"), &json!("count"))
    );
    assert_eq!(whole["stop_reason"], "tool_use");
    // Clients that ask for no thoughts get none.
    let named = json!({ "tools": [tool()], "tool_choice": { "type": "tool", "name": "count" }, "max_tokens": 100 });
    let named = message(&server, &ask("the other", named));
    assert_eq!((&named["content"][0]["type"], &named["stop_reason"]), (&json!("tool_use"), &json!("tool_use")));
    // The call and its result go back, and are counted as they are read.
    let result =
        json!({ "type": "tool_result", "tool_use_id": call["id"], "content": [{ "type": "text", "text": "two" }] });
    let talk = json!([
        { "role": "user", "content": "the other" },
        { "role": "assistant", "content": whole["content"] },
        { "role": "user", "content": [result, { "type": "text", "text": "and" }] },
    ]);
    let body = joined(settings, json!({ "messages": talk, "max_tokens": 8 }));
    let after = message(&server, &body);
    let counted = server.post("/v1/messages/count_tokens", &body).json()["input_tokens"].as_u64();
    let usage = |name: &str| after["usage"][name].as_u64().expect("a count");
    assert_eq!(Some(usage("input_tokens") + usage("cache_read_input_tokens")), counted);
    let call = json!({ "id": "a", "type": "function", "function": { "name": "count", "arguments": call["input"].to_string() } });
    let talk = json!([
        { "role": "user", "content": "the other" },
        { "role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": thoughts["thinking"] },
        { "role": "tool", "tool_call_id": "a", "content": "two" },
        { "role": "user", "content": "and" },
    ]);
    let same = server.post("/tokenize", &joined(json!({ "messages": talk }), opens()));
    assert_eq!(same.json()["count"].as_u64(), counted);
}

/// Checks that the error is in Anthropic's form, and its message holds `part`.
#[track_caller]
fn expect_error(reply: &Reply, status: u16, kind: &str, part: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let json = reply.json();
    assert_eq!((&json["type"], &json["error"]["type"]), (&json!("error"), &json!(kind)), "{json}");
    assert!(json["error"]["message"].as_str().is_some_and(|message| message.contains(part)), "no {part:?} in {json}");
}

#[test]
fn errors_are_in_anthropics_form() {
    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join("messages-keys.txt");
    std::fs::write(&keys, "the-key\n").expect("a file");
    let server = Server::with(&["--api-key-file", name(&keys)]);
    let post = |header: &str, body: &Value| Reply::read(server.begin("/v1/messages", header, &body.to_string()));
    expect_error(&post("", &ask("the", json!({}))), 401, "authentication_error", "x-api-key");
    expect_error(&post("x-api-key: wrong\r\n", &ask("the", json!({}))), 401, "authentication_error", "key");
    let key = "x-api-key: the-key\r\nanthropic-version: 2023-06-01\r\n";
    assert_eq!(post(key, &ask("the", json!({}))).status, 200);
    for (more, part) in [
        (json!({ "max_tokens": null }), "max_tokens"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "system", "content": "a" }] }), "messages[0]"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }), "image"),
        (
            json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] }),
            "not continued",
        ),
        (json!({ "system": 1 }), "system"),
        (json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] }), "tools[0]"),
        (json!({ "tools": [{ "name": "a" }] }), "input_schema"),
        (json!({ "tools": [tool()], "tool_choice": { "type": "tool", "name": "other" } }), "tool_choice"),
        (json!({ "thinking": { "type": "between_tools" } }), "thinking.type"),
        (json!({ "mcp_servers": [{}] }), "mcp_servers"),
        (json!({ "stop_sequences": [1] }), "stop_sequences"),
        (json!({ "stop_sequences": [""] }), "stop_sequences"),
        (json!({ "output_config": { "format": { "type": "json_schema" } } }), "output_config.format"),
        (json!({ "temperature": -1 }), "temperature"),
    ] {
        expect_error(&post(key, &ask("the", more)), 400, "invalid_request_error", part);
    }
    expect_error(&post(key, &ask("the ".repeat(3000), json!({}))), 400, "invalid_request_error", "context");
}
