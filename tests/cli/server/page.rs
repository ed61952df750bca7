//! The page to try it, in a real browser: Chromium without a window, driven by its WebDriver.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, Reply, Server};
use crate::{MODELS, json_of, name};

/// A browser.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one; where there is none, a line says so.
    fn start() -> Option<Browser> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = started else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: the page in a browser: there is no chromedriver here");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.split_once("successfully on port ").map(|(_, port)| port.to_owned()));
        let port = port.and_then(|port| port.trim_end_matches('.').parse().ok()).expect("its port");
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Browser { driver, address: (Ipv4Addr::LOCALHOST, port).into(), session: String::new() };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let capabilities = json!({ "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } });
        let session = browser.call("POST", "/session", &json!({ "capabilities": capabilities }));
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("the driver");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("a command");
        let reply = Reply::read(stream);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()["value"].clone()
    }

    fn open(&self, url: &str) {
        self.call("POST", &format!("/session/{}/url", self.session), &json!({ "url": url }));
    }

    /// Runs a script and returns its result.
    fn run(&self, script: &str) -> Value {
        let path = format!("/session/{}/execute/sync", self.session);
        self.call("POST", &path, &json!({ "script": script, "args": [] }))
    }

    fn element(&self, selector: &str) -> String {
        let path = format!("/session/{}/element", self.session);
        let found = self.call("POST", &path, &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|object| object.values().next()).and_then(Value::as_str);
        id.expect("an element").to_owned()
    }

    fn write(&self, selector: &str, text: &str) {
        let path = format!("/session/{}/element/{}/value", self.session, self.element(selector));
        self.call("POST", &path, &json!({ "text": text }));
    }

    fn click(&self, selector: &str) {
        let path = format!("/session/{}/element/{}/click", self.session, self.element(selector));
        self.call("POST", &path, &json!({}));
    }

    /// Waits until a script gives `true`.
    #[track_caller]
    fn wait_until(&self, condition: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return {condition}")) != true {
            assert!(Instant::now() < deadline, "not {condition}: {}", self.run("return document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The driver refuses hosts of other names, and the browser would outlive it.
            let [session, host] = [&self.session, &self.address.to_string()];
            let end = format!("DELETE /session/{session} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                let _ = stream.write_all(end.as_bytes());
                Reply::read(stream);
            }
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn the_page_streams_an_answer_and_shows_what_was_accepted() {
    let Some(browser) = Browser::start() else { return };
    let target = name(&MODELS.target);
    let server = Server::with(&["-d", target, "--method", "vsd", "-k", "4"]);
    browser.open(&format!("{}/", server.url()));
    browser.wait_until("document.querySelectorAll('#method option').length === 3");
    assert_eq!(
        browser.run("return [document.getElementById('method').value, document.getElementById('k').value]"),
        json!(["vsd", "4"])
    );

    let ask = |message: &str, tokens: &str| {
        browser.run(&format!("document.getElementById('tokens').value = {tokens}"));
        browser.write("#prompt", message);
        browser.click("#send");
        browser.wait_until("!document.getElementById('send').disabled");
    };
    ask("the other", "40");
    let expected = json_of(&["generate", "-m", target, "-p", "the other", "-n", "40", "--json", "-q"]);
    let shown = "return document.querySelector('.assistant .tokens').textContent";
    assert_eq!(browser.run(shown), expected["text"]);
    // A draft that is the target: of each round all but the last token was proposed.
    assert_eq!(browser.run("return document.querySelectorAll('.assistant .accepted').length"), 32);
    let statistics = browser.run("return document.querySelector('.turn .row').textContent");
    let statistics = statistics.as_str().expect("a text");
    for part in [
        "prompt: ",
        "answer: 40 tokens, ",
        "tokens/s",
        "vsd, K = 4: 8 rounds of 5.00 tokens",
        "32 proposals accepted, 0 rejected",
    ] {
        assert!(statistics.contains(part), "no {part:?} in {statistics:?}");
    }

    // Another method, in the same conversation.
    browser.run("const m = document.getElementById('method'); m.value = 'ar'; m.dispatchEvent(new Event('change'))");
    assert_eq!(browser.run("return document.getElementById('k').disabled"), true);
    ask("and the thing", "10");
    assert_eq!(browser.run("return document.querySelectorAll('.assistant').length"), 2);
    assert_eq!(browser.run("return document.querySelectorAll('.assistant .accepted').length"), 32);
    assert_eq!(browser.run("return messages.length"), 4);

    // Errors are shown, and the question stays in the box.
    ask(&"the thing ".repeat(80), "10");
    let error = browser.run("return document.getElementById('failure').textContent");
    assert!(error.as_str().is_some_and(|error| error.contains("maximum context length is 512")), "{error}");
    assert_eq!(browser.run("return document.getElementById('prompt').value"), "the thing ".repeat(80));
    assert_eq!(browser.run("return messages.length"), 4);

    // What was said outlives the page.
    browser.open(&format!("{}/", server.url()));
    browser.wait_until("document.querySelectorAll('.turn').length === 2");
    assert_eq!(browser.run(shown), expected["text"]);
    // The last question again.
    browser.wait_until("document.querySelectorAll('#method option').length === 3");
    browser
        .run("[...document.querySelectorAll('.turn:last-child button')].find(b => b.textContent === 'Retry').click()");
    browser.wait_until("messages.length === 4 && !document.getElementById('send').disabled");

    browser.click("#reset");
    assert_eq!(browser.run("return document.getElementById('conversation').children.length + messages.length"), 0);
}

/// Puts an answer that the test writes, by `feed`, in the place of the server's.
const FED: &str = "window.fetch = async (_, options) => new Response(new ReadableStream({ start(stream) { \
    options.signal.addEventListener('abort', () => stream.error(new DOMException('', 'AbortError'))); \
    window.feed = text => { \
        const choices = [{ delta: { content: text }, pard: { tokens: [{ text, accepted: false }] } }]; \
        stream.enqueue(new TextEncoder().encode('data: ' + JSON.stringify({ choices }) + '\\n')); \
    }; } }))";

#[test]
fn the_page_keeps_an_answer_out_of_the_next_conversation() {
    let Some(browser) = Browser::start() else { return };
    let server = Server::with(&[]);
    browser.open(&format!("{}/", server.url()));
    browser.wait_until("document.querySelectorAll('#method option').length > 0");
    browser.run(FED);
    // Shift and Enter begin a line, Enter sends.
    browser.write("#prompt", "the\u{e008}\u{e007}\u{e008}other");
    assert_eq!(browser.run("return document.getElementById('prompt').value"), "the\nother");
    browser.write("#prompt", "\u{e007}");
    let line = "return document.querySelector('.turn .row').textContent";
    let reading = browser.run(line);
    assert!(reading.as_str().is_some_and(|line| line.starts_with("reading the prompt")), "{reading}");
    browser.run("feed('half')");
    browser.wait_until("document.querySelector('.text').textContent === 'half'");
    browser.click("#reset");
    browser.wait_until("!document.getElementById('send').disabled");
    assert_eq!(browser.run("return document.getElementById('conversation').children.length + messages.length"), 0);

    // A system message goes first, and Stop keeps what was written.
    browser.run("document.getElementById('system').value = 'the rule'");
    browser.write("#prompt", "the end\u{e007}");
    browser.run("feed('some')");
    browser.wait_until("document.querySelector('.text').textContent === 'some'");
    browser.click("#stop");
    browser.wait_until("messages.length === 2");
    assert_eq!(browser.run("return JSON.parse(request(messages)).messages[0].content"), "the rule");
    let stopped = browser.run(line);
    assert!(stopped.as_str().is_some_and(|line| line.contains("stopped")), "{stopped}");
    // Without a word of an answer the question goes back into the box.
    browser.write("#prompt", "and?\u{e007}");
    browser.click("#stop");
    browser.wait_until("document.getElementById('prompt').value === 'and?'");
    assert_eq!(browser.run("return messages.length"), 2);
}

/// What a model writes becomes elements by way of their text alone.
#[test]
fn the_page_shows_markdown_and_no_html() {
    let Some(browser) = Browser::start() else { return };
    let server = Server::with(&[]);
    browser.open(&format!("{}/", server.url()));
    for (source, expected) in [
        ("# A *b*\nc **d** `e*f*`", "<h2>A <em>b</em></h2><p>c <strong>d</strong> <code>e*f*</code></p>"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("[a](javascript:b) 2 * 3 * 4 a_b_c", "<p>[a](javascript:b) 2 * 3 * 4 a_b_c</p>"),
        ("- a\n  - b\n- c", "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ul>"),
        ("3. a\n\n   b\n4. c", "<ol start=\"3\"><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>"),
        ("> a\n\n---", "<blockquote><p>a</p></blockquote><hr>"),
        ("|a|b|\n|-|-|\n|1|2|", "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"),
    ] {
        let script = format!(
            "const box = document.createElement('div'); box.append(...markdown({})); return box.innerHTML",
            json!(source)
        );
        assert_eq!(browser.run(&script), expected, "{source}");
    }
    let script = "const box = document.createElement('div'); box.append(...markdown('```js\\n<b>\\n\\n# x')); \
                  return [box.querySelector('pre').textContent, box.querySelectorAll('b, h2').length]";
    assert_eq!(browser.run(script), json!(["<b>\n\n# x", 0]));
    let deep = format!("return markdown({}).length", json!(">".repeat(10_000)));
    assert_eq!(browser.run(&deep), 1);
}
