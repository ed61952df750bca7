//! Grammars that an answer keeps to, by the crate llguidance: JSON schemas, regular expressions, Lark grammars, choices.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::constraint::Constraint;
use super::deep_stack::on_a_deep_stack;
use super::gbnf::Rules;
use super::gbnf_lexemes;
use super::thinking::{ThinkTokens, Thinking};
use super::tokenizer::{Special, Tokenizer};
use crate::error::{Error, Result};

/// A grammar that an answer keeps to, from its first token, or from the end of its thoughts, to its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Grammar {
    /// Any JSON object.
    Json,
    /// JSON that a schema describes, which is given as JSON text. Values are separated by `, ` and `: ` and stand on one line,
    /// unless the schema's `x-guidance` says otherwise.
    JsonSchema(String),
    /// Text that a regular expression, as of the crate `regex`, matches as a whole.
    Regex(String),
    /// Text of a grammar in llguidance's form of Lark, or in GBNF, llama.cpp's form.
    Lark(String),
    /// One of several texts.
    Choice(Vec<String>),
}

impl Grammar {
    /// The kind of grammar, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Grammar::Json | Grammar::JsonSchema(_) => "JSON schema",
            Grammar::Regex(_) => "regular expression",
            Grammar::Lark(_) => "grammar",
            Grammar::Choice(_) => "list of choices",
        }
    }

    fn to_top_level(&self) -> Result<TopLevelGrammar> {
        Ok(match self {
            Grammar::Json => json_schema(json!({"type": "object"})),
            Grammar::JsonSchema(schema) => {
                let schema = serde_json::from_str(schema);
                json_schema(schema.map_err(|error| self.fault(&format!("it is not JSON: {error}")))?)
            }
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(text) if Rules::is_gbnf(text) => {
                TopLevelGrammar::from_lark(gbnf_lexemes::to_lark(text).map_err(|reason| self.fault(&reason))?)
            }
            Grammar::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
            Grammar::Choice(choices) if choices.is_empty() => return Err(self.fault("it is empty")),
            Grammar::Choice(choices) => {
                let texts: Vec<String> = choices.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
                TopLevelGrammar::from_lark(format!("start: {}", texts.join(" | ")))
            }
        })
    }

    fn fault(&self, reason: &str) -> Error {
        Error::Grammar { kind: self.kind(), reason: reason.trim().to_owned() }
    }
}

fn json_schema(mut schema: Value) -> TopLevelGrammar {
    if let Some(fields) = schema.as_object_mut() {
        // Where white space is free, a small model may write nothing else.
        let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        fields.entry("x-guidance").or_insert(layout);
    }
    TopLevelGrammar::from_json_schema(schema)
}

/// The grammars that answers of one model keep to, compiled; those asked for last are kept. Clones share it.
#[derive(Clone, Default)]
pub struct Grammars {
    shared: Arc<OnceLock<Compiler>>,
}

/// Compiles grammars for a model's vocabulary.
struct Compiler {
    factory: ParserFactory,
    stop_tokens: Arc<[u32]>,
    think_tokens: Option<Arc<ThinkTokens>>,
    /// The grammars asked for last, the newest at the end.
    recent: Mutex<VecDeque<(Grammar, Matcher)>>,
}

/// Sets of tokens that llguidance adds to a mask as a whole where all of a set may come next: white space, and pieces of texts
/// up to a length. Of a text with a bound, only the tokens that are longer than those of such a set are tried one by one.
const SLICES: [&str; 5] = [
    r"[\x20\x0A\x0D\x09]+",
    r#"[^"\\\x00-\x1F\x7F]{1,5}"#,
    r#"[^"\\\x00-\x1F\x7F]{1,10}"#,
    r#"[^"\\\x00-\x1F\x7F]{1,15}"#,
    r#"[^"\\\x00-\x1F\x7F]+"#,
];

/// Bytes of a grammar in Lark at most. Rules that refer to each other are followed as deep as they go, on a stack that has room
/// for so many. (llguidance bounds schemas itself.)
const LARGEST: usize = 500_000;

/// Compiled grammars that are kept.
const KEPT: usize = 16;

impl Grammars {
    /// The beginning of an answer that keeps to `grammar` after `thinking`, of a model with the tokens of `tokenizer`, of which
    /// `stop_tokens` end an answer. Both are those of the first call.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`], which names the part that is faulty, not supported, or too large.
    pub(super) fn begin(
        &self,
        grammar: &Grammar,
        thinking: Thinking,
        tokenizer: &Tokenizer,
        stop_tokens: &[u32],
    ) -> Result<Constraint> {
        let compiler = match self.shared.get() {
            Some(compiler) => compiler,
            None => {
                let compiler = Compiler::new(tokenizer, stop_tokens)?;
                self.shared.get_or_init(|| compiler)
            }
        };
        compiler.begin(grammar, thinking)
    }
}

impl Compiler {
    fn new(tokenizer: &Tokenizer, stop_tokens: &[u32]) -> Result<Compiler> {
        let fault = |reason: String| Error::Grammar { kind: "grammar", reason };
        let count = tokenizer.vocab_size();
        // What comes after the grammar's end is no text.
        let stop_tokens: Arc<[u32]> = match stop_tokens {
            [] => (0..count as u32).find(|&id| tokenizer.is_special(id)).into_iter().collect(),
            stop_tokens => stop_tokens.into(),
        };
        let Some(&end) = stop_tokens.first() else {
            return Err(fault("the model has no token that ends an answer".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..count as u32).map(|id| bytes_of(tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(count as u32, end), &words);
        let vocabulary: TokEnv = Arc::new(Vocabulary { tokenizer: tokenizer.clone(), trie });
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let mut factory = ParserFactory::new(&vocabulary, capabilities, &SLICES.map(str::to_owned))
            .map_err(|error| fault(error.to_string()))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        let think_tokens = ThinkTokens::of(tokenizer).map(Arc::new);
        Ok(Compiler { factory, stop_tokens, think_tokens, recent: Mutex::default() })
    }

    fn begin(&self, grammar: &Grammar, thinking: Thinking) -> Result<Constraint> {
        let known = {
            let recent = self.recent();
            recent.iter().find(|(known, _)| known == grammar).map(|(_, matcher)| matcher.deep_clone())
        };
        let matcher = match known {
            Some(matcher) => matcher,
            None => {
                // Others need not wait meanwhile.
                let matcher = self.compile(grammar)?;
                let mut recent = self.recent();
                recent.push_back((grammar.clone(), matcher.deep_clone()));
                while recent.len() > KEPT {
                    recent.pop_front();
                }
                matcher
            }
        };
        let think_tokens = self.think_tokens.clone().map(|tokens| (thinking, tokens));
        Ok(Constraint::new(matcher, self.stop_tokens.clone(), think_tokens))
    }

    fn compile(&self, grammar: &Grammar) -> Result<Matcher> {
        if let Grammar::Lark(text) = grammar
            && text.len() > LARGEST
        {
            return Err(grammar.fault(&format!("it is larger than {} kB", LARGEST / 1000)));
        }
        on_a_deep_stack("pard grammar", || {
            let matcher = Matcher::new(self.factory.create_parser(grammar.to_top_level()?));
            matcher.get_error().map_or(Ok(matcher), |reason| Err(grammar.fault(&reason)))
        })
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<(Grammar, Matcher)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of the token `id` as llguidance has them; none if it cannot be part of a text.
fn bytes_of(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.bytes(id);
    if tokenizer.is_special(id) {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER][..], &bytes].concat();
    }
    // No UTF-8 has this byte, which stands for something else in a trie.
    if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { Vec::new() } else { bytes }
}

/// A model's vocabulary as llguidance asks for it.
struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let encode = |text: &str| self.tokenizer.encode(text, Special::Keep).unwrap_or_default();
        match self.tokenize_is_canonical() {
            true => self.trie.tokenize_with_greedy_fallback(bytes, encode),
            false => self.trie.greedy_tokenize(bytes),
        }
    }

    /// Tokenizers that put a space before a text do so before every part of one.
    fn tokenize_is_canonical(&self) -> bool {
        self.tokenizer.is_byte_level()
    }
}
