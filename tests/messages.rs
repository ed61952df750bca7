//! Messages hold no debug output: `{…:?}` is for texts, which get quotes, and for lists of numbers.

use std::path::{Path, PathBuf};

/// Names of texts and lists, which may be shown so.
const TEXTS_AND_LISTS: [&str; 32] = [
    "DEFAULT_MODEL",
    "QUESTION",
    "activation",
    "answer",
    "draft",
    "expected",
    "float",
    "format",
    "got",
    "host",
    "key",
    "line",
    "missing",
    "model_type",
    "module",
    "name",
    "named",
    "names",
    "origin",
    "other",
    "revision",
    "root",
    "rows",
    "sha",
    "shape",
    "shard",
    "shown",
    "storage",
    "target",
    "tensor",
    "text",
    "token",
];
/// Ends of the arguments that may be shown by `{:?}`; the last two are no messages but fields of a list and a key.
const ARGUMENTS: [&str; 10] = [
    ".name",
    "info.sha",
    ".shape",
    "collect::<String>()",
    "folder.unwrap_or_default()",
    "token_text(model, token)",
    "layers,",
    "moments,",
    "config.family",
    "p.ab_type",
];
/// Lines that make no message: the name of a table's file, and the record of a grammar.
const NO_MESSAGES: [&str; 2] = ["let text = format!(\"{self:?}\");", "map(|grammar| format!(\"{grammar:?}\"))"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Returns `true` if the placeholder before `:?}` at `at` in `text` is of a text or a list.
fn is_plain(text: &str, at: usize) -> bool {
    let name = &text[text[..at].rfind('{').map_or(at, |open| open + 1)..at];
    // The arguments follow within a few lines.
    let after: String = text[at..].lines().take(16).collect();
    let is_argument = || ARGUMENTS.iter().any(|argument| after.contains(argument));
    TEXTS_AND_LISTS.contains(&name) || (name.is_empty() && is_argument())
}

#[test]
fn messages_hold_no_debug_output() {
    let mut files = Vec::new();
    for folder in ["engine", "cli"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let (mut seen, mut faults) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (at, _) in text.match_indices(":?}") {
            seen += 1;
            let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = text[start..].lines().next().unwrap_or_default();
            if !is_plain(&text, at) && !NO_MESSAGES.iter().any(|known| line.contains(known)) {
                faults.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(seen > 40, "only {seen} placeholders");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
