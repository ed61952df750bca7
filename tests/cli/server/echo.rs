//! Prompts that are repeated before their answers, with the log-probabilities of their tokens: what evaluations by likelihood
//! ask for.

use serde_json::{Value, json};

use super::{Server, streamed_text, text};
use crate::{MODELS, name};

fn complete(server: &Server, body: &Value) -> Value {
    let reply = server.post("/v1/completions", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn list<'a>(choice: &'a Value, name: &str) -> &'a [Value] {
    choice["logprobs"][name].as_array().unwrap_or_else(|| panic!("no {name}: {choice}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn tokens_of(server: &Server, text: &str) -> Vec<u64> {
    let tokens = server.post("/tokenize", &json!({ "content": text })).json()["tokens"].clone();
    tokens.as_array().expect("a list").iter().map(|id| id.as_u64().expect("a token")).collect()
}

/// The request that lm-eval's `local-completions` sends for likelihoods, and what it reads of the answer.
#[test]
fn lm_eval_gets_the_likelihoods_that_it_asks_for() {
    let server = Server::with(&["-d", name(&MODELS.draft), "--parallel", "2"]);
    let texts = ["the thing and the other thing in the water, and then", "the"];
    let prompts = texts.map(|text| tokens_of(&server, text));
    let request = json!({
        "model": "target", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true,
    });
    let whole = complete(&server, &request);
    assert_eq!(whole["usage"]["prompt_tokens"], prompts.concat().len());
    for (index, (prompt, text)) in prompts.iter().zip(texts).enumerate() {
        let choice = &whole["choices"][index];
        let written = choice["text"].as_str().expect("a text");
        assert!(written.starts_with(text), "{choice}");
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(choice["logprobs"][list].as_array().map(Vec::len), Some(prompt.len() + 1), "{list}: {choice}");
        }
        assert!(list(choice, "token_logprobs")[0].is_null() && list(choice, "top_logprobs")[0].is_null());
        let characters: Vec<char> = written.chars().collect();
        for (at, token) in list(choice, "text_offset").iter().zip(list(choice, "tokens")) {
            let rest: String = characters[at.as_u64().expect("an offset") as usize..].iter().collect();
            assert!(rest.starts_with(token.as_str().expect("a token")), "{token} at {at} of {written:?}");
        }
        for (own, top) in list(choice, "token_logprobs").iter().zip(list(choice, "top_logprobs")).skip(1) {
            let best = top.as_object().expect("an object").values().map(number).fold(f64::MIN, f64::max);
            assert!(number(own) <= best, "{own}, {top}");
        }
        // The token that was written is the likeliest, to the bit: so lm-eval finds out that an answer is the greedy one.
        let (own, top) = (list(choice, "token_logprobs"), list(choice, "top_logprobs"));
        let best = top[prompt.len()].as_object().expect("an object").values().next();
        assert_eq!(Some(&own[prompt.len()]), best);
    }
    // The last token is listed if it ends the answer, too.
    let first = &complete(&server, &text(texts[0], json!({ "max_tokens": 1, "pard": {} })))["choices"][0]["pard"];
    let mut ending = request.clone();
    ending["stop_token_ids"] = json!([first["tokens"][0]["id"]]);
    let ended = complete(&server, &ending);
    assert_eq!(
        (&ended["choices"][0]["finish_reason"], &ended["choices"][0]["text"]),
        (&json!("stop"), &json!(texts[0]))
    );
    assert_eq!(ended["choices"][0]["logprobs"], whole["choices"][0]["logprobs"]);
}

#[test]
fn a_repeated_answer_has_the_log_probabilities_that_it_was_written_with() {
    let server = Server::endless(&["-d", name(&MODELS.draft), "-k", "3"]);
    let prompt = "when in the water, ";
    let more =
        json!({ "max_tokens": 70, "logprobs": 2, "temperature": 0.9, "seed": 3, "pard": {}, "cache_prompt": false });
    let answer = complete(&server, &text(prompt, more))["choices"][0].clone();
    let mut tokens: Vec<Value> = tokens_of(&server, prompt).into_iter().map(Value::from).collect();
    let len = tokens.len();
    tokens.extend(answer["pard"]["tokens"].as_array().expect("a list").iter().map(|token| token["id"].clone()));
    let echo = json!({ "prompt": tokens, "max_tokens": 0, "logprobs": 2, "echo": true });
    let whole = complete(&server, &echo);
    let repeated = &whole["choices"][0];
    assert_eq!((&repeated["finish_reason"], &whole["usage"]["completion_tokens"]), (&json!("length"), &json!(0)));
    assert_eq!(list(repeated, "tokens").len(), tokens.len());
    assert_eq!(list(repeated, "tokens")[len..], *list(&answer, "tokens"));
    let pairs = list(repeated, "token_logprobs")[len..].iter().zip(list(&answer, "token_logprobs"));
    for (one, other) in pairs {
        assert!((number(one) - number(other)).abs() < 1e-3, "{one}, {other}");
    }
    // As a stream.
    let mut streamed = echo.clone();
    streamed["stream"] = json!(true);
    let events = server.post("/v1/completions", &streamed).events();
    assert_eq!(streamed_text(&events, 0), repeated["text"]);
    let of_stream = |list: &str| -> Vec<Value> {
        events.iter().filter_map(|event| event["choices"][0]["logprobs"][list].as_array()).flatten().cloned().collect()
    };
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(of_stream(name), list(repeated, name), "{name}");
    }
}

#[test]
fn prompts_are_repeated_as_they_are_and_answers_stay_what_they_would_be() {
    let server = Server::with(&["--parallel", "3"]);
    for prompt in ["the <|im_start|>thing, 水 and the other", "a", "  the"] {
        let more = json!({ "max_tokens": 12, "cache_prompt": false, "n": 2, "temperature": 0.8, "seed": 5 });
        let plain = complete(&server, &text(prompt, more.clone()));
        for logprobs in [json!(null), json!(0), json!(3)] {
            let mut more = more.clone();
            (more["echo"], more["logprobs"]) = (json!(true), logprobs.clone());
            let whole = complete(&server, &text(prompt, more.clone()));
            more["stream"] = json!(true);
            let events = server.post("/v1/completions", &text(prompt, more)).events();
            for (index, choice) in whole["choices"].as_array().expect("a list").iter().enumerate() {
                let answer = plain["choices"][index]["text"].as_str().expect("a text");
                assert_eq!(choice["text"], format!("{prompt}{answer}"), "{logprobs}");
                assert_eq!(choice["logprobs"].is_null(), logprobs.is_null(), "{choice}");
                assert_eq!(streamed_text(&events, index), choice["text"]);
            }
            assert_eq!(whole["usage"], plain["usage"], "{logprobs}");
        }
        // Nothing but the prompt, and nothing at all.
        let only = complete(&server, &text(prompt, json!({ "max_tokens": 0, "echo": true, "logprobs": 1 })));
        assert_eq!(only["choices"][0]["text"], prompt);
        assert!(list(&only["choices"][0], "token_logprobs")[0].is_null());
        let none = complete(&server, &text(prompt, json!({ "max_tokens": 0 })));
        assert_eq!((&none["choices"][0]["text"], &none["choices"][0]["finish_reason"]), (&json!(""), &json!("length")));
        assert_eq!(
            (&none["usage"]["completion_tokens"], &none["usage"]["total_tokens"]),
            (&json!(0), &none["usage"]["prompt_tokens"])
        );
    }
    server.wait_for_metric("pard_answers_running", 0.0);
    server.post("/v1/completions", &text("the", json!({ "echo": "yes" }))).expect_error(400, &["echo"]);
}
