//! The `openai` package of PyPI against the server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Server;
use crate::{MODELS, json_of, name};

/// The folder `name` of the tests' own with Python packages, installed once; why not, where they cannot be had.
pub fn packages(name: &str, wanted: &[&str]) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Written last, so that a half of them is not taken for all.
    let complete = folder.join(format!("{}.complete", wanted.join(",").replace(['/', '\\'], "-")));
    if complete.exists() {
        return Ok(folder);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    let output = pip.arg(&folder).args(wanted).output().map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("pip failed").to_owned());
    }
    std::fs::write(complete, "").map_err(|error| error.to_string())?;
    Ok(folder)
}

static PACKAGES: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| packages("openai", &["openai"]));

/// Runs the client against `server`, of whose model `pard generate` answered `expected` to `prompt` by `settings`.
fn check(server: &Server, model: &str, prompt: &str, settings: Value, expected: &Value) {
    let packages = match &*PACKAGES {
        Ok(packages) => packages,
        Err(reason) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: the openai client with {model}: {reason}");
            return;
        }
    };
    let finish = if expected["finish_reason"] == "stop" { "stop" } else { "length" };
    let expectations = json!({
        "model": model,
        "prompt": prompt,
        "settings": settings,
        "text": expected["text"],
        "tokens": expected["output_ids"].as_array().expect("a list").len(),
        "finish": finish,
    });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("openai-{model}.json"));
    std::fs::write(&file, expectations.to_string()).expect("a file");
    let script = Path::new(crate::ROOT).join("tests/cli/server/client.py");
    let mut client = Command::new("python3");
    client.arg(script).arg(server.url()).arg(&file).env("PYTHONPATH", packages);
    let output = client.output().expect("running python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn keys() -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-keys.txt");
    std::fs::write(&file, "the-key\n").expect("a file");
    file
}

#[test]
fn the_openai_client_gets_what_generate_writes_and_errors_that_it_knows() {
    let target = name(&MODELS.target);
    let expected = json_of(&["generate", "-m", target, "-p", "the other", "-n", "24", "--chat", "--json", "-q"]);
    let server = Server::with(&["-d", name(&MODELS.draft), "--api-key-file", name(&keys())]);
    check(&server, "target", "the other", json!({ "max_tokens": 24, "temperature": 0, "seed": 0 }), &expected);
}

#[test]
fn the_openai_client_with_the_real_model() {
    let draft = Path::new(crate::ROOT).join("models/smollm2-135m-instruct-pard");
    let prompt = "What is the capital of France?";
    let mut command = Command::new(env!("CARGO_BIN_EXE_pard"));
    command.args(["generate", "-m", "smollm2", "-p", prompt, "-n", "8", "--chat", "--json", "-q"]);
    let output = command.output().expect("running pard");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let server = Server::of("smollm2", &["-d", name(&draft), "-k", "2", "--api-key-file", name(&keys())]);
    check(&server, "smollm2", prompt, json!({ "max_tokens": 8, "temperature": 0, "seed": 0 }), &expected);
}
