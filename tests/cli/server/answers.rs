//! Answers of the server: the tokens of `pard generate`, whole or as a stream, by any method.

use serde_json::{Value, json};

use super::{Server, chat, streamed_text, text};
use crate::{MODELS, json_of, name};

/// Answer of `pard generate` to a chat.
fn generated(prompt: &str, more: &[&str]) -> Value {
    json_of(&[&["generate", "-m", name(&MODELS.target), "-p", prompt, "--json", "-q"], more].concat())
}

#[test]
fn an_answer_is_what_generate_writes_whole_or_as_a_stream_by_every_method() {
    let server = Server::with(&["-d", name(&MODELS.draft), "--parallel", "2"]);
    let expected = generated("the other", &["-n", "30"]);
    let whole = server.chat("the other", json!({ "max_tokens": 30 }));
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], expected["text"]);
    assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("length")));
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("target")));
    let usage = &whole["usage"];
    let prompt_tokens = expected["prompt_ids"].as_array().expect("a list").len();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(prompt_tokens), &json!(30)));
    assert_eq!(usage["total_tokens"], prompt_tokens + 30);

    for extras in
        [json!({ "method": "ar" }), json!({ "method": "vsd", "k": 3 }), json!({ "k": 5 }), json!({ "k": "auto" })]
    {
        let more = json!({
            "max_completion_tokens": 30,
            "stream": true,
            "stream_options": { "include_usage": true },
            "pard": extras,
        });
        let events = server.post("/v1/chat/completions", &chat("the other", more)).events();
        assert_eq!(streamed_text(&events, 0), expected["text"], "{extras}");
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let last = &events[events.len() - 1];
        assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(30)));
        let end = &events[events.len() - 2]["choices"][0];
        assert_eq!(end["finish_reason"], "length");
        if let Some(method) = extras["method"].as_str() {
            assert_eq!(end["pard"]["method"], method);
        }
        // Each token says where it came from, and the sums agree with the usage.
        let rounds = events.iter().filter_map(|event| event["choices"][0]["pard"]["tokens"].as_array());
        let tokens: Vec<&Value> = rounds.flatten().collect();
        let ids: Vec<&Value> = tokens.iter().map(|token| &token["id"]).collect();
        assert_eq!(json!(ids), expected["output_ids"]);
        let accepted = tokens.iter().filter(|token| token["accepted"] == true).count();
        assert_eq!(last["usage"]["completion_tokens_details"]["accepted_prediction_tokens"], accepted);
        assert!(accepted + end["pard"]["rounds"].as_u64().expect("rounds") as usize >= 30, "{end}");
    }

    // The same text drawn: by one seed, whatever proposes.
    let drawn = generated("the other", &["-n", "30", "-t", "0.9", "--seed", "5"]);
    for method in ["ar", "pard"] {
        let more = json!({ "max_tokens": 30, "temperature": 0.9, "seed": 5, "pard": { "method": method } });
        assert_eq!(server.chat("the other", more)["choices"][0]["message"]["content"], drawn["text"]);
    }
    let unseeded = || server.chat("the other", json!({ "max_tokens": 30, "temperature": 0.9 }));
    assert_ne!(unseeded()["choices"], unseeded()["choices"], "two requests are two draws");
}

#[test]
fn a_perfect_draft_is_accepted_whole_and_metrics_say_so() {
    let server = Server::with(&["-d", name(&MODELS.target), "--method", "vsd", "-k", "4"]);
    let whole = server.chat("the other", json!({ "max_tokens": 40, "pard": {} }));
    let details = &whole["usage"]["completion_tokens_details"];
    assert_eq!(
        (&details["accepted_prediction_tokens"], &details["rejected_prediction_tokens"]),
        (&json!(32), &json!(0))
    );
    assert_eq!(whole["choices"][0]["pard"]["accepted_per_position"], json!([1.0, 1.0, 1.0, 1.0]));
    for (metric, value) in [
        ("pard_rounds_total", 8.0),
        ("pard_answer_tokens_total", 40.0),
        ("pard_proposed_total{position=\"4\"}", 8.0),
        ("pard_accepted_total{position=\"4\"}", 8.0),
        ("pard_accepted_total{position=\"5\"}", 0.0),
        ("pard_requests_total{path=\"/v1/chat/completions\",status=\"200\"}", 1.0),
        ("pard_answer_seconds_count", 1.0),
        ("pard_answer_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("pard_queue_depth", 0.0),
        ("pard_ready", 1.0),
    ] {
        assert_eq!(server.metric(metric), value, "{metric}");
    }
    let described = server.get("/v1/models").json();
    assert_eq!(described["data"][0]["id"], "target");
    assert_eq!(described["data"][0]["pard"]["method"], "vsd");
    assert_eq!(server.get("/v1/models/target").json()["object"], "model");
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
}

#[test]
fn several_answers_stop_texts_and_prompts_of_every_kind() {
    let server = Server::with(&["--parallel", "3"]);
    let more = json!({ "n": 4, "max_tokens": 12, "temperature": 1.2, "seed": 9 });
    let whole = server.chat("the other", more.clone());
    let choices = whole["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 4);
    for (index, choice) in choices.iter().enumerate() {
        let seed = (9 + index).to_string();
        let alone = generated("the other", &["-n", "12", "-t", "1.2", "--seed", &seed]);
        assert_eq!((&choice["index"], &choice["message"]["content"]), (&json!(index), &alone["text"]));
    }
    let mut streams = more;
    streams["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &chat("the other", streams)).events();
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(streamed_text(&events, index), choice["message"]["content"]);
    }

    let target = name(&MODELS.target);
    let raw = json_of(&["generate", "-m", target, "--raw", "-p", "the thing", "-n", "30", "--json", "-q"]);
    let written = raw["text"].as_str().expect("a text");
    let of = |body: &Value| {
        let reply = server.post("/v1/completions", body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let ids = &raw["prompt_ids"];
    for prompt in [json!("the thing"), ids.clone(), json!(["the thing", "the other"]), json!([ids])] {
        let answer = of(&json!({ "prompt": prompt, "max_tokens": 30 }));
        assert_eq!(answer["choices"][0]["text"], written, "{prompt}");
        assert_eq!(answer["object"], "text_completion");
    }
    // A stop text ends the answer before it, however the tokens lie.
    let middle = written.char_indices().nth(written.chars().count() / 2).expect("a text").0;
    let stop: String = written[middle..].chars().take(2).collect();
    let answer = of(&text("the thing", json!({ "max_tokens": 30, "stop": [stop, "no such text"] })));
    let expected = &written[..written.find(&stop).expect("the stop text")];
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!(expected), &json!("stop"))
    );
    let events = server.post("/v1/completions", &text("the thing", json!({ "stop": stop, "stream": true }))).events();
    assert_eq!(streamed_text(&events, 0), expected);
    // Without a limit the answer ends with the context.
    let whole = Server::endless(&["-c", "64"]).post("/v1/completions", &text("the thing", json!({}))).json();
    assert_eq!(
        (&whole["usage"]["total_tokens"], &whole["choices"][0]["finish_reason"]),
        (&json!(64), &json!("length"))
    );
}

#[test]
fn a_conversation_goes_on_from_the_session_that_holds_it() {
    let server = Server::with(&["--parallel", "2"]);
    let cached = |body: &Value| {
        let reply = server.post("/v1/completions", body).json();
        reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{reply}"))
    };
    let (one, other) = ("the thing and the other thing ", "when in the water, ");
    let tokens =
        |prompt: &str| json_of(&["generate", "-m", name(&MODELS.target), "--raw", "-p", prompt, "-n", "1", "--json"]);
    let len = tokens(one)["prompt_ids"].as_array().expect("a list").len() as u64;
    let body = |prompt: &str| text(prompt, json!({ "max_tokens": 4 }));
    assert_eq!(cached(&body(one)), 0);
    // Another conversation gets a session of its own, and the first one's caches stay.
    assert_eq!(cached(&body(other)), 0);
    server.wait_for_metric("pard_sessions{state=\"idle\"}", 2.0);
    assert_eq!(cached(&body(one)), len - 1);
    assert!(cached(&body(&format!("{one}and more"))) >= len - 2);
    assert_eq!(cached(&text(one, json!({ "max_tokens": 4, "cache_prompt": false }))), 0);
}

#[test]
fn all_that_chooses_tokens_is_passed_on_and_probabilities_are_told() {
    let server = Server::with(&["-d", name(&MODELS.draft)]);
    let options = [
        ["-n", "16"],
        ["-t", "0.9"],
        ["--seed", "5"],
        ["--top-k", "40"],
        ["--top-p", "0.95"],
        ["--min-p", "0.01"],
        ["--repetition-penalty", "1.3"],
        ["--presence-penalty", "0.4"],
        ["--frequency-penalty", "0.2"],
        ["--logit-bias", "65=3"],
        ["--ban", "66,67"],
        ["--logprobs", "2"],
    ];
    let expected = generated("the other", &options.concat());
    let sampling = json!({
        "max_tokens": 16, "temperature": 0.9, "seed": 5, "top_k": 40, "top_p": 0.95, "min_p": 0.01,
        "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2,
        "logit_bias": { "65": 3, "66": false, "67": false }, "logprobs": true, "top_logprobs": 2, "stream": false,
    });
    let told = expected["logprobs"].as_array().expect("a list");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    for method in ["ar", "pard", "ngram"] {
        let mut more = sampling.clone();
        more["pard"] = json!({ "method": method });
        if method == "ngram" {
            // As llama.cpp writes it, too.
            more["logit_bias"] = json!([[65, 3], ["66", false], [67, false]]);
        }
        let choice = server.chat("the other", more.clone())["choices"][0].clone();
        assert_eq!(choice["message"]["content"], expected["text"], "{method}");
        let content = choice["logprobs"]["content"].as_array().unwrap_or_else(|| panic!("no list: {choice}"));
        assert!(!content.is_empty() && content.len() <= told.len());
        let mut bytes = Vec::new();
        for (token, expected) in content.iter().zip(told) {
            assert!((number(&token["logprob"]) - number(&expected["logprob"])).abs() < 1e-3, "{token}, {expected}");
            assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(2), "{token}");
            bytes.extend(token["bytes"].as_array().expect("bytes").iter().map(|byte| number(byte) as u8));
        }
        assert_eq!(json!(String::from_utf8_lossy(&bytes)), expected["text"], "the tokens' bytes are the text's");
        // The same, token by token.
        more["stream"] = json!(true);
        let events = server.post("/v1/chat/completions", &chat("the other", more)).events();
        let parts = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
        assert_eq!(parts.flatten().count(), content.len());
    }
    // The older interface has lists.
    let body = text("the thing", json!({ "max_tokens": 5, "logprobs": 3 }));
    let choice = server.post("/v1/completions", &body).json()["choices"][0].clone();
    let logprobs = &choice["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().map(Vec::len), Some(5), "{list}: {choice}");
    }
    // Under greedy decoding, the token taken is the likeliest.
    assert!(number(&logprobs["token_logprobs"][0]) <= 0.0 && logprobs["text_offset"][0] == 0, "{choice}");
}

/// Clients take the text of a stream up to the chunk that says why it ended: that one has none, even where the text ends within
/// a character.
#[test]
fn a_streams_last_chunk_has_no_text() {
    let server = Server::with(&[]);
    let bytes = server.post("/tokenize", &json!({ "content": "é" })).json()["tokens"].clone();
    let half = bytes[0].to_string();
    let more = |stream: bool| json!({ "max_tokens": 3, "logit_bias": { &half: 100 }, "stream": stream });
    let written = "\u{FFFD}".repeat(3);
    assert_eq!(server.chat("the", more(false))["choices"][0]["message"]["content"], written);
    for (path, body, part) in [
        ("/v1/chat/completions", chat("the", more(true)), "/delta/content"),
        ("/v1/completions", text("the", more(true)), "/text"),
    ] {
        let mut told = String::new();
        for choice in server.post(path, &body).events().iter().map(|event| &event["choices"][0]) {
            let piece = choice.pointer(part).and_then(Value::as_str).unwrap_or_default();
            assert!(choice["finish_reason"].is_null() || piece.is_empty(), "{choice}");
            told.push_str(piece);
        }
        assert_eq!(told, written, "{path}");
    }
}
