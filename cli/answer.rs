//! One answer, and what is reported of it.

use pard_engine::decoding::{Decoder, Drafts, FinishReason, Generation, Limits, SamplingOptions, Statistics};
use pard_engine::model::Model;
use serde_json::{Value, json};

use crate::interrupt;

/// An answer and what it cost.
pub struct Answer {
    pub text: String,
    pub output: Vec<u32>,
    pub finish: FinishReason,
    pub statistics: Statistics,
}

/// Answers `prompt`, and hands every piece of text to `show` as soon as it is certain. Ctrl-C ends it after a round.
pub fn answer(
    decoder: &mut Decoder,
    model: &Model,
    prompt: &[u32],
    limits: Limits,
    mut show: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Answer> {
    let mut text = String::new();
    let mut generation = Generation::start(decoder, model, prompt, limits, &|| !interrupt::requested())?;
    let finish = loop {
        if let Some(finish) = generation.finish_reason() {
            break finish;
        }
        let piece = if interrupt::requested() { generation.cancel() } else { generation.round()? };
        if !piece.is_empty() {
            show(&piece)?;
            text.push_str(&piece);
        }
    };
    let output = generation.output().to_vec();
    Ok(Answer { text, output, finish, statistics: decoder.statistics().clone() })
}

/// Tokens that were kept, per second of decoding: those cut off after a stop are no use to anybody.
pub fn tokens_per_second(tokens: usize, statistics: &Statistics) -> f64 {
    tokens as f64 / statistics.decode.as_secs_f64().max(1e-9)
}

/// The statistics under the names that all JSON reports use. `tokens` were kept.
pub fn statistics_json(tokens: usize, statistics: &Statistics) -> Value {
    json!({
        "rounds": statistics.rounds,
        "tokens_per_round": statistics.tokens_per_round(),
        "accepted_per_position": statistics.accepted_per_position(),
        "prefill_seconds": statistics.prefill.as_secs_f64(),
        "decode_seconds": statistics.decode.as_secs_f64(),
        "tokens_per_second": tokens_per_second(tokens, statistics),
    })
}

/// K, as all JSON reports say it: a number, or `auto`.
pub fn drafts_json(drafts: Drafts) -> Value {
    match drafts {
        Drafts::Fixed(drafts) => json!(drafts),
        Drafts::Auto => json!("auto"),
    }
}

/// How tokens were chosen.
pub fn sampling_json(sampling: &SamplingOptions) -> Value {
    json!({ "temperature": sampling.temperature, "seed": sampling.seed })
}

/// `base` with the fields of `more` after its own.
pub fn joined(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}
