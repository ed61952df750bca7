//! Anthropic's `/v1/messages`, by way of a chat.

mod reply;
mod request;

pub use reply::{Message, refusal};
pub use request::{chat, chat_to_count};
