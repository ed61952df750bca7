//! Answers in the form that OpenAI's clients know, with what they cost; whole, or chunk by chunk.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use pard::decoding::FinishReason;
use pard::text::{Tokenizer, ToolFormat};
use serde_json::{Map, Value, json};

use super::ask::{Ask, Kind};
use super::fault::Fault;
use super::job::{Ending, Written};
use super::logprobs;
use super::parts::{Part, Parts};
use super::stream::Form;
use crate::answer::{drafts_json, statistics_json};

/// A reply of OpenAI's completions.
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
    progress: Vec<Progress>,
    usage: Usage,
}

/// The sums of what the answers cost.
#[derive(Debug, Clone, Default)]
struct Usage {
    tokens: usize,
    reused: usize,
    accepted: usize,
    rejected: usize,
    thoughts: usize,
}

impl Usage {
    fn add(&mut self, ending: &Ending, parts: &Parts) {
        self.thoughts += parts.thought_tokens();
        self.tokens += ending.tokens;
        self.reused += ending.reused;
        self.accepted += ending.accepted;
        self.rejected += ending.rejected;
    }
}

impl Reply {
    /// A reply of `answers` answers to `ask`.
    pub fn new(
        ask: Ask,
        model: String,
        tokenizer: Tokenizer,
        format: ToolFormat,
        prompt_tokens: usize,
        answers: usize,
    ) -> Reply {
        let kind = ask.kind;
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let progress = |_| Progress { parts: Parts::new(&ask, format), calls: 0, characters: 0 };
        Reply {
            progress: (0..answers).map(progress).collect(),
            usage: Usage::default(),
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
    fn role_of(&self, index: usize) -> Option<Value> {
        let choice = json!({
            "index": index,
            "delta": { "role": "assistant", "content": "" },
            "logprobs": null,
            "finish_reason": null,
        });
        (self.kind == Kind::Chat).then(|| self.chunk(vec![choice]))
    }

    /// A choice of a chunk.
    fn piece(&mut self, index: usize, parts: Vec<Part>, finish: Option<&str>) -> Map<String, Value> {
        let mut told = Delta::default();
        told.add(parts);
        let Delta { thoughts, text, calls } = told;
        let mut choice = Map::new();
        choice.insert("index".to_owned(), json!(index));
        match self.kind {
            Kind::Chat => {
                let mut delta = Map::new();
                for (name, text) in [("reasoning_content", thoughts), ("content", text)] {
                    if !text.is_empty() {
                        delta.insert(name.to_owned(), json!(text));
                    }
                }
                if !calls.is_empty() {
                    let first = self.progress[index].calls;
                    self.progress[index].calls += calls.len();
                    let indexed = calls.into_iter().zip(first..).map(|(mut call, index)| {
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
        envelope.insert("system_fingerprint".to_owned(), json!(concat!("fp_pard_", env!("CARGO_PKG_VERSION"))));
        envelope
    }

    fn usage(&self) -> Value {
        let usage = &self.usage;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": usage.tokens,
            "total_tokens": self.prompt_tokens + usage.tokens,
            "prompt_tokens_details": { "cached_tokens": usage.reused },
            "completion_tokens_details": {
                "accepted_prediction_tokens": usage.accepted,
                "rejected_prediction_tokens": usage.rejected,
                "reasoning_tokens": usage.thoughts,
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

/// A piece of an answer, as OpenAI's clients know it.
#[derive(Default)]
struct Delta {
    thoughts: String,
    text: String,
    calls: Vec<Value>,
}

impl Delta {
    fn add(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Thoughts(text) => self.thoughts.push_str(&text),
                Part::Text(text) => self.text.push_str(&text),
                Part::Call(call) => {
                    let function = json!({ "name": call.name, "arguments": call.arguments });
                    self.calls.push(json!({ "id": call.id, "type": "function", "function": function }));
                }
            }
        }
    }
}

/// The state of an answer that is streamed.
struct Progress {
    parts: Parts,
    /// Calls of tools so far.
    calls: usize,
    /// Characters so far.
    characters: usize,
}

impl Form for Reply {
    fn opening(&mut self) -> Vec<Bytes> {
        (0..self.progress.len()).filter_map(|index| self.role_of(index)).map(|chunk| line(&chunk)).collect()
    }

    fn round(&mut self, index: usize, tokens: &[Written], proposed: usize) -> Vec<Bytes> {
        let Progress { parts, characters, .. } = &mut self.progress[index];
        let (told, offset) = (parts.push(tokens), *characters);
        *characters += tokens.iter().map(|token| token.text.chars().count()).sum::<usize>();
        let mut choice = self.piece(index, told, None);
        choice.insert("logprobs".to_owned(), self.logprobs(tokens, offset));
        if self.report {
            choice.insert("pard".to_owned(), json!({ "tokens": origins(tokens), "proposed": proposed }));
        }
        vec![line(&self.chunk(vec![choice.into()]))]
    }

    fn ending(&mut self, index: usize, ending: &Ending) -> Vec<Bytes> {
        let parts = &mut self.progress[index].parts;
        let told = parts.finish(&ending.rest);
        let finish = finish_name(parts, ending.finish);
        self.usage.add(ending, parts);
        let offset = self.progress[index].characters;
        // Clients read texts up to the chunk that says why the answer ended, which has none.
        let rest = (!told.is_empty()).then(|| self.piece(index, told, None));
        let mut choice = self.piece(index, Vec::new(), Some(finish));
        choice.insert("logprobs".to_owned(), self.logprobs(last_of(self.kind, ending), offset));
        if self.report {
            choice.insert("pard".to_owned(), self.statistics(index, ending));
        }
        rest.into_iter().chain([choice]).map(|choice| line(&self.chunk(vec![choice.into()]))).collect()
    }

    fn closing(&mut self) -> Vec<Bytes> {
        let usage = self.include_usage.then(|| {
            let mut chunk = self.chunk(vec![]);
            chunk["usage"] = self.usage();
            line(&chunk)
        });
        usage.into_iter().chain([Bytes::from_static(b"data: [DONE]\n\n")]).collect()
    }

    /// An error in place of `[DONE]`, which clients raise.
    fn failure(&mut self, fault: &Fault) -> Vec<Bytes> {
        vec![line(&fault.json())]
    }

    fn whole(&mut self, answers: &[(Vec<Written>, Ending)]) -> Value {
        let mut choices = Vec::with_capacity(answers.len());
        for (index, (tokens, ending)) in answers.iter().enumerate() {
            let parts = &mut self.progress[index].parts;
            let mut delta = Delta::default();
            delta.add(parts.push(tokens));
            delta.add(parts.finish(&ending.rest));
            let finish = finish_name(parts, ending.finish);
            self.usage.add(ending, parts);
            let Delta { thoughts, text, calls } = delta;
            let mut choice = Map::new();
            choice.insert("index".to_owned(), json!(index));
            match self.kind {
                Kind::Chat => {
                    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
                    if !thoughts.is_empty() {
                        message["reasoning_content"] = json!(thoughts);
                    }
                    if !calls.is_empty() {
                        message["tool_calls"] = Value::Array(calls);
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
            choice.insert("finish_reason".to_owned(), json!(finish));
            if self.report {
                let mut report = self.statistics(index, ending);
                report["tokens"] = origins(tokens);
                choice.insert("pard".to_owned(), report);
            }
            choices.push(choice.into());
        }
        let mut whole = self.envelope(if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" });
        whole.insert("choices".to_owned(), Value::Array(choices));
        whole.insert("usage".to_owned(), self.usage());
        whole.into()
    }
}

/// The reason why an answer ended, as clients know it, once `parts` has taken all of it.
fn finish_name(parts: &Parts, finish: FinishReason) -> &'static str {
    match finish {
        _ if parts.ends_with_calls(finish) => "tool_calls",
        FinishReason::Stop => "stop",
        _ => "length",
    }
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// The token that ended an answer, where its log-probabilities are listed with the others': in texts, as vLLM does and
/// lm-eval expects.
fn last_of(kind: Kind, ending: &Ending) -> &[Written] {
    ending.last.as_deref().filter(|_| kind == Kind::Text).map_or(&[], std::slice::from_ref)
}

/// Each token's text, and whether it was proposed by the draft.
fn origins(tokens: &[Written]) -> Value {
    let origin = |token: &Written| json!({ "id": token.id, "text": token.text, "accepted": token.accepted });
    tokens.iter().map(origin).collect()
}
