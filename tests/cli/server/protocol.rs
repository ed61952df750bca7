//! Invalid and unsupported requests are refused in OpenAI's form, and the server goes on.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Reply, Server, chat, text};
use crate::{MODELS, name};

#[test]
fn parameters_that_cannot_be_had_are_named() {
    let server = Server::with(&[]);
    let refused = |path: &str, body: &Value, parameter: &str| {
        let reply = server.post(path, body);
        reply.expect_error(400, &[]);
        assert_eq!(reply.json()["error"]["param"], parameter, "{body}: {reply:?}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    };
    for (parameter, value) in [
        ("temperature", json!(-0.5)),
        ("temperature", json!(1e30)),
        ("temperature", json!("hot")),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-3)),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!("many")),
        ("n", json!(0)),
        ("n", json!(100000)),
        ("stop", json!(7)),
        ("stop", json!([""])),
        ("stop", json!(vec!["x"; 40])),
        ("seed", json!("one")),
        ("stream", json!("yes")),
        ("stream_options", json!(true)),
        ("tools[0]", json!({})),
        ("response_format.type", json!({})),
        ("stop_token_ids", json!([999_999])),
        ("min_tokens", json!(-1)),
        ("use_beam_search", json!(true)),
        ("regex", json!("a+")),
        ("ebnf", json!("x")),
        ("typical_p", json!(0.9)),
        ("mirostat", json!(2)),
        ("xtc_probability", json!(0.5)),
        ("dry_multiplier", json!(0.8)),
        ("allowed_token_ids", json!([1])),
        ("bad_words", json!(["a"])),
        ("skip_special_tokens", json!(false)),
        ("include_stop_str_in_output", json!(true)),
        ("truncate_prompt_tokens", json!(8)),
        ("n_probs", json!(3)),
        ("chat_template", json!("X")),
        ("add_generation_prompt", json!(false)),
        ("documents", json!([{ "text": "a" }])),
        ("response_format.json_schema", json!({})),
        ("response_format", json!({})),
        ("guided_choice", json!(7)),
        ("guided_regex", json!({})),
        ("guided_regex", json!("(a")),
        ("grammar", json!("root ::= \"a")),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("min_p", json!(2)),
        ("repetition_penalty", json!(0)),
        ("presence_penalty", json!(1e9)),
        ("frequency_penalty", json!("much")),
        ("logit_bias", json!([1, 2])),
        ("logit_bias", json!([["the", 2]])),
        ("logit_bias", json!([[5, "much"]])),
        ("logit_bias", json!("5=1")),
        ("max_new_tokens", json!(3)),
        ("stop_sequences", json!(["a"])),
        ("system", json!("Be terse.")),
        ("samplers", json!(["top_k"])),
        ("do_sample", json!(false)),
        ("verbosity", json!("low")),
        ("echo", json!(true)),
        ("include_reasoning", json!(false)),
        ("return_token_ids", json!(true)),
        ("seed", json!(1.5)),
        ("logit_bias", json!({ "the": 1 })),
        ("logit_bias", json!({ "100000": 1 })),
        ("logit_bias", json!({ "5": 1e9 })),
        ("logprobs", json!(3)),
        ("top_logprobs", json!(3)),
        ("pard", json!("fast")),
        ("pard.method", json!({})),
        ("pard.k", json!({})),
    ] {
        let more = match parameter {
            "pard.method" => json!({ "pard": { "method": "pard" } }),
            "pard.k" => json!({ "pard": { "k": 17 } }),
            "tools[0]" => json!({ "tools": [{ "type": "function" }] }),
            "response_format.type" => json!({ "response_format": { "type": "xml" } }),
            "response_format.json_schema" => json!({ "response_format": { "type": "json_schema" } }),
            "response_format" => {
                let schema = json!({ "name": "a", "schema": { "type": "no such type" } });
                json!({ "response_format": { "type": "json_schema", "json_schema": schema } })
            }
            _ => json!({ parameter: value }),
        };
        refused("/v1/chat/completions", &chat("the", more), parameter);
    }
    for messages in [json!(null), json!([]), json!("hello"), json!({})] {
        refused("/v1/chat/completions", &json!({ "messages": messages }), "messages");
    }
    for message in [
        json!("hello"),
        json!({ "role": "user" }),
        json!({ "content": "the" }),
        json!({ "role": "robot", "content": "the" }),
        json!({ "role": "user", "content": "the", "tool_calls": [{}] }),
        json!({ "role": "assistant", "content": "the", "tool_calls": "none" }),
        json!({ "role": "user", "content": [{ "type": "image_url" }] }),
        json!({ "role": "user", "content": null }),
        json!({ "role": "user", "content": "the", "name": 7 }),
        json!({ "role": "tool", "content": "the", "tool_call_id": 7 }),
        json!({ "role": "assistant", "content": "", "function_call": { "name": "f", "arguments": "{}" } }),
        json!({ "role": "assistant", "tool_calls": [{ "type": "custom", "function": { "name": "f", "arguments": "" } }] }),
        json!({ "role": "assistant", "tool_calls": [{ "id": 5, "function": { "name": "f", "arguments": "" } }] }),
    ] {
        refused("/v1/chat/completions", &json!({ "messages": [message] }), "messages[0]");
    }
    refused("/tokenize", &json!({ "content": "the", "parse_special": false }), "parse_special");
    for prompt in
        [json!(null), json!([]), json!(""), json!([[]]), json!([1, "the"]), json!([-1]), json!([100000]), json!({})]
    {
        refused("/v1/completions", &json!({ "prompt": prompt }), "prompt");
    }
    refused("/v1/completions", &text("the", json!({ "suffix": "end" })), "suffix");
    refused("/v1/completions", &text("the", json!({ "best_of": 3 })), "best_of");
    refused("/v1/completions", &text("the", json!({ "logprobs": 21 })), "logprobs");
    let long = server.post("/v1/chat/completions", &chat(&"the thing ".repeat(600), json!({})));
    long.expect_error(400, &["maximum context length is 512"]);
    assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
    // Neutral, absent and unknown parameters are accepted.
    let more = json!({ "temperature": null, "tools": [], "top_p": 1, "user": "me", "content": 4, "max_tokens": 1, "metadata": {} });
    server.chat("the", more);
    let neutral = json!({ "typical_p": 1.0, "mirostat": 0, "dry_multiplier": 0.0, "bad_words": [], "documents": null,
        "skip_special_tokens": true, "add_generation_prompt": true, "repeat_last_n": 64, "max_tokens": 1 });
    server.chat("the", neutral);
    let last = json!({ "repeat_last_n": 64, "repeat_penalty": 1.1 });
    refused("/v1/chat/completions", &chat("the", last), "repeat_last_n");
    // Other servers' ways to ask for no limit, all tokens, and a seed that nobody names.
    server.chat("the", json!({ "max_tokens": 2, "top_k": -1, "seed": -1 }));
    // llama.cpp's list of biases, and whole numbers with a point.
    let with = |more: Value| server.chat("the", more)["choices"][0]["message"]["content"].clone();
    let of_object = with(json!({ "logit_bias": { "5": 100, "7": false }, "max_tokens": 2, "seed": 3 }));
    assert_eq!(with(json!({ "logit_bias": [[5, 100], [7, false]], "max_tokens": 2.0, "seed": 3.0 })), of_object);
    assert_ne!(with(json!({ "max_tokens": 2 })), of_object);
    let answers = json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": null },
        { "role": "user", "content": "b" }]);
    assert_eq!(server.post("/v1/chat/completions", &json!({ "messages": answers, "max_tokens": 1 })).status, 200);
    let parts = json!([{ "type": "text", "text": "the " }, { "type": "text", "text": "thing" }]);
    let body = json!({ "messages": [{ "role": "developer", "content": parts }], "max_tokens": 1 });
    assert_eq!(server.post("/v1/chat/completions", &body).status, 200);
    let tokens = |content: Value| {
        let body = json!({ "messages": [{ "role": "user", "content": content }] });
        server.post("/tokenize", &body).json()["tokens"].clone()
    };
    assert_eq!(tokens(parts), tokens(json!("the \nthing")), "parts are lines");

    let plain = Server::of(name(&MODELS.without_template), &[]);
    plain
        .post("/v1/chat/completions", &chat("the", json!({})))
        .expect_error(400, &["no chat template", "/v1/completions"]);
}

#[test]
fn replies_and_refusals_say_what_clients_look_for() {
    let server = Server::with(&[]);
    let path = "/v1/chat/completions";
    let body = chat("the", json!({ "max_tokens": 1 }));
    let reply = server.post(path, &body);
    assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{reply:?}");
    assert!(reply.json()["system_fingerprint"].as_str().is_some_and(|print| print.starts_with("fp_")), "{reply:?}");
    let named = Reply::read(server.begin(path, "x-request-id: mine\r\n", &body.to_string()));
    assert_eq!((named.status, named.header("x-request-id")), (200, Some("mine")));
    let refused = server.post(path, &chat("the", json!({ "stream_options": { "include_usage": true } })));
    refused.expect_error(400, &["stream_options"]);
    server.post(path, &chat("the", json!({ "logit_bias": { "5": 1, "x": 1 } }))).expect_error(400, &["logit_bias: x"]);
    server.post(path, &chat("the", json!({ "logit_bias": { "5": "much" } }))).expect_error(400, &["logit_bias: 5"]);
    // A body that will be too large is not waited for.
    let mut stream = server.connect();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sending a head");
    Reply::read(stream).expect_error(413, &["larger"]);
}

#[test]
fn garbage_is_refused_and_the_server_goes_on() {
    let server = Server::with(&["--read-timeout", "1"]);
    for body in ["{", "[]", "null", "7", "\"x\"", "{\"prompt\": \"\\ud800\"}", "\u{0}", &"[".repeat(100_000)] {
        Reply::read(server.begin("/v1/completions", "", body)).expect_error(400, &["the body is no JSON"]);
    }
    let packed = |encoding: &str| {
        Reply::read(server.begin(
            "/v1/completions",
            &format!("Content-Encoding: {encoding}\r\n"),
            "{\"prompt\": \"the\", \"max_tokens\": 1}",
        ))
    };
    packed("gzip").expect_error(415, &["packed (gzip)"]);
    assert_eq!(packed("identity").status, 200);
    let marked = "\u{feff}{\"prompt\": \"the\", \"max_tokens\": 1}";
    assert_eq!(Reply::read(server.begin("/v1/completions", "", marked)).status, 200);
    server.get("/nothing").expect_error(404, &["nothing at this address"]);
    server.get("/v1/completions").expect_error(405, &["method"]);
    server.get("/v1/models/other").expect_error(404, &["the model here is target"]);

    // No HTTP at all, and too much of it.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", &[b'a'; 200_000]] {
        let mut stream = server.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.write_all(b"\r\n\r\n");
        let reply = Reply::read(stream);
        assert!([0, 400, 414, 431].contains(&reply.status), "{reply:?}");
    }
    // A head or a body that does not come ends the connection in time; one that is cut off ends at once.
    let begin = Instant::now();
    let mut head = server.connect();
    head.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n").expect("a part of a head");
    let mut body = server.connect();
    let half = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"prompt\": ";
    body.write_all(half).expect("a part of a body");
    let mut silent = server.connect();
    let cut = server.connect();
    (&cut).write_all(half).expect("a part of a body");
    drop(cut);
    Reply::read(body).expect_error(408, &["did not come within 1 s"]);
    Reply::read(head);
    assert!(silent.read(&mut [0]).map_or(true, |read| read == 0));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    // Larger than any prompt may be: by its length, or as it comes.
    let large = text(&"x".repeat(10_000_000), json!({}));
    server.post("/v1/completions", &large).expect_error(413, &["larger than the 1048576 bytes"]);
    let mut stream = server.connect();
    let head =
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).expect("a head");
    for _ in 0..40 {
        stream.write_all(b"10000\r\n").and_then(|()| stream.write_all(&[b' '; 65536])).expect("a chunk");
        stream.write_all(b"\r\n").expect("its end");
    }
    stream.write_all(b"0\r\n\r\n").expect("the end");
    Reply::read(stream).expect_error(413, &["larger"]);
    // Within the limit, but more than the context holds whatever it says.
    let long = text(&"x".repeat(500_000), json!({}));
    server.post("/v1/completions", &long).expect_error(400, &["maximum context length is 512 tokens", "500000 bytes"]);

    server.chat("the", json!({ "max_tokens": 2 }));
    assert_eq!((server.metric("pard_answers_running"), server.metric("pard_queue_depth")), (0.0, 0.0));
}

#[test]
fn keys_and_origins_are_checked() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys.txt");
    std::fs::write(&file, "\u{feff}first-key\r\n# ours\r\n\r\n second-key \r\n").expect("a file of keys");
    let server = Server::with(&["--api-key-file", name(&file)]);
    let body = chat("the", json!({ "max_tokens": 1 })).to_string();
    let with = |headers: &str| Reply::read(server.begin("/v1/chat/completions", headers, &body));
    for header in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer first-ke\r\n",
        "Authorization: Bearer first-key-\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic first-key\r\n",
        "Authorization: # ours\r\n",
    ] {
        let reply = with(header);
        reply.expect_error(401, &["key"]);
        assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(with("Authorization: Bearer first-key\r\n").status, 200);
    assert_eq!(with("authorization: bearer second-key\r\n").status, 200);
    for closed in ["/metrics", "/v1/models", "/v1/models/target"] {
        server.get(closed).expect_error(401, &[]);
    }
    for open in ["/health", "/"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }

    let server = Server::with(&[]);
    let with = |headers: &str| Reply::read(server.begin("/v1/chat/completions", headers, &body));
    with("Origin: https://example.com\r\n").expect_error(403, &["https://example.com", "--allow-origin"]);
    with("Origin: null\r\n").expect_error(403, &[]);
    assert_eq!(with(&format!("Origin: {}\r\n", server.url())).status, 200);
}

#[test]
fn hosts_and_sites_are_those_that_are_allowed() {
    let ask = |server: &Server, method: &str, headers: &str| {
        let mut stream = server.connect();
        let body = if method == "POST" { chat("the", json!({ "max_tokens": 1 })).to_string() } else { String::new() };
        let head = format!(
            "{method} /v1/chat/completions HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
        head.to_ascii_lowercase()
    };
    let server = Server::with(&[]);
    // A page whose own name has this machine's address would read the answers.
    let stranger = "Host: evil.example:8200\r\n";
    for headers in [stranger.to_owned(), format!("{stranger}Origin: http://evil.example:8200\r\n")] {
        assert!(ask(&server, "POST", &headers).starts_with("http/1.1 403"), "{headers}");
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "192.168.1.7:80", "pard.localhost"] {
        assert!(ask(&server, "POST", &format!("Host: {host}\r\n")).starts_with("http/1.1 200"), "{host}");
    }
    let own = "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\n";
    assert!(ask(&server, "POST", own).starts_with("http/1.1 200"));

    let server = Server::with(&["--allow-host", "pard.example", "--allow-origin", "https://app.example"]);
    let site = "Host: pard.example:8200\r\nOrigin: https://app.example\r\n";
    let answered = ask(&server, "POST", site);
    assert!(answered.starts_with("http/1.1 200"), "{answered}");
    assert!(answered.contains("access-control-allow-origin: https://app.example"), "{answered}");
    let asked =
        format!("{site}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n");
    let allowed = ask(&server, "OPTIONS", &asked);
    assert!(
        allowed.starts_with("http/1.1 200") && allowed.contains("access-control-allow-headers: authorization"),
        "{allowed}"
    );
    let other = ask(&server, "POST", "Host: pard.example\r\nOrigin: https://other.example\r\n");
    assert!(other.starts_with("http/1.1 403") && !other.contains("allow-origin: https://other"), "{other}");
    let all = Server::with(&["--allow-origin", "*"]);
    assert!(ask(&all, "POST", "Host: localhost\r\nOrigin: https://other.example\r\n").starts_with("http/1.1 200"));
}

#[test]
fn texts_are_tokenized_and_back_under_the_names_that_clients_use() {
    let server = Server::with(&[]);
    let of = |path: &str, body: Value| {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let tokens = of("/tokenize", json!({ "content": "the other thing" }));
    assert_eq!(tokens["count"], tokens["tokens"].as_array().expect("a list").len());
    assert_eq!(of("/tokenize", json!({ "prompt": "the other thing" }))["tokens"], tokens["tokens"]);
    assert_eq!(of("/detokenize", json!({ "tokens": tokens["tokens"] }))["content"], "the other thing");
    // Each token with its text, or with its bytes where they are no text, as llama.cpp has them, and vLLM's list.
    let asked = json!({ "content": "the é", "with_pieces": true, "return_token_strs": true });
    let told = of("/tokenize", asked);
    let pieces: Vec<Value> =
        told["tokens"].as_array().expect("a list").iter().map(|token| token["piece"].clone()).collect();
    assert_eq!(pieces, [json!("the"), json!(" "), json!([0xC3]), json!([0xA9])], "{told}");
    assert_eq!(told["token_strs"], json!(["the", " ", "\u{FFFD}", "\u{FFFD}"]));
    assert!(told["tokens"].as_array().expect("a list").iter().all(|token| token["id"].is_u64()), "{told}");
    let unparsed = json!({ "content": "the", "parse_special": false });
    server.post("/tokenize", &unparsed).expect_error(400, &["parse_special"]);
    let messages = json!([{ "role": "user", "content": "the other" }]);
    let chat = of("/tokenize", json!({ "messages": messages }));
    let used = server.chat("the other", json!({ "max_tokens": 1 }));
    assert_eq!(chat["count"], used["usage"]["prompt_tokens"]);
    // Without the beginning of an answer.
    let asked = of("/tokenize", json!({ "messages": messages, "add_generation_prompt": false }));
    let (shorter, whole) = (asked["tokens"].as_array().expect("a list"), chat["tokens"].as_array().expect("a list"));
    assert!(shorter.len() < whole.len() && whole.starts_with(shorter), "{asked}");
    server.post("/tokenize", &json!({})).expect_error(400, &["content"]);
    server.post("/detokenize", &json!({ "tokens": [999_999] })).expect_error(400, &["999999"]);
    // An answer that ends early goes on where its end is to be ignored, and ends by tokens that are named.
    let whole = |more: Value| server.chat("the", more);
    let written = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().expect("a number");
    let ended = whole(json!({ "max_tokens": 400 }));
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    let ignored = whole(json!({ "max_tokens": 400, "ignore_eos": true }));
    assert!(written(&ignored) == 400 && written(&ended) < 400, "{ignored}");
    let marked = whole(json!({ "max_tokens": 400, "pard": {} }));
    let id = &marked["choices"][0]["pard"]["tokens"][3]["id"];
    let named = whole(json!({ "max_tokens": 400, "stop_token_ids": [id] }));
    assert!(named["choices"][0]["finish_reason"] == "stop" && written(&named) <= 4, "{named}");
    // One that must not end yet goes on, and ends by itself or by such tokens later.
    let least = written(&ended) + 10;
    for method in ["ar", "ngram"] {
        let more =
            json!({ "max_tokens": 400, "min_tokens": least, "stop_token_ids": [id], "pard": { "method": method } });
        let held = whole(more);
        assert!(written(&held) > least, "{held}");
    }
    let most = json!({ "max_tokens": 4, "min_tokens": 5 });
    server.post("/v1/completions", &text("the", most)).expect_error(400, &["min_tokens", "5 are more than the 4"]);
    // Without the version, as clients with a bare base address ask.
    assert_eq!(server.get("/models").json()["data"][0]["id"], "target");
    assert_eq!(server.post("/chat/completions", &super::chat("the", json!({ "max_tokens": 1.0 }))).status, 200);
    let endless = server.post("/completions", &text("the", json!({ "max_tokens": -1, "guided_regex": "[ab]{3}" })));
    assert_eq!(endless.json()["choices"][0]["text"].as_str().map(str::len), Some(3), "{endless:?}");
}
