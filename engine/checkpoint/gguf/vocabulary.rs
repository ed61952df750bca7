//! The vocabulary as the file lists it, and the tokens in it with a meaning of their own.

use super::metadata::{Metadata, fault};
use super::pre_tokenizer::PreTokenizer;
use crate::error::Result;

/// Tokens that end an answer in the models that have them, whatever the file says of them: many files name only one of
/// theirs. As in llama.cpp; `</s>` is an ordinary word to some vocabularies, so it counts only where marked as control.
pub(in crate::checkpoint) const END_TEXTS: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<EOT>",
    "[EOT]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Kind of a token (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// Stands for what is not in the vocabulary.
    Unknown,
    /// Steers the model and is no text.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Padding of the vocabulary.
    Unused,
    /// One byte, `<0x0A>`.
    Byte,
}

/// The tokenizers this crate builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// Byte-level pair encoding, as GPT-2's.
    BytePairs(&'static PreTokenizer),
    /// SentencePiece's pair encoding by scores, as Llama 2's.
    SentencePiece,
}

/// The vocabulary as the file lists it.
pub(super) struct Vocabulary<'a> {
    /// The model that splits text into tokens.
    pub model: Model,
    /// Each token's text, by id.
    pub tokens: Vec<&'a str>,
    /// Each token's kind, by id.
    pub kinds: Vec<Kind>,
}

/// Tokens with a meaning of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub begin: Option<u32>,
    /// `true` if every text begins with it (a chat template writes it itself).
    pub add_begin: bool,
    /// Ends a text.
    pub end: Option<u32>,
    /// `true` if every text ends with it.
    pub add_end: bool,
    /// All tokens that end an answer, [`SpecialTokens::end`] among them, ascending.
    pub stop: Vec<u32>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the vocabulary of the file.
    pub fn read(metadata: Metadata<'a>) -> Result<Vocabulary<'a>> {
        let model = match metadata.text("tokenizer.ggml.model")? {
            None | Some("none" | "no_vocab") => return Err(fault(metadata, "the file holds none".to_owned())),
            Some("gpt2") => Model::BytePairs(PreTokenizer::find(metadata)?),
            Some("llama") => Model::SentencePiece,
            Some(other) => {
                return Err(fault(
                    metadata,
                    format!(
                        "type {other:?} is not supported (supported: gpt2, llama); use the model's Hugging Face \
                         folder, whose tokenizer.json says how"
                    ),
                ));
            }
        };
        let tokens = metadata
            .texts("tokenizer.ggml.tokens")?
            .ok_or_else(|| fault(metadata, "the key tokenizer.ggml.tokens is missing".to_owned()))?;
        if u32::try_from(tokens.len()).is_err() {
            return Err(fault(metadata, format!("{} tokens are too many", tokens.len())));
        }
        let mut kinds = match metadata.integers("tokenizer.ggml.token_type")? {
            None => vec![Kind::Normal; tokens.len()],
            Some(types) if types.len() == tokens.len() => types.into_iter().map(Kind::from_number).collect(),
            Some(types) => {
                return Err(fault(
                    metadata,
                    format!("tokenizer.ggml.token_type has {} entries for {} tokens", types.len(), tokens.len()),
                ));
            }
        };
        for (kind, token) in kinds.iter_mut().zip(&tokens) {
            if *kind != Kind::Control && *token != "</s>" && END_TEXTS.contains(token) {
                *kind = Kind::Control;
            }
        }
        Ok(Vocabulary { model, tokens, kinds })
    }

    /// The tokens with a meaning of their own.
    pub fn special_tokens(&self, metadata: Metadata) -> Result<SpecialTokens> {
        // The ids that SentencePiece models have unless the file says otherwise.
        let (default_begin, default_end) = match self.model {
            Model::SentencePiece if self.tokens.len() > 2 => (Some(1), Some(2)),
            _ => (None, None),
        };
        let begin = self.token(metadata, "bos")?.or(default_begin);
        let end = self.token(metadata, "eos")?.or(default_end);
        let add_begin = metadata.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(match self.model {
            Model::SentencePiece => true,
            Model::BytePairs(pre_tokenizer) => pre_tokenizer.add_begin && begin.is_some(),
        });
        if add_begin && begin.is_none() {
            return Err(fault(
                metadata,
                "tokenizer.ggml.add_bos_token is set, but tokenizer.ggml.bos_token_id is missing".to_owned(),
            ));
        }
        let add_end = metadata.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        if add_end && end.is_none() {
            return Err(fault(
                metadata,
                "tokenizer.ggml.add_eos_token is set, but tokenizer.ggml.eos_token_id is missing".to_owned(),
            ));
        }
        let named = [end, self.token(metadata, "eot")?, self.token(metadata, "eom")?];
        let mut stop: Vec<u32> = named.into_iter().flatten().collect();
        for (id, (kind, token)) in (0u32..).zip(self.kinds.iter().zip(&self.tokens)) {
            if *kind == Kind::Control && END_TEXTS.contains(token) {
                stop.push(id);
            }
        }
        stop.sort_unstable();
        stop.dedup();
        Ok(SpecialTokens { begin, add_begin, end, add_end, stop })
    }

    /// The id under `tokenizer.ggml.{name}_token_id`.
    pub fn token(&self, metadata: Metadata, name: &'static str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = metadata.integer(&key)? else { return Ok(None) };
        match u32::try_from(id) {
            // Converters write -1 for "none", some of them as an unsigned number.
            _ if id == -1 || id == i128::from(u64::MAX) => Ok(None),
            Ok(u32::MAX) => Ok(None),
            Ok(id) if (id as usize) < self.tokens.len() => Ok(Some(id)),
            _ => Err(fault(
                metadata,
                format!("tokenizer.ggml.{name}_token_id is {id}, outside the vocabulary of {}", self.tokens.len()),
            )),
        }
    }
}

impl Kind {
    fn from_number(number: i128) -> Kind {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }
}
