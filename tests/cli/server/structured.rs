//! Answers of a given form over HTTP, by the names that clients of OpenAI, llama.cpp and vLLM use.

use serde_json::{Value, json};

use super::{Server, chat, streamed_text};
use crate::{MODELS, name};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "kind": { "enum": ["a red one", "a blue one"] }, "size": { "type": "integer", "minimum": 0, "maximum": 9 } },
        "required": ["kind", "size"],
        "additionalProperties": false,
    })
}

#[test]
fn every_name_of_a_form_is_understood() {
    let server = Server::with(&["-d", name(&MODELS.draft)]);
    let answer = |form: Value| -> String {
        let mut more = json!({ "max_tokens": 60 });
        more.as_object_mut().expect("an object").extend(form.as_object().expect("an object").clone());
        let whole = server.chat("the other", more);
        whole["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
    };
    let named = json!({ "name": "thing", "strict": true, "schema": schema() });
    let expected = answer(json!({ "response_format": { "type": "json_schema", "json_schema": named } }));
    let value: Value = serde_json::from_str(&expected).expect("JSON");
    assert!(value["size"].is_u64() && value["kind"].as_str().is_some_and(|kind| kind.ends_with("one")), "{value}");
    for same in [
        json!({ "response_format": { "type": "json_object", "schema": schema() } }),
        json!({ "json_schema": schema() }),
        json!({ "guided_json": schema() }),
        json!({ "guided_json": schema().to_string() }),
        json!({ "structured_outputs": { "json": schema() } }),
        json!({ "response_format": { "type": "json_object", "schema": schema() }, "pard": { "method": "ar" } }),
    ] {
        assert_eq!(answer(same.clone()), expected, "{same}");
    }
    for choice in
        [json!({ "guided_choice": ["this", "that"] }), json!({ "structured_outputs": { "choice": ["this", "that"] } })]
    {
        assert!(["this", "that"].contains(&answer(choice).as_str()));
    }
    for regex in [json!({ "guided_regex": "[xy]{3}" }), json!({ "structured_outputs": { "regex": "[xy]{3}" } })] {
        assert_eq!(answer(regex).len(), 3);
    }
    for lark in [json!({ "grammar": "start: \"th\" \"is\"" }), json!({ "guided_grammar": "start: \"th\" \"is\"" })] {
        assert_eq!(answer(lark), "this");
    }
    for gbnf in
        [json!({ "grammar": "root ::= \"th\" end\nend ::= \"is\"" }), json!({ "guided_grammar": "root ::= \"this\"" })]
    {
        assert_eq!(answer(gbnf), "this");
    }
    assert_eq!(answer(json!({ "response_format": { "type": "text" } })), answer(json!({})));

    let stream = json!({ "max_tokens": 60, "stream": true, "guided_json": schema() });
    let events = server.post("/v1/chat/completions", &chat("the other", stream)).events();
    assert_eq!(streamed_text(&events, 0), expected);
    // What was cut off says so.
    let cut = server.chat("the other", json!({ "max_tokens": 5, "guided_json": schema() }));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[test]
fn one_answer_has_one_form() {
    let server = Server::with(&[]);
    let more = json!({ "guided_regex": "a", "guided_choice": ["b"] });
    let reply = server.post("/v1/chat/completions", &chat("the", more));
    reply.expect_error(400, &["guided_regex"]);
    assert_eq!(reply.json()["error"]["param"], "guided_choice");
}

fn tools() -> Value {
    let tool = |name: &str, arguments: Value| {
        json!({ "type": "function", "function": { "name": name, "parameters": {
            "type": "object",
            "properties": { "size": arguments },
            "required": ["size"],
            "additionalProperties": false,
        } } })
    };
    json!([
        tool("measure", json!({ "enum": ["small", "large"] })),
        tool("count", json!({ "type": "integer", "minimum": 0, "maximum": 9 }))
    ])
}

#[test]
fn tools_that_must_be_called_are_called_whole_and_as_a_stream() {
    let server = Server::with(&["-d", name(&MODELS.draft), "-c", "1024"]);
    let calls_of = |more: Value| {
        let mut all = json!({ "max_tokens": 200, "tools": tools() });
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let whole = server.chat("the other", all.clone());
        let choice = &whole["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{whole}");
        let calls = choice["message"]["tool_calls"].as_array().expect("calls").clone();
        all["stream"] = json!(true);
        let events = server.post("/v1/chat/completions", &chat("the other", all)).events();
        let streamed: Vec<&Value> =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array()).flatten().collect();
        assert_eq!(streamed.len(), calls.len(), "{events:?}");
        for (index, (one, other)) in streamed.iter().zip(&calls).enumerate() {
            assert_eq!((&one["index"], &one["function"]), (&json!(index), &other["function"]));
        }
        let ended = events.iter().find(|event| !event["choices"][0]["finish_reason"].is_null()).expect("an end");
        assert_eq!(ended["choices"][0]["finish_reason"], "tool_calls");
        calls
    };
    for (choice, expected) in [
        (json!("required"), &["measure", "count"][..]),
        (json!({ "type": "function", "function": { "name": "count" } }), &["count"]),
    ] {
        let calls = calls_of(json!({ "tool_choice": choice, "parallel_tool_calls": false }));
        assert_eq!(calls.len(), 1);
        let function = &calls[0]["function"];
        assert!(expected.contains(&function["name"].as_str().expect("a name")), "{function}");
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().expect("a text")).expect("JSON");
        assert_eq!(arguments.as_object().map(|fields| fields.len()), Some(1), "{arguments}");
        assert!(calls[0]["id"].as_str().is_some_and(|id| id.starts_with("call_")));
    }
    // The conversation goes on with what the tool gave.
    let call =
        json!({ "id": "call_1", "type": "function", "function": { "name": "count", "arguments": "{\"size\": 4}" } });
    let messages = json!([
        { "role": "user", "content": "the other" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "four" },
    ]);
    let body = json!({ "messages": messages, "tools": tools(), "tool_choice": "none", "max_tokens": 5 });
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!((reply.status, &reply.json()["choices"][0]["message"]["tool_calls"]), (200, &Value::Null), "{reply:?}");
}

#[test]
fn tools_that_cannot_be_called_are_refused() {
    let server = Server::with(&[]);
    for (more, parameter) in [
        (json!({ "tools": [{ "type": "function" }] }), "tools[0]"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0]"),
        (json!({ "tools": tools(), "tool_choice": "perhaps" }), "tool_choice"),
        (
            json!({ "tools": tools(), "tool_choice": { "type": "function", "function": { "name": "other" } } }),
            "tool_choice",
        ),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tools": tools(), "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "functions": [{ "name": "old" }] }), "functions"),
    ] {
        let reply = server.post("/v1/chat/completions", &chat("the", more.clone()));
        reply.expect_error(400, &[]);
        assert_eq!(reply.json()["error"]["param"], parameter, "{more}");
    }
}

/// All that a grammar allows is banned: that answer ends with an error, and those beside it go on.
#[test]
fn an_answer_that_cannot_keep_to_its_form_ends_alone() {
    let server = Server::with(&["-d", name(&MODELS.draft), "--parallel", "2"]);
    let long = json!({ "max_tokens": 150, "guided_regex": "[ab]{140,150}" });
    let alone = server.chat("the", long.clone())["choices"].clone();
    let id = &server.post("/tokenize", &json!({ "content": "q" })).json()["tokens"][0];
    let banned = json!({ id.to_string(): false });
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| server.chat("the", long.clone())["choices"].clone());
        for _ in 0..5 {
            let more = json!({ "guided_regex": "aq", "logit_bias": banned });
            let reply = server.post("/v1/chat/completions", &chat("the other", more));
            reply.expect_error(400, &["grammar"]);
        }
        assert_eq!(beside.join().expect("an answer"), alone);
    });
}
