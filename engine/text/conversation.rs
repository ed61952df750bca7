//! A conversation of several turns, and its tokens as the model read and wrote them.
//! A text that a model wrote need not become the same tokens when it is encoded again, and a decoder goes on only from
//! tokens that it knows. So the tokens of the last turn are kept, and only the text after them is encoded anew.

use super::chat_tokenizer::ChatTokenizer;
use super::stream::TextStream;
use super::template::{Message, Rendering};
use super::tokenizer::Special;
use crate::error::Result;

/// A conversation of several turns.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    rendering: Rendering,
    /// All up to the last answer.
    spoken: Option<Spoken>,
    /// All up to the question that waits for its answer.
    asked: Option<Spoken>,
}

/// A rendered conversation, up to the end of an answer or to where one begins.
#[derive(Debug, Clone)]
struct Spoken {
    text: String,
    tokens: Vec<u32>,
}

impl Conversation {
    /// A conversation that begins with `messages` and is rendered so.
    pub fn new(messages: Vec<Message>, rendering: Rendering) -> Conversation {
        Conversation { messages, rendering, ..Conversation::default() }
    }

    /// The messages, in order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The first message, if it is the system's.
    pub fn system(&self) -> Option<&str> {
        self.messages.first().filter(|message| message.role == "system").map(|message| message.content.as_str())
    }

    /// Changes what the model is told before all else; nothing takes it away.
    pub fn set_system(&mut self, system: Option<&str>) {
        self.messages.retain(|message| message.role != "system");
        if let Some(system) = system {
            self.messages.insert(0, Message::new("system", system));
        }
    }

    /// Forgets what was said, but not what the system said first.
    pub fn reset(&mut self) {
        self.messages.truncate(usize::from(self.system().is_some()));
        (self.spoken, self.asked) = (None, None);
    }

    /// Adds what the user says, and gives the tokens that `model` is to answer. They begin with the tokens of the turns
    /// before wherever the template leaves those as they were.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTokenizer::chat_tokens`]; nothing was said then.
    pub fn ask(&mut self, model: &ChatTokenizer, content: &str) -> Result<Vec<u32>> {
        self.messages.push(Message::new("user", content));
        match self.prompt(model) {
            Ok(asked) => {
                let tokens = asked.tokens.clone();
                self.asked = Some(asked);
                Ok(tokens)
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    /// Adds the answer: its text, and the tokens that the model wrote.
    pub fn answer(&mut self, model: &ChatTokenizer, text: &str, tokens: &[u32]) {
        self.messages.push(Message::new("assistant", text));
        let written = match tokens.split_last() {
            Some((last, before)) if model.stop_tokens.contains(last) => before,
            _ => tokens,
        };
        let mut stream = TextStream::continuing(&model.tokenizer);
        let mut whole: String = written.iter().filter_map(|&token| stream.push(token)).collect();
        whole.extend(stream.flush());
        // A stop string is no part of the text, and its tokens are none of the conversation.
        self.spoken = self.asked.take().filter(|_| whole == text).map(|mut spoken| {
            spoken.text.push_str(text);
            spoken.tokens.extend_from_slice(written);
            spoken
        });
    }

    /// Takes back the question that was not answered.
    pub fn take_back(&mut self) {
        if self.messages.last().is_some_and(|message| message.role == "user") {
            self.messages.pop();
        }
        self.asked = None;
    }

    /// The conversation rendered: the tokens that are known, and those of the text after them. They are told apart only
    /// where that text begins with a special token, which the words before it cannot become part of.
    fn prompt(&self, model: &ChatTokenizer) -> Result<Spoken> {
        let text = model.chat_template()?.render(&self.messages, self.rendering.clone())?;
        if let Some(spoken) = &self.spoken
            && let Some(rest) = text.strip_prefix(&spoken.text)
        {
            let rest = model.tokenizer.encode(rest, Special::Keep)?;
            if rest.first().is_some_and(|&token| model.tokenizer.is_special(token)) {
                return Ok(Spoken { tokens: [&spoken.tokens[..], &rest].concat(), text });
            }
        }
        let tokens = model.tokenizer.encode(&text, Special::Keep)?;
        Ok(Spoken { text, tokens })
    }
}
