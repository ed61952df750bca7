//! Turns of recorded conversations, in the forms that data sets have.

use serde::Deserialize;

use super::Message;

/// A turn of a conversation: `role` and `content`, or `from` and `value` as in ShareGPT's data.
#[derive(Debug, Clone, Deserialize)]
pub struct Turn {
    #[serde(alias = "from")]
    role: String,
    #[serde(alias = "value")]
    content: String,
}

impl From<Turn> for Message {
    /// The message, from `user` where the data says `human`, and from `assistant` where it names a model.
    fn from(Turn { role, content }: Turn) -> Message {
        let role = match role.as_str() {
            "human" => "user".to_owned(),
            "gpt" | "chatgpt" | "bing" | "bard" | "model" => "assistant".to_owned(),
            _ => role,
        };
        Message::new(role, content)
    }
}
