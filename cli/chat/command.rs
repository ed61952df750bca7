//! Parsing of the lines of a chat.

/// A command, as `/help` lists it.
pub struct Known {
    pub name: &'static str,
    argument: &'static str,
    effect: &'static str,
}

const fn known(name: &'static str, argument: &'static str, effect: &'static str) -> Known {
    Known { name, argument, effect }
}

/// The commands there are.
pub const COMMANDS: [Known; 8] = [
    known("/reset", "", "forget what was said, but not the system's message"),
    known("/system", "[TEXT]", "change what the model is told before all else; `none` takes it away; alone: show it"),
    known("/save", "FILE", "write the conversation to a file, one line of JSON"),
    known("/load", "FILE", "go on with the conversation in a file"),
    known("/stats", "", "what all answers so far took"),
    known("/model", "[NAME [DRAFT]]", "go on with another model; alone: show this one"),
    known("/help", "", "this list"),
    known("/exit", "", "end the chat, as Ctrl-D does"),
];

/// A line of a chat, parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A blank line.
    Empty,
    /// An answer.
    Say(&'a str),
    /// A command, with what stands behind it.
    Command(&'a str, &'a str),
}

impl Line<'_> {
    /// Reads a line. One that begins with two slashes is a message that begins with one.
    pub fn of(line: &str) -> Line<'_> {
        if line.trim().is_empty() {
            return Line::Empty;
        }
        match line.strip_prefix('/') {
            Some(message) if message.starts_with('/') => Line::Say(message),
            Some(_) => {
                let (name, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
                Line::Command(name, rest.trim())
            }
            None => Line::Say(line),
        }
    }
}

/// The list that `/help` shows.
pub fn help() -> String {
    let row = |command: &Known| format!("{:<24} {}", format!("{} {}", command.name, command.argument), command.effect);
    let mut lines: Vec<String> = COMMANDS.iter().map(row).collect();
    lines.push(
        "Anything else is said to the model; // begins a message with a slash, and a \\ at a line's end goes on".into(),
    );
    lines.push("on the next. Ctrl-C ends an answer.".into());
    lines.join("\n")
}
