//! `pard serve` from outside: a process of its own, spoken to over sockets.

mod agents;
mod answers;
mod batching;
mod echo;
mod kept;
mod limits;
mod load;
mod messages;
mod openai;
mod page;
mod protocol;
mod proxy;
mod reading;
mod responses;
mod structured;
mod thinking;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::add_thoughts;
use crate::{MODELS, command, name};

/// Timeout of every operation. The engine's tests may take most of the machine meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

/// A server with a small model, on a port of its own.
pub struct Server {
    child: Child,
    address: Address,
    /// Lines of its output.
    lines: Mutex<Receiver<String>>,
}

impl Server {
    /// A server with the small model and these options, ready.
    pub fn with(options: &[&str]) -> Server {
        Server::of(name(&MODELS.target), options)
    }

    /// A server whose answers end by their limits only, ready.
    pub fn endless(options: &[&str]) -> Server {
        Server::of(name(&ENDLESS), options)
    }

    /// A server with a small model that may think first, ready.
    pub fn thinking(options: &[&str]) -> Server {
        Server::of(name(&THINKER), options)
    }

    /// A server with `model`, ready.
    pub fn of(model: &str, options: &[&str]) -> Server {
        Server::with_environment(model, options, &[])
    }

    /// The same with `variables` in its environment.
    pub fn with_environment(model: &str, options: &[&str], variables: &[(&str, &Path)]) -> Server {
        let mut command = command(&[&["serve", "-m", model, "--port", "0"], options].concat());
        command.envs(variables.iter().copied());
        if model == "smollm2" {
            command.env_remove("PARD_CACHE");
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("running pard serve");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Server { child, address: Address((Ipv4Addr::LOCALHOST, 0).into()), lines: Mutex::new(lines) };
        let port = server.wait_for("listening on").rsplit(':').next().and_then(|port| port.parse().ok());
        server.address.0.set_port(port.expect("a port"));
        server.wait_for("ready");
        server
    }

    /// Waits until it says something with `part` in it.
    #[track_caller]
    pub fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        let lines = self.lines.lock().expect("nobody failed with it");
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => said.push(line),
                Err(_) => panic!("it did not say {part:?}, but {said:#?}"),
            }
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address.0)
    }

    pub fn address(&self) -> SocketAddr {
        self.address.0
    }

    /// Ends it as a fault would.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The answer to a chat of one message, which must succeed.
    #[track_caller]
    pub fn chat(&self, message: &str, more: Value) -> Value {
        let reply = self.post("/v1/chat/completions", &chat(message, more));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }

    /// A number of `/metrics`.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Waits until a number of `/metrics` is `value`.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name) != value {
            assert!(Instant::now() < deadline, "{name} stays {}, not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, and gives its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("its state") {
                Some(status) => return status.code(),
                None if Instant::now() > deadline => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Address of a server, and requests to it.
#[derive(Debug, Clone, Copy)]
pub struct Address(pub SocketAddr);

impl Address {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        stream
    }

    /// Sends a request and leaves its answer to be read.
    pub fn begin(&self, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let (host, length) = (self.0, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("sending a request");
        stream
    }

    pub fn get(&self, path: &str) -> Reply {
        Reply::read(self.begin(path, "", ""))
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::read(self.begin(path, "", &body.to_string()))
    }
}

impl std::ops::Deref for Server {
    type Target = Address;

    fn deref(&self) -> &Address {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The small model, without tokens that end an answer.
static ENDLESS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server").join("endless");
    std::fs::create_dir_all(&folder).expect("a folder");
    Recipe::llama(11).write(&folder);
    let unknown = json!({ "eos_token_id": [100_000] });
    std::fs::write(folder.join("generation_config.json"), unknown.to_string()).expect("writing JSON");
    let path = folder.join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["eos_token"] = Value::Null;
    // What ends a turn of the template ends an answer, too.
    let template = config["chat_template"].as_str().expect("a template").replace("<|im_end|>", "");
    config["chat_template"] = template.into();
    std::fs::write(&path, config.to_string()).expect("writing JSON");
    folder
});

/// The small model as one that may think first.
static THINKER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server").join("thinker");
    std::fs::create_dir_all(&folder).expect("a folder");
    Recipe::llama(11).write(&folder);
    add_thoughts(&folder);
    folder
});

/// The body of a chat of one message.
pub fn chat(message: &str, more: Value) -> Value {
    joined(json!({ "messages": [{ "role": "user", "content": message }] }), more)
}

/// The body of a text to be continued.
pub fn text(prompt: &str, more: Value) -> Value {
    joined(json!({ "prompt": prompt }), more)
}

pub fn joined(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Reads as many bytes as it says it has, or until the connection is closed. Nothing at all has the status 0.
    pub fn read(mut stream: TcpStream) -> Reply {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let mut reply = Reply::of(&bytes);
        // A connection that is cut off may end with an error.
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..read]);
            reply = Reply::of(&bytes);
            let length = reply.header("content-length").and_then(|length| length.parse().ok());
            if length.is_some_and(|length: usize| reply.body.len() >= length) {
                break;
            }
        }
        reply
    }

    fn of(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { without_lengths(body) } else { body.to_owned() };
        Reply { status, head: head.to_owned(), body }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the status, and that the error is in OpenAI's form and its message holds `parts`.
    #[track_caller]
    pub fn expect_error(&self, status: u16, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        let json = self.json();
        let message = json["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}"));
        assert!(json["error"]["type"].is_string() && json["error"].get("param").is_some(), "{self:?}");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message:?}");
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The events of a stream, which must end as streams do.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")), "{self:?}");
        let lines: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, events) = lines.split_last().expect("events");
        assert_eq!(*last, "[DONE]", "{self:?}");
        events.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The events of a stream in which each is named after its type.
    #[track_caller]
    pub fn typed_events(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")), "{self:?}");
        let events = self.body.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').expect("a name and data");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "{event}");
            data
        });
        events.collect()
    }
}

/// A chunked body's bytes.
fn without_lengths(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let Some((chunk, rest)) = rest.split_at_checked(length) else { break };
        whole.push_str(chunk);
        body = rest.strip_prefix("\r\n").unwrap_or(rest);
    }
    whole
}

/// Text of the answer `index`, put together from a stream's events.
pub fn streamed_text(events: &[Value], index: usize) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().into_iter().flatten());
    let mine = choices.filter(|choice| choice["index"] == index);
    mine.filter_map(|choice| choice["delta"]["content"].as_str().or(choice["text"].as_str())).collect()
}
