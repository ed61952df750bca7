//! The lines that a user writes: edited on a terminal, taken as they come from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pard::Error;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::command::COMMANDS;
use crate::output;

/// Lines kept in the history's file.
const MAX_HISTORY: usize = 1000;

/// Source of the lines.
pub enum Lines {
    /// A terminal, with editing and a history.
    Terminal {
        editor: Box<Editor<Slash, FileHistory>>,
        /// File that keeps the history.
        history: Option<PathBuf>,
    },
    /// Anything else.
    Pipe,
}

impl Lines {
    /// Lines from standard input; on a terminal with the history in `history`.
    pub fn open(history: Option<PathBuf>) -> anyhow::Result<Lines> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Lines::Pipe);
        }
        let config = Config::builder().max_history_size(MAX_HISTORY)?.auto_add_history(false).build();
        let mut editor = Editor::with_config(config).context("cannot use the terminal")?;
        editor.set_helper(Some(Slash));
        if let Some(path) = &history {
            if let Some(folder) = path.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            // There is none the first time.
            let _ = editor.load_history(path);
        }
        Ok(Lines::Terminal { editor: Box::new(editor), history })
    }

    /// Returns `true` if the lines come from a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Lines::Terminal { .. })
    }

    /// The next line without its end; none at the end.
    pub fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Lines::Terminal { editor, history } => edited(editor, history.as_deref()),
            Lines::Pipe => piped(),
        }
    }
}

fn edited(editor: &mut Editor<Slash, FileHistory>, history: Option<&Path>) -> anyhow::Result<Option<String>> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // A failure to save the line must not lose it.
                if !line.trim().is_empty() && editor.add_history_entry(&line).is_ok_and(|added| added) {
                    let _ = history.map(|path| editor.append_history(path));
                }
                return Ok(Some(line.replace("\\\n", "\n")));
            }
            Err(ReadlineError::Interrupted) => output::note("/exit or Ctrl-D ends the chat"),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(anyhow::Error::new(error).context("cannot read from the terminal")),
        }
    }
}

fn piped() -> anyhow::Result<Option<String>> {
    let failed = |source| Error::Io { path: PathBuf::from("standard input"), source };
    let mut bytes = Vec::new();
    if io::stdin().lock().read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
        return Ok(None);
    }
    let mut line = crate::text_file::utf8("standard input", bytes)?;
    line.truncate(line.trim_end_matches(['\n', '\r']).len());
    Ok(Some(line))
}

/// Completes commands, and lets a line that ends with a backslash go on.
pub struct Slash;

impl Helper for Slash {}
impl Hinter for Slash {
    type Hint = String;
}
impl Highlighter for Slash {}

impl Validator for Slash {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let goes_on = context.input().ends_with('\\');
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Slash {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..position];
        let fitting = COMMANDS.iter().filter(|command| begun.starts_with('/') && command.name.starts_with(begun));
        Ok((0, fitting.map(|command| command.name.to_owned()).collect()))
    }
}
