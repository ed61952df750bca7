//! Many clients, clients that leave, that do not read, a queue that is full, a device that is lost, and the end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};
#[cfg(target_os = "linux")]
use std::{path::Path, process::Command};

use serde_json::json;

#[cfg(target_os = "linux")]
use super::{ENDLESS, name};
use super::{Reply, Server, chat, text};

/// A stream that has begun: its first event was read.
fn begun(server: &Server) -> BufReader<TcpStream> {
    let body = text("the thing", json!({ "stream": true }));
    let mut stream = BufReader::new(server.begin("/v1/completions", "", &body.to_string()));
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("a line"), 0, "the stream ended");
    }
    stream
}

#[test]
fn hundreds_of_clients_get_their_answers() {
    let server = Server::with(&["--parallel", "8", "--queue", "1000"]);
    let prompts = ["the thing", "and the other", "when", "in the water we are"];
    let expected: Vec<String> = prompts
        .iter()
        .map(|prompt| server.chat(prompt, json!({ "max_tokens": 6 }))["choices"][0]["message"]["content"].to_string())
        .collect();
    let ask = |client: usize| {
        let which = client % prompts.len();
        let streams = client.is_multiple_of(3);
        let reply =
            server.post("/v1/chat/completions", &chat(prompts[which], json!({ "max_tokens": 6, "stream": streams })));
        let text = match streams {
            true => json!(super::streamed_text(&reply.events(), 0)),
            false => reply.json()["choices"][0]["message"]["content"].clone(),
        };
        assert_eq!(text.to_string(), expected[which], "client {client}");
    };
    std::thread::scope(|scope| {
        for client in 0..300 {
            let ask = &ask;
            scope.spawn(move || ask(client));
        }
    });
    assert_eq!(server.metric("pard_answer_seconds_count"), 304.0);
    assert_eq!((server.metric("pard_queue_depth"), server.metric("pard_answers_running")), (0.0, 0.0));
}

#[test]
fn a_full_queue_refuses_and_clients_that_leave_make_room() {
    let server = Server::endless(&["-c", "16384", "--parallel", "1", "--queue", "1"]);
    let first = begun(&server);
    let waiting = server.begin("/v1/completions", "", &text("the", json!({ "max_tokens": 2 })).to_string());
    server.wait_for_metric("pard_queue_depth", 1.0);
    let full = server.post("/v1/completions", &text("the", json!({})));
    full.expect_error(429, &["1 answers wait already"]);
    let seconds: u64 = full.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    // One that leaves while it waits makes room in the queue; one that leaves while it is answered, a session.
    drop(waiting);
    server.wait_for_metric("pard_queue_depth", 0.0);
    let waiting = server.begin("/v1/completions", "", &text("the", json!({ "max_tokens": 2 })).to_string());
    server.wait_for_metric("pard_queue_depth", 1.0);
    let begin = Instant::now();
    drop(first);
    assert_eq!(Reply::read(waiting).status, 200);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // The same for an answer that is not streamed.
    let whole = server.begin("/v1/completions", "", &text("the", json!({})).to_string());
    server.wait_for_metric("pard_answers_running", 1.0);
    drop(whole);
    server.wait_for_metric("pard_answers_running", 0.0);
}

#[test]
fn a_reader_that_does_not_read_is_dropped_and_holds_nobody_up() {
    let server = Server::endless(&["-c", "40000", "--parallel", "2", "--write-timeout", "0.5"]);
    let mut idle = begun(&server);
    // Others are answered all the while.
    let deadline = Instant::now() + super::PATIENCE;
    while server.metric("pard_answers_running") > 0.0 {
        server.chat("the", json!({ "max_tokens": 2 }));
        assert!(Instant::now() < deadline, "it holds its session: {} rounds", server.metric("pard_rounds_total"));
    }
    assert!(server.metric("pard_answer_tokens_total") < 39_000.0, "it was not dropped, it came to its end");
    // Only data that the system had buffered is left.
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"data: [DONE]\n\n"));
}

/// A layer between engine and driver stands for a card that hangs: it refuses a submit while the file `lose` is there.
#[cfg(target_os = "linux")]
#[test]
fn a_device_that_is_lost_is_answered_with_503_and_had_again() {
    const LAYER: &str = "VK_LAYER_PARD_lose_device";
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (library, lose) = (folder.join("liblose_device.so"), folder.join("lose"));
    let source = Path::new(crate::ROOT).join("tests/cli/server/lose_device.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.expect("a C compiler").success());
    let layer = json!({
        "name": LAYER, "type": "GLOBAL", "library_path": library, "api_version": "1.3.0", "implementation_version": "1",
        "description": "loses the device",
    });
    std::fs::write(folder.join("lose.json"), json!({ "file_format_version": "1.2.0", "layer": layer }).to_string())
        .expect("a file");
    let environment =
        [("VK_LAYER_PATH", folder), ("VK_INSTANCE_LAYERS", Path::new(LAYER)), ("PARD_LOSE_DEVICE", &lose)];
    let server = Server::with_environment(name(&ENDLESS), &["--parallel", "2"], &environment);
    let (whole, stream) = std::thread::scope(|scope| {
        let whole = scope.spawn(|| server.post("/v1/completions", &text("the thing", json!({}))));
        let stream = scope.spawn(|| server.post("/v1/completions", &text("the thing", json!({ "stream": true }))));
        server.wait_for_metric("pard_answers_running", 2.0);
        std::fs::write(&lose, "").expect("a file");
        (whole.join().expect("a reply"), stream.join().expect("a reply"))
    });
    assert!(!lose.exists(), "the layer was not asked");
    whole.expect_error(503, &["the GPU was lost"]);
    assert!(whole.header("retry-after").is_some(), "{whole:?}");
    // A stream that had begun ends with the error.
    assert!(stream.status == 503 || stream.body.lines().any(|line| line.contains("the GPU was lost")), "{stream:?}");
    assert!(!stream.body.contains("[DONE]"), "{stream:?}");
    server.wait_for("ready again");
    assert_eq!(server.get("/health").status, 200);
    server.chat("the", json!({ "max_tokens": 20 }));
    assert_eq!(server.metric("pard_device_rebuilds_total"), 1.0);
}

#[cfg(unix)]
#[test]
fn sigterm_lets_answers_end_and_takes_no_more() {
    let kill = |server: &Server| {
        let id = server.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        server.wait_for("ending;");
    };
    let mut server = Server::endless(&["--parallel", "1", "-c", "4096"]);
    let idle = server.connect();
    let body = text("the thing", json!({ "max_tokens": 600, "stream": true })).to_string();
    let running = server.begin("/v1/completions", "", &body);
    server.wait_for_metric("pard_answers_running", 1.0);
    let waiting = server.begin("/v1/completions", "", &text("the", json!({ "max_tokens": 2 })).to_string());
    server.wait_for_metric("pard_queue_depth", 1.0);
    kill(&server);
    assert!(TcpStream::connect(server.address()).is_err() || Reply::read(server.begin("/health", "", "")).status == 0);
    assert!(!super::streamed_text(&Reply::read(running).events(), 0).is_empty());
    assert_eq!(Reply::read(waiting).status, 200);
    assert_eq!(server.ended(), Some(0));
    drop(idle);

    // An answer that does not end in time is cut off with an error.
    let mut server = Server::endless(&["-c", "16384", "--drain-timeout", "0.3"]);
    let running = begun(&server);
    kill(&server);
    let mut rest = String::new();
    BufReader::new(running).read_to_string(&mut rest).expect("the rest");
    assert!(rest.contains("shut down") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.ended(), Some(0));
}
