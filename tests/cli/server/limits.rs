//! Options that `pard serve` refuses.

use std::net::TcpListener;

use crate::support::tiny_model::Recipe;
use crate::{MODELS, name, pard};

#[test]
fn what_would_be_unsafe_or_cannot_be_is_refused_at_the_start() {
    let target = name(&MODELS.target);
    let serve = |more: &[&str]| pard(&[&["serve", "-m", target, "--port", "0"], more].concat());
    serve(&["--host", "0.0.0.0"]).expect_error(2, &["--host", "--api-key-file"]);
    serve(&["--host", "::"]).expect_error(2, &["--host", "--api-key-file"]);
    assert_eq!(serve(&["--host", "example.com"]).code, Some(2));
    assert_eq!(serve(&["--parallel", "0"]).code, Some(2));
    assert_eq!(serve(&["--read-timeout", "0"]).code, Some(2));
    serve(&["--api-key-file", "no-such-file"]).expect_error(1, &["no-such-file"]);
    let empty = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-keys.txt");
    std::fs::write(&empty, "# none\n\n").expect("a file");
    serve(&["--api-key-file", name(&empty)]).expect_error(2, &["holds no key"]);
    serve(&["--method", "pard"]).expect_error(2, &["--method", "-d"]);
    let broken = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken-template");
    std::fs::create_dir_all(&broken).expect("a folder");
    Recipe::llama(11).write(&broken);
    std::fs::write(broken.join("chat_template.jinja"), "{% if %}").expect("a template");
    pard(&["serve", "-m", name(&broken), "--port", "0"]).expect_error(1, &["chat template", "does not compile"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    pard(&["serve", "-m", target, "--port", &port]).expect_error(1, &["cannot listen", &port]);
    pard(&["serve", "-m", "no-such-model", "--port", "0"]).expect_error(1, &["no-such-model"]);
    serve(&["--device", "no such card"]).expect_error(1, &["no such card"]);
}
