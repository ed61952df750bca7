//! Documents that the program writes itself.

use std::path::Path;

use crate::command;

/// Commands of the program, in the order of its help.
fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let listed = list.lines().take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn help(arguments: &[&str]) -> String {
    let output = command(&[arguments, &["--help"]].concat()).output().expect("running pard");
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| format!("{}\n", line.trim_end().replace("pard.exe", "pard"))).collect()
}

/// docs/options.md is what the program says of itself. `PARD_WRITE_DOCS=1` writes it.
#[test]
fn the_options_are_documented_as_the_program_has_them() {
    let root = help(&[]);
    let mut text = String::from(
        "# Options\n\nHelp of every command, as the program prints it (`pard COMMAND --help`); [Command line](command-line.md) \
         shows them at work.\nWritten by `PARD_WRITE_DOCS=1 cargo test --workspace documented`.\n",
    );
    for name in commands(&root) {
        text.push_str(&format!("\n## pard {name}\n\n```text\n{}```\n", help(&[&name])));
    }
    let path = Path::new(crate::ROOT).join("docs/options.md");
    if std::env::var("PARD_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &text).expect("writing");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(written == text, "docs/options.md is not what the program says: run this with PARD_WRITE_DOCS=1");
}
