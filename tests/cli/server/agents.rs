//! Clients that agents are made with, against the server: structured answers and tools.

use std::path::Path;
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
