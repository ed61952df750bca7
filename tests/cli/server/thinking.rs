//! Thoughts over HTTP: apart from the text, before a form and before calls of tools, and back in the history.

use serde_json::{Value, json};

use super::{Server, chat, joined, streamed_text};
use crate::support::tiny_tokenizer::TOKENS;
use crate::{MODELS, name};

/// Draws that close a block soon.
pub fn settings() -> Value {
    json!({ "max_tokens": 60, "temperature": 1.2, "seed": 5, "logit_bias": { (TOKENS + 1).to_string(): 4.5 } })
}

/// Draws that open a block first, and then ever more rarely.
fn inclined() -> Value {
    let bias = json!({ TOKENS.to_string(): 14, (TOKENS + 1).to_string(): 7 });
    json!({ "logit_bias": bias, "frequency_penalty": 2 })
}

/// Variables by which the template opens the block.
pub fn opens() -> Value {
    json!({ "chat_template_kwargs": { "opens": true } })
}

#[test]
fn thoughts_come_apart_from_the_text_whole_and_as_a_stream() {
    let server = Server::thinking(&["-d", name(&MODELS.draft)]);
    for (more, is_open) in [(opens(), true), (inclined(), false)] {
        let more = joined(settings(), more);
        let raw = server.chat("the other", joined(more.clone(), json!({ "reasoning_format": "none" })));
        assert_eq!(raw["choices"][0]["message"].get("reasoning_content"), None);
        let raw = raw["choices"][0]["message"]["content"].as_str().expect("a text").to_owned();
        let (thoughts, text) = raw.split_once("</think>").expect("a block that is closed");
        assert_eq!(thoughts.starts_with("<think>"), !is_open, "{raw:?}");
        let thoughts = thoughts.strip_prefix("<think>").unwrap_or(thoughts).trim();
        let text = text.trim_start_matches(['\n', '\r']);
        assert!(!thoughts.is_empty() && !text.is_empty(), "{raw:?}");

        let whole = server.chat("the other", more.clone());
        let message = &whole["choices"][0]["message"];
        assert_eq!((&message["reasoning_content"], &message["content"]), (&json!(thoughts), &json!(text)));
        let details = &whole["usage"]["completion_tokens_details"];
        assert!((1..60).contains(&details["reasoning_tokens"].as_u64().expect("a count")), "{details}");

        let stream = joined(more, json!({ "stream": true }));
        let events = server.post("/v1/chat/completions", &chat("the other", stream)).events();
        let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
        let streamed: String = deltas.iter().filter_map(|delta| delta["reasoning_content"].as_str()).collect();
        assert_eq!((streamed.as_str(), streamed_text(&events, 0).as_str()), (thoughts, text));
    }
}

#[test]
fn forms_and_calls_begin_after_the_thoughts() {
    let server = Server::thinking(&["-d", name(&MODELS.draft), "-c", "1024"]);
    let message = |more: Value| {
        let whole = server.chat("the other", joined(settings(), more));
        whole["choices"][0]["message"].clone()
    };
    let form = json!({ "guided_regex": "[xy]{3}" });
    for more in [opens(), inclined()] {
        let message = message(joined(form.clone(), more));
        assert!(message["reasoning_content"].as_str().is_some_and(|thoughts| !thoughts.is_empty()), "{message}");
        assert_eq!(message["content"].as_str().map(str::len), Some(3), "{message}");
    }
    for closed in [json!({ "enable_thinking": false }), json!({ "chat_template_kwargs": { "enable_thinking": false } })]
    {
        let message = message(joined(form.clone(), closed));
        assert_eq!((message.get("reasoning_content"), message["content"].as_str().map(str::len)), (None, Some(3)));
    }
    let tool = json!({ "type": "function", "function": { "name": "count", "parameters": {
        "type": "object", "properties": { "size": { "enum": [1, 2] } }, "required": ["size"], "additionalProperties": false,
    } } });
    let called = json!({ "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 200 });
    let message = message(joined(called, opens()));
    assert_eq!(message["tool_calls"][0]["function"]["name"], "count", "{message}");
    assert!(message["reasoning_content"].as_str().is_some_and(|thoughts| !thoughts.is_empty()), "{message}");
}

#[test]
fn the_template_is_told_of_earlier_thoughts_and_of_all_variables() {
    let server = Server::thinking(&[]);
    let rendered = |body: &Value| {
        let tokens = server.post("/tokenize", body).json()["tokens"].clone();
        // Special tokens are no text.
        server.post("/detokenize", &json!({ "tokens": tokens })).json()["content"].as_str().expect("a text").to_owned()
    };
    let answer = json!({ "role": "assistant", "content": "b", "reasoning_content": "hm" });
    let messages = json!([{ "role": "user", "content": "a" }, answer, { "role": "user", "content": "c" }]);
    let talk = "user\na\nassistant\n<think>\nhm\n</think>\n\nb\nuser\nc\nassistant\n";
    assert_eq!(rendered(&json!({ "messages": messages })), talk);
    assert_eq!(rendered(&joined(json!({ "messages": messages }), opens())), format!("{talk}<think>\n"));
    assert_eq!(
        rendered(&json!({ "messages": messages, "enable_thinking": false })),
        format!("{talk}<think>\n\n</think>\n\n")
    );
    assert_eq!(
        rendered(&json!({ "messages": messages, "reasoning_effort": "none" })),
        format!("{talk}<think>\n\n</think>\n\n")
    );
    for (more, parameter) in [
        (json!({ "reasoning_format": "deepseek-legacy" }), "reasoning_format"),
        (json!({ "reasoning_effort": 3 }), "reasoning_effort"),
        (json!({ "enable_thinking": "yes" }), "enable_thinking"),
        (json!({ "chat_template_kwargs": [] }), "chat_template_kwargs"),
        (json!({ "chat_template_kwargs": { "enable_thinking": 1 } }), "chat_template_kwargs.enable_thinking"),
        (json!({ "chat_template_kwargs": { "effort": {} } }), "chat_template_kwargs.effort"),
        (json!({ "chat_template_kwargs": { "messages": [] } }), "chat_template_kwargs.messages"),
        (json!({ "messages": [{ "role": "user", "content": "a", "reasoning_content": "hm" }] }), "messages[0]"),
        (json!({ "messages": [{ "role": "assistant", "content": "a", "reasoning_content": 1 }] }), "messages[0]"),
    ] {
        let reply = server.post("/v1/chat/completions", &chat("the", more.clone()));
        reply.expect_error(400, &[]);
        assert_eq!(reply.json()["error"]["param"], parameter, "{more}");
    }
}
