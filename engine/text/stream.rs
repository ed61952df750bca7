//! Tokens in, text out as soon as it is certain: whole characters only, nothing that may yet become a stop string.
//! Each token's bytes are looked up once and only an unfinished character or stop string is held, so a token costs the
//! same at the end of a long text as at its beginning.

use super::pieces::{self, Leading, Pieces};
use super::stop::StopStrings;
use super::tokenizer::Tokenizer;

/// The text of a growing sequence of tokens. What it gives adds up to [`Tokenizer::decode`] of all of them.
pub struct TextStream {
    tokenizer: Tokenizer,
    show_special: bool,
    /// Spaces still to be dropped from the text's beginning.
    leading: Leading,
    /// The beginning of a character whose last bytes are to come.
    unfinished: Vec<u8>,
    window: Window,
    stop: StopStrings,
}

impl TextStream {
    /// A stream for a text that begins here: SentencePiece's leading space is dropped.
    pub fn new(tokenizer: &Tokenizer) -> TextStream {
        let leading = match tokenizer.pieces() {
            Pieces::SentencePiece { leading, .. } => *leading,
            _ => Leading::Keep,
        };
        TextStream {
            tokenizer: tokenizer.clone(),
            show_special: false,
            leading,
            unfinished: Vec::new(),
            window: Window::default(),
            stop: StopStrings::new(Vec::new()),
        }
    }

    /// A stream for a text that goes on from a prompt: a leading space belongs to it.
    pub fn continuing(tokenizer: &Tokenizer) -> TextStream {
        let mut stream = TextStream::new(tokenizer);
        stream.leading = match stream.leading {
            Leading::Metaspace(space, _) => Leading::Metaspace(space, false),
            _ => Leading::Keep,
        };
        stream
    }

    /// Ends the text before the first of `strings`. Empty ones are ignored.
    pub fn with_stop_strings(mut self, strings: Vec<String>) -> TextStream {
        self.stop = StopStrings::new(strings);
        self
    }

    /// Ends the text before the first of `strings` in what is still to come.
    pub fn stop_before(&mut self, strings: Vec<String>) {
        self.stop = StopStrings::new(strings);
    }

    /// Shows special tokens (`<|im_end|>`) as well, which are left out otherwise.
    pub fn with_special_tokens(mut self) -> TextStream {
        self.show_special = true;
        self
    }

    /// Takes the next token, and gives the text that has become certain.
    pub fn push(&mut self, token: u32) -> Option<String> {
        if self.stopped().is_some() || (!self.show_special && self.tokenizer.is_special(token)) {
            return None;
        }
        let text = self.characters_of(token);
        non_empty(self.stop.push(&text))
    }

    /// Ends the text, and gives what was held back. An unfinished character becomes U+FFFD.
    pub fn flush(&mut self) -> Option<String> {
        if self.stopped().is_some() {
            return None;
        }
        let mut rest = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        rest.push_str(&self.window.flush(&self.tokenizer));
        let mut text = self.stop.push(&rest);
        if self.stopped().is_none() {
            text.push_str(&self.stop.flush());
        }
        non_empty(text)
    }

    /// The stop string that ended the text.
    pub fn stopped(&self) -> Option<&str> {
        self.stop.found()
    }

    /// The whole characters that `token` completes.
    fn characters_of(&mut self, token: u32) -> String {
        let Some(text) = self.tokenizer.token(token) else { return String::new() };
        match self.tokenizer.pieces() {
            Pieces::ByteLevel => self.unfinished.extend(pieces::byte_level(&text)),
            Pieces::SentencePiece { replacements, bytes, .. } => {
                let mut text = pieces::replaced(text, replacements);
                let byte = if *bytes { pieces::fallback_byte(&text) } else { None };
                if let Leading::Metaspace(space, drops) = self.leading {
                    text = text.replace(space, if drops { "" } else { " " });
                    self.leading = Leading::Metaspace(space, false);
                }
                match byte {
                    Some(byte) => self.unfinished.push(byte),
                    None => self.unfinished.extend(text.as_bytes()),
                }
            }
            Pieces::Other => return self.window.push(&self.tokenizer, token),
        }
        let text = take_characters(&mut self.unfinished);
        self.without_leading(text)
    }

    fn without_leading(&mut self, text: String) -> String {
        let Leading::Strip(space, mut left) = self.leading else { return text };
        let mut rest = text.as_str();
        while left > 0 && !rest.is_empty() {
            match rest.strip_prefix(space) {
                Some(stripped) => (rest, left) = (stripped, left - 1),
                None => left = 0,
            }
        }
        self.leading = if left == 0 { Leading::Keep } else { Leading::Strip(space, left) };
        rest.to_owned()
    }
}

/// Takes all that is decided from `bytes`: whole characters, and U+FFFD for what can no longer become one, as
/// `String::from_utf8_lossy` has it. The beginning of a character stays.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let invalid = chunk.invalid();
        let undecided = taken + invalid.len() == bytes.len()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if undecided {
            break;
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        taken += invalid.len();
    }
    bytes.drain(..taken);
    text
}

/// For decoders that look at neighbours: the tokens last shown, for context, and those not shown yet.
#[derive(Default)]
struct Window {
    tokens: Vec<u32>,
    /// Number of tokens that are shown.
    shown: usize,
}

impl Window {
    /// More tokens than any character has bytes: what is no character by then is shown as it is.
    const LONGEST: usize = 8;

    fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.tokens.push(token);
        let unfinished = tokenizer.decode_whole(&self.tokens).ends_with(char::REPLACEMENT_CHARACTER);
        if unfinished && self.tokens.len() - self.shown < Self::LONGEST {
            return String::new();
        }
        self.flush(tokenizer)
    }

    fn flush(&mut self, tokenizer: &Tokenizer) -> String {
        if self.tokens.len() == self.shown {
            return String::new();
        }
        let before = tokenizer.decode_whole(&self.tokens[..self.shown]);
        let whole = tokenizer.decode_whole(&self.tokens);
        self.tokens.drain(..self.shown);
        self.shown = self.tokens.len();
        whole.get(before.len()..).unwrap_or_default().to_owned()
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Tokenizer {
    /// The text of `tokens`, special tokens left out. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text: String = tokens.iter().filter_map(|&token| stream.push(token)).collect();
        text.extend(stream.flush());
        text
    }
}
