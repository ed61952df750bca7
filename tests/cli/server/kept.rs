//! Conversations whose caches are kept on disk go on after a restart without their tokens being read again.

use std::path::Path;

use serde_json::{Value, json};

use super::{Server, chat, text};
use crate::{MODELS, command, name};

fn server(folder: &Path) -> Server {
    Server::of(name(&super::ENDLESS), &["-d", name(&MODELS.draft), "-k", "3", "--cache-dir", name(folder)])
}

/// Asks for more of `prompt`; gives the text and how many of its tokens the caches held.
fn said(server: &Server, prompt: &str, more: Value) -> (String, u64) {
    let reply = server.post("/v1/completions", &text(prompt, more));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
    (reply["choices"][0]["text"].as_str().expect("a text").to_owned(), cached)
}

#[cfg(unix)]
#[test]
fn conversations_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("made/by/the/server");
    let prompt = "the water and the thing in it, ".repeat(4);
    let named = json!({ "max_tokens": 20, "pard": { "cache": "talk-1" } });
    let mut first = server(&folder);
    let (answer, cached) = said(&first, &prompt, named.clone());
    assert_eq!(cached, 0);
    let turn = format!("{prompt}{answer} and when");
    let (expected, known) = said(&first, &turn, json!({ "max_tokens": 20 }));
    assert!(known > 60, "{known}");
    // What is kept under a name outlives a server that is killed.
    first.kill();
    assert!(folder.join("talk-1.safetensors").exists());

    let mut second = server(&folder);
    assert_eq!(said(&second, &turn, named.clone()), (expected.clone(), known));
    let (longer, _) = said(&second, &turn, json!({ "max_tokens": 30 }));
    // What was in memory outlives one that ends.
    let id = second.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    assert_eq!(second.ended(), Some(0));
    let third = server(&folder);
    let (again, known) = said(&third, &format!("{turn}{longer}"), json!({ "max_tokens": 4 }));
    assert!(known > 100, "{known}: {again}");
}

#[test]
fn files_that_cannot_be_used_are_said_and_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let ask = json!({ "max_tokens": 8, "pard": { "cache": "talk" } });
    let path = folder.path().join("talk.safetensors");
    std::fs::write(&path, b"not caches").expect("a file");
    let server = server(folder.path());
    let (answer, cached) = said(&server, "the water and", ask.clone());
    assert_eq!(cached, 0);
    server.wait_for("talk.safetensors");
    assert_eq!(said(&server, "the water and", json!({ "max_tokens": 8 })).0, answer);
    // It was replaced by the conversation's own before the next answer began.
    assert!(std::fs::metadata(&path).expect("a file").len() > 1000);

    for name in ["", "_000", "../talk", "a.b", "a/b", &"x".repeat(65)] {
        let reply = server.post("/v1/chat/completions", &chat("and", json!({ "pard": { "cache": name } })));
        reply.expect_error(400, &["pard.cache", "64 letters"]);
    }
    let plain = Server::with(&[]);
    plain.post("/v1/chat/completions", &chat("and", ask)).expect_error(400, &["pard.cache", "--cache-dir"]);
}

#[test]
fn the_folder_is_tried_before_anything_is_loaded() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let options = ["serve", "-m", name(&MODELS.target), "--port", "0", "--cache-dir", name(file.path())];
    let output = command(&options).output().expect("running pard serve");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot write") && !said.contains("ready"), "{said}");
}
