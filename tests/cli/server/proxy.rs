//! Two instances behind nginx, by the configuration that is shipped: what one of them answers no more, the other does.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Address, PATIENCE, Server, chat, streamed_text};

/// A proxy, and its processes.
struct Proxy {
    nginx: Child,
    address: Address,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its worker ends with it only if it is asked.
        let _ = Command::new("kill").args(["-TERM", &self.nginx.id().to_string()]).status();
        let _ = self.nginx.wait();
    }
}

/// A proxy for two servers; where there is no nginx, a line says so.
fn proxy(servers: [&Server; 2]) -> Option<Proxy> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    std::fs::create_dir_all(&folder).expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let shipped = Path::new(crate::ROOT).join("cli/serve/nginx.conf");
    let mut text = std::fs::read_to_string(shipped).expect("the configuration");
    for (port, address) in [(8080, free), (8081, servers[0].address()), (8082, servers[1].address())] {
        let named = format!("127.0.0.1:{port}");
        assert!(text.contains(&named), "no {named} in {text}");
        text = text.replace(&named, &address.to_string());
    }
    let path = folder.join("nginx.conf");
    std::fs::write(&path, text).expect("a configuration");
    let mut command = Command::new("nginx");
    let started = command.arg("-p").arg(&folder).arg("-c").arg(&path).stderr(Stdio::null()).spawn();
    let Ok(nginx) = started else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: two instances behind nginx: there is no nginx here");
        return None;
    };
    let proxy = Proxy { nginx, address: Address(free) };
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(free).is_err() {
        assert!(Instant::now() < deadline, "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(proxy)
}

#[cfg(unix)]
#[test]
fn requests_go_on_where_one_instance_is_gone() {
    let (mut one, other) = (Server::with(&[]), Server::with(&[]));
    let Some(proxy) = proxy([&one, &other]) else { return };
    let expected = one.chat("the other", json!({ "max_tokens": 8 }))["choices"][0]["message"]["content"].clone();
    let ask = |count: usize| {
        for index in 0..count {
            let body = chat("the other", json!({ "max_tokens": 8, "stream": index % 2 == 0 }));
            let reply = proxy.address.post("/v1/chat/completions", &body);
            assert_eq!(reply.status, 200, "{reply:?}");
            let text = match index % 2 {
                0 => json!(streamed_text(&reply.events(), 0)),
                _ => reply.json()["choices"][0]["message"]["content"].clone(),
            };
            assert_eq!(text, expected);
        }
    };
    let answered = |server: &Server| server.metric("pard_answer_seconds_count");
    ask(10);
    assert!(answered(&one) > 1.0 && answered(&other) > 0.0, "both have work");
    let before = answered(&other);
    one.kill();
    ask(10);
    assert_eq!(answered(&other) - before, 10.0);
    assert_eq!(proxy.address.get("/health").status, 200);
    assert_eq!(proxy.address.get("/").status, 200);
}
