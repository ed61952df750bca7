//! Arguments that an answer's grammar is given by.

use clap::Args;
use pard::text::Grammar;

/// Options for the form of an answer.
#[derive(Args, Clone, Default)]
pub struct GrammarArguments {
    /// Answer with JSON that this schema describes: a file, or the schema itself
    #[arg(long, value_name = "FILE|SCHEMA", conflicts_with_all = ["grammar", "regex", "choice"])]
    json_schema: Option<String>,
    /// Answer with text of this grammar, in llguidance's form of Lark: a file, or the grammar itself
    #[arg(long, value_name = "FILE|GRAMMAR", conflicts_with_all = ["regex", "choice"])]
    grammar: Option<String>,
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
        let schema = json_schema.as_deref().map(|schema| Grammar::JsonSchema(file_or(schema)));
        let lark = || grammar.as_deref().map(|grammar| Grammar::Lark(file_or(grammar)));
        let regex = || regex.clone().map(Grammar::Regex);
        let choice = || (!choice.is_empty()).then(|| Grammar::Choice(choice.clone()));
        schema.or_else(lark).or_else(regex).or_else(choice)
    }
}

/// The contents of the file that `text` names, or `text` itself where there is no such file.
fn file_or(text: &str) -> String {
    std::fs::read_to_string(text).unwrap_or_else(|_| text.to_owned())
}
