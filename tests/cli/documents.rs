//! Documents that the program writes itself, and those that scripts check.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Ended, command, name};

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

/// Runs one of the documents' scripts; `None` where there is no Python.
fn script(path: &Path, arguments: &[&str]) -> Option<Ended> {
    match Command::new("python3").arg("-B").arg(path).args(arguments).output() {
        Ok(output) => Some(Ended::of(output)),
        Err(error) => {
            eprintln!("SKIPPED {}: python3: {error}", path.display());
            None
        }
    }
}

#[test]
fn every_document_is_a_page_of_the_site_and_no_link_leads_nowhere() {
    let Some(ended) = script(&Path::new(crate::ROOT).join("docs/site.py"), &["check"]) else { return };
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

/// The folder of cards in a folder of the test's own.
fn copied_cards() -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().expect("a folder");
    let mut folders = vec![Path::new(crate::ROOT).join("docs/cards")];
    let root = folders[0].clone();
    while let Some(folder) = folders.pop() {
        let target = copy.path().join(folder.strip_prefix(&root).expect("a folder of it"));
        std::fs::create_dir_all(&target).expect("a folder");
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => std::fs::copy(&path, target.join(entry.file_name())).map(drop).expect("a copy"),
            }
        }
    }
    let script = copy.path().join("cards.py");
    (copy, script)
}

/// docs/cards/README.md is what docs/cards/cards.py makes of the folders; it takes others in if they make sense.
#[test]
fn the_table_of_cards_is_made_of_their_reports() {
    let (copy, path) = copied_cards();
    let Some(ended) = script(&path, &["check"]) else { return };
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let run = |arguments: &[&str]| script(&path, arguments).expect("Python");

    let refused = |ended: Ended, part: &str| {
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("cards: ") && ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    };

    let known = copy.path().join("llvmpipe-mesa-22.3");
    let sent = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(known.join("report.json")).expect("a report");
    let send = |report: &str| {
        std::fs::copy(known.join("row.md"), sent.path().join("row.md")).expect("a copy");
        std::fs::write(sent.path().join("report.json"), report).expect("a report");
        // The rest of a folder of `./run gpu` is left behind.
        std::fs::write(sent.path().join("trace.json"), "[]").expect("a trace");
        run(&["add", name(sent.path()), "other-card"])
    };
    let damaged = [
        (text.replace("\"complete\": true", "\"complete\": false"), "cut short"),
        (text.replace("\"read_bytes_per_second\": ", "\"read_bytes_per_second\": -"), "cannot be"),
        (text.replace("\"pard_report\": 1", "\"pard_report\": 2"), "version 2"),
        (text.replace("\"begun\": \"20", "\"begun\": \"21"), "another report"),
        (text.replace("\"rows\": 1,", "\"rows\": 3,"), "no report"),
        (text[..text.len() / 2].to_owned(), "no report"),
    ];
    for (report, reason) in &damaged {
        assert_ne!(*report, text, "{reason}");
        refused(send(report), reason);
        assert!(!copy.path().join("other-card").exists(), "{reason}");
    }
    assert_eq!(run(&["check"]).code, Some(0), "nothing was changed");

    let hostile = text.replacen("\"driver\": \"", "\"driver\": \"[x](javascript:x) | <b> ", 1);
    assert_eq!(send(&hostile).stderr, "");
    let table = std::fs::read_to_string(copy.path().join("README.md")).expect("the table");
    assert!(table.contains("](other-card/row.md) |") && !table.contains("<b>") && !table.contains("[x]"), "{table}");
    assert_eq!(run(&["check"]).code, Some(0));
    refused(send(&text), "such a card already");
    refused(run(&["add", name(sent.path()), "../x"]), "../x");
    std::fs::remove_file(copy.path().join("other-card/row.md")).expect("a file");
    refused(run(&["check"]), "other-card");
}
