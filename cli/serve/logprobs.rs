//! Log-probabilities of tokens, in the two forms of OpenAI's interface.

use pard::decoding::TokenLogprobs;
use pard::text::Tokenizer;
use serde_json::{Map, Value, json};

use super::ask::Kind;
use super::job::Written;

/// The field `logprobs` of a choice of these tokens, whose log-probabilities were asked for. `offset` is where their text
/// begins in the answer.
pub fn json(kind: Kind, tokenizer: &Tokenizer, tokens: &[Written], offset: usize) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let logprobs = tokens.iter().map(|token| token.logprobs.as_ref());
    match kind {
        Kind::Chat => {
            let content = logprobs.flatten().map(|logprobs| {
                let mut entry = named(tokenizer, logprobs.token, logprobs.logprob);
                let top = logprobs.top.iter().map(|&(id, logprob)| Value::from(named(tokenizer, id, logprob)));
                entry.insert("top_logprobs".to_owned(), top.collect());
                Value::from(entry)
            });
            json!({ "content": content.collect::<Value>(), "refusal": null })
        }
        Kind::Text => {
            let mut at = offset;
            let offsets = tokens.iter().map(|token| {
                let begin = at;
                at += token.text.chars().count();
                json!(begin)
            });
            let offsets: Value = offsets.collect();
            let top = |logprobs: &TokenLogprobs| {
                let top = logprobs.top.iter().map(|&(id, logprob)| (name(&tokenizer.bytes(id)), json!(logprob)));
                Value::from(top.collect::<Map<_, _>>())
            };
            // A prompt's first token has none.
            json!({
                "tokens": tokens.iter().map(|token| name(&tokenizer.bytes(token.id))).collect::<Vec<_>>(),
                "token_logprobs": logprobs.clone().map(|logprobs| logprobs.map(|one| one.logprob)).collect::<Vec<_>>(),
                "top_logprobs": logprobs.map(|logprobs| logprobs.map(top)).collect::<Vec<_>>(),
                "text_offset": offsets,
            })
        }
    }
}

fn named(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Map<String, Value> {
    let bytes = tokenizer.bytes(id);
    let mut entry = Map::new();
    entry.insert("token".to_owned(), json!(name(&bytes)));
    entry.insert("logprob".to_owned(), json!(logprob));
    entry.insert("bytes".to_owned(), json!(bytes));
    entry
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
