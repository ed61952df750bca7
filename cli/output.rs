//! Output: answers and reports go to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use pard::Error;

use crate::terminal;

/// Controls whether notices and progress are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// They are.
    Freely,
    /// They are, but for what tells of models that were loaded.
    Briefly,
    /// They are not.
    Quiet,
}

impl Verbosity {
    /// As `--quiet` says.
    pub fn unless(quiet: bool) -> Verbosity {
        if quiet { Verbosity::Quiet } else { Verbosity::Freely }
    }

    /// The same without notices of models that were loaded, where something else tells of them.
    pub fn briefly(self) -> Verbosity {
        if self == Verbosity::Freely { Verbosity::Briefly } else { self }
    }

    /// Writes a notice.
    pub fn note(self, line: &str) {
        if self != Verbosity::Quiet {
            note(line);
        }
    }

    /// Writes a notice of a model that was loaded.
    pub fn announce(self, line: &str) {
        if self == Verbosity::Freely {
            note(line);
        }
    }

    /// A progress bar in the form `template`. It shows on a terminal only and leaves nothing behind.
    pub fn bar(self, message: String, template: &str) -> ProgressBar {
        let target = match self {
            Verbosity::Freely | Verbosity::Briefly => ProgressDrawTarget::stderr(),
            Verbosity::Quiet => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndClear);
        bar.with_message(message).with_style(style)
    }
}

/// Writes a line to standard error. That nobody reads it is no fault.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `line` in a paler colour, where standard error is a terminal that shows colours and nobody forbids them
/// (`NO_COLOR`, <https://no-color.org>).
pub fn dimmed(line: &str) -> String {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb");
    if plain || !io::stderr().is_terminal() { line.to_owned() } else { format!("\x1b[2m{line}\x1b[0m") }
}

/// `line` in as many lines as the terminal's width asks for, broken between words; as it is where there is no terminal.
pub fn wrapped(line: &str) -> String {
    let Some(width) = terminal::width().filter(|_| io::stderr().is_terminal()) else { return line.to_owned() };
    let mut lines: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() < width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Writes `text` and a line's end to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Windows' error of a pipe without a reader that the standard library has no kind for.
const PIPE_NOT_CONNECTED: i32 = 233;

/// Returns `true` if `error` means that the reader of standard output has closed it.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        let not_connected = cfg!(windows) && cause.raw_os_error() == Some(PIPE_NOT_CONNECTED);
        not_connected || cause.kind() == io::ErrorKind::BrokenPipe
    })
}

/// The error and its causes on one line. Some messages hold their cause already; it is not said twice.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `bytes` in the unit that suits them.
pub fn bytes(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(size, _)| bytes as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size),
        None => format!("{bytes} B"),
    }
}

/// Columns under their headings: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = widths.iter().enumerate().map(|(column, &width)| match column {
            0 => format!("{:<width$}", cell(row, column)),
            _ => format!("{:>width$}", cell(row, column)),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Checks before long work that a file can be written into `folder` when it is done.
pub fn check_folder(folder: &Path) -> Result<(), Error> {
    let fault = |source| Error::Write { path: folder.to_owned(), source };
    let probe = folder.join(format!(".write-check-{}", std::process::id()));
    std::fs::create_dir_all(folder).map_err(fault)?;
    std::fs::write(&probe, "").map_err(fault)?;
    std::fs::remove_file(&probe).map_err(fault)
}

/// As [`check_folder`], for the file `path`, whose folder must be there.
pub fn check_file(path: &Path) -> Result<(), Error> {
    let fault = |source| Error::Write { path: path.to_owned(), source };
    let is_new = !path.exists();
    std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(fault)?;
    if is_new { std::fs::remove_file(path).map_err(fault) } else { Ok(()) }
}

/// Puts `text` into the place of the file at once, so that nobody ever reads half of it.
pub fn replace_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let fault = |source| Error::Write { path: path.to_owned(), source };
    std::fs::write(&unfinished, text).map_err(fault)?;
    std::fs::rename(&unfinished, path).map_err(fault)?;
    Ok(())
}
