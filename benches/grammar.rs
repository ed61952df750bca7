//! Time that the host takes for the grammar's part of a round: masks for all rows of a verify pass, along proposals that it
//! allows, and forced tokens.
//!
//!     cargo bench --bench grammar -- MODEL [ROWS]
//!
//! MODEL is a tokenizer.json, or a model's folder or .gguf file, of which the tokenizer alone is used. Answers with a schema
//! are walked from their beginning to their end, ROWS - 1 proposals at a time (12 by default), as rounds do.

use std::path::Path;
use std::time::{Duration, Instant};

use pard::Result;
use pard::checkpoint::ModelFiles;
use pard::low_level::grammar::begin;
use pard::text::{ChatTokenizer, Grammar, Special, Tokenizer};

/// Objects, arrays, texts, numbers and choices.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["animal", "plant", "tool", "place"]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "size": {"type": "object", "properties": {"height": {"type": "number"}, "unit": {"enum": ["mm", "cm", "m"]}},
                 "required": ["height", "unit"], "additionalProperties": false},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}}
    },
    "required": ["name", "kind", "code", "size", "tags"],
    "additionalProperties": false
}"#;

const ANSWER: &str = r#"{"name": "The white stork, a bird that nests on roofs", "kind": "animal", "code": "CIC-1758", "size": {"height": 1.15, "unit": "m"}, "tags": ["bird", "migratory", "long legs"]}"#;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(model) = arguments.first() else {
        println!("usage: cargo bench --bench grammar -- MODEL [ROWS]");
        return Ok(());
    };
    let rows: usize = arguments.get(1).and_then(|rows| rows.parse().ok()).unwrap_or(13);
    let text = open(Path::new(model))?;
    let ids = text.tokenizer.vocab_size();
    let grammar = Grammar::JsonSchema(SCHEMA.to_owned());
    let started = Instant::now();
    let mut constraint = begin(&text, &grammar)?;
    let first = started.elapsed();
    let started = Instant::now();
    begin(&text, &grammar)?;
    println!("{ids} tokens; the first grammar took {:.1} ms, a known one {:.3} ms", ms(first), ms(started.elapsed()));

    let answer = text.tokenizer.encode(ANSWER, Special::Keep)?;
    let mut times = Vec::new();
    for repetition in 0..20 {
        constraint.restart()?;
        for window in answer.chunks(rows - 1) {
            let started = Instant::now();
            constraint.mask(ids)?;
            let walk = constraint.walk(window, rows - 1, true, ids)?;
            constraint.commit(window).map_err(|(_, error)| error)?;
            constraint.forced(rows - 1);
            assert_eq!(walk.tokens[..window.len().min(walk.tokens.len())], *window, "the answer keeps to the schema");
            // What is compiled on the way is kept by the first of many answers.
            if repetition > 0 {
                times.push(started.elapsed());
            }
        }
    }
    times.sort_unstable();
    let at = |share: f64| ms(times[((times.len() - 1) as f64 * share) as usize]);
    println!("{rows} rows: median {:.3} ms a round, 90 % within {:.3}, all within {:.3}", at(0.5), at(0.9), at(1.0));
    Ok(())
}

fn open(path: &Path) -> Result<ChatTokenizer> {
    if path.file_name().is_none_or(|name| name != "tokenizer.json") {
        return Ok(ModelFiles::open(path)?.text);
    }
    let tokenizer = Tokenizer::from_file(path)?;
    let ends = ["<|im_end|>", "<|eot_id|>", "</s>", "<|endoftext|>"];
    Ok(ChatTokenizer {
        model_name: "tokenizer".to_owned(),
        stop_tokens: ends.iter().filter_map(|token| tokenizer.id(token)).collect(),
        tokenizer,
        template: None,
        tool_template: None,
        special_tokens: Default::default(),
        suggested: Vec::new(),
        grammars: Default::default(),
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
