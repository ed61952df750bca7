//! Messages between a request's handler and the engine's thread: an answer to be written, and its progress.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pard::decoding::{DraftLength, FinishReason, Limits, Method, SamplingParams, Statistics, TokenLogprobs};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::fault::Fault;

/// Events that wait for their reader: more than an answer usually has, so that a slow reader hardly ever makes an answer
/// wait, and a bound on what one may pile up.
const MAX_EVENTS: usize = 4096;

/// The longest name that a request may give to its conversation's caches.
const LONGEST_NAME: usize = 64;

/// One answer to be written.
pub struct Job {
    /// Index among the answers to its request.
    pub index: usize,
    pub prompt: Arc<[u32]>,
    pub limits: Limits,
    pub sampling: SamplingParams,
    pub proposer: Proposer,
    pub reuse: Reuse,
    /// Name under which its conversation's caches are kept on disk.
    pub cache: Option<CacheName>,
    /// The prompt is repeated before the answer.
    pub echo: Option<Echo>,
    /// Channel for its events. Closed once nobody waits for it any more.
    pub events: Sender<Event>,
    pub queued: Instant,
}

/// Method that proposes tokens, and the draft length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposer {
    pub method: Method,
    pub drafts: DraftLength,
}

/// A name under which a request wants its conversation's caches kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheName(String);

impl CacheName {
    /// `text` if it can be the name of a file everywhere.
    pub fn parse(text: &str) -> Option<CacheName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        (starts && text.len() <= LONGEST_NAME && text.bytes().all(allowed)).then(|| CacheName(text.to_owned()))
    }

    /// The name of the session that was used as the `index`-th before the server ended. No request can give it.
    pub fn of_session(index: usize) -> CacheName {
        CacheName(format!("_{index:03}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Controls whether an answer may reuse the caches of earlier answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    /// The bits are those of a new decoder, always.
    Never,
}

/// A prompt that is repeated before its answer.
#[derive(Debug, Clone)]
pub struct Echo {
    /// The text of each of its tokens.
    pub texts: Arc<[String]>,
    /// Likeliest tokens of which log-probabilities are wanted beside each of its own, if any are.
    pub top: Option<usize>,
}

/// Progress of an answer.
#[derive(Debug)]
pub enum Event {
    /// One of the request's answers has its turn.
    Begun,
    /// A round of the answer `index`, or the prompt that comes before it.
    Round { index: usize, tokens: Vec<Written>, proposed: usize },
    /// The answer `index` is complete.
    Ended { index: usize, ending: Ending },
    /// It will not be.
    Failed(Fault),
}

/// A token that was committed. One that ends the answer has no text and is no part of a round.
#[derive(Debug, Clone)]
pub struct Written {
    pub id: u32,
    /// The text that it made certain.
    pub text: String,
    /// Set if it was proposed, and accepted.
    pub accepted: bool,
    /// Its log-probabilities, if requested. The first token of a prompt has none.
    pub logprobs: Option<TokenLogprobs>,
}

/// The end of an answer, and what it cost.
#[derive(Debug, Clone)]
pub struct Ending {
    pub finish: FinishReason,
    /// The stop text that ended it.
    pub stop: Option<String>,
    /// Text that was held back and belongs to no token in particular.
    pub rest: String,
    /// The token that ended it, if one did.
    pub last: Option<Box<Written>>,
    /// Tokens of the answer, one that ended it included.
    pub tokens: usize,
    /// Those of the prompt that the caches held.
    pub reused: usize,
    /// Proposals that are part of the answer, and those that were rejected.
    pub accepted: usize,
    pub rejected: usize,
    pub statistics: Statistics,
    pub waited: Duration,
}

/// The two ends of what a request's answers send.
pub fn events() -> (Sender<Event>, Receiver<Event>) {
    channel(MAX_EVENTS)
}
