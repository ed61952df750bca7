//! Answers in the form that OpenAI's clients know, with what they cost; whole, or chunk by chunk.

use std::time::{SystemTime, UNIX_EPOCH};

use pard::decoding::FinishReason;
use pard::text::Tokenizer;
use serde_json::{Map, Value, json};

use super::ask::{Ask, Kind};
use super::job::{Ending, Written};
use super::logprobs;
use crate::answer::{drafts_json, statistics_json};

/// Data shared by all parts of a reply.
pub struct Reply {
    kind: Kind,
    /// Set if the reply reports each token's origin.
    report: bool,
    include_usage: bool,
    ask: Ask,
    id: String,
    created: u64,
    model: String,
    tokenizer: Tokenizer,
    /// Tokens of the prompts.
    prompt_tokens: usize,
}

/// The sums of what the answers cost.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    tokens: usize,
    reused: usize,
    accepted: usize,
    rejected: usize,
}

impl Usage {
    pub fn add(&mut self, ending: &Ending) {
        self.tokens += ending.tokens;
        self.reused += ending.reused;
        self.accepted += ending.accepted;
        self.rejected += ending.rejected;
    }
}

impl Reply {
    pub fn new(ask: Ask, model: String, tokenizer: Tokenizer, prompt_tokens: usize) -> Reply {
        let kind = ask.kind;
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Reply {
            kind,
            report: ask.report,
            include_usage: ask.include_usage,
            ask,
            id: format!("{prefix}-{:016x}", fastrand::u64(..)),
            created,
            model,
            tokenizer,
            prompt_tokens,
        }
    }

    /// The first chunk of the answer `index` in a stream, where there is one.
    pub fn opening(&self, index: usize) -> Option<Value> {
        let choice = json!({
            "index": index,
            "delta": { "role": "assistant", "content": "" },
            "logprobs": null,
            "finish_reason": null,
        });
        (self.kind == Kind::Chat).then(|| self.chunk(vec![choice]))
    }

    /// The chunk of a round, where the answer's text so far has `offset` characters.
    pub fn round(&self, index: usize, tokens: &[Written], proposed: usize, offset: usize) -> Value {
        let mut choice = self.piece(index, &text_of(tokens), None);
        choice.insert("logprobs".to_owned(), logprobs::json(self.kind, &self.tokenizer, tokens, offset));
        if self.report {
            choice.insert("pard".to_owned(), json!({ "tokens": origins(tokens), "proposed": proposed }));
        }
        self.chunk(vec![choice.into()])
    }

    /// The last chunk of the answer `index`.
    pub fn ending(&self, index: usize, ending: &Ending) -> Value {
        let mut choice = self.piece(index, &ending.rest, Some(ending.finish));
        if self.report {
            choice.insert("pard".to_owned(), self.statistics(index, ending));
        }
        self.chunk(vec![choice.into()])
    }

    /// The chunk after all answers, if it was asked for.
    pub fn closing(&self, usage: &Usage) -> Option<Value> {
        self.include_usage.then(|| {
            let mut chunk = self.chunk(vec![]);
            chunk["usage"] = self.usage(usage);
            chunk
        })
    }

    /// The whole reply, of answers in order.
    pub fn whole(&self, answers: &[(Vec<Written>, Ending)]) -> Value {
        let mut usage = Usage::default();
        let mut choices = Vec::with_capacity(answers.len());
        for (index, (tokens, ending)) in answers.iter().enumerate() {
            usage.add(ending);
            let mut text = text_of(tokens);
            text.push_str(&ending.rest);
            let mut choice = Map::new();
            choice.insert("index".to_owned(), json!(index));
            match self.kind {
                Kind::Chat => {
                    let message = json!({ "role": "assistant", "content": text, "refusal": null });
                    choice.insert("message".to_owned(), message);
                }
                Kind::Text => drop(choice.insert("text".to_owned(), json!(text))),
            }
            choice.insert("logprobs".to_owned(), logprobs::json(self.kind, &self.tokenizer, tokens, 0));
            choice.insert("finish_reason".to_owned(), json!(finish_name(ending.finish)));
            if self.report {
                let mut report = self.statistics(index, ending);
                report["tokens"] = origins(tokens);
                choice.insert("pard".to_owned(), report);
            }
            choices.push(choice.into());
        }
        let mut whole = self.envelope(if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" });
        whole.insert("choices".to_owned(), Value::Array(choices));
        whole.insert("usage".to_owned(), self.usage(&usage));
        whole.into()
    }

    /// A choice of a chunk.
    fn piece(&self, index: usize, text: &str, finish: Option<FinishReason>) -> Map<String, Value> {
        let mut choice = Map::new();
        choice.insert("index".to_owned(), json!(index));
        match self.kind {
            Kind::Chat if text.is_empty() => drop(choice.insert("delta".to_owned(), json!({}))),
            Kind::Chat => drop(choice.insert("delta".to_owned(), json!({ "content": text }))),
            Kind::Text => drop(choice.insert("text".to_owned(), json!(text))),
        }
        choice.insert("logprobs".to_owned(), Value::Null);
        choice.insert("finish_reason".to_owned(), finish.map_or(Value::Null, |finish| json!(finish_name(finish))));
        choice
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.envelope(object);
        chunk.insert("choices".to_owned(), Value::Array(choices));
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk.into()
    }

    fn envelope(&self, object: &str) -> Map<String, Value> {
        let mut envelope = Map::new();
        envelope.insert("id".to_owned(), json!(self.id));
        envelope.insert("object".to_owned(), json!(object));
        envelope.insert("created".to_owned(), json!(self.created));
        envelope.insert("model".to_owned(), json!(self.model));
        envelope
    }

    fn usage(&self, usage: &Usage) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": usage.tokens,
            "total_tokens": self.prompt_tokens + usage.tokens,
            "prompt_tokens_details": { "cached_tokens": usage.reused },
            "completion_tokens_details": {
                "accepted_prediction_tokens": usage.accepted,
                "rejected_prediction_tokens": usage.rejected,
            },
        })
    }

    /// Statistics of an answer.
    fn statistics(&self, index: usize, ending: &Ending) -> Value {
        let mut statistics = statistics_json(ending.tokens, &ending.statistics);
        statistics["method"] = json!(self.ask.proposer.method.name());
        statistics["k"] = drafts_json(self.ask.proposer.drafts);
        statistics["seed"] = json!(self.ask.sampling_of(index).seed);
        statistics["queue_seconds"] = json!(ending.waited.as_secs_f64());
        statistics
    }
}

pub fn text_of(tokens: &[Written]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

/// Each token's text, and whether it was proposed by the draft.
fn origins(tokens: &[Written]) -> Value {
    let origin = |token: &Written| json!({ "id": token.id, "text": token.text, "accepted": token.accepted });
    tokens.iter().map(origin).collect()
}

fn finish_name(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        _ => "length",
    }
}
