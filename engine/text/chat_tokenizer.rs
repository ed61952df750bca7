//! All that stands between text and one model's tokens: its tokenizer, its chat template, the tokens that end an
//! answer. It comes from the model's files alone, so a prompt can be refused before any weights are read; a model on a
//! device owns the same thing.

use std::collections::BTreeMap;

use super::constraint::Constraint;
use super::grammar::{Grammar, Grammars};
use super::template::{ChatTemplate, Message, Rendering};
use super::thinking::{self, Thinking};
use super::tokenizer::{Special, Tokenizer};
use super::tools::{Tool, ToolFormat};
use crate::error::{Error, Result};

/// A model's tokenizer and what its files say of conversations.
#[derive(Clone)]
pub struct ChatTokenizer {
    /// The model's name.
    pub model_name: String,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template's source; a model need not have one.
    pub template: Option<String>,
    /// The template for conversations with tools, of models that have one of its own for these.
    pub tool_template: Option<String>,
    /// The variables `bos_token`, `eos_token` and the like of the template.
    pub special_tokens: BTreeMap<String, String>,
    /// The tokens that end an answer, ascending.
    pub stop_tokens: Vec<u32>,
    /// Settings for the choice of tokens that the model's files suggest (`temperature 0.6`). They are for whoever asks to
    /// follow, by [`SamplingParams`](crate::decoding::SamplingParams) and [`Limits`](crate::decoding::Limits).
    pub suggested: Vec<String>,
    /// The grammars that answers keep to.
    pub grammars: Grammars,
}

impl ChatTokenizer {
    /// Returns `true` if the model comes with a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Returns `true` if the template lets thinking be turned on and off ([`Rendering::enable_thinking`]).
    pub fn knows_thinking(&self) -> bool {
        self.template.as_ref().is_some_and(|template| template.contains("enable_thinking"))
    }

    /// The chat template, compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if the model has none or it does not compile.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        self.compiled(self.template.as_deref())
    }

    fn compiled(&self, source: Option<&str>) -> Result<ChatTemplate> {
        let source = source.ok_or_else(|| Error::Template {
            reason: format!("{} has none; it is a plain text model: let it continue text", self.model_name),
        })?;
        ChatTemplate::new(source, self.special_tokens.clone())
    }

    /// The tokens of plain text, with the special tokens that the tokenizer itself adds.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], [`Error::TokenRange`].
    pub fn text_tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, Special::Add)
    }

    /// The tokens of a conversation, rendered by the model's own template.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if there is none or it fails; as [`ChatTokenizer::text_tokens`].
    pub fn chat_tokens(&self, messages: &[Message], rendering: Rendering) -> Result<Vec<u32>> {
        // The template writes the special tokens itself.
        self.tokenizer.encode(&self.chat_template()?.render(messages, rendering)?, Special::Keep)
    }

    /// The tokens of a conversation with a model that may call `tools`. A template that knows of none tells of them in words.
    ///
    /// # Errors
    ///
    /// As [`ChatTokenizer::chat_tokens`].
    pub fn chat_tokens_with_tools(
        &self,
        messages: &[Message],
        tools: &[Tool],
        rendering: Rendering,
    ) -> Result<Vec<u32>> {
        let of_tools = self.tool_template.as_deref().filter(|_| !tools.is_empty());
        let source = of_tools.or(self.template.as_deref());
        let knows_tools = source.is_some_and(|template| template.contains("tools"));
        let text = match knows_tools {
            true => {
                let described: Vec<serde_json::Value> = tools.iter().map(|tool| tool.description.clone()).collect();
                self.compiled(source)?.render_with_tools(messages, &described, rendering)?
            }
            false => self.chat_template()?.render(&ToolFormat::in_words(messages, tools), rendering)?,
        };
        self.tokenizer.encode(&text, Special::Keep)
    }

    /// How the model's answers call tools.
    pub fn tool_format(&self) -> ToolFormat {
        let source = self.tool_template.as_deref().or(self.template.as_deref());
        source.map_or(ToolFormat::Hermes, ToolFormat::of)
    }

    /// The block of thoughts that the answer to `prompt`, the tokens of a conversation, may begin with. Models whose template
    /// knows of such blocks, and that have a token for each of their marks, write one.
    pub fn thinking(&self, prompt: &[u32]) -> Thinking {
        let is_known = self.template.as_ref().is_some_and(|template| template.contains("</think>"));
        if !is_known || thinking::marks(&self.tokenizer).is_none() {
            return Thinking::None;
        }
        // The marks and the white space after them are fewer tokens.
        let tail = &prompt[prompt.len().saturating_sub(32)..];
        let bytes: Vec<u8> = tail.iter().flat_map(|&token| self.tokenizer.bytes(token)).collect();
        thinking::at_the_end_of(&bytes)
    }

    /// Checks, before anything is uploaded, that an answer can keep to `grammar`.
    ///
    /// # Errors
    ///
    /// [`Error::Grammar`], which names the part that is faulty, not supported, or too large.
    pub fn check_grammar(&self, grammar: &Grammar) -> Result<()> {
        self.constraint(grammar, Thinking::None).map(drop)
    }

    /// The beginning of an answer that keeps to `grammar` after `thinking`.
    pub(crate) fn constraint(&self, grammar: &Grammar, thinking: Thinking) -> Result<Constraint> {
        self.grammars.begin(grammar, thinking, &self.tokenizer, &self.stop_tokens)
    }

    /// The token that begins a text, if the model has one.
    pub fn begin_token(&self) -> Option<u32> {
        self.tokenizer.id(self.special_tokens.get("bos_token")?)
    }
}
