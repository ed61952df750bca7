//! Answers in the form that OpenAI's clients know, with what they cost; whole, or chunk by chunk.

use std::time::{SystemTime, UNIX_EPOCH};

use pard::decoding::FinishReason;
use pard::text::{AnswerPart, Tokenizer, ToolFormat, ToolParser};
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
    format: ToolFormat,
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
    pub fn new(ask: Ask, model: String, tokenizer: Tokenizer, format: ToolFormat, prompt_tokens: usize) -> Reply {
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
            format,
            prompt_tokens,
        }
    }

    /// Takes an answer's text as it comes.
    pub fn parts(&self) -> Parts {
        Parts { parser: self.ask.tools.is_some().then(|| ToolParser::new(self.format)), calls: 0 }
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
    pub fn round(&self, index: usize, parts: &mut Parts, tokens: &[Written], proposed: usize, offset: usize) -> Value {
        let delta = parts.push(&text_of(tokens));
        let mut choice = self.piece(index, delta, None);
        choice.insert("logprobs".to_owned(), self.logprobs(tokens, offset));
        if self.report {
            choice.insert("pard".to_owned(), json!({ "tokens": origins(tokens), "proposed": proposed }));
        }
        self.chunk(vec![choice.into()])
    }

    /// The last chunk of the answer `index`, whose text so far has `offset` characters.
    pub fn ending(&self, index: usize, parts: &mut Parts, ending: &Ending, offset: usize) -> Value {
        let delta = parts.finish(&ending.rest);
        let mut choice = self.piece(index, delta, Some(parts.finish_name(ending.finish)));
        choice.insert("logprobs".to_owned(), self.logprobs(last_of(self.kind, ending), offset));
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
            let mut parts = self.parts();
            let [mut delta, rest] = [parts.push(&text_of(tokens)), parts.finish(&ending.rest)];
            delta.text.push_str(&rest.text);
            delta.calls.extend(rest.calls);
            let Delta { text, calls } = delta;
            let mut choice = Map::new();
            choice.insert("index".to_owned(), json!(index));
            match self.kind {
                Kind::Chat => {
                    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
                    if !calls.is_empty() {
                        message["tool_calls"] = calls.into_iter().map(|(_, call)| call).collect();
                        if text.is_empty() {
                            message["content"] = Value::Null;
                        }
                    }
                    choice.insert("message".to_owned(), message);
                }
                Kind::Text => drop(choice.insert("text".to_owned(), json!(text))),
            }
            let all = [tokens, last_of(self.kind, ending)].concat();
            choice.insert("logprobs".to_owned(), self.logprobs(&all, 0));
            choice.insert("finish_reason".to_owned(), json!(parts.finish_name(ending.finish)));
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
    fn piece(&self, index: usize, delta: Delta, finish: Option<&str>) -> Map<String, Value> {
        let Delta { text, calls } = delta;
        let mut choice = Map::new();
        choice.insert("index".to_owned(), json!(index));
        match self.kind {
            Kind::Chat => {
                let mut delta = Map::new();
                if !text.is_empty() {
                    delta.insert("content".to_owned(), json!(text));
                }
                if !calls.is_empty() {
                    let indexed = calls.into_iter().map(|(index, mut call)| {
                        call["index"] = json!(index);
                        call
                    });
                    delta.insert("tool_calls".to_owned(), indexed.collect());
                }
                choice.insert("delta".to_owned(), delta.into());
            }
            Kind::Text => drop(choice.insert("text".to_owned(), json!(text))),
        }
        choice.insert("logprobs".to_owned(), Value::Null);
        choice.insert("finish_reason".to_owned(), json!(finish));
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

    /// The field `logprobs` of a choice of these tokens; null where they were not asked for.
    fn logprobs(&self, tokens: &[Written], offset: usize) -> Value {
        let wanted = self.ask.sampling.top_logprobs.is_some();
        if wanted { logprobs::json(self.kind, &self.tokenizer, tokens, offset) } else { Value::Null }
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

/// Tells an answer's text from its calls of tools.
pub struct Parts {
    /// None where there are no tools to call.
    parser: Option<ToolParser>,
    calls: usize,
}

/// What a piece of an answer adds to it.
#[derive(Default)]
pub struct Delta {
    text: String,
    /// Calls of tools, each with its index in the answer.
    calls: Vec<(usize, Value)>,
}

impl Parts {
    fn push(&mut self, text: &str) -> Delta {
        match &mut self.parser {
            None => Delta { text: text.to_owned(), calls: Vec::new() },
            Some(parser) => {
                let parts = parser.push(text);
                self.delta(parts)
            }
        }
    }

    fn finish(&mut self, rest: &str) -> Delta {
        let mut delta = self.push(rest);
        if let Some(parser) = &mut self.parser {
            let parts = parser.finish();
            let last = self.delta(parts);
            delta.text.push_str(&last.text);
            delta.calls.extend(last.calls);
        }
        delta
    }

    fn delta(&mut self, parts: Vec<AnswerPart>) -> Delta {
        let mut delta = Delta::default();
        for part in parts {
            match part {
                AnswerPart::Text(text) => delta.text.push_str(&text),
                AnswerPart::Call(call) => {
                    let function = json!({ "name": call.name, "arguments": call.arguments });
                    let id = format!("call_{:016x}", fastrand::u64(..));
                    delta.calls.push((self.calls, json!({ "id": id, "type": "function", "function": function })));
                    self.calls += 1;
                }
            }
        }
        delta
    }

    /// Why the answer ended, as clients know it, once all of it was taken.
    fn finish_name(&self, finish: FinishReason) -> &'static str {
        match finish {
            FinishReason::Stop if self.calls > 0 => "tool_calls",
            FinishReason::Stop => "stop",
            _ => "length",
        }
    }
}

/// The token that ended an answer, where its log-probabilities are listed with the others': in texts, as vLLM does and
/// lm-eval expects.
fn last_of(kind: Kind, ending: &Ending) -> &[Written] {
    ending.last.as_deref().filter(|_| kind == Kind::Text).map_or(&[], std::slice::from_ref)
}

pub fn text_of(tokens: &[Written]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

/// Each token's text, and whether it was proposed by the draft.
fn origins(tokens: &[Written]) -> Value {
    let origin = |token: &Written| json!({ "id": token.id, "text": token.text, "accepted": token.accepted });
    tokens.iter().map(origin).collect()
}
