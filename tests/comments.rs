//! The language of comments: a block opens with a noun or a verb, as the standard library's documentation does.

use std::path::{Path, PathBuf};

const OPENINGS: [&str; 11] =
    ["What", "Whether", "Whose", "Of", "That", "How", "Where", "Who", "Which", "Nobody", "When"];

/// The share of blocks that may open otherwise, in percent.
const MAX_PERCENT: usize = 3;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs" || extension == "wgsl");
        match path.is_dir() {
            true => sources(&path, found),
            false if is_source => found.push(path),
            false => {}
        }
    }
}

/// The first lines of the comment blocks of `text`.
fn openings(text: &str) -> Vec<&str> {
    let mut first_lines = Vec::new();
    let mut before = None;
    for line in text.lines() {
        let line = line.trim_start();
        let marker = ["///", "//!", "//"].into_iter().find(|marker| line.starts_with(marker));
        if let Some(marker) = marker.filter(|_| marker != before) {
            first_lines.push(line[marker.len()..].trim());
        }
        before = marker;
    }
    first_lines
}

#[test]
fn comments_open_with_a_noun_or_a_verb() {
    let mut files = Vec::new();
    for folder in ["engine", "cli", "shaders", "benches", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let (mut blocks, mut others) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for opening in openings(&text) {
            blocks += 1;
            let word = opening.split(|letter: char| !letter.is_alphabetic()).next().unwrap_or_default();
            if OPENINGS.contains(&word) {
                others.push(format!("{}: {opening}", file.display()));
            }
        }
    }
    assert!(blocks > 1000, "{blocks} comments");
    let message = others.join("\n");
    assert!(others.len() * 100 <= MAX_PERCENT * blocks, "{} of {blocks} comments:\n{message}", others.len());
}
