//! Answers at work at the same time: their rows share passes of the target, and each is what it would be alone.

use std::path::Path;

use serde_json::{Value, json};

use super::{Server, chat, text};
use crate::{MODELS, name};

/// Requests unlike each other in all there is: path and body.
fn requests(longest: usize) -> Vec<(&'static str, Value)> {
    let chats = "/v1/chat/completions";
    let texts = "/v1/completions";
    let long = "the water and the thing in it, ".repeat(6);
    vec![
        (chats, chat("the other", json!({ "max_tokens": longest }))),
        (texts, text(&long, json!({ "max_tokens": longest - 9, "temperature": 0.9, "seed": 4 }))),
        (texts, text("when", json!({ "max_tokens": longest - 3, "pard": { "method": "vsd", "k": 3 } }))),
        (
            chats,
            chat(
                "in the water",
                json!({
                    "max_tokens": longest - 5, "temperature": 1.1, "seed": 7, "top_k": 50, "top_p": 0.9,
                    "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2,
                    "logit_bias": { "65": 2, "66": false },
                }),
            ),
        ),
        (texts, text("the thing", json!({ "max_tokens": longest, "pard": { "method": "ar" }, "logprobs": 2 }))),
        (texts, text("the thing", json!({ "max_tokens": longest, "pard": { "method": "ngram", "k": 4 } }))),
        (chats, chat("and", json!({ "max_tokens": longest, "n": 2, "temperature": 0.8, "seed": 3, "stop": ["zz"] }))),
    ]
}

/// The answer's content, without its statistics.
fn said(server: &Server, (path, body): &(&str, Value)) -> Value {
    let mut body = body.clone();
    // The bits of a new decoder, whoever was here before.
    body["cache_prompt"] = json!(false);
    let reply = server.post(path, &body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let choices = reply["choices"].as_array().expect("a list").iter();
    choices
        .map(|choice| {
            json!([choice["message"]["content"], choice["text"], choice["finish_reason"], choice["logprobs"]])
        })
        .collect()
}

/// One after the other, then all at once; gives the rounds and the passes of the second time.
fn are_the_same(server: &Server, requests: &[(&str, Value)]) -> [f64; 2] {
    let alone: Vec<Value> = requests.iter().map(|request| said(server, request)).collect();
    let counts = || ["pard_rounds_total", "pard_pass_rows_count"].map(|name| server.metric(name));
    let before = counts();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = requests.iter().map(|request| scope.spawn(|| said(server, request))).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    for ((request, alone), together) in requests.iter().zip(&alone).zip(&together) {
        assert_eq!(together, alone, "{request:?}");
    }
    let after = counts();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn answers_at_once_share_passes_and_are_those_of_each_alone() {
    for more in [&["-k", "2"][..], &[], &["-t", "0.7", "--seed", "3"]] {
        let options = [&["-d", name(&MODELS.draft), "--parallel", "8"], more].concat();
        let server = Server::of(name(&super::ENDLESS), &options);
        let [rounds, passes] = are_the_same(&server, &requests(120));
        assert!(passes < rounds, "{passes} passes for {rounds} rounds, {more:?}");
    }
}

/// Plain decoding, whose rounds are a token each: four answers at work take a pass for up to four tokens.
#[test]
fn four_answers_take_fewer_passes_than_tokens() {
    let server = Server::endless(&["--parallel", "4", "-c", "1024"]);
    let request = |prompt| ("/v1/completions", text(prompt, json!({ "max_tokens": 600 })));
    let requests = ["the thing", "and the other", "when", "in the water"].map(request);
    let [rounds, passes] = are_the_same(&server, &requests);
    assert_eq!(rounds, 2400.0);
    assert!(passes < 1800.0, "{passes} passes for {rounds} tokens");
    assert!(server.metric("pard_pass_rows_bucket{le=\"4\"}") == server.metric("pard_pass_rows_count"));
}

#[test]
fn answers_of_a_real_model_share_passes() {
    let draft = Path::new(crate::ROOT).join("models/smollm2-135m-instruct-pard");
    let server = Server::of("smollm2", &["-d", name(&draft), "--parallel", "4", "-c", "512"]);
    let requests = [
        ("/v1/chat/completions", chat("What is the capital of France?", json!({ "max_tokens": 8 }))),
        ("/v1/completions", text("def fibonacci(n):", json!({ "max_tokens": 14 }))),
        ("/v1/completions", text("Once upon a time", json!({ "max_tokens": 14, "temperature": 0.9, "seed": 3 }))),
        (
            "/v1/completions",
            text("One, two, three, four,", json!({ "max_tokens": 14, "frequency_penalty": 0.3, "logprobs": 1 })),
        ),
    ];
    let [rounds, passes] = are_the_same(&server, &requests);
    assert!(passes < rounds, "{passes} passes for {rounds} rounds");
}
