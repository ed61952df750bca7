//! Prompts: text, a conversation, or tokens.

use super::chat_tokenizer::ChatTokenizer;
use super::template::{Message, Rendering};
use crate::error::Result;

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt {
    /// Text that the model continues.
    Text(String),
    /// A conversation that it answers, by its chat template.
    Chat(Vec<Message>),
    /// Tokens that it continues.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Its tokens, for the model that `text` belongs to.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTokenizer::text_tokens`] and [`ChatTokenizer::chat_tokens`].
    pub fn tokens(&self, text: &ChatTokenizer) -> Result<Vec<u32>> {
        match self {
            Prompt::Text(prompt) => text.text_tokens(prompt),
            Prompt::Chat(messages) => text.chat_tokens(messages, Rendering::default()),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Prompt {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Prompt {
        Prompt::Text(text)
    }
}

impl From<Message> for Prompt {
    fn from(message: Message) -> Prompt {
        Prompt::Chat(vec![message])
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Prompt {
        Prompt::Chat(messages)
    }
}

impl From<&[Message]> for Prompt {
    fn from(messages: &[Message]) -> Prompt {
        Prompt::Chat(messages.to_vec())
    }
}

impl<const N: usize> From<[Message; N]> for Prompt {
    fn from(messages: [Message; N]) -> Prompt {
        Prompt::Chat(messages.into())
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Prompt {
        Prompt::Tokens(tokens)
    }
}

impl From<&[u32]> for Prompt {
    fn from(tokens: &[u32]) -> Prompt {
        Prompt::Tokens(tokens.to_vec())
    }
}
