//! Between text and tokens: tokenizer, chat template, streaming decoder.

mod chat_tokenizer;
pub(crate) mod constraint;
mod conversation;
mod deep_stack;
mod gbnf;
mod gbnf_lexemes;
mod grammar;
mod jinja;
mod jinja_operators;
mod jinja_source;
mod pieces;
mod printf;
mod prompt;
mod python;
pub mod stop;
pub mod stream;
pub mod template;
mod thinking;
pub mod tokenizer;
mod tools;
mod turn;

pub use chat_tokenizer::ChatTokenizer;
pub(crate) use constraint::{Constraint, Walk};
pub use conversation::Conversation;
pub use grammar::{Grammar, Grammars};
pub use prompt::Prompt;
pub use stream::TextStream;
pub use template::{ChatTemplate, Message, Rendering, ToolCall};
pub use thinking::{Thinking, ThoughtParser, ThoughtPiece};
pub use tokenizer::{Special, Tokenizer};
pub use tools::{AnswerPart, Tool, ToolChoice, ToolFormat, ToolParser};
pub use turn::Turn;
