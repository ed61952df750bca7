//! From a request's prompts to tokens that fit the context. A text that cannot fit is refused before it is taken apart.

use std::sync::Arc;

use axum::http::StatusCode;
use pard::Error;
use pard::text::{ChatTokenizer, Grammar, Message, Special, TextStream, Thinking, Tokenizer, ToolFormat};

use super::ask::Prompt;
use super::fault::Fault;

/// Turns a request's prompts into tokens.
pub struct Encoder {
    text: ChatTokenizer,
    context: usize,
    vocab: usize,
    /// Bytes of the longest token: a text of more than so many for each token of the context has too many.
    longest_token: usize,
}

impl Encoder {
    pub fn new(text: ChatTokenizer, context: usize, vocab: usize) -> Encoder {
        let ids = 0..text.tokenizer.vocab_size().min(u32::MAX as usize) as u32;
        let lengths = ids.filter_map(|id| text.tokenizer.token(id)).map(|token| token.len());
        let longest_token = lengths.max().unwrap_or(1);
        Encoder { text, context, vocab, longest_token }
    }

    /// How the model's answers call tools.
    pub fn tool_format(&self) -> ToolFormat {
        self.text.tool_format()
    }

    /// The thoughts that the answer to `prompt`, a conversation, may begin with.
    pub fn thinking(&self, prompt: &[u32]) -> Thinking {
        self.text.thinking(prompt)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.text.tokenizer
    }

    /// Checks that answers can keep to `grammar`, which is compiled then.
    ///
    /// # Errors
    ///
    /// 400, which names the part at fault.
    pub fn check_grammar(&self, grammar: &Grammar) -> Result<(), Fault> {
        self.text.check_grammar(grammar).map_err(|error| Fault::of(&error))
    }

    /// The tokens of `prompt`, fewer than the context holds.
    ///
    /// # Errors
    ///
    /// 400.
    pub fn tokens(&self, prompt: Prompt) -> Result<Arc<[u32]>, Fault> {
        let tokens = match prompt {
            Prompt::Messages(messages, tools, rendering) => {
                let described = tools.iter().map(|tool| tool.description.to_string().len()).sum::<usize>();
                let bytes_of = |message: &Message| {
                    message.content.len() + message.reasoning_content.as_ref().map_or(0, String::len)
                };
                let said: usize = messages.iter().map(bytes_of).sum();
                self.check_size(said + described, "messages")?;
                if !self.text.has_chat_template() {
                    let reason = format!("{} has no chat template; use /v1/completions", self.text.model_name);
                    return Err(Fault::new(StatusCode::BAD_REQUEST, reason));
                }
                let tokens = self.text.chat_tokens_with_tools(&messages, &tools, rendering);
                tokens.map_err(|error| Fault::of(&error))?
            }
            Prompt::Text(text) => {
                self.check_size(text.len(), "prompt")?;
                self.text.text_tokens(&text).map_err(|error| Fault::of(&error))?
            }
            Prompt::Tokens(tokens) => {
                if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocab) {
                    return Err(Fault::parameter(
                        "prompt",
                        format!("the vocabulary has {} tokens, not {id}", self.vocab),
                    ));
                }
                tokens
            }
        };
        if tokens.is_empty() {
            return Err(Fault::parameter("prompt", "the prompt is empty"));
        }
        if tokens.len() >= self.context {
            let (tokens, context) = (tokens.len(), self.context);
            return Err(Fault::of(&Error::ContextFull { tokens, context }));
        }
        Ok(tokens.into())
    }

    /// The tokens of `prompt`, as many as there are, with those around it that the model wants if `special` says so.
    ///
    /// # Errors
    ///
    /// 400.
    pub fn all_tokens(&self, prompt: Prompt, special: bool) -> Result<Vec<u32>, Fault> {
        let tokens = match prompt {
            Prompt::Messages(messages, tools, rendering) => {
                self.text.chat_tokens_with_tools(&messages, &tools, rendering)
            }
            Prompt::Text(text) if special => self.text.text_tokens(&text),
            Prompt::Text(text) => self.text.tokenizer.encode(&text, Special::Keep),
            Prompt::Tokens(tokens) => Ok(tokens),
        };
        tokens.map_err(|error| Fault::of(&error))
    }

    /// The text of each of a prompt's tokens, special tokens included; those that the model wants around the text `given`,
    /// and that are not in it, have none.
    pub fn texts_of(&self, tokens: &[u32], given: Option<&str>) -> Arc<[String]> {
        let tokenizer = &self.text.tokenizer;
        let is_added = |id: u32| {
            tokenizer.is_special(id)
                && given.zip(tokenizer.token(id)).is_some_and(|(text, name)| !text.contains(&*name))
        };
        let mut stream = TextStream::new(tokenizer).with_special_tokens();
        let mut text = |&id: &u32| if is_added(id) { None } else { stream.push(id) };
        let mut texts: Vec<String> = tokens.iter().map(|id| text(id).unwrap_or_default()).collect();
        if let Some((last, rest)) = texts.last_mut().zip(stream.flush()) {
            last.push_str(&rest);
        }
        texts.into()
    }

    /// The text of `tokens`, special tokens left out.
    ///
    /// # Errors
    ///
    /// 400 for one that the model does not know.
    pub fn text_of(&self, tokens: &[u32]) -> Result<String, Fault> {
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(Fault::parameter("tokens", format!("the vocabulary has {} tokens, not {id}", self.vocab)));
        }
        let mut stream = TextStream::new(&self.text.tokenizer);
        let mut text: String = tokens.iter().filter_map(|&token| stream.push(token)).collect();
        text.extend(stream.flush());
        Ok(text)
    }

    /// Refuses a text that cannot fit before it is taken apart.
    fn check_size(&self, bytes: usize, parameter: &str) -> Result<(), Fault> {
        let most = self.context.saturating_mul(self.longest_token);
        if bytes > most {
            let context = self.context;
            let reason = format!(
                "This model's maximum context length is {context} tokens, which cannot hold {bytes} bytes; shorten it"
            );
            return Err(Fault::parameter(parameter, reason).with_code("context_length_exceeded"));
        }
        Ok(())
    }
}
