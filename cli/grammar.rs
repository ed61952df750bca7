//! Arguments that an answer's grammar is given by.

use clap::Args;
use pard::text::Grammar;

use crate::{output, text_file};

/// Options for the form of an answer.
#[derive(Args, Clone, Default)]
pub struct GrammarArguments {
    /// Answer with JSON that this schema describes: a file, or the schema itself
    #[arg(long, value_name = "FILE|SCHEMA", value_parser = schema, conflicts_with_all = ["grammar", "regex", "choice"])]
    json_schema: Option<Grammar>,
    /// Answer with text of this grammar, in GBNF or in llguidance's form of Lark: a file, or the grammar itself
    #[arg(long, value_name = "FILE|GRAMMAR", value_parser = lark, conflicts_with_all = ["regex", "choice"])]
    grammar: Option<Grammar>,
    /// Answer with text that this regular expression matches
    #[arg(long, value_name = "REGEX", conflicts_with = "choice")]
    regex: Option<String>,
    /// Answer with one of these texts; given several times
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
}

impl GrammarArguments {
    /// The grammar, if one is asked for.
    pub fn grammar(&self) -> Option<Grammar> {
        let GrammarArguments { json_schema, grammar, regex, choice } = self;
        let regex = || regex.clone().map(Grammar::Regex);
        let choice = || (!choice.is_empty()).then(|| Grammar::Choice(choice.clone()));
        json_schema.clone().or_else(|| grammar.clone()).or_else(regex).or_else(choice)
    }
}

fn schema(text: &str) -> Result<Grammar, String> {
    let is_schema = matches!(text.trim_start().chars().next(), Some('{')) || ["true", "false"].contains(&text.trim());
    contents(text, is_schema).map(Grammar::JsonSchema)
}

fn lark(text: &str) -> Result<Grammar, String> {
    let begins = |line: &str| line.trim_start().starts_with("start") && line.contains(':');
    let is_grammar = text.contains("::=") || text.lines().any(begins);
    contents(text, is_grammar).map(Grammar::Lark)
}

/// `text` itself, or the contents of the file that it names.
fn contents(text: &str, is_itself: bool) -> Result<String, String> {
    match is_itself {
        true => Ok(text.to_owned()),
        false => text_file::read(text.as_ref()).map_err(|error| output::one_line(&error)),
    }
}
