//! One answer, and what is reported of it.

use std::time::Duration;

use pard::decoding::{
    DraftLength, FinishReason, Generation, Limits, Method, SamplingParams, Sequence, Speculation, Statistics,
    TokenLogprobs,
};
use pard::model::Model;
use serde_json::{Value, json};

use crate::interrupt;

/// An answer and what it cost.
pub struct Answer {
    pub text: String,
    pub output: Vec<u32>,
    pub finish: FinishReason,
    pub statistics: Statistics,
    /// One entry for each token of the answer, if requested.
    pub logprobs: Vec<TokenLogprobs>,
}

/// Starting point of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the whole prompt.
    Anew,
    /// With what the sequence's caches do not hold of it.
    FromCaches,
}

/// The part of a prompt that was read before its answer is asked for.
#[derive(Default)]
pub struct Read {
    time: Duration,
    /// Tokens that the caches held before, if any were read.
    reused: Option<usize>,
}

impl Read {
    /// Counts it in with what the answer's own statistics say of the prompt.
    pub fn count_in(&self, statistics: &mut Statistics) {
        statistics.prefill += self.time;
        statistics.reused_tokens = self.reused.unwrap_or(statistics.reused_tokens);
    }
}

/// Tokens of the first piece of a prompt, and the target duration of the others.
const FIRST_PIECE: usize = 64;
const PIECE: Duration = Duration::from_millis(500);
/// Largest growth of a piece over the one before.
const GROWTH: usize = 4;

/// Reads what the caches do not hold of `prompt`, all but a last piece that takes no time worth telling, in pieces short
/// enough that Ctrl-C ends it at once, and tells how far it has come. The text does not depend on the pieces.
pub fn read(sequence: &mut Sequence, prompt: &[u32], report: impl Fn(usize)) -> pard::Result<Read> {
    let mut read = Read::default();
    let mut piece = FIRST_PIECE;
    let mut end = prompt.iter().zip(sequence.tokens()).take_while(|(one, other)| one == other).count();
    while prompt.len() - end > piece && !interrupt::requested() {
        end += piece;
        sequence.resume(&prompt[..end])?;
        let statistics = sequence.statistics();
        read.reused.get_or_insert(statistics.reused_tokens);
        read.time += statistics.prefill;
        report(end);
        let affordable = piece as f64 * PIECE.as_secs_f64() / statistics.prefill.as_secs_f64().max(1e-6);
        piece = (affordable as usize).clamp(FIRST_PIECE / GROWTH, GROWTH * piece);
    }
    Ok(read)
}

/// Answers `prompt`, and hands every piece of text to `show` as soon as it is certain. Ctrl-C ends it after a round.
pub fn answer(
    sequence: &mut Sequence,
    model: &Model,
    prompt: &[u32],
    limits: Limits,
    begin: Begin,
    mut show: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Answer> {
    let mut text = String::new();
    let keep_going = || !interrupt::requested();
    let mut generation = match begin {
        Begin::Anew => Generation::start_while(sequence, &model.text, prompt, limits, &keep_going)?,
        Begin::FromCaches => Generation::resume_while(sequence, &model.text, prompt, limits, &keep_going)?,
    };
    let finish = loop {
        if let Some(finish) = generation.finish_reason() {
            break finish;
        }
        let piece = if interrupt::requested() { generation.cancel() } else { generation.round()?.text };
        if !piece.is_empty() {
            show(&piece)?;
            text.push_str(&piece);
        }
    };
    let (output, logprobs) = (generation.output().to_vec(), generation.logprobs().to_vec());
    Ok(Answer { text, output, finish, statistics: sequence.statistics().clone(), logprobs })
}

/// Tokens that were kept, per second of decoding: those cut off after a stop are no use to anybody.
pub fn tokens_per_second(tokens: usize, statistics: &Statistics) -> f64 {
    tokens as f64 / statistics.decode.as_secs_f64().max(1e-9)
}

/// The statistics under the names that all JSON reports use. `tokens` were kept.
pub fn statistics_json(tokens: usize, statistics: &Statistics) -> Value {
    json!({
        "rounds": statistics.rounds,
        "ngram_rounds": statistics.ngram_rounds,
        "forced_tokens": statistics.forced,
        "grammar_seconds": statistics.grammar.as_secs_f64(),
        "tokens_per_round": statistics.tokens_per_round(),
        "accepted_per_position": statistics.accepted_per_position(),
        "prefill_seconds": statistics.prefill.as_secs_f64(),
        "decode_seconds": statistics.decode.as_secs_f64(),
        "tokens_per_second": tokens_per_second(tokens, statistics),
    })
}

/// K, as all JSON reports say it: a number, or `auto`.
pub fn drafts_json(drafts: DraftLength) -> Value {
    match drafts {
        DraftLength::Fixed(drafts) => json!(drafts),
        DraftLength::Auto => json!("auto"),
    }
}

/// Sampling options as JSON.
pub fn sampling_json(sampling: &SamplingParams) -> Value {
    json!({
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": sampling.logit_bias,
        "banned": sampling.banned,
        "grammar": sampling.grammar.as_ref().map(|grammar| format!("{grammar:?}")),
    })
}

/// The log-probabilities of an answer's tokens by `model`, each with its text.
pub fn logprobs_json(model: &Model, logprobs: &[TokenLogprobs]) -> Value {
    let one = |token: u32, logprob: f32| json!({ "id": token, "text": token_text(model, token), "logprob": logprob });
    let all = logprobs.iter().map(|of_token| {
        let top: Vec<Value> = of_token.top.iter().map(|&(token, logprob)| one(token, logprob)).collect();
        joined(one(of_token.token, of_token.logprob), json!({ "top": top }))
    });
    all.collect()
}

/// The same, a line each: the token, its log-probability, and the likeliest tokens in its place with theirs.
pub fn logprobs_lines(model: &Model, logprobs: &[TokenLogprobs]) -> String {
    let one = |token: u32, logprob: f32| format!("{:?} {logprob:.3}", token_text(model, token));
    let line = |of_token: &TokenLogprobs| {
        let top: Vec<String> = of_token.top.iter().map(|&(token, logprob)| one(token, logprob)).collect();
        let of = if top.is_empty() { String::new() } else { format!("  of  {}", top.join("  ")) };
        format!("{}{of}", one(of_token.token, of_token.logprob))
    };
    logprobs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The token's text, or its name where it is a special one.
fn token_text(model: &Model, token: u32) -> String {
    let tokenizer = &model.text.tokenizer;
    match tokenizer.decode(&[token]) {
        text if text.is_empty() => tokenizer.token(token).unwrap_or_default(),
        text => text,
    }
}

/// `base` with the fields of `more` after its own.
pub fn joined(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

/// The statistics on one line.
pub fn summary(sequence: &Sequence, answer: &Answer) -> String {
    let (statistics, tokens, options) = (&answer.statistics, answer.output.len(), sequence.options());
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let method = match options.method {
        Method::Ar => "ar".to_owned(),
        _ if options.drafts == DraftLength::Auto => {
            format!("{}, K = auto{}", options.proposers(), choice(sequence, statistics))
        }
        _ => format!("{}, K = {}", options.proposers(), options.drafts),
    };
    let forced = match statistics.forced {
        0 => String::new(),
        forced => format!(", {forced} of them proposed by the grammar,"),
    };
    format!(
        "prompt: {} in {:.2} s; answer: {tokens} tokens{forced} in {:.2} s, {:.1} tokens/s; {method}: {} rounds of {:.2} \
         tokens; ended by: {}",
        prompt_tokens(statistics),
        seconds(statistics.prefill),
        seconds(statistics.decode),
        tokens_per_second(tokens, statistics),
        statistics.rounds,
        statistics.tokens_per_round(),
        answer.finish.name(),
    )
}

/// What most people want to know of an answer: how long it took.
pub fn short_summary(answer: &Answer) -> String {
    let (statistics, tokens) = (&answer.statistics, answer.output.len());
    let ended = match answer.finish {
        FinishReason::Stop => String::new(),
        other => format!("; ended by: {}", other.name()),
    };
    format!(
        "prompt: {} in {:.1} s; answer: {tokens} tokens, {:.1} tokens/s{ended}",
        prompt_tokens(statistics),
        statistics.prefill.as_secs_f64(),
        tokens_per_second(tokens, statistics),
    )
}

fn prompt_tokens(statistics: &Statistics) -> String {
    match statistics.reused_tokens {
        0 => format!("{} tokens", statistics.prompt_tokens),
        reused => format!("{} new of {} tokens", statistics.prompt_tokens - reused, statistics.prompt_tokens),
    }
}

/// The mean K that was chosen, and why speculation was off, for the statistics line.
fn choice(sequence: &Sequence, statistics: &Statistics) -> String {
    let why = match sequence.speculation() {
        None | Some(Speculation::Pays) => "",
        Some(Speculation::TooSlow) => ": it cannot pay here, since a draft and a pass over several rows cost too much",
        Some(Speculation::TooRarelyAccepted) => ": too few proposals were accepted to pay",
    };
    let (mean, off, rounds) = (statistics.mean_drafts(), statistics.plain_rounds(), statistics.rounds);
    format!(" (mean {mean:.1}; speculation off in {off} of {rounds} rounds{why})")
}
