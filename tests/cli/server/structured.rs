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
