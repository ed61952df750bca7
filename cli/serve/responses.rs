//! OpenAI's `/v1/responses`, by way of a chat.

mod reply;
mod request;

pub use reply::Response;
pub use request::{chat, echo};
