//! Clients that agents are made with, against the server: structured answers and tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Server;
use super::openai::packages;
use crate::{MODELS, ROOT, name};

/// Clients and what they are installed from; some want an older `openai` than others.
const SETS: [(&str, &[&str], &[&str]); 3] = [
    (
        "agents",
        &["openai", "openai_responses", "instructor", "langchain", "litellm"],
        &["openai==1.109.1", "instructor==1.12.0", "langchain-openai==1.1.9", "litellm==1.80.0"],
    ),
    ("agents-newer", &["openai", "openai_responses", "pydantic_ai"], &["pydantic-ai-slim[openai]==2.68.0"]),
    ("anthropic", &["anthropic"], &["anthropic==2.14.0"]),
];

/// Packages of npm.
const NPM: [&str; 4] = ["openai@6.49.0", "zod@4.6.7", "ai@6.0.325", "@ai-sdk/openai-compatible@2.0.92"];

/// A folder with packages of npm, installed once; why not, where they cannot be had.
fn npm_packages() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents-npm");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Written last, and of these versions alone.
    let complete = folder.join("complete");
    if std::fs::read_to_string(&complete).is_ok_and(|written| written == NPM.join(" ")) {
        return Ok(folder);
    }
    std::fs::write(folder.join("package.json"), "{}").map_err(|error| error.to_string())?;
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut npm = Command::new(npm);
    npm.args(["install", "--no-fund", "--no-audit", "--no-save", "--prefix"]).arg(&folder).args(NPM);
    let output = npm.output().map_err(|error| format!("npm: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("npm failed").to_owned());
    }
    std::fs::write(complete, NPM.join(" ")).map_err(|error| error.to_string())?;
    Ok(folder)
}

#[test]
fn clients_of_npm_get_structured_answers_and_call_tools() {
    let folder = match npm_packages() {
        Ok(folder) => folder,
        Err(reason) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: the clients of npm, {}: {reason}", NPM.join(", "));
            return;
        }
    };
    let server = Server::with(&["-d", name(&MODELS.draft), "-c", "8192"]);
    let script = Path::new(ROOT).join("tests/cli/server/agents.mjs");
    for client in ["openai", "ai"] {
        let mut command = Command::new("node");
        let output = command.arg(&script).arg(&folder).arg(server.url()).arg(client).output().expect("running node");
        assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn clients_of_agents_get_structured_answers_and_call_tools() {
    let server = Server::with(&["-d", name(&MODELS.draft), "-c", "8192"]);
    for (folder, clients, wanted) in SETS {
        let found = match packages(folder, wanted) {
            Ok(found) => found,
            Err(reason) => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "SKIPPED: the clients {}: {reason}", clients.join(", "));
                continue;
            }
        };
        let script = Path::new(ROOT).join("tests/cli/server/agents.py");
        for client in clients {
            let mut command = Command::new("python3");
            let output = command.arg(&script).arg(server.url()).arg(client).env("PYTHONPATH", &found).output();
            let output = output.expect("running python3");
            assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
